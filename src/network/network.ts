import type * as net from 'node:net';
import type { SecureContext } from 'node:tls';
import { createSecureContext } from 'node:tls';
import { addressesOf, dial, type Names } from './dial.ts';
import type { ProxyServer } from './environment.ts';
import { ConnectTimeout } from './failure.ts';
import { type Client, httpClient } from './http.ts';
import { type Destination, destinationOf } from './plain.ts';
import type { OnStep, Route } from './steps.ts';
import { defaultContext, secure, type Trust } from './tls.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The environment and settings that connections depend on. */
export interface NetworkOptions extends Omit<Names, 'log'> {
  /** The environment with the proxy variables. */
  readonly env: Environment;
  /** The setting `tls.caFile`: authorities to trust besides the default ones. */
  readonly caFile?: string | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

/** How to connect to one origin. */
export interface ConnectOptions {
  /** Milliseconds for name resolution, TCP, the proxy and TLS together. */
  readonly connectTimeout: number;
  /** The only trusted authorities (PEM); if absent, the default ones and those of `tls.caFile`. */
  readonly ca?: string | undefined;
  /** Skips certificate verification. */
  readonly insecure?: boolean | undefined;
  /** Receives the steps of each connection. */
  readonly onStep?: OnStep | undefined;
}

/** Connects to servers, directly or through proxies, by names of the system or of the tailnet. */
export interface Network {
  /** Returns a client for one origin; it connects at its first request. Call destroy() at the end. */
  client(origin: string, options: ConnectOptions): Client;
  /**
   * Opens a connection as a client's request does, but sends nothing over it. Destroy the socket at the end. Rejects
   * when the signal is aborted.
   */
  connect(origin: string, options: ConnectOptions, closed?: AbortSignal): Promise<net.Socket>;
  /** Returns the proxy for an origin, undefined for none. Throws TkaError if the variable is invalid. */
  route(origin: string): Promise<Route | undefined>;
}

/** Returns the network for an environment and settings. Errors in them show only when they are used. */
export function openNetwork(options: NetworkOptions): Network {
  const { env, caFile } = options;
  const names: Names = { ...options, log: options.log ?? (() => {}) };
  let common: SecureContext | undefined;
  const trustByDefault = () => {
    common ??= defaultContext(caFile);
    return common;
  };

  async function proxyOf(target: Destination): Promise<ProxyServer | undefined> {
    const variable = proxyVariable(env, target.plain);
    return variable === undefined ? undefined : (await import('./environment.ts')).proxyFor(variable, env, target);
  }

  async function connect(target: Destination, options: ConnectOptions, signal: AbortSignal): Promise<net.Socket> {
    const { ca, insecure, onStep } = options;
    const told = onStep === undefined ? names : { ...names, onStep };
    const proxy = await proxyOf(target);
    onStep?.({ step: 'route', route: routeThrough(proxy) });
    const socket =
      proxy === undefined
        ? await direct(target, told, signal)
        : await (await import('./proxy.ts')).throughProxy(proxy, target, told, trustByDefault, signal);
    onStep?.({ step: 'tcp', address: proxy === undefined ? socket.remoteAddress : undefined });
    if (target.plain) return socket;
    try {
      const context = ca === undefined ? trustByDefault() : createSecureContext({ ca });
      const trust: Trust = { context, insecure };
      return await secure(socket, target.host, trust, signal);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  async function open(target: Destination, options: ConnectOptions, closed?: AbortSignal): Promise<net.Socket> {
    const socket = await limited(options.connectTimeout, closed, (signal) => connect(target, options, signal));
    options.onStep?.({ step: 'open', socket });
    return socket;
  }

  return {
    client(origin, connectOptions) {
      const target = destinationOf(origin);
      return httpClient({
        host: new URL(target.origin).host,
        connect: (closed) => open(target, connectOptions, closed),
      });
    },
    connect: (origin, connectOptions, closed) => open(destinationOf(origin), connectOptions, closed),
    route: async (origin) => routeThrough(await proxyOf(destinationOf(origin))),
  };
}

async function direct(target: Destination, names: Names, signal: AbortSignal): Promise<net.Socket> {
  const addresses = await addressesOf(target, names, signal);
  names.onStep?.({ step: 'name', addresses });
  return dial(addresses, target.port, signal);
}

function routeThrough(proxy: ProxyServer | undefined): Route | undefined {
  return proxy && { proxy: proxy.shown, variable: proxy.variable };
}

/** Returns the variable that names a proxy for http or https. Its value is parsed later, if it is needed. */
function proxyVariable(env: Environment, plain: boolean): string | undefined {
  // A web server passes a request's `Proxy` header to a CGI program as HTTP_PROXY, so ignore it there.
  const upper = env.REQUEST_METHOD ? [] : ['HTTP_PROXY'];
  const own = plain ? [...upper, 'http_proxy'] : ['HTTPS_PROXY', 'https_proxy'];
  return [...own, 'ALL_PROXY', 'all_proxy'].find((name) => env[name]?.trim());
}

/** Aborts work after `timeout` milliseconds, or when `closed` is aborted. */
async function limited<T>(
  timeout: number,
  closed: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const attempt = new AbortController();
  const close = () => attempt.abort(closed?.reason);
  const timer = setTimeout(() => attempt.abort(new ConnectTimeout(timeout)), timeout);
  closed?.addEventListener('abort', close, { once: true });
  if (closed?.aborted) close();
  try {
    return await work(attempt.signal);
  } finally {
    clearTimeout(timer);
    closed?.removeEventListener('abort', close);
  }
}
