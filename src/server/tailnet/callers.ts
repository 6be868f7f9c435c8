// Who is at the other end of a connection to this server, as tailscaled knows.

import { type WhoIs, whoIs } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import type { Log } from '../log/log.ts';

/**
 * Returns a function that asks tailscaled who is at the other end of a connection to us; undefined for a caller from
 * outside the tailnet. Behind a userspace tailscaled, all of the tailnet's connections come over loopback: a caller with
 * any other address is not asked about, because a pod network may use the tailnet's addresses too, and tailscaled would
 * take such a pod for its own node. The function throws TailscaleError.
 */
export function whoCalls(options: {
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly userspace: boolean;
  readonly timeoutMs?: number;
}): (address: string, port: number, signal?: AbortSignal) => Promise<WhoIs | undefined> {
  const { env, log, userspace, timeoutMs = 5_000 } = options;
  return async (address, port, signal) => {
    if (userspace && !isLoopback(address)) return undefined;
    return await whoIs(address, port, { env, timeout: timeoutMs, signal, log: (line) => log.debug({}, line) });
  };
}
