import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import { isIP } from 'node:net';
import { Client } from 'undici';
import { systemCode, TkaError } from '../errors.ts';
import { isLoopbackOrTailnet } from './address.ts';
import {
  type Access,
  type ClusterDescription,
  type Memberlist,
  parseClusterInfo,
  parseKubeconfig,
  parseMemberlist,
  parseSignIn,
  type RawAnswer,
  type SignIn,
  serverTime,
  Unavailable,
} from './answers.ts';
import { apiPath } from './types.ts';

const smallAnswer = 1024 * 1024;
const longList = 16 * 1024 * 1024;
const connectTimeout = 10_000;

export interface ClientOptions {
  /** Told what goes over the wire, for --debug. Never told a body. */
  readonly log?: (line: string) => void;
}

interface AskOptions {
  /** Milliseconds for the whole exchange. */
  readonly timeout: number;
  readonly limit?: number;
  readonly signal?: AbortSignal;
}

/**
 * Speaks the TKA API with one server over one connection. Its calls throw Refused, NotSignedIn or Unavailable, and
 * TkaError where trying again cannot help. Call close() at the end.
 */
export class TkaClient {
  readonly server: string;
  /** The server's clock minus ours in milliseconds, as of its last answer; 0 within its Date header's precision. */
  clockOffset = 0;
  readonly #client: Client;
  readonly #log: (line: string) => void;

  constructor(server: string, options: ClientOptions = {}) {
    this.server = server;
    this.#log = options.log ?? (() => {});
    const url = new URL(server);
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const plain = url.protocol === 'http:';
    if (plain && isIP(host) !== 0 && !isLoopbackOrTailnet(host)) throw plainHttpError(server);
    this.#client = new Client(server, {
      connect: { timeout: connectTimeout, ...(plain && { lookup: guardedLookup(server) }) },
      maxHeaderSize: 32 * 1024,
      pipelining: 1,
    });
  }

  async login(options: AskOptions): Promise<SignIn> {
    return parseSignIn(await this.ask('POST', '/login', options), this.server);
  }

  async logout(options: AskOptions): Promise<SignIn> {
    return parseSignIn(await this.ask('POST', '/logout', options), this.server, 'the logout');
  }

  async kubeconfig(options: AskOptions): Promise<{ access: Access | 'pending'; answer: RawAnswer }> {
    const answer = await this.ask('GET', '/kubeconfig', options);
    return { access: parseKubeconfig(answer, this.server, Date.now()), answer };
  }

  async clusterInfo(options: AskOptions): Promise<ClusterDescription> {
    return parseClusterInfo(await this.ask('GET', '/cluster-info', options), this.server);
  }

  async memberlist(options: AskOptions): Promise<Memberlist | undefined> {
    return parseMemberlist(await this.ask('GET', '/memberlist', { limit: longList, ...options }), this.server);
  }

  /** One exchange; throws Unavailable where there is no whole answer in time, or one over the limit (bytes). */
  async ask(method: 'GET' | 'POST', route: string, options: AskOptions): Promise<RawAnswer> {
    const started = performance.now();
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(options.timeout)));
    const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]);
    const limit = options.limit ?? smallAnswer;
    try {
      const { statusCode, headers, body } = await this.#client.request({
        method,
        path: apiPath + route,
        headers: { accept: 'application/json', 'user-agent': 'kubectl-tka' },
        headersTimeout: 0,
        bodyTimeout: 0,
        signal,
      });
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of body) {
        chunks.push(chunk);
        size += chunk.length;
        if (size > limit) break;
      }
      if (size > limit) throw new Unavailable(`${this.server} sent more than ${limit >> 20} MiB`, 0);
      const flat: Record<string, string | undefined> = {};
      for (const [name, value] of Object.entries(headers)) flat[name] = Array.isArray(value) ? value[0] : value;
      const answer = { status: statusCode, headers: flat, body: Buffer.concat(chunks).toString('utf8') };
      this.#log(`${method} ${this.server}${apiPath}${route}: ${statusCode}, ${size} bytes, ${elapsed(started)}`);
      const time = serverTime(answer);
      // The header is cut to whole seconds, so on average half a second old.
      const offset = time === undefined ? 0 : time + 500 - Date.now();
      this.clockOffset = Math.abs(offset) < 2000 ? 0 : offset;
      return await decoded(answer);
    } catch (error) {
      if (error instanceof TkaError) throw error;
      if (options.signal?.aborted) throw options.signal.reason;
      this.#log(`${method} ${this.server}${apiPath}${route}: ${error} (${systemCode(error)}), ${elapsed(started)}`);
      throw transportError(this.server, error, options.timeout);
    }
  }

  /** Lets go of the connection at once. */
  async close(): Promise<void> {
    await this.#client.destroy();
  }
}

