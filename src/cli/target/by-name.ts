import { type Cluster, type ClusterServer, resolved } from '../../discovery/clusters.ts';
import { parseSelector } from '../../discovery/selector.ts';
import { type Origin, peerAt } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { hostOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { type ContextsByCluster, contextsByCluster } from './contexts.ts';
import { devices } from './seeds.ts';

/**
 * Returns the cluster that a name means: by its name or one of its servers', else by our context of this name, else by the
 * only name that begins so. Undefined for none, and for a context whose server is not listed. Throws UsageError where several
 * are meant, with what to type: `command` and each of them.
 */
export function clusterByName(
  clusters: readonly Cluster[],
  name: string,
  { ours }: Pick<KubeconfigView, 'ours'>,
  command = 'login',
): Cluster | undefined {
  const called = clusters.filter((cluster) => cluster.name === name || cluster.server === name);
  const named =
    called.length > 0
      ? called
      : clusters.filter(({ servers }) => servers.some((each) => each.name === name || each.server === name));
  const there = named.filter((cluster) => cluster.state !== 'missing');
  // A cluster that was made anew under its old name is the one that is meant.
  const exact = there.length > 0 ? there : named;
  const own = exact.length === 0 ? ours.find((context) => context.name === name) : undefined;
  if (own !== undefined) return [...contextsByCluster({ ours: [own] }, clusters).keys()][0];
  const found = exact.length > 0 ? exact : clusters.filter((cluster) => name !== '' && cluster.name.startsWith(name));
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are named' : 'have names that start with';
  throw new UsageError(`${found.length} clusters ${what} ${quoted(name)}`, {
    hints: found.slice(0, 10).map(({ name: each, server, apiEndpoint }) => {
      const alike = found.filter((other) => other.name === each).length > 1;
      const word = cleanText(alike ? (server ?? each) : each);
      return `kubectl tka ${command} ${word}${command === 'exec' ? ' -- COMMAND' : ''} (${alike && server !== null ? each : (server ?? apiEndpoint)})`;
    }),
  });
}

/** A name that no cluster has. */
export class NoCluster extends TkaError {
  constructor(message: string, options: { readonly hints?: readonly string[] } = {}) {
    super(message, { hints: ['kubectl tka clusters', ...(options.hints ?? [])] });
  }
}

/** The error for a name that no cluster has, with the nearest names that there are. */
export function noCluster(
  name: string,
  clusters: readonly Cluster[],
  { ours }: Pick<KubeconfigView, 'ours'>,
  hints: readonly string[] = [],
): NoCluster {
  const names = [...clusters, ...ours].map((each) => cleanText(each.name));
  const wanted = cleanText(name);
  return new NoCluster(`no cluster named ${JSON.stringify(wanted)}${didYouMean(wanted, names)}`, { hints });
}

/**
 * The clusters that names, or a label selector, mean; all of them where neither is given. Throws UsageError for an
 * ambiguous name or both, TkaError for a name or a selector that means none.
 */
export function chooseClusters(
  clusters: readonly Cluster[],
  names: readonly string[],
  selector: string | undefined,
  view: Pick<KubeconfigView, 'ours'>,
  command?: string,
): Cluster[] {
  if (names.length > 0 && selector !== undefined) throw new UsageError('names and a selector cannot be combined');
  if (names.length === 0) {
    const matches = parseSelector(selector ?? '');
    const found = clusters.filter((cluster) => matches(cluster.labels));
    if (found.length === 0) throw new TkaError('no cluster matches the selector', { hints: ['kubectl tka clusters'] });
    return found;
  }
  const found = names.map((name) => {
    const cluster = clusterByName(clusters, name, view, command);
    if (cluster !== undefined) return cluster;
    throw noCluster(name, clusters, view);
  });
  return [...new Set(found)];
}

/** What a NAME on the command line stands for. */
export interface ClusterTarget {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The cluster that was named so, or that the server is one of; undefined where no list has it. */
  readonly cluster: Cluster | undefined;
  /** The managed context of the cluster; undefined for none. */
  readonly ours?: OurContext | undefined;
  /** Where the server comes from. */
  readonly origin: Origin;
  /** True, or why, for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean | TkaError;
}

/** A cluster as a target. `contexts` are our contexts by cluster. Throws UnresolvedCluster. */
export function targetOf(cluster: Cluster, contexts: ContextsByCluster): ClusterTarget {
  return { server: resolved(cluster).server, cluster, ours: contexts.get(cluster)?.[0], origin: cluster.provenance };
}

export const isUrl = (name: string) => name.includes('://');

/** Returns a server that the user named as a target. What a list says about it does not count. */
export const namedTarget = (server: string): ClusterTarget => ({ server, cluster: undefined, origin: 'named' });

/** The cluster that a server is one of, by whatever name or address the server is called; undefined for none. */
export async function clusterOfServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<Cluster | undefined> {
  return (await listedServer(context, server, clusters))?.cluster;
}

/** The same, with what the list says of the server. */
export async function listedServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<{ cluster: Cluster; row: ClusterServer } | undefined> {
  const find = (isIt: (url: string) => boolean) => {
    for (const cluster of clusters) {
      const row = cluster.servers.find((each) => each.server !== null && isIt(each.server));
      if (row !== undefined) return { cluster, row };
    }
    return undefined;
  };
  const found = find((url) => url === server);
  if (found !== undefined || clusters.length === 0) return found;
  const peer = peerAt(hostOf(server), await devices(context));
  if (peer === undefined) return undefined;
  const { protocol, port } = new URL(server);
  return find((url) => {
    const isThere = hostOf(url) === peer.dnsName || peer.addresses.includes(hostOf(url));
    // One host may have several servers.
    return isThere && new URL(url).protocol === protocol && new URL(url).port === port;
  });
}
