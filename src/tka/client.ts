import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { authorityHint, type ConnectFailure, failureOf, seconds, Unavailable } from '../network/failure.ts';
import type { Client } from '../network/http.ts';
import { type Network, openNetwork } from '../network/network.ts';
import type { Route } from '../network/steps.ts';
import { systemCode, TkaError } from '../util/errors.ts';
import { placeOf, withoutSlashes } from '../util/url.ts';
import {
  type ClusterDescription,
  parseClusterInfo,
  parseKubeconfig,
  parseSignIn,
  type SignIn,
  type TokenAccess,
} from './answers.ts';
import { type Memberlist, parseMemberlist } from './memberlist.ts';
import { type RawAnswer, serverTime } from './raw-answer.ts';
import { apiPath } from './types.ts';

const smallAnswer = 1024 * 1024;
const longList = 16 * 1024 * 1024;
const connectTimeout = 10_000;

export interface ClientOptions {
  /** How to connect; directly by default. */
  readonly network?: Network;
  /** Receives a line for each exchange for --debug, without bodies. */
  readonly log?: (line: string) => void;
  /** Called when a connection is open (for https, after the TLS handshake). */
  readonly onOpen?: () => void;
}

export interface AskOptions {
  /** Milliseconds for the whole exchange. */
  readonly timeout: number;
  readonly limit?: number;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

/**
 * Asks a server to describe its cluster, within `timeout` milliseconds, and closes the client. Throws as clusterInfo()
 * does.
 */
export async function describeCluster(
  client: Pick<TkaClient, 'clusterInfo' | 'close'>,
  timeout: number,
): Promise<ClusterDescription> {
  try {
    return await client.clusterInfo({ timeout });
  } finally {
    await client.close();
  }
}

/**
 * A client of one TKA server over one connection. Its calls throw Refused, NotSignedIn or Unavailable, and TkaError if
 * a retry cannot help. Call close() at the end.
 */
export class TkaClient {
  readonly server: string;
  /**
   * The server's clock minus ours in milliseconds, as of its last answer; 0 within the precision of its Date header.
   */
  clockOffset = 0;
  /** The path of the API: `/api/v1alpha1`, or `/clusters/NAME/api/v1alpha1`. */
  readonly #path: string;
  readonly #network: Network;
  readonly #client: Client;
  #socket: Socket | undefined;
  readonly #log: (line: string) => void;

  constructor(server: string, options: ClientOptions = {}) {
    this.server = server;
    this.#path = new URL(`${server}${apiPath}`).pathname;
    this.#log = options.log ?? (() => {});
    this.#network = options.network ?? openNetwork({ env: {} });
    this.#client = this.#network.client(server, {
      connectTimeout,
      onStep: (done) => {
        if (done.step !== 'open') return;
        this.#socket = done.socket;
        options.onOpen?.();
      },
    });
  }

  /** True while a connection is open, as far as this machine knows. */
  get isConnected(): boolean {
    return this.#socket !== undefined && !this.#socket.destroyed;
  }

  /**
   * Signs in. `roleApplied`: the access has this role even if an earlier sign-in had another one. (The Go server never
   * states it.)
   */
  async login(options: AskOptions): Promise<SignIn & { roleApplied: boolean }> {
    const answer = await this.ask('POST', '/login', options);
    return { ...parseSignIn(answer, this.server), roleApplied: answer.headers['tka-role'] === 'applied' };
  }

  /**
   * Signs out. `complete`: the sign-in and its account are gone, so a login right afterwards is safe. (The Go server
   * never states it.)
   */
  async logout(options: AskOptions): Promise<{ signIn: SignIn; complete: boolean }> {
    const answer = await this.ask('POST', '/logout', options);
    const signIn = parseSignIn(answer, this.server, 'the logout');
    return { signIn, complete: answer.headers['tka-logout'] === 'complete' };
  }

  async kubeconfig(options: AskOptions): Promise<{ access: TokenAccess | 'pending'; answer: RawAnswer }> {
    const answer = await this.ask('GET', '/kubeconfig', options);
    return { access: parseKubeconfig(answer, this.server, Date.now()), answer };
  }

  async clusterInfo(options: AskOptions): Promise<ClusterDescription> {
    return parseClusterInfo(await this.ask('GET', '/cluster-info', options), this.server);
  }

  async memberlist(options: AskOptions): Promise<Memberlist | undefined> {
    return parseMemberlist(await this.ask('GET', '/memberlist', { limit: longList, ...options }), this.server);
  }

  /**
   * Gets the memberlist as the page for browsers, which has more data than the Go server's JSON. Throws Unavailable.
   */
  async memberlistPage(options: AskOptions): Promise<RawAnswer> {
    return this.ask('GET', '/memberlist', { limit: longList, accept: 'text/html', ...options });
  }

  /** Makes one exchange. Throws Unavailable without a complete answer in time, or for one larger than `limit` bytes. */
  async ask(method: 'GET' | 'POST', route: string, options: AskOptions): Promise<RawAnswer> {
    const started = performance.now();
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(options.timeout)));
    const signal = options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]);
    const limit = options.limit ?? smallAnswer;
    try {
      const { statusCode, headers, body } = await this.#client.request({
        method,
        path: this.#path + route,
        headers: { accept: options.accept ?? 'application/json', 'user-agent': 'kubectl-tka' },
        signal,
      });
      const bytes = await readBody(body, limit, Number(headers['content-length']));
      if (bytes === undefined)
        throw new Unavailable(`${placeOf(this.server)} answered with more than ${limit >> 20} MiB`, 0, {
          answered: true,
        });
      const flat: Record<string, string | undefined> = {};
      for (const [name, value] of Object.entries(headers)) flat[name] = Array.isArray(value) ? value[0] : value;
      const answer = { status: statusCode, headers: flat, body: bytes.toString('utf8') };
      this.#log(
        `${method} ${this.server}${apiPath}${route}: ${statusCode}, ${bytes.length} bytes, ${elapsed(started)}`,
      );
      const time = serverTime(answer);
      // The header is truncated to whole seconds, so it is half a second old on average.
      const offset = time === undefined ? 0 : time + 500 - Date.now();
      this.clockOffset = Math.abs(offset) < 2000 ? 0 : offset;
      return await decoded(answer);
    } catch (error) {
      if (error instanceof TkaError) throw error;
      if (options.signal?.aborted) throw options.signal.reason;
      this.#log(`${method} ${this.server}${apiPath}${route}: ${error} (${systemCode(error)}), ${elapsed(started)}`);
      throw transportError(
        this.server,
        error,
        options.timeout,
        await this.#network.route(this.server).catch(() => undefined),
      );
    }
  }

  /** Closes the connection at once. */
  async close(): Promise<void> {
    await this.#client.destroy();
  }
}

