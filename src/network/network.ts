import type * as net from 'node:net';
import type { SecureContext } from 'node:tls';
import { createSecureContext } from 'node:tls';
import { addressesOf, dial, type Names } from './dial.ts';
import { ConnectTimeout } from './failure.ts';
import { type Client, httpClient } from './http.ts';
import { type Target, targetOf } from './plain.ts';
import { defaultContext, secure, type Trust } from './tls.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** What a process knows of its network. */
export interface NetworkOptions extends Omit<Names, 'log'> {
  /** Where the proxy variables are. */
  readonly env: Environment;
  /** The setting `tls.caFile`: authorities to trust besides the default ones. */
  readonly caFile?: string | undefined;
  readonly log?: ((line: string) => void) | undefined;
}

/** How to speak to one origin. */
export interface ConnectOptions {
  /** Milliseconds for a connection: names, TCP, the proxy and TLS together. */
  readonly connectTimeout: number;
  /** The only authorities to believe (PEM); those of `tls.caFile` and the default ones if absent. */
  readonly ca?: string | undefined;
  /** Believes whoever answers. */
  readonly insecure?: boolean | undefined;
  /** Told of each connection as soon as it stands: a TLSSocket for https, which knows the certificate. */
  readonly onOpen?: ((socket: net.Socket) => void) | undefined;
}

/** A proxy on the way to an origin, fit to be shown. */
export interface Route {
  /** Without its credentials: `socks5://127.0.0.1:1055`. */
  readonly proxy: string;
  /** The environment variable that names it. */
  readonly variable: string;
}

/** The way to servers: direct or through proxies, by the system's names or the tailnet's. */
export interface Network {
  /** A client for one origin; nothing is opened before its first request. destroy() it at the end. */
  client(origin: string, options: ConnectOptions): Client;
  /** The proxy that an origin is spoken to through; undefined where there is none. Throws TkaError for a bad one. */
  route(origin: string): Promise<Route | undefined>;
}

/** Learns the way to servers from the environment and the settings. Problems of either show when they matter. */
export function openNetwork(options: NetworkOptions): Network {
  const { env, caFile } = options;
  const names: Names = { ...options, log: options.log ?? (() => {}) };
  let common: SecureContext | undefined;
  const trustByDefault = () => {
    common ??= defaultContext(caFile);
    return common;
  };

  async function connect(target: Target, { ca, insecure }: ConnectOptions, signal: AbortSignal): Promise<net.Socket> {
    const variable = proxyVariable(env, target.plain);
    const through =
      variable === undefined
        ? undefined
        : await (await import('./proxy.ts')).throughProxy(variable, env, target, names, trustByDefault, signal);
    const socket = through ?? (await dial(await addressesOf(target, names, signal), target.port, signal));
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

  return {
    client(origin, connectOptions) {
      const target = targetOf(origin);
      return httpClient({
        host: new URL(target.origin).host,
        connect: (closed) =>
          limited(connectOptions.connectTimeout, closed, async (signal) => {
            const socket = await connect(target, connectOptions, signal);
            connectOptions.onOpen?.(socket);
            return socket;
          }),
      });
    },
    async route(origin) {
      const target = targetOf(origin);
      const variable = proxyVariable(env, target.plain);
      if (variable === undefined) return undefined;
      const proxy = (await import('./environment.ts')).proxyFor(variable, env, target);
      return proxy && { proxy: proxy.shown, variable };
    },
  };
}

/** The variable that names a proxy for http or https. What it holds is read only where it is needed. */
function proxyVariable(env: Environment, plain: boolean): string | undefined {
  // A web server hands a request's header `Proxy` to a CGI program as HTTP_PROXY.
  const upper = env.REQUEST_METHOD ? [] : ['HTTP_PROXY'];
  const own = plain ? [...upper, 'http_proxy'] : ['HTTPS_PROXY', 'https_proxy'];
  return [...own, 'ALL_PROXY', 'all_proxy'].find((name) => env[name]?.trim());
}

async function limited<T>(timeout: number, closed: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const attempt = new AbortController();
  const close = () => attempt.abort(closed.reason);
  const timer = setTimeout(() => attempt.abort(new ConnectTimeout(timeout)), timeout);
  closed.addEventListener('abort', close, { once: true });
  if (closed.aborted) close();
  try {
    return await work(attempt.signal);
  } finally {
    clearTimeout(timer);
    closed.removeEventListener('abort', close);
  }
}
