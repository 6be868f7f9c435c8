// Loaded only if an environment variable names a proxy.
import { isIP, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { TkaError } from '../util/errors.ts';
import { addressesOf, dial, type Names, tailnetAddresses } from './dial.ts';
import type { ProxyServer } from './environment.ts';
import { authorityHint, ConnectTimeout, failureOf, seconds, Unavailable } from './failure.ts';
import { httpConnect } from './http-connect.ts';
import { type Destination, destinationOf, permitted, plainHttpError } from './plain.ts';
import { socks5Connect } from './socks5.ts';
import { secure } from './tls.ts';
import { HandshakeError } from './wire.ts';

/**
 * Opens a connection to a target through a proxy. Throws Unavailable if the proxy fails or refuses, and TkaError for
 * plain http to an address that is neither loopback nor in the tailnet.
 */
export async function throughProxy(
  proxy: ProxyServer,
  target: Destination,
  names: Names,
  trust: () => SecureContext,
  signal: AbortSignal,
): Promise<Socket> {
  names.log(`${target.origin} is spoken to through the proxy ${proxy.shown} (${proxy.variable})`);
  const ask = (host: string) => tunnel(proxy, { ...target, host }, names, trust, signal);

  // We cannot check how a proxy resolves a name, so for plain http it gets the address.
  if (target.plain) {
    const known = isIP(target.host) === 0 ? await tailnetAddresses(target, names, signal) : [target.host];
    const addresses = permitted(target, known, String);
    const [address] = addresses;
    if (address === undefined) throw plainHttpError(target.origin);
    names.onStep?.({ step: 'name', addresses });
    return ask(address);
  }
  try {
    return await ask(target.host);
  } catch (error) {
    // Few proxies tell that the name did not resolve; tailscaled may know it.
    const cause = error instanceof Error ? error.cause : undefined;
    if (!(cause instanceof HandshakeError) || !cause.byAddress || isIP(target.host) !== 0) throw error;
    const [address] = await tailnetAddresses(target, names, signal);
    if (address === undefined) throw error;
    return ask(address);
  }
}

async function tunnel(
  proxy: ProxyServer,
  target: Destination,
  names: Names,
  trust: () => SecureContext,
  signal: AbortSignal,
): Promise<Socket> {
  const { host, port } = target;
  const socket = await reach(proxy, names, trust, signal);
  const abort = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  // Without a listener a socket error would crash the process.
  socket.on('error', () => {});
  try {
    // CONNECT is used for plain http too: the Host header then reaches the server unchanged (without a tunnel a proxy
    // replaces it by the address, RFC 9112, 3.2.2), and the proxy's own errors cannot be mistaken for the server's.
    // tailscaled opens a tunnel to any port; squid by default only to 443, and answers 403 otherwise.
    if (proxy.kind === 'socks5') await socks5Connect(socket, proxy, host, port);
    else await httpConnect(socket, proxy, host, port);
    return socket;
  } catch (error) {
    socket.destroy();
    throw handshakeFailure(proxy, target, signal.aborted ? signal.reason : error);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function reach(
  proxy: ProxyServer,
  names: Names,
  trust: () => SecureContext,
  signal: AbortSignal,
): Promise<Socket> {
  const { host, port, kind, shown } = proxy;
  try {
    const way = { origin: shown, host, port, plain: false };
    // Steps are about the target, not about the proxy.
    const addresses = await addressesOf(way, { ...names, onStep: undefined }, signal);
    const socket = await dial(addresses, port, signal);
    return kind === 'https' ? await secure(socket, host, { context: trust() }, signal) : socket;
  } catch (error) {
    if (error instanceof TkaError) throw error;
    const { what, patience, kind: failure } = failureOf(error);
    throw new Unavailable(`cannot reach the proxy ${shown}: ${what}`, patience, {
      cause: error,
      hints: [...(failure === 'authority' ? [authorityHint] : []), `check the proxy in ${proxy.variable}`],
    });
  }
}

function handshakeFailure(proxy: ProxyServer, target: Destination, error: unknown): unknown {
  const { variable, shown } = proxy;
  const name = `the proxy ${shown}`;
  const sparing = `the proxy comes from ${variable}; to bypass it, use NO_PROXY`;
  if (error instanceof HandshakeError) {
    const hint = error.credentials
      ? `set them in ${variable}: ${proxy.kind}://USER:PASSWORD@HOST:PORT`
      : error.noTunnel && target.plain
        ? `allow CONNECT to port ${target.port} on the proxy, or list ${destinationOf(target.origin).host} in NO_PROXY`
        : sparing;
    return new Unavailable(`${name} ${error.what}`, error.patience, { cause: error, hints: [hint], away: true });
  }
  if (error instanceof ConnectTimeout) {
    const what = `${name} did not connect to ${target.host}:${target.port} within ${seconds(error.timeout)}`;
    return new Unavailable(what, 0, { cause: error, hints: [sparing], away: true });
  }
  const { what, patience } = failureOf(error);
  return new Unavailable(`cannot reach ${name}: ${what}`, patience, { cause: error, hints: [sparing], away: true });
}
