import type { Cluster } from '../../discovery/clusters.ts';
import { parseSelector } from '../../discovery/selector.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { contextsByCluster } from './contexts-by-cluster.ts';

/**
 * The cluster that a name means: the one that is called so, or whose server it is or is called so, else that of our
 * context of this name, else the only one whose name begins so; undefined if there is none, or only a context for a server that is not
 * listed. Throws UsageError where several are meant, with what to type: `command` and each of them.
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
  const what = exact.length > 0 ? 'are called' : 'have a name that begins with';
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
  if (names.length > 0 && selector !== undefined) throw new UsageError('give either names or a selector');
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
