import { isLoopbackOrTailnet } from '../util/address.ts';
import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';

/** Where a connection goes. */
export interface Destination {
  readonly origin: string;
  /** A name, or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Plain http: for loopback and tailnet addresses only. */
  readonly plain: boolean;
}

/** Parses an origin. */
export function destinationOf(origin: string): Destination {
  const url = new URL(origin);
  const plain = url.protocol === 'http:';
  const host = hostOf(url);
  return { origin: url.origin, host, port: Number(url.port || (plain ? 80 : 443)), plain };
}

/** Returns the permitted addresses: all for TLS, only loopback and tailnet addresses for plain http. */
export function permitted<T>(target: Destination, items: readonly T[], address: (item: T) => string): T[] {
  return items.filter((item) => !target.plain || isLoopbackOrTailnet(address(item)));
}

/** Returns the error for plain http over a network where others could read it. */
export function plainHttpError(origin: string): TkaError {
  return new TkaError(`${origin} is neither on this machine nor on the tailnet, so plain http is not allowed`, {
    hints: [`use https: ${origin.replace(/^http:/, 'https:')}`, 'or use its tailnet name; tailscale status shows it'],
  });
}
