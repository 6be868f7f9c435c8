import { type Cluster, type ClusterServer, resolved } from '../../discovery/clusters.ts';
import { isJoined } from '../../discovery/joined.ts';
import { type Origin, peerAt } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { parseSelector } from '../../util/selector.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, composed, quoted } from '../../util/text.ts';
import { hostOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { type ContextsByCluster, contextsByCluster } from './contexts.ts';
import { expandNames, type Names } from './patterns.ts';
import { devices } from './seeds.ts';

/**
 * Returns the cluster that a name means: its own name or that of one of its servers, else the name of a managed
 * context, else a unique prefix of a cluster name. Returns undefined for no match, and for a context whose server is
 * not listed. Throws UsageError if several match, or if another joined cluster has a context of that name; the hints
 * list `command` with each of them.
 */
export function clusterByName(
  clusters: readonly Cluster[],
  name: string,
  { ours }: Pick<KubeconfigView, 'ours'>,
  command = 'login',
): Cluster | undefined {
  const isIt = isNamed(name);
  const called = clusters.filter((cluster) => isIt(cluster) || cluster.server === name);
  const named =
    called.length > 0
      ? called
      : clusters.filter(({ servers }) => servers.some((each) => isIt(each) || each.server === name));
  const there = named.filter((cluster) => cluster.state !== 'missing');
  // Prefer listed clusters: a cluster can be recreated under its old name.
  const exact = there.length > 0 ? there : named;
  const own = ours.find(isIt);
  const isOurs = own !== undefined && (exact.length === 0 || isJoined(own));
  const listed = isOurs ? [...contextsByCluster({ ours: [own] }, clusters).keys()][0] : undefined;
  if (isOurs && exact.length === 0) return listed;
  const rest = command === 'exec' ? ' -- COMMAND' : '';
  // A later cluster of the tailnet takes the name of a joined one, but not the name of its context.
  const [only] = exact;
  if (isOurs && exact.length === 1 && only?.server != null && only !== listed) {
    const isThere = listed === undefined || listed.servers.some((each) => each.server === own.server);
    const server = isThere ? own.server : (listed.server ?? own.server);
    throw new UsageError(`${quoted(name)} is a cluster, and the context of another cluster`, {
      hints: [
        `kubectl tka ${command} ${only.server}${rest} (${cleanText(only.name)})`,
        // Only `login` takes a server that is not listed.
        listed === undefined && command !== 'login'
          ? `if you no longer need the context: kubectl tka forget ${cleanText(own.name)}`
          : `kubectl tka ${command} ${server}${rest} (context ${cleanText(own.name)})`,
      ],
    });
  }
  const found =
    exact.length > 0
      ? exact
      : clusters.filter((cluster) => name !== '' && composed(cluster.name).startsWith(composed(name)));
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are named' : 'have names that start with';
  throw new UsageError(`${found.length} clusters ${what} ${quoted(name)}`, {
    hints: found.slice(0, 10).map(({ name: each, server, apiEndpoint }) => {
      const alike = found.filter((other) => other.name === each).length > 1;
      const word = cleanText(alike ? (server ?? each) : each);
      return `kubectl tka ${command} ${word}${rest} (${alike && server !== null ? each : (server ?? apiEndpoint)})`;
    }),
  });
}

/** Returns a test for a typed name. */
export function isNamed(name: string): (one: { readonly name: string }) => boolean {
  const wanted = composed(name);
  return (one) => composed(one.name) === wanted;
}

/** The name does not match any cluster. */
export class NoCluster extends TkaError {
  constructor(message: string, options: { readonly hints?: readonly string[] } = {}) {
    super(message, { hints: ['kubectl tka clusters', ...(options.hints ?? [])] });
  }
}

/** Returns the error for a name that no cluster has, with the nearest existing names. */
export function noCluster(
  name: string,
  clusters: readonly Cluster[],
  { ours }: { readonly ours: readonly { readonly name: string }[] },
  hints: readonly string[] = [],
): NoCluster {
  const names = [...clusters, ...ours].map((each) => cleanText(each.name));
  const wanted = cleanText(name);
  return new NoCluster(`no cluster named ${JSON.stringify(wanted)}${didYouMean(wanted, names)}`, { hints });
}

/**
 * Returns the clusters that match the names (also lists and globs) or the label selector; without either, all of them. Throws UsageError for
 * an ambiguous name or if both are given, TkaError if a name or the selector matches nothing.
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
  const found = expandNames(names, clusterNames(clusters, view)).map(({ name, match }) => {
    const cluster = match ?? clusterByName(clusters, name, view, command);
    if (cluster !== undefined) return cluster;
    throw noCluster(name, clusters, view);
  });
  return [...new Set(found)];
}

/** Returns what lists and globs stand for where clusters are named: `login`, `exec`. */
export function clusterNames(clusters: readonly Cluster[], { ours }: Pick<KubeconfigView, 'ours'>): Names<Cluster> {
  return {
    all: clusters.map((cluster) => [cluster.name, cluster]),
    isName: (word) => {
      const isIt = isNamed(word);
      return ours.some(isIt) || clusters.some((cluster) => isIt(cluster) || cluster.servers.some(isIt));
    },
    what: 'cluster',
  };
}

/** The target of a NAME on the command line. */
export interface ClusterTarget {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The cluster with that name or server; undefined if no list has it. */
  readonly cluster: Cluster | undefined;
  /** The managed context of the cluster, if there is one. */
  readonly ours?: OurContext | undefined;
  /** How we know the server; decides whether to trust it. */
  readonly origin: Origin;
  /** Set for a name that no cluster has, so that it is taken as a host name: true, or the error of the search. */
  readonly unlisted?: boolean | TkaError;
}

/** Returns a cluster as a target. `contexts` are the managed contexts by cluster. Throws UnresolvedCluster. */
export function targetOf(cluster: Cluster, contexts: ContextsByCluster): ClusterTarget {
  return { server: resolved(cluster).server, cluster, ours: contexts.get(cluster)?.[0], origin: cluster.provenance };
}

export const isUrl = (name: string) => name.includes('://');

/** Returns the target for a server that the user named. Ignores what a list says about the server. */
export const namedTarget = (server: string): ClusterTarget => ({ server, cluster: undefined, origin: 'named' });

/** Returns the cluster of a server, by any name or address of the server; undefined if no cluster has it. */
export async function clusterOfServer(
  context: Context,
  server: string,
  clusters: readonly Cluster[],
): Promise<Cluster | undefined> {
  return (await listedServer(context, server, clusters))?.cluster;
}

/** Like clusterOfServer(), and also returns the cluster's entry for the server. */
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
  const { protocol, port, pathname } = new URL(server);
  return find((url) => {
    const isThere = hostOf(url) === peer.dnsName || peer.addresses.includes(hostOf(url));
    // Several servers can run on one host, and a login server has one URL for each joined cluster.
    const own = new URL(url);
    return isThere && own.protocol === protocol && own.port === port && own.pathname === pathname;
  });
}