function elapsed(started: number): string {
  return `${(performance.now() - started).toFixed(1)} ms`;
}

// Nobody asks for YAML here, but a cache in between may hold the answer to somebody who did.
/** An answer whose YAML body has become JSON; others as they are. */
export async function decoded(answer: RawAnswer): Promise<RawAnswer> {
  if (!/^(?:application|text)\/(?:x-)?yaml\b/i.test(answer.headers['content-type'] ?? '')) return answer;
  const { parse } = await import('yaml');
  try {
    return { ...answer, body: JSON.stringify(parse(answer.body, { maxAliasCount: 0 })) };
  } catch {
    return answer;
  }
}

function plainHttpError(server: string): TkaError {
  return new TkaError(`${server} is neither on this machine nor on a tailnet: plain http is not spoken to it`, {
    hints: [
      `name it by https: ${server.replace(/^http:/, 'https:')}`,
      'or by its tailnet name, with `tailscale status` telling which',
    ],
  });
}

type LookupCallback = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

// Judges the addresses that are really dialled: a name can change between a check and the connection.
function guardedLookup(server: string) {
  return (host: string, options: LookupOptions, callback: LookupCallback) => {
    dnsLookup(host, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, []);
      const good = addresses.filter(({ address }) => isLoopbackOrTailnet(address));
      const first = good[0];
      if (first === undefined) return callback(plainHttpError(server), []);
      if (options.all) return callback(null, good);
      return callback(null, first.address, first.family);
    });
  };
}

/** What a failed connection means to a person, and how long it is worth trying again. */
function transportError(server: string, error: unknown, timeout: number): TkaError {
  const code = systemCode(error) ?? '';
  const unavailable = (what: string, patience: number, ...hints: string[]) =>
    new Unavailable(`cannot reach ${server}: ${what}`, patience, { cause: error, hints });
  for (let e = error; e instanceof Error; e = e.cause) if (e instanceof TkaError) return e;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return unavailable('its name does not resolve', 500, 'is Tailscale up? ask it with `tailscale status`');
  }
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return unavailable('no route to it', 500, 'is Tailscale up? ask it with `tailscale status`');
  }
  if (code === 'ECONNREFUSED') {
    return unavailable(
      'connection refused',
      2000,
      'is the TKA server up, and is this its port? see `kubectl tka config`',
    );
  }
  if (error instanceof Error && (error.name === 'TimeoutError' || code.endsWith('_TIMEOUT') || code === 'ETIMEDOUT')) {
    const seconds =
      Math.round(Math.min(timeout, code === 'UND_ERR_CONNECT_TIMEOUT' ? connectTimeout : timeout) / 100) / 10;
    return unavailable(`no answer within ${seconds} s`, 0, 'is Tailscale up? ask it with `tailscale status`');
  }
  if (/CERT|SSL|TLS|SELF_SIGNED|VERIFY/.test(code)) {
    const why = error instanceof Error ? firstLine(error) : code;
    return unavailable(
      `its certificate or TLS is not in order: ${why}`,
      0,
      'a private CA is trusted by NODE_EXTRA_CA_CERTS=FILE',
    );
  }
  return unavailable(`the connection broke (${code || (error instanceof Error ? firstLine(error) : 'unknown')})`, 5000);
}

function firstLine(error: Error): string {
  const inner = error.cause instanceof Error ? error.cause : error;
  const line = inner.message.split('\n', 1)[0] ?? '';
  return line.charAt(0).toLowerCase() + line.slice(1, 200);
}
