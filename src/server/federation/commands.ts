// `tka-server join-token create`: makes a join token at the login server, and prints the Secret for the other cluster.
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { structured, type Terminal } from '../../terminal/output.ts';
import { formatGoDuration } from '../../util/duration.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import { loadKubeConfig } from '../cluster.ts';
import { isStatus } from '../kubernetes/errors.ts';
import { connectKube, type Kube } from '../kubernetes/kube.ts';
import { joinTokenType, termsOf, tokenAnnotation, ttlOf, ttlRule, usesRule } from './join-tokens.ts';
import { federationNamespace, federationPaths, isClusterName, rightsHint, type Secret, textsOf } from './objects.ts';

/** How long the login server may take to fill the Secret, in milliseconds. */
const fillMs = 30_000;
const pollMs = 250;

interface CreateOptions {
  readonly kube: Kube;
  readonly cluster: string;
  readonly ttl: string;
  readonly uses: string;
  readonly signal: AbortSignal;
  readonly fillMs?: number;
}

/** Adds the command to the program. `signal` stops it. */
export function addJoinTokenCommands(
  program: Command,
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
  terminal: Terminal,
): void {
  program
    .command('join-token')
    .description('Manage the tokens with which clusters join this login server.')
    .command('create <name>')
    .description(
      `Create a token for a cluster that will have this name, and print the Secret for that cluster.\n\nRun it with access to the login server's own cluster: on your machine (KUBECONFIG), or in a pod of the server. The login server must be running, because it fills the token. Apply the output in the other cluster:\n\ntka-server join-token create prod-eu | kubectl --context prod-eu apply -f -\n\nThe token is a Secret in the namespace ${federationNamespace}. Deleting that Secret revokes the token.`,
    )
    .option('--ttl <duration>', 'how long the token is valid', '24h')
    .option('--uses <number>', 'how many servers with different keys can join with it', '1')
    .allowExcessArguments(false)
    .action(async (cluster: string, { ttl, uses }: { readonly ttl: string; readonly uses: string }) => {
      const kube = connectKube(loadKubeConfig(env));
      try {
        const { name, endpoint, token } = await createJoinToken({ kube, cluster, ttl, uses, signal });
        terminal.out(await structured('yaml', joinSecret(endpoint, token)));
        const period = formatGoDuration(ttlOf(ttl) ?? 0);
        terminal.notice(
          `the token is valid for ${period}. Revoke it: kubectl delete secret -n ${federationNamespace} ${name}`,
        );
      } finally {
        kube.close();
      }
    });
}

/** Returns the manifest of the join Secret, as the chart of the other cluster mounts it. */
const joinSecret = (endpoint: string, token: string): object => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'tka-join', namespace: 'tka-system' },
  stringData: { endpoint, token },
});

export interface CreatedToken {
  /** The name of the Secret at the login server. */
  readonly name: string;
  readonly endpoint: string;
  readonly token: string;
}

/**
 * Creates the Secret of a join token, and waits until the login server has filled it. Deletes it if that takes too long.
 * Throws UsageError for invalid arguments, and TkaError if there is no token.
 */
export async function createJoinToken(options: CreateOptions): Promise<CreatedToken> {
  const { kube, cluster, ttl, uses, signal } = options;
  if (!isClusterName(cluster)) {
    throw new UsageError(`the name ${quoted(cluster, 80)} is not a DNS label: lower-case letters, digits and dashes`);
  }
  if (ttlOf(ttl) === undefined) throw new UsageError(`--ttl ${quoted(ttl, 80)} ${ttlRule}`);
  const annotations = { [tokenAnnotation.cluster]: cluster, [tokenAnnotation.ttl]: ttl, [tokenAnnotation.uses]: uses };
  const metadata = { generateName: `join-token-${cluster.slice(0, 40)}-`, annotations };
  if (typeof termsOf({ metadata } as unknown as Secret) === 'string') {
    throw new UsageError(`--uses ${quoted(uses, 80)} ${usesRule}`);
  }
  const secret = await kube
    .create<Secret>(federationPaths.secrets(), { apiVersion: 'v1', kind: 'Secret', type: joinTokenType, metadata })
    .catch((error: unknown) => {
      const why = error instanceof Error ? error.message : '';
      const hints = isStatus(error, 403, 404) ? rightsHint(error) : [];
      throw new TkaError(`cannot create the join token: ${why}`, { hints: [...hints], cause: error });
    });
  const { name, uid } = secret.metadata;
  const deadline = performance.now() + (options.fillMs ?? fillMs);
  while (performance.now() < deadline && !signal.aborted) {
    const texts = textsOf((await kube.get<Secret>(federationPaths.secrets(name))) ?? {});
    const [endpoint, token] = [texts.get('endpoint'), texts.get('token')];
    if (endpoint && token) return { name, endpoint, token };
    await delay(pollMs, undefined, { signal }).catch(() => undefined);
  }
  // Best effort: a login server that starts later would fill it.
  await kube.remove(federationPaths.secrets(name), { uid }).catch(() => false);
  throw new TkaError(`no login server has filled the join token for "${cluster}"`, {
    hints: ['a TKA server with federation.listen must run in this cluster: kubectl logs -n tka-system tka-0'],
  });
}
