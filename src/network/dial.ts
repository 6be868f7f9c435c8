import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns/promises';
import * as net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { systemCode } from '../errors.ts';
import { permitted, plainHttpError, type Target } from './plain.ts';

/** Who knows addresses. */
export interface Names {
  /** Instead of the system's resolver. */
  readonly lookup?: ((host: string) => Promise<readonly LookupAddress[]>) | undefined;
  /** What the tailnet calls by a name, asked where the resolver knows nothing of use. */
  readonly tailnetAddresses?: ((host: string) => Promise<readonly string[] | undefined>) | undefined;
  /** Whether that costs nothing, tailscaled having been asked already: the resolver need not be, then. */
  readonly tailnetAsked?: (() => boolean) | undefined;
  readonly log: (line: string) => void;
}

/** Rejects with the signal's reason as soon as it is aborted; the promise itself goes on, unheard. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** The tailnet's addresses of a target that may be spoken to; none where it knows nothing of it. */
export async function tailnetAddresses(target: Target, names: Names, signal: AbortSignal): Promise<string[]> {
  if (names.tailnetAddresses === undefined) return [];
  try {
    const found = (await unlessAborted(names.tailnetAddresses(target.host), signal)) ?? [];
    const good = permitted(target, found, (address) => address).filter((address) => net.isIP(address) !== 0);
    names.log(`the tailnet knows ${target.host} as ${good.join(', ') || 'nothing'}`);
    return good;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    names.log(`the tailnet could not be asked for ${target.host}: ${error}`);
    return [];
  }
}

// A resolver that does not know the tailnet may say so late, or never, and holds up all other names meanwhile.
const resolverPatience = 500;

/**
 * The addresses to dial for a target: its own, or the tailnet's where that has been asked already, where the target has
 * none that may be spoken to, or where the resolver has not answered within half a second. A process does not end before
 * the resolver has answered, however late that is.
 */
export async function addressesOf(target: Target, names: Names, signal: AbortSignal): Promise<string[]> {
  const { host, origin } = target;
  if (net.isIP(host) !== 0) {
    if (permitted(target, [host], String).length === 0) throw plainHttpError(origin);
    return [host];
  }
  if (names.tailnetAsked?.() === true) {
    const known = await tailnetAddresses(target, names, signal);
    if (known.length > 0) return known;
  }
  const resolving = resolved(target, names, signal);
  const late = new AbortController();
  const soon = await Promise.race([
    resolving.catch(() => []),
    delay(resolverPatience, [], { signal: late.signal }).catch(() => []),
  ]);
  late.abort();
  if (soon.length > 0) return soon;
  const known = await tailnetAddresses(target, names, signal);
  return known.length > 0 ? known : await resolving;
}

async function resolved(target: Target, names: Names, signal: AbortSignal): Promise<string[]> {
  const { host, origin } = target;
  const ask = names.lookup ?? ((name: string) => systemLookup(name, { all: true }));
  const found = await unlessAborted(ask(host), signal);
  const good = permitted(target, found, ({ address }) => address);
  if (good.length > 0) return alternating(good);
  if (found.length > 0) throw plainHttpError(origin);
  throw Object.assign(new Error(`${host} has no address`), { code: 'ENOTFOUND' });
}

// The resolver's first choice first, then the families in turn (RFC 8305): one that leads nowhere costs one delay.
function alternating(found: readonly LookupAddress[]): string[] {
  const first = found.filter(({ family }) => family === found[0]?.family);
  const second = found.filter(({ family }) => family !== found[0]?.family);
  return first
    .flatMap((item, i) => [item, second[i]])
    .concat(second.slice(first.length))
    .flatMap((item) => (item === undefined ? [] : [item.address]));
}

// Node's own autoSelectFamily gives an address up when the next one's turn comes. The first packets to a peer of a
// tailnet can take a second, and the next address may be of a family that this machine does not have: so here, as in
// Go and in RFC 8305, an attempt that was begun goes on.
const nextAfter = 250;

/** Connects to the first of some addresses that answers, trying a further one each 250 ms. */
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
        // Nobody there says more than no way there.
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
