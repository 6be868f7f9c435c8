import { type Cluster, listClusters } from '../discovery/clusters.ts';
import { parseSelector } from '../discovery/selector.ts';
import { TkaError, UsageError } from '../errors.ts';
import type { KubeconfigView } from '../kubeconfig/index.ts';
import { cleanText } from '../tka/text.ts';
import { type Context, requireEntryServer } from './context.ts';
import { listOptions } from './target.ts';

/** All clusters there are. Throws TkaError where there is no list at all. */
export async function allClusters(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  return listClusters(requireEntryServer(context.settings), listOptions(context, view));
}

/**
 * The cluster that a name means: the one that is called so, else the only one whose name begins so; undefined if there
 * is none. Throws UsageError, with the candidates, where several do.
 */
export function clusterByName(clusters: readonly Cluster[], name: string): Cluster | undefined {
  const exact = clusters.filter((cluster) => cluster.name === name);
  const found = exact.length > 0 ? exact : clusters.filter((cluster) => name !== '' && cluster.name.startsWith(name));
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are called' : 'have a name that begins with';
  throw new UsageError(`${found.length} clusters ${what} ${JSON.stringify(cleanText(name))}`, {
    hints: found.slice(0, 10).map((cluster) => `${cluster.name} (${cluster.server ?? cluster.apiEndpoint})`),
  });
}

/**
 * The clusters that names, or a label selector, mean; all of them where neither is given. Throws UsageError for an
 * ambiguous name or both, TkaError for a name or a selector that means none.
 */
export function chooseClusters(
  clusters: readonly Cluster[],
  names: readonly string[],
  selector: string | undefined,
): Cluster[] {
  if (names.length > 0 && selector !== undefined) throw new UsageError('give either names or a selector');
  if (names.length === 0) {
    const matches = parseSelector(selector ?? '');
    const found = clusters.filter((cluster) => matches(cluster.labels));
    if (found.length === 0) throw new TkaError('no cluster matches the selector', { hints: ['kubectl tka clusters'] });
    return found;
  }
  const found = names.map((name) => {
    const cluster = clusterByName(clusters, name);
    if (cluster !== undefined) return cluster;
    throw new TkaError(`there is no cluster ${JSON.stringify(cleanText(name))}`, { hints: ['kubectl tka clusters'] });
  });
  return [...new Set(found)];
}
