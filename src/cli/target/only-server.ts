import type { Cluster } from '../../discovery/clusters.ts';
import { shortName } from '../../discovery/naming.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { type ClusterTarget, targetOf } from './cluster-target.ts';
import { listClusters } from './clusters.ts';
import { type ContextsByCluster, contextsByCluster } from './contexts-by-cluster.ts';
import { clusterOfServer, listedServer } from './listed-server.ts';
import { findSeeds } from './seeds.ts';
import { trustOf } from './trust.ts';

/**
 * The configured server, or the tailnet's only cluster, or without either the only one that contexts and the last list
 * know; of several, the one that is chosen. Never the first.
 */
export async function onlyServer(context: Context, view: KubeconfigView, command: string): Promise<ClusterTarget> {
  const seeds = await findSeeds(context).catch((error: unknown) => {
    if (error instanceof TkaError && error.exitCode === 1) return error;
    throw error;
  });
  const hasSeeds = !(seeds instanceof TkaError);
  // The others are about this server, whatever else its cluster has.
  if (hasSeeds && seeds.named && command !== 'login')
    return { server: seeds.servers[0] ?? '', cluster: undefined, origin: 'named' };
  const found = await listClusters(context, view).catch((error: unknown) => {
    if (!hasSeeds || !(error instanceof TkaError)) throw error;
    context.terminal.log(`there is no list of clusters: ${error.message}`);
    return { clusters: [], current: false };
  });
  const contexts = contextsByCluster(view, found.clusters);
  if (hasSeeds && seeds.named) return configuredTarget(context, seeds.servers[0] ?? '', found.clusters, contexts);
  const targets = await usableTargets(found.clusters, contexts, trustOf(context, view));
  // One that is not online counts: the other of two would be a guess.
  for (const server of hasSeeds ? seeds.all : []) {
    if ((await clusterOfServer(context, server, found.clusters)) === undefined)
      targets.push({ server, cluster: undefined, origin: 'tailnet' });
  }
  const [only] = targets;
  if (only === undefined)
    throw hasSeeds ? new TkaError('no cluster can be used', { hints: ['kubectl tka clusters'] }) : seeds;
  if (targets.length === 1) return only;
  const nameOf = ({ server, cluster }: ClusterTarget) => cluster?.name ?? shortName(server, context.settings.tailnet);
  const { canPick, pick } = await import('../../terminal/picker.ts');
  if (canPick(context.env)) {
    const items = targets.map((target) => ({
      name: nameOf(target),
      state: target.cluster?.state ?? '',
      labels: target.server,
      current: target.ours !== undefined && target.ours.name === view.currentContext,
    }));
    const chosen = targets[await pick(items, context.env)];
    if (chosen !== undefined) return chosen;
  }
  const alike = Map.groupBy(targets, nameOf);
  const typed = targets.map((target) =>
    (alike.get(nameOf(target))?.length ?? 0) > 1 ? target.server : nameOf(target),
  );
  const where = hasSeeds ? 'the tailnet has' : 'there are';
  throw new UsageError(`${where} ${targets.length} clusters: which one is meant?`, {
    hints: typed.slice(0, 20).map((each) => `kubectl tka ${command} ${each}`),
  });
}

/** The configured server with its cluster; where it is away, another of that cluster's servers. */
async function configuredTarget(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
  contexts: ContextsByCluster,
): Promise<ClusterTarget> {
  const { settings } = context;
  const own = await listedServer(context, server, clusters);
  // A cluster may be called otherwise than its servers.
  const cluster = own?.cluster ?? clusters.find(({ name }) => server === settings.serverNamed(name));
  if (cluster === undefined) return { server, cluster, origin: 'named' };
  const ours = contexts.get(cluster)?.[0];
  const isAway = own === undefined || own.row.state === 'dead' || own.row.state === 'missing';
  const isFlag = settings.values.get('tailscale.hostname')?.source === '--server';
  const other = cluster.server === server || isFlag ? null : cluster.server;
  // A context of the cluster keeps its server.
  if (other !== null && (isAway || ours?.server === other))
    return { server: other, cluster, ours, origin: cluster.provenance };
  return { server, cluster, ours, origin: 'named' };
}

/** Clusters that may be signed in to and are still listed, each once. */
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
