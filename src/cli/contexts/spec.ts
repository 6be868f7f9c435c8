import * as path from 'node:path';
import type { Cluster } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { ContextSpec } from '../../kubeconfig/index.ts';
import { isBareCommand, usableCommand } from '../../kubeconfig/spec.ts';
import type { Session } from '../../session/session.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { searchPathOf } from '../../util/search-path.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { confirmed } from '../target/trust.ts';
import { inContext, keepSiblings, siblingsToKeep } from './siblings.ts';

/**
 * Returns the data of a context for a cluster, without signing in. Asks the server to confirm that it serves the
 * cluster and how to reach the API server. Throws TkaError like `confirmed`, and if the server asks to skip TLS
 * verification and the user has not accepted that.
 */
export async function contextSpec(
  context: Context,
  name: string,
  cluster: Cluster,
  trust: TrustPolicy,
): Promise<ContextSpec> {
  const client = (server: string) => context.sessions.client(server, cluster.apiEndpoint);
  const info = await confirmed(context, cluster, trust, client);
  const { server } = info;
  if (info.insecureSkipTlsVerify && context.sessions.store.consents.read(server) !== info.apiServer) {
    throw new TkaError(`the TKA server of ${cluster.name} asks clients to skip TLS verification of the API server`, {
      hints: [`if you accept that: kubectl tka login ${server} --insecure-skip-tls-verify`],
    });
  }
  const siblings = await siblingsToKeep(context, trust, { server, info }, cluster.servers);
  keepSiblings(context, server, siblings);
  return specOf(context, name, server, info, { siblings: inContext(siblings) });
}

/** The data that a context holds besides its server. */
export type ContextExtension = Pick<ContextSpec, 'siblings' | 'namedBy' | 'namespace'>;

/** Throws UsageError for a `--namespace` that Kubernetes would refuse: it must be a DNS label. */
export function checkNamespace(namespace: string | undefined): void {
  if (namespace === undefined || /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(namespace)) return;
  throw new UsageError(`invalid namespace ${quoted(namespace)}`, {
    hints: ['use up to 63 lower-case letters, digits and "-", as in: -n kube-system'],
  });
}

/** Returns the context to write for a server. */
export function specOf(
  context: Context,
  name: string,
  server: string,
  { apiServer, caData, insecureSkipTlsVerify }: Pick<Session, 'apiServer' | 'caData' | 'insecureSkipTlsVerify'>,
  more: ContextExtension = {},
): ContextSpec {
  return {
    ...more,
    name,
    server,
    apiServer,
    caData,
    insecureSkipTlsVerify,
    command: context.execCommand ?? context.command,
    ...(context.execCommand !== undefined && { isCommandChosen: true }),
    installHint,
  };
}

// kubectl prints this hint up to six times if the exec command is a bare name that is not on PATH, so keep it short.
// The commands are those of the README.
const installHint = `kubectl-tka is not on PATH. Install it with krew, or see https://github.com/SpechtLabs/kubectl-tka#install
  kubectl krew index add tka https://github.com/SpechtLabs/kubectl-tka.git
  kubectl krew install tka/tka`;

/**
 * Returns the context with the command of `--exec-command`, which kubeconfig contexts then run instead of this
 * program's path. Throws UsageError if it is neither a bare name nor the absolute path of a program.
 */
export function withExecCommand(context: Context, command: string | undefined): Context {
  if (command === undefined) return context;
  const hints = ['kubectl tka login --exec-command kubectl-tka'];
  const isPath = path.isAbsolute(command);
  if (!isBareCommand(command) && !isPath) {
    throw new UsageError(
      `--exec-command ${quoted(command)} must be a program's name or absolute path, without arguments`,
      {
        hints,
      },
    );
  }
  const searchPath = searchPathOf(context.env);
  const isThere = cleanText(command, 4096) === command && usableCommand(command, '', searchPath);
  if (isPath && !isThere) throw new UsageError(`--exec-command ${quoted(command)} cannot be executed`, { hints });
  if (!isThere) context.terminal.warn(`${command} is not on PATH here: kubectl cannot run it before it is`);
  return { ...context, execCommand: command };
}