/**
 * Reads a body of at most `limit` bytes; returns undefined for a longer one. Copies chunks instead of keeping them: a
 * chunk of one byte uses a hundred times that in memory.
 */
async function readBody(body: Readable, limit: number, stated: number): Promise<Buffer | undefined> {
  if (stated > limit) {
    body.on('error', () => undefined).destroy();
    return undefined;
  }
  let bytes = Buffer.allocUnsafe(16 * 1024);
  let size = 0;
  for await (const chunk of body) {
    if (size + chunk.length > limit) return undefined;
    if (size + chunk.length > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(2 * bytes.length, size + chunk.length));
      bytes.copy(larger, 0, 0, size);
      bytes = larger;
    }
    size += chunk.copy(bytes, size);
  }
  return bytes.subarray(0, size);
}

function elapsed(started: number): string {
  return `${(performance.now() - started).toFixed(1)} ms`;
}

// Keys, brackets and anchors can make a YAML parser use a thousand times their size in memory, and quadratic time. A
// kubeconfig has long texts, but only a few hundred characters of syntax.
const yamlLimit = 128 * 1024;
const yamlSignLimit = 4096;

function isReadableYaml(text: string): boolean {
  if (text.length > yamlLimit) return false;
  return text.replace(/[A-Za-z0-9+/=._-]+/g, '').length <= yamlSignLimit;
}

/**
 * Returns an answer with its YAML body converted to JSON. Other answers stay unchanged, and so does YAML that is too
 * long or neither a map nor a list. This client asks for JSON, but a cache may answer with what it has for another
 * client.
 */
export async function decoded(answer: RawAnswer): Promise<RawAnswer> {
  if (!/^(?:application|text)\/(?:x-)?yaml\b/i.test(answer.headers['content-type'] ?? '')) return answer;
  if (!isReadableYaml(answer.body)) return answer;
  const { parse } = await import('yaml');
  try {
    // The parser would print warnings to stderr, with the server's text.
    const value: unknown = parse(answer.body, { maxAliasCount: 0, logLevel: 'error' });
    return typeof value === 'object' && value !== null ? { ...answer, body: JSON.stringify(value) } : answer;
  } catch {
    return answer;
  }
}

const askTailscale = 'check that Tailscale is up: tailscale status';
const hints: Readonly<Partial<Record<ConnectFailure['kind'], string>>> = {
  name: askTailscale,
  route: askTailscale,
  timeout: askTailscale,
  refused: 'check that the TKA server is up and the port is right: kubectl tka config',
  authority: authorityHint,
};

function hintFor(kind: ConnectFailure['kind'], server: string): string {
  if (kind === 'plain') {
    const { hostname, port, pathname } = new URL(server);
    return `try http://${hostname}:${port || 443}${withoutSlashes(pathname)}`;
  }
  return hints[kind] ?? `kubectl tka doctor ${server}`;
}

/** Returns the error for a failed exchange, worded for people. */
function transportError(server: string, error: unknown, timeout: number, way: Route | undefined): TkaError {
  // Some errors are already worded for people: a proxy that fails, plain http that is not allowed.
  for (let e = error; e instanceof Error; e = e.cause) if (e instanceof TkaError) return e;
  const late = error instanceof Error && error.name === 'TimeoutError';
  const failure: ConnectFailure = late
    ? { kind: 'timeout', what: `no answer within ${seconds(timeout)}`, patience: 0 }
    : failureOf(error);
  return new Unavailable(`cannot reach ${placeOf(server)}: ${failure.what}`, failure.patience, {
    cause: error,
    away: true,
    hints: [
      hintFor(failure.kind, server),
      ...(way === undefined ? [] : [`it is asked through the proxy ${way.proxy} (${way.variable})`]),
    ],
  });
}
