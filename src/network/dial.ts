// We dial ourselves, because Node's autoSelectFamily abandons an address after 250 ms and does not ask tailscaled for
// names.

import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns/promises';
import * as net from 'node:net';
import { systemCode } from '../util/errors.ts';
import { type Destination, permitted, plainHttpError } from './plain.ts';
import type { OnStep } from './steps.ts';

/** Resolves host names. */
export interface Names {
  /** Replaces the system's resolver. */
  readonly lookup?: ((host: string) => Promise<readonly LookupAddress[]>) | undefined;
  /**
   * Asks tailscaled for a name. Returns no addresses if the tailnet has no such device, undefined if that is unknown.
   */
  readonly tailnetAddresses?: ((host: string) => Promise<readonly string[] | undefined>) | undefined;
  /** Returns the tailnet's suffix in lower case (`example.ts.net`) if it is known; cheaper than asking for a name. */
  readonly tailnetSuffix?: (() => Promise<string | undefined>) | undefined;
  readonly log: (line: string) => void;
  readonly onStep?: OnStep | undefined;
}

/**
 * Settles as `promise` does, but rejects with the signal's reason as soon as it aborts. The work behind `promise` goes
 * on, and its result is ignored.
 */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Returns the tailnet addresses of a target; for plain http only the permitted ones. */
export async function tailnetAddresses(target: Destination, names: Names, signal: AbortSignal): Promise<string[]> {
  return permitted(target, (await askTailnet(target.host, names, signal)) ?? [], String);
}

/**
 * Asks tailscaled for a name. Returns no addresses if the tailnet has no such device, undefined if tailscaled does not
 * know.
 */
async function askTailnet(host: string, names: Names, signal: AbortSignal): Promise<string[] | undefined> {
  if (names.tailnetAddresses === undefined) return undefined;
  try {
    const found = await unlessAborted(names.tailnetAddresses(host), signal);
    names.log(`the tailnet knows ${host} as ${found?.join(', ') || 'nothing'}`);
    // Ignores anything that is not an IP address.
    return found === undefined || found.length === 0
      ? found?.slice()
      : known(found.filter((text) => net.isIP(text) !== 0));
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    names.log(`the tailnet could not be asked for ${host}: ${error}`);
    return undefined;
  }
}

const known = (addresses: string[]) => (addresses.length > 0 ? addresses : undefined);

/** Returns whether to ask tailscaled first: for names in the tailnet, and for any name over plain http. */
async function isTailnetName(target: Destination, names: Names, signal: AbortSignal): Promise<boolean> {
  const host = target.host.toLowerCase().replace(/\.$/, '');
  if (names.tailnetAddresses === undefined || /(?:^|\.)localhost$/.test(host)) return false;
  if (target.plain || host.endsWith('.ts.net')) return true;
  const suffix = await unlessAborted(Promise.resolve(names.tailnetSuffix?.()), signal).catch((error) => {
    if (signal.aborted) throw error;
  });
  return Boolean(suffix) && host.endsWith(`.${suffix}`);
}

/**
 * Returns the addresses to connect to. For a name in the tailnet it asks tailscaled first, then the resolver; for other
 * names the resolver first. Reason: a resolver that does not know the tailnet may answer late or never, and Node waits
 * for it before it exits; for plain http its answer proves nothing. Throws TkaError for plain http to other addresses,
 * and the system's error (ENOTFOUND) for a name without an address.
 */
export async function addressesOf(target: Destination, names: Names, signal: AbortSignal): Promise<string[]> {
  const { host, origin } = target;
  if (net.isIP(host) !== 0) {
    if (permitted(target, [host], String).length === 0) throw plainHttpError(origin);
    return [host];
  }
  const first = await isTailnetName(target, names, signal);
  if (first) {
    const found = await askTailnet(host, names, signal);
    const good = permitted(target, found ?? [], String);
    if (good.length > 0) return good;
    if (target.plain && found?.length === 0) throw noAddress(host);
  }
  try {
    return await resolved(target, names, signal);
  } catch (error) {
    if (first || signal.aborted) throw error;
    const found = await tailnetAddresses(target, names, signal);
    if (found.length > 0) return found;
    throw error;
  }
}

function noAddress(host: string): Error {
  return Object.assign(new Error(`${host} has no address`), { code: 'ENOTFOUND' });
}

async function resolved(target: Destination, names: Names, signal: AbortSignal): Promise<string[]> {
  const { host, origin } = target;
  const ask = names.lookup ?? ((name: string) => systemLookup(name, { all: true }));
  const found = await unlessAborted(ask(host), signal).catch((error) => {
    names.onStep?.({ step: 'resolver', addresses: [] });
    throw error;
  });
  names.onStep?.({ step: 'resolver', addresses: found.map(({ address }) => address) });
  const good = permitted(target, found, ({ address }) => address);
  if (good.length > 0) return alternating(good);
  if (found.length > 0) throw plainHttpError(origin);
  throw noAddress(host);
}

// Starts with the resolver's first choice, then alternates between the families (RFC 8305), so that a family without a
// route costs only one delay.
function alternating(found: readonly LookupAddress[]): string[] {
  const first = found.filter(({ family }) => family === found[0]?.family);
  const second = found.filter(({ family }) => family !== found[0]?.family);
  return first
    .flatMap((item, i) => [item, second[i]])
    .concat(second.slice(first.length))
    .flatMap((item) => (item === undefined ? [] : [item.address]));
}

// Milliseconds until the next address is tried too (RFC 8305). Earlier attempts go on, as in Go: the first packets to a
// tailnet peer can take a second, and this machine may have no route for the next address's family.
const nextAfter = 250;

/** Connects to the first address that answers. Starts one more attempt every 250 ms, or as soon as one fails. */
export function dial(addresses: readonly string[], port: number, signal: AbortSignal): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const open = new Set<net.Socket>();
    const errors: unknown[] = [];
    let next = 0;
    let timer: NodeJS.Timeout | undefined;

    const end = (winner?: net.Socket) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      for (const socket of open) if (socket !== winner) socket.destroy();
      open.clear();
    };
    const abort = () => {
      end();
      reject(signal.reason);
    };
    const begin = () => {
      clearTimeout(timer);
      const host = addresses[next++];
      if (host === undefined) {
        if (open.size > 0) return;
        end();
        // "Connection refused" tells more than a missing route.
        return reject(errors.find((error) => systemCode(error) === 'ECONNREFUSED') ?? errors[0]);
      }
      const socket = net.connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 });
      open.add(socket);
      socket.once('connect', () => {
        end(socket);
        resolve(socket);
      });
      socket.on('error', (error) => {
        if (!open.delete(socket)) return;
        errors.push(error);
        begin();
      });
      if (next < addresses.length) timer = setTimeout(begin, nextAfter);
    };
    if (signal.aborted) return reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    begin();
  });
}
