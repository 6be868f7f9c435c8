import type { ClusterList } from '../../discovery/cluster-list.ts';
import { UnresolvedCluster } from '../../discovery/clusters.ts';
import { isBareWord } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { Refused } from '../../tka/errors.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { type ClusterTarget, clusterByName, isNamed, isUrl, namedTarget, noCluster, targetOf } from './by-name.ts';
import { listClusters } from './clusters.ts';
import { contextsByCluster } from './contexts.ts';
import { onlyServer } from './only-server.ts';
import { devices, namedServer } from './seeds.ts';

/**
 * Returns the server that a NAME of `login` means: a URL, a cluster (or an unambiguous prefix of its name), a managed
 * context, or a host. A bare word is a host only if the tailnet has a device of that name, or if there is no current
 * list to check for a mistyped cluster name. Without a NAME, returns the configured server, or the only one of the
 * tailnet. Throws TkaError or UsageError.
 */
export async function loginTarget(
  context: Context,
  name: string | undefined,
  view: KubeconfigView,
): Promise<ClusterTarget> {
  if (name === undefined) return onlyServer(context, view, 'login');
  if (name.trim() === '') throw new UsageError('empty name', { hints: ['kubectl tka clusters shows the names'] });
  if (isUrl(name)) return namedTarget(await namedServer(context, name));
  const { target, list, failure } = await listedTarget(context, name, view);
  if (target !== undefined) return target;
  const ours = view.ours.find(isNamed(name));
  if (ours !== undefined) return { server: ours.server, cluster: undefined, origin: 'known' };
  const isBare = isBareWord(name);
  // A bare word is more likely the name of a cluster than of a host, so the refusal says more than a DNS error.
  if (failure instanceof Refused && isBare) throw failure;
  if (failure !== undefined)
    context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${failure.message}`);
  const server = await namedServer(context, name);
  const unlisted = failure ?? (list?.current === false ? noCluster(name, list.clusters, view) : true);
  if (!isBare) return { ...namedTarget(server), unlisted };
  if (list?.current === true && !(await isDevice(context, server)))
    throw noCluster(name, list.clusters, view, ['to use a server that is not listed, give its URL: https://HOST']);
  return { server, cluster: undefined, origin: 'typed', unlisted };
}

/**
 * Searches the clusters for a name; `failure` says why there is no list. Throws UsageError if several match,
 * UnresolvedCluster if the match has no server.
 */
async function listedTarget(
  context: Context,
  name: string,
  view: KubeconfigView,
): Promise<{ target?: ClusterTarget; list?: ClusterList; failure?: TkaError }> {
  try {
    const list = await listClusters(context, view);
    const cluster = clusterByName(list.clusters, name, view, 'login');
    // Require the full name for a cluster without a server, since a prefix could be the name of a host.
    if (cluster === undefined || (cluster.server === null && !isNamed(name)(cluster))) return { list };
    return { list, target: targetOf(cluster, contextsByCluster(view, list.clusters)) };
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode === 2 || error instanceof UnresolvedCluster) throw error;
    return { failure: error };
  }
}

/** Returns whether a server's host name is that of a tailnet device; false if tailscaled cannot be asked. */
async function isDevice(context: Context, server: string): Promise<boolean> {
  const { hostname } = new URL(server);
  return (await devices(context)).some(({ dnsName }) => dnsName === hostname);
}
