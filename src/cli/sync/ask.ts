import type { Cluster } from '../../discovery/clusters.ts';
import { UnresolvedCluster } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import { Unavailable } from '../../network/failure.ts';
import { progressBar } from '../../terminal/progress.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { type ClientOptions, TkaClient } from '../../tka/client.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { siblingsToKeep } from '../contexts/siblings.ts';
import { confirmed } from '../target/trust.ts';
import type { SyncAnswer, SyncProblem } from './plan.ts';

const parallel = 32;
/** Timeouts for an answer, in milliseconds; shorter for members that the list calls dead, suspected or missing. */
const patience = { listed: 5000, gone: 2000 };
const gone: ReadonlySet<string> = new Set(['dead', 'suspected', 'missing']);
/** Limit for all requests, in milliseconds: a hostile list can name ten thousand servers that never answer. */
const wholeBudget = 120_000;

export interface AskAllOptions {
  /** Returns whether to ask a cluster before the others. */
  readonly first: (cluster: Cluster) => boolean;
  readonly trust: TrustPolicy;
  /** Milliseconds after which no more servers are asked. */
  readonly budget?: number;
}

/**
 * Asks the servers of clusters, 32 at a time, and returns their answers and problems in the order of the clusters. A
 * server that fails is a problem of its cluster only.
 */
export async function askAll(
  context: Context,
  clusters: readonly Cluster[],
  { first, trust, budget = wholeBudget }: AskAllOptions,
): Promise<{ answers: SyncAnswer[]; problems: SyncProblem[] }> {
  const deadline = performance.now() + budget;
  const once = new Map<string, Promise<ClusterDescription>>();
  const { network, terminal } = context;
  const client = (server: string) => new OnceClient(server, { network, log: terminal.log }, once);
  const ask = async (cluster: Cluster): Promise<SyncAnswer | SyncProblem> => {
    const isGone = gone.has(cluster.state);
    const askTimeout = Math.min(context.askTimeout, isGone ? patience.gone : patience.listed);
    try {
      if (performance.now() >= deadline) throw new TkaError('not asked in time', { hints: ['select fewer with -l'] });
      const { server, ...info } = await confirmed({ ...context, client, askTimeout }, cluster, trust);
      const siblings = await siblingsToKeep({ client, terminal }, trust, { server, info }, cluster.servers);
      return { cluster: { ...cluster, server }, info, siblings };
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      return {
        cluster,
        error,
        expected: isGone && (error instanceof Unavailable || error instanceof UnresolvedCluster),
      };
    }
  };
  const indexes = [...clusters.keys()];
  const isFirst = clusters.map(first);
  const order = [...indexes.filter((i) => isFirst[i]), ...indexes.filter((i) => !isFirst[i])];
  const found: (SyncAnswer | SyncProblem)[] = [];
  let next = 0;
  let done = 0;
  const worker = async () => {
    for (let at = order[next++]; at !== undefined; at = order[next++]) {
      found[at] = await ask(clusters[at] as Cluster);
      done++;
    }
  };
  const workers = () => Promise.all(Array.from({ length: Math.min(parallel, clusters.length) }, worker));
  await terminal.waiting(() => `asking the clusters ${progressBar(done, clusters.length)}`, workers);
  return {
    answers: found.filter((one): one is SyncAnswer => 'info' in one),
    problems: found.filter((one): one is SyncProblem => 'error' in one),
  };
}

/** Asks each server only once, even if several members of the list name it. */
class OnceClient extends TkaClient {
  readonly #answers: Map<string, Promise<ClusterDescription>>;

  constructor(server: string, options: ClientOptions, answers: Map<string, Promise<ClusterDescription>>) {
    super(server, options);
    this.#answers = answers;
  }

  override clusterInfo(...args: Parameters<TkaClient['clusterInfo']>): Promise<ClusterDescription> {
    const known = this.#answers.get(this.server) ?? super.clusterInfo(...args);
    this.#answers.set(this.server, known);
    return known;
  }
}
