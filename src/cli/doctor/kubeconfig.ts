// Checks the kubeconfig's entry for a server.
import { basename, dirname } from 'node:path';
import { snapshot } from '../../kubeconfig/disk.ts';
import {
  emptyView,
  type KubeconfigFiles,
  type KubeconfigView,
  type OurContext,
  readKubeconfig,
} from '../../kubeconfig/index.ts';
import { parseSource } from '../../kubeconfig/source.ts';
import { isBareCommand, usableCommand } from '../../kubeconfig/spec.ts';
import { isPlainMap, type PlainMap } from '../../kubeconfig/value.ts';
import { mergeSources } from '../../kubeconfig/view.ts';
import type { Session } from '../../session/session.ts';
import type { ClusterAccess } from '../../tka/answers.ts';
import { TkaError } from '../../util/errors.ts';
import { searchPathOf } from '../../util/search-path.ts';
import type { Context } from '../context/context.ts';
import { failed, failedBy, ok, skipped, type Verdict, warning } from './check.ts';
import { shellQuoted } from './machine.ts';

/** The kubeconfig, or why it cannot be read. */
export interface Found {
  readonly view: KubeconfigView;
  readonly problem?: TkaError;
}

/** Reads the kubeconfig. Returns an empty one if it cannot be read. */
export async function findKubeconfig(files: KubeconfigFiles): Promise<Found> {
  try {
    return { view: await readKubeconfig(files) };
  } catch (problem) {
    if (!(problem instanceof TkaError)) throw problem;
    return { view: emptyView, problem };
  }
}

/** Checks the context for a server. `info` is the server's answer, if there was one. */
export function checkKubeconfig(
  context: Context,
  { view, problem }: Found,
  { server, ours }: { readonly server: string; readonly ours: OurContext | undefined },
  info: ClusterAccess | undefined,
  session: Session | undefined,
): Verdict {
  if (problem !== undefined) return failedBy(problem);
  // A login without --context writes the context that it finds first.
  const isOneOfSeveral = view.ours.filter((each) => each.server === server).length > 1;
  const login = `kubectl tka login ${server}${ours && isOneOfSeveral ? ` --context ${shellQuoted(ours.name)}` : ''}`;
  if (ours === undefined) {
    const none = `no managed context for ${server}`;
    return session === undefined ? skipped(`${none} yet`, login) : failed(none, login);
  }
  const exec = execOf(context.kubeconfig, ours.user);
  const problems = [...accessProblems(ours, info), ...execProblems(ours, exec, server, context.env)];
  if (problems.length > 0) return failed(`context "${ours.name}": ${problems.join('; ')}`, login);
  const { command = '' } = ours;
  if (isBareCommand(command) && !usableCommand(command, ours.file, searchPathOf(context.env))) {
    const isThis = command === basename(context.command);
    const mend = isThis ? `export PATH="${dirname(context.command)}:$PATH"` : `${login} --exec-command kubectl-tka`;
    return failed(`context "${ours.name}": its command ${command} is not on PATH`, mend);
  }
  const where = `context "${ours.name}" in ${ours.file}${view.currentContext === ours.name ? ', the current one' : ''}`;
  // kubectl before 1.22 needs v1beta1, so this is only a warning.
  if (exec?.apiVersion !== v1) return warning(`${where}: its exec user has apiVersion ${exec?.apiVersion}`, login);
  return ok(where);
}

function accessProblems(ours: OurContext, info: ClusterAccess | undefined): string[] {
  if (ours.apiServer === undefined) return ['it has no API server that kubectl sends a token to'];
  if (info === undefined) return [];
  if (ours.apiServer !== info.apiServer)
    return [`its API server is ${ours.apiServer}, but the TKA server says ${info.apiServer}`];
  if (ours.insecureSkipTlsVerify !== info.insecureSkipTlsVerify) {
    const looks = ours.insecureSkipTlsVerify ? 'skips TLS verification' : 'verifies TLS';
    return [`it ${looks}, but the TKA server says otherwise`];
  }
  // kubectl rejects a CA together with insecure-skip-tls-verify.
  const ca = info.insecureSkipTlsVerify ? '' : info.caData;
  return (ours.caData ?? '') === ca ? [] : ["its CA differs from the TKA server's"];
}

const v1 = 'client.authentication.k8s.io/v1';

function execProblems(ours: OurContext, exec: PlainMap | undefined, server: string, env: NodeJS.ProcessEnv): string[] {
  if (exec === undefined) return [`its user ${JSON.stringify(ours.user)} has no exec command`];
  const problems: string[] = [];
  const { command } = ours;
  if (command === undefined || command === '') problems.push('it has no command');
  else if (!isBareCommand(command) && !usableCommand(command, ours.file, searchPathOf(env))) {
    problems.push(`its command ${command} does not exist or is not executable`);
  }
  if (exec.apiVersion !== v1 && exec.apiVersion !== `${v1}beta1`) problems.push(`its apiVersion is not ${v1}`);
  if (exec.interactiveMode !== 'Never' && exec.interactiveMode !== 'IfAvailable') {
    problems.push(
      exec.interactiveMode === undefined ? 'it has no interactiveMode' : 'its interactiveMode needs a terminal',
    );
  }
  const wanted = ['credential', '--server', server, '--api-server', ours.apiServer ?? ''];
  const args = Array.isArray(exec.args) ? exec.args : [];
  if (wanted.some((word, i) => args[i] !== word)) problems.push(`its arguments are not ${wanted.join(' ')}`);
  return problems;
}

// The view has only the command of an exec user, not its apiVersion.
function execOf(files: KubeconfigFiles, user: string): PlainMap | undefined {
  const sources = files.files.map((file) => parseSource(file, snapshot(file).bytes ?? Buffer.alloc(0)));
  const exec = mergeSources(sources).users.get(user)?.entry.body.exec;
  return isPlainMap(exec) ? exec : undefined;
}
