import type { Cluster } from '../../discovery/clusters.ts';
import { shortName } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { type ClusterTarget, clusterOfServer, listedServer, namedTarget, targetOf } from './by-name.ts';
import { listClusters } from './clusters.ts';
import { type ContextsByCluster, contextsByCluster } from './contexts.ts';
import { findSeeds } from './seeds.ts';
import { trustOf } from './trust.ts';

/**
 * Returns the configured server, else the tailnet's only cluster, else the only cluster in the contexts and the last
 * list. If there are several, the user chooses one on a terminal. Throws UsageError without a terminal, TkaError if
 * there is none.
 */
export async function onlyServer(context: Context, view: KubeconfigView, command: string): Promise<ClusterTarget> {
  const seeds = await findSeeds(context).catch((error: unknown) => {
    if (error instanceof TkaError && error.exitCode === 1) return error;
    throw error;
  });
  const noSeeds = seeds instanceof TkaError ? seeds : undefined;
  const all = seeds instanceof TkaError ? [] : seeds.all;
  const [configured] = seeds instanceof TkaError || !seeds.named ? [] : seeds.servers;
  // Other commands act on this server only, not on its cluster.
  if (configured !== undefined && command !== 'login') return namedTarget(configured);
  const { clusters } = await listClusters(context, view).catch((error: unknown) => {
    if (noSeeds !== undefined || !(error instanceof TkaError)) throw error;
    context.terminal.log(`there is no list of clusters: ${error.message}`);
    return { clusters: [] };
  });
  const contexts = contextsByCluster(view, clusters);
  if (configured !== undefined) return configuredTarget(context, configured, clusters, contexts);
  const listed = await usableTargets(clusters, contexts, trustOf(context, view));
  // Offline seeds count, too: with two seeds, choosing the one that is online would be a guess.
  const targets = [...listed, ...(await unlistedTargets(context, all, clusters))];
  const [only] = targets;
  if (only === undefined) throw noSeeds ?? new TkaError('no cluster can be used', { hints: ['kubectl tka clusters'] });
  if (targets.length === 1) return only;
  const chosen = await pickOne(context, view, targets);
  if (chosen !== undefined) return chosen;
  const where = noSeeds === undefined ? 'the tailnet has' : 'there are';
  throw new UsageError(`${where} ${targets.length} clusters: choose one`, {
    hints: typedNames(context, targets).map((each) => `kubectl tka ${command} ${each}`),
  });
}

/** Lets the user choose a cluster; returns undefined without a terminal. */
async function pickOne(
  context: Context,
  view: KubeconfigView,
  targets: readonly ClusterTarget[],
): Promise<ClusterTarget | undefined> {
  const { canPick, pick } = await import('../../terminal/picker.ts');
  if (!canPick(context.env)) return undefined;
  const items = targets.map((target) => ({
    name: nameOf(context, target),
    state: target.cluster?.state ?? '',
    labels: target.server,
    current: target.ours !== undefined && target.ours.name === view.currentContext,
  }));
  return targets[await pick(items, context.env)];
}

function nameOf({ settings }: Context, { server, cluster }: ClusterTarget): string {
  return cluster?.name ?? shortName(server, settings.tailnet);
}

/** Returns the names to type for the first 20 targets; the server's URL if several targets have the same name. */
function typedNames(context: Context, targets: readonly ClusterTarget[]): string[] {
  const alike = Map.groupBy(targets, (target) => nameOf(context, target));
  return targets.slice(0, 20).map((target) => {
    const name = nameOf(context, target);
    return (alike.get(name)?.length ?? 0) > 1 ? target.server : name;
  });
}

/** Returns the servers that belong to no listed cluster. */
async function unlistedTargets(
  context: Context,
  servers: readonly string[],
  clusters: readonly Cluster[],
): Promise<ClusterTarget[]> {
  const unlisted: ClusterTarget[] = [];
  for (const server of servers) {
    const cluster = await clusterOfServer(context, server, clusters);
    if (cluster === undefined) unlisted.push({ server, cluster, origin: 'tailnet' });
  }
  return unlisted;
}

/** Returns the configured server with its cluster. If the server is away, returns another server of that cluster. */
async function configuredTarget(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
  contexts: ContextsByCluster,
): Promise<ClusterTarget> {
  const { settings } = context;
  const own = await listedServer(context, server, clusters);
  // The name of a cluster can differ from those of its servers.
  const cluster = own?.cluster ?? clusters.find(({ name }) => server === settings.serverNamed(name));
  if (cluster === undefined) return namedTarget(server);
  const ours = contexts.get(cluster)?.[0];
  const isAway = own === undefined || own.row.state === 'dead' || own.row.state === 'missing';
  const isFlag = settings.values.get('tailscale.hostname')?.source === '--server';
  const other = cluster.server === server || isFlag ? null : cluster.server;
  // A context of the cluster keeps its server.
  if (other !== null && (isAway || ours?.server === other))
    return { server: other, cluster, ours, origin: cluster.provenance };
  return { server, cluster, ours, origin: 'named' };
}

/** Returns the clusters that are still listed and that the user may sign in to, each server once. */
async function usableTargets(
  clusters: readonly Cluster[],
  contexts: ContextsByCluster,
  trust: TrustPolicy,
): Promise<ClusterTarget[]> {
  const usable: ClusterTarget[] = [];
  for (const cluster of clusters) {
    const { server, provenance, state } = cluster;
    if (server === null || state === 'missing' || usable.some((target) => target.server === server)) continue;
    if (await trust.allows(server, provenance)) usable.push(targetOf(cluster, contexts));
  }
  return usable;
}
