import { setTimeout as delay } from 'node:timers/promises';
import type { Cluster } from '../../discovery/clusters.ts';
import { ListMemory, type RememberedList } from '../../discovery/memory.ts';
import { type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import type { WaitText } from '../../terminal/progress.ts';
import { TkaClient } from '../../tka/client.ts';
import { TkaError } from '../../util/errors.ts';
import { askTailnet, openConnection, type Tailnet } from '../context/connect.ts';
import type { Context } from '../context/context.ts';
import { listClusters } from '../target/clusters.ts';

const tailnetAge = 30_000;
const diskAge = 60_000;

/** The last known list. */
export interface Feed {
  readonly clusters: readonly Cluster[];
  readonly view: KubeconfigView;
  /** True if the list is from an earlier answer, because no server answers now. */
  readonly stale: boolean;
  /** When a list from the last run of a command was current, in milliseconds since the epoch. */
  readonly at: number | undefined;
  /** Messages from discovery, and why there is no current answer. */
  readonly remarks: readonly string[];
}

/**
 * Polls the clusters and passes each result to `show`, one after the other, at most one per `interval` milliseconds.
 * Ends when `show` returns false. Throws TkaError if the first poll finds no list.
 */
export async function feedClusters(
  context: Context,
  interval: number,
  show: (feed: Feed) => Promise<boolean>,
): Promise<void> {
  const memory = new HeldMemory(context.paths.state);
  const remarks: string[] = [];
  const lasting = lastingContext(context, memory, remarks);
  let last: Feed | undefined;
  // Later polls must not interrupt the list with their progress.
  const later = {
    ...lasting,
    terminal: { ...lasting.terminal, waiting: <T>(_: WaitText, task: () => Promise<T>) => task() },
  };
  for (;;) {
    const began = performance.now();
    remarks.length = 0;
    try {
      const view = await readKubeconfig(context.kubeconfig);
      const { clusters, current, at } = await listClusters(last === undefined ? lasting : later, view);
      last = { clusters, view, stale: !current, at, remarks: [...remarks] };
    } catch (error) {
      if (last === undefined || !(error instanceof TkaError)) throw error;
      last = { ...last, stale: true, remarks: [...remarks, `error: ${error.message}`] };
    }
    if (!(await show(last))) return;
    await delay(Math.max(0, interval - (performance.now() - began)));
  }
}

/**
 * Returns a context that works for hours: it collects messages from discovery separately, and asks tailscaled again
 * after 30 s.
 */
function lastingContext(context: Context, memory: ListMemory, remarks: string[]): Context {
  const { env, settings, terminal } = context;
  const say = (prefix: string) => (line: string) => {
    if (!settings.quiet || prefix !== '') remarks.push(prefix + line);
  };
  let status: Promise<TailnetStatus> | undefined;
  let askedAt = Number.NEGATIVE_INFINITY;
  const ask = () => {
    if (status === undefined || performance.now() - askedAt > tailnetAge) {
      askedAt = performance.now();
      status = askTailnet(env, terminal);
      // Ask again next time: tailscaled may be up by then.
      status.catch(() => {
        askedAt = Number.NEGATIVE_INFINITY;
      });
    }
    return status;
  };
  const suffix = () =>
    ask().then(
      (known) => known.suffix || undefined,
      () => undefined,
    );
  const tailnet: Tailnet = Object.assign(ask, { suffix });
  const network = openConnection(env, settings.caFile, tailnet, terminal);
  return {
    ...context,
    network,
    tailnet,
    memory,
    client: (server) => new TkaClient(server, { network, log: terminal.log }),
    terminal: { ...terminal, notice: say(''), warn: say('warning: '), hint: say('') },
  };
}

/** Keeps lists in memory. Writes them to disk only once a minute, or after a change. */
class HeldMemory extends ListMemory {
  readonly #held = new Map<string, { list: RememberedList; key: string; at: number }>();

  override read(seed: string): RememberedList | undefined {
    return this.#held.get(seed)?.list ?? super.read(seed);
  }

  override write(seed: string, list: RememberedList, clusters: readonly Cluster[]): void {
    const key = list.members.map((m) => `${m.name} ${m.apiEndpoint} ${m.server} ${m.state} ${m.tried}`).join('\n');
    const before = this.#held.get(seed);
    const due = before === undefined || before.key !== key || list.at - before.at > diskAge;
    this.#held.set(seed, { list, key, at: due ? list.at : before.at });
    if (due) super.write(seed, list, clusters);
  }
}
