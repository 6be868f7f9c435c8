import { TLSSocket } from 'node:tls';
import type { Cluster } from '../../discovery/clusters.ts';
import type { Network } from '../../network/network.ts';
import { progressOf } from '../../terminal/progress.ts';
import { TkaClient } from '../../tka/client.ts';
import type { Context } from '../context/context.ts';
import { type Connection, type Probed, probeAll, probeOf, probeTargets } from './probes.ts';

const connectTimeout = 2000;
/** Milliseconds for all probes of a list: 16 at a time, that is enough for 480 servers of which none can be reached. */
export const probeBudget = 60_000;

/** Opens probes' connections: within 2 s or not at all. */
export function probeConnections({ network, terminal }: Pick<Context, 'network' | 'terminal'>) {
  return (server: string): Connection => {
    let opened: ReturnType<Connection['opened']>;
    const watched: Network = {
      ...network,
      client: (origin, options) =>
        network.client(origin, {
          ...options,
          connectTimeout,
          onStep: (done) => {
            options.onStep?.(done);
            if (done.step !== 'open') return;
            const certificate = done.socket instanceof TLSSocket ? done.socket.getPeerX509Certificate() : undefined;
            opened = {
              at: performance.now(),
              validUntil: certificate === undefined ? undefined : Date.parse(certificate.validTo),
            };
          },
        }),
    };
    return { client: new TkaClient(server, { network: watched, log: terminal.log }), opened: () => opened };
  };
}

/** Probes clusters, with progress for a person who waits; in the order of the clusters. */
export async function probeClusters(context: Context, clusters: readonly Cluster[]): Promise<Probed[]> {
  const targets = probeTargets(clusters);
  const progress = progressOf(context, (done) => `probed ${done} of ${targets.length} servers …`);
  const onDone = (found: ReadonlyMap<string, unknown>) => {
    progress.done = found.size;
  };
  const found = await probeAll(targets, { open: probeConnections(context), budget: probeBudget, onDone }).finally(
    progress.end,
  );
  const left = targets.length - found.size;
  if (left > 0) {
    context.terminal.warn(
      `${left} of ${targets.length} servers were not asked, for want of time: choose fewer with -l`,
    );
  }
  return clusters.map((cluster) => probeOf(cluster, found));
}
