// Identifies the other end of a connection to this server, through tailscaled.

import { type WhoIs, whoIs } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import type { Log } from '../log/log.ts';

/**
 * Returns a function that asks tailscaled who is at the other end of a connection to us. It returns undefined for a
 * caller from outside the tailnet, and throws TailscaleError.
 *
 * Behind a userspace tailscaled, all connections from the tailnet come over loopback. The function does not ask about
 * callers with other addresses then: a pod network may use the tailnet's addresses too, and tailscaled would mistake
 * such a pod for a node of its own.
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
