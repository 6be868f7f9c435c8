// Opens the listening sockets, and explains why one cannot be opened.
import type { RequestListener, Server } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { systemCode, TkaError } from '../util/errors.ts';
import type { Config } from './config/config.ts';
import type { CallerLimits } from './http/limits.ts';
import { createTkaServer, drain, type KeyPair, type Limits, listen } from './http/listen.ts';
import type { Log } from './log/log.ts';
import { isWildcard } from './tailnet/place.ts';

export interface ListenOptions {
  readonly config: Config;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with the reason while the server waits for an address. */
  readonly onWait: (why: string) => void;
}

/** Listens for probes. Returns the server. Throws TkaError if it cannot listen. */
export async function listenForProbes({ config, log }: ListenOptions, health: RequestListener): Promise<Server> {
  const host = config.get('health.host') ?? config.get('server.host') ?? '::';
  const port = config.get('health.port');
  const server = createTkaServer(health, timesOf(config));
  try {
    await bind(server, host, port, 'probes', log).catch(async (error) => {
      // The machine has no IPv6.
      if (host !== '::' || !isAbsent(error)) throw error;
      await bind(server, '0.0.0.0', port, 'probes', log);
    });
  } catch (error) {
    throw cannotListen(error);
  }
  return server;
}

/** The listening sockets of the API. */
export class ApiListeners {
  readonly #options: ListenOptions;
  readonly #limits: CallerLimits;
  readonly #servers: (Server | HttpsServer)[] = [];

  constructor(options: ListenOptions, limits: CallerLimits) {
    this.#options = options;
    this.#limits = limits;
  }

  /**
   * Listens on these addresses. Returns those that the machine has. tailscaled may report addresses that do not exist
   * yet, or never will (IPv6), so this waits until there is at least one. Throws TkaError if it cannot listen.
   */
  async listen(
    hosts: readonly string[],
    listener: RequestListener,
    pair: KeyPair | undefined,
  ): Promise<readonly string[]> {
    const { log, signal, onWait } = this.#options;
    for (;;) {
      const { bound, problem } = await this.#bindAll(hosts, listener, pair);
      if (bound.some(isWildcard))
        log.warn({}, 'the API listens on all addresses: machines outside the tailnet can forge a tailnet address');
      if (bound.length > 0) return bound;
      onWait('this machine does not have the addresses of the tailnet yet');
      log.warn({ err: problem, hosts }, 'waiting for the addresses of the tailnet');
      await delay(1_000, undefined, { signal });
    }
  }

  async #bindAll(hosts: readonly string[], listener: RequestListener, pair: KeyPair | undefined) {
    const { config, log } = this.#options;
    const limits: Limits = { ...timesOf(config), isKnown: (socket) => this.#limits.knows(socket) };
    const bound: string[] = [];
    let problem: unknown;
    for (const host of hosts) {
      const server = pair === undefined ? createTkaServer(listener, limits) : createTkaServer(listener, limits, pair);
      try {
        await bind(server, host, config.get('tailscale.port'), 'the API', log);
        this.#servers.push(server);
        bound.push(host);
      } catch (error) {
        if (config.get('server.host') !== undefined || !isAbsent(error)) throw cannotListen(error);
        problem = error;
      }
    }
    return { bound, problem };
  }

  /** Uses a new certificate for new connections. */
  renew(pair: KeyPair): void {
    for (const server of this.#servers) if ('setSecureContext' in server) server.setSecureContext(pair);
  }

  /** Accepts no more connections. Resolves when all running requests are answered, or after `ms`. */
  async drain(ms: number): Promise<void> {
    await Promise.all(this.#servers.map((server) => drain(server, ms)));
  }
}

async function bind(server: Server | HttpsServer, host: string, port: number, what: string, log: Log): Promise<void> {
  await listen(server, host, port);
  server.on('error', (error) => log.error({ err: error }, 'a listening socket failed'));
  log.info({ host, port }, `listening for ${what}`);
}

function timesOf(config: Config): Limits {
  return {
    readTimeoutMs: config.get('server.readTimeout'),
    readHeaderTimeoutMs: config.get('server.readHeaderTimeout'),
    writeTimeoutMs: config.get('server.writeTimeout'),
    idleTimeoutMs: config.get('server.idleTimeout'),
  };
}

const isAbsent = (error: unknown): boolean => /^(?:EADDRNOTAVAIL|EAFNOSUPPORT)$/.test(systemCode(error) ?? '');

function cannotListen(error: unknown): unknown {
  const { code, address, port } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  if (code === undefined) return error;
  const why: Readonly<Record<string, readonly [what: string, ...hints: string[]]>> = {
    EADDRINUSE: [
      ': address already in use',
      `find the process that uses it: ss -ltnp 'sport = :${port}'`,
      'or set another tailscale.port, health.port or server.host',
    ],
    EACCES: [
      ': permission denied',
      'ports below 1024 need the capability NET_BIND_SERVICE, or set another tailscale.port',
    ],
    EADDRNOTAVAIL: [
      ': this machine does not have this address',
      'list its addresses: ip address',
      'or remove server.host: the server then uses the addresses of the tailnet',
    ],
  };
  const [what, ...hints] = why[code] ?? [` (${code})`];
  return new TkaError(`cannot listen on ${address}:${port}${what}`, { hints, cause: error });
}
