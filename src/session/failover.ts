// Fail-over: a sign-in goes on at another server of the same cluster while the one that the kubeconfig names is away.
//
// A server is away if there is no connection to it within 300 ms, no answer within 2 s, no connection at all, or HTTP 502,
// 503 or 504. Only then are the cluster's other servers asked for their /cluster-info, all at once. The first that states
// the same API server, CA, cluster name and sign-in store as the named server did gets the sign-in, if the named server is
// still away by then: a server that is slow but answers is never left. The request to the server before is ended first, so
// that one sign-in is in flight at a time. What the new server gives is compared with the context, and its token is tried at
// the API server, before it is used.
import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { ClusterAccess, ClusterDescription, TokenAccess } from '../tka/answers.ts';
import type { AskOptions, TkaClient } from '../tka/client.ts';

/** What the named server stated of its cluster. Only a server that states the same may take its place. */
export interface KnownCluster extends ClusterAccess {
  readonly cluster: string;
  readonly signInStore: string;
}

/** Where else a cluster can be signed in to. */
export interface Siblings {
  readonly known: KnownCluster;
  /** Canonical URLs of servers that may be used, the best first. */
  readonly servers: readonly string[];
}

export interface FailoverOptions {
  readonly client: (server: string, onOpen: () => void) => TkaClient;
  /** Asked once, and only where the server seems to be away. Undefined where there is no other server. */
  readonly siblings: () => Promise<Siblings | undefined>;
  /** Whether the API server takes a token; 'unknown' where it cannot be asked. */
  readonly tryToken: (access: TokenAccess) => Promise<'accepted' | 'refused' | 'unknown'>;
  /** The server was away a moment ago: the others are asked first. */
  readonly wasAway?: boolean;
  /** Called when another server takes over from the first. */
  readonly onMove?: () => void;
  readonly log: (line: string) => void;
}

/** The server has changed: what is under way has to begin again, with the sign-in. */
export class MovedOn extends Error {
  override readonly name = 'MovedOn';
}

/** In milliseconds. */
const longestConnect = 300;
const longestAnswer = 2000;
/** The pause between two rounds of questions to the other servers; a server that was left is not asked for so long. */
const roundPause = 500;
/** A request that has failed waits so long for the other servers before it is made again. */
const grace = 300;
/** A server that failed is tried again for so long while others have not answered yet. */
const searchPatience = 2500;
/** A list may name thousands of servers. */
const mostSiblings = 8;

/** Says in what a server differs from what is known of a cluster; undefined where it does not. */
export function disagreement(known: KnownCluster, info: ClusterDescription): string | undefined {
  if (info.signInStore === null) return 'it does not state where its sign-ins are kept';
  if (info.signInStore !== known.signInStore) return 'its sign-ins are kept elsewhere';
  if (info.cluster !== known.cluster) return `it is of the cluster ${info.cluster ?? 'without a name'}`;
  return accessDisagreement(known, info);
}

function accessDisagreement(known: ClusterAccess, access: ClusterAccess): string | undefined {
  if (access.apiServer !== known.apiServer) return `its API server is ${access.apiServer}`;
  // Where nobody looks at the certificate, no context has a CA.
  const isSameCa = known.insecureSkipTlsVerify || access.caData === known.caData;
  if (access.insecureSkipTlsVerify !== known.insecureSkipTlsVerify || !isSameCa)
    return 'it states another CA for the API server';
  return undefined;
}

/** What a server must have stated for others to take its place; undefined where it did not state all of it. */
export function knownClusterOf(info: ClusterDescription): KnownCluster | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore } = info;
  if (cluster === null || signInStore === null) return undefined;
  return { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore };
}

type Question<T> = (client: TkaClient, options: AskOptions) => Promise<T>;

/**
 * A TKA client that changes to another server of the same cluster where its own is away. It throws as TkaClient does, and
 * MovedOn after a change: the sign-in then has to be asked for again. Call close() at the end.
 */
export class FailoverClient {
  /** The server that it was made for. */
  readonly first: string;
  readonly #options: FailoverOptions;
  #current: TkaClient;
  #vigil: Vigil | undefined;
  #siblings: Promise<Siblings | undefined> | undefined;
  #search: Promise<void> | undefined;
  #searchedAt = Number.NEGATIVE_INFINITY;
  /** A server that has confirmed that it may take over. */
  #found: TkaClient | undefined;
  /** When servers were left, as performance.now() counts. */
  readonly #left = new Map<string, number>();
  /** Why other servers are of no use. */
  readonly #problems = new Map<string, string>();
  /** Servers that must not be used. */
  readonly #refused = new Set<string>();
  #wasAway: boolean;

  constructor(server: string, options: FailoverOptions) {
    this.first = server;
    this.#options = options;
    this.#wasAway = options.wasAway === true;
    this.#current = this.#open(server);
  }

  /** The server that is asked at the moment. */
  get server(): string {
    return this.#current.server;
  }

  get clockOffset(): number {
    return this.#current.clockOffset;
  }

  /** True where another server has taken over. */
  get hasMoved(): boolean {
    return this.server !== this.first;
  }

  login(options: AskOptions): ReturnType<TkaClient['login']> {
    return this.#ask(options, (client, o) => client.login(o));
  }

  logout(options: AskOptions): ReturnType<TkaClient['logout']> {
    return this.#ask(options, (client, o) => client.logout(o));
  }

  async kubeconfig(options: AskOptions): ReturnType<TkaClient['kubeconfig']> {
    const answer = await this.#ask(options, (client, o) => client.kubeconfig(o));
    if (this.hasMoved && answer.access !== 'pending') await this.#check(answer.access);
    return answer;
  }

  /** What the server states of its cluster, or the server that has taken over. */
  async clusterInfo(options: AskOptions): Promise<ClusterDescription> {
    const deadline = performance.now() + options.timeout;
    for (;;) {
      try {
        const left = { ...options, timeout: deadline - performance.now() };
        return await this.#ask(left, (client, o) => client.clusterInfo(o));
      } catch (error) {
        if (!(error instanceof MovedOn)) throw error;
      }
    }
  }

  /** Lets go of all connections at once. */
  async close(): Promise<void> {
    this.#vigil?.end();
    await Promise.all([this.#current.close(), this.#found?.close()]);
  }

  #open(server: string): TkaClient {
    const client: TkaClient = this.#options.client(server, () => {
      if (client === this.#current) this.#vigil?.opened();
    });
    return client;
  }

  async #ask<T>(options: AskOptions, question: Question<T>): Promise<T> {
    const deadline = performance.now() + options.timeout;
    if (this.#wasAway) {
      this.#wasAway = false;
      await this.#findOther();
      if (this.#found !== undefined) return this.#move(this.#found);
    }
    const client = this.#current;
    const vigil = new Vigil(client.isConnected);
    this.#vigil = vigil;
    const request = new AbortController();
    let isAnswered = false;
    const answer = question(client, { ...options, signal: request.signal }).finally(() => {
      isAnswered = true;
    });
    try {
      const other = await Promise.race([answer.then(() => undefined), this.#otherWhileAway(vigil)]);
      if (other === undefined || isAnswered) {
        const value = await answer;
        await this.#forgetFound();
        return value;
      }
      request.abort(new MovedOn('another server has taken over'));
      await answer.catch(() => {});
      return await this.#move(other);
    } catch (error) {
      if (error instanceof MovedOn) throw error;
      if (!(error instanceof Unavailable) || !error.away) {
        await this.#forgetFound();
        throw error;
      }
      const search = this.#findOther();
      const left = Math.max(0, deadline - performance.now());
      await Promise.race([
        search,
        delay(error.patience === 0 ? left : Math.min(left, grace), undefined, { ref: false }),
      ]);
      if (this.#found !== undefined) return await this.#move(this.#found);
      throw this.#inFull(error);
    } finally {
      vigil.end();
    }
  }

  /** Another server, once it has confirmed itself while the present one is away. */
  async #otherWhileAway(vigil: Vigil): Promise<TkaClient> {
    for (;;) {
      await vigil.away();
      await this.#findOther();
      if (this.#found !== undefined && vigil.isAway) return this.#found;
      await delay(roundPause, undefined, { signal: vigil.ended });
    }
  }

  /** Leaves the present server. One sign-in is in flight at a time: what was asked of it has ended. */
  async #move(to: TkaClient): Promise<never> {
    const from = this.#current;
    this.#left.set(from.server, performance.now());
    this.#found = undefined;
    await from.close();
    this.#current = to;
    if (from.server === this.first) this.#options.onMove?.();
    this.#options.log(`${from.server} is away: going on at ${to.server}, of the same cluster`);
    throw new MovedOn(`${to.server} has taken over from ${from.server}`);
  }

  async #forgetFound(): Promise<void> {
    const found = this.#found;
    this.#found = undefined;
    await found?.close();
  }

  /** Asks the other servers, unless they are being asked or were a moment ago; the first to confirm itself is #found. */
  #findOther(): Promise<void> {
    if (this.#search !== undefined) return this.#search;
    if (this.#found !== undefined || performance.now() - this.#searchedAt < roundPause) return Promise.resolve();
    this.#search = this.#askOthers().finally(() => {
      this.#search = undefined;
      this.#searchedAt = performance.now();
    });
    return this.#search;
  }

  async #askOthers(): Promise<void> {
    const { log } = this.#options;
    this.#siblings ??= this.#options.siblings().catch((error) => {
      log(`the other servers of the cluster cannot be found: ${error}`);
      return undefined;
    });
    const siblings = await this.#siblings;
    if (siblings === undefined) return;
    const { known, servers } = siblings;
    const others = [...new Set([this.first, ...servers])].filter((server) => this.#mayTry(server));
    if (others.length === 0) return;
    log(`${this.server} seems to be away: asking ${others.join(', ')}`);
    const won = new AbortController();
    const asked = others.slice(0, mostSiblings).map((server) => this.#confirm(server, known, won.signal));
    const found = await Promise.any(asked).catch(() => undefined);
    won.abort(new Unavailable('another server answered first', 0));
    for (const one of asked) one.then((client) => (client === found ? undefined : client.close())).catch(() => {});
    this.#found = found;
  }

  #mayTry(server: string): boolean {
    const left = this.#left.get(server) ?? Number.NEGATIVE_INFINITY;
    return server !== this.server && !this.#refused.has(server) && performance.now() - left >= roundPause;
  }

  /** A client for a server that is of the known cluster. The connection that it has confirmed this by is used further. */
  async #confirm(server: string, known: KnownCluster, signal: AbortSignal): Promise<TkaClient> {
    const client = this.#open(server);
    try {
      const info = await client.clusterInfo({ timeout: longestAnswer, signal });
      const difference = disagreement(known, info);
      if (difference !== undefined) throw this.#refuse(server, difference);
      return client;
    } catch (error) {
      await client.close();
      if (!this.#refused.has(server) && !signal.aborted)
        this.#problems.set(server, error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Compares what another server gives with what is known of the cluster; leaves it where it is not the same. */
  async #check(access: TokenAccess): Promise<void> {
    const siblings = await this.#siblings;
    if (siblings === undefined) return;
    let difference = accessDisagreement(siblings.known, access);
    if (difference === undefined && (await this.#options.tryToken(access)) === 'refused')
      difference = 'the API server refuses its token';
    if (difference === undefined) return;
    this.#refuse(this.server, difference);
    this.#searchedAt = Number.NEGATIVE_INFINITY;
    await this.#move(this.#open(this.first));
  }

  #refuse(server: string, why: string): Error {
    this.#refused.add(server);
    this.#problems.set(server, `${server} is not used: ${why}`);
    this.#options.log(`${server} is not used: ${why}`);
    return new Error(why);
  }

  /** The error, with what became of the other servers; while these are being asked, it is worth trying again. */
  #inFull(error: Unavailable): Unavailable {
    if (this.#problems.size === 0 && this.#search === undefined) return error;
    const { message, cause, answered, away, pause } = error;
    const patience = this.#search === undefined ? error.patience : Math.max(error.patience, searchPatience);
    const problems = [...this.#problems.values()].map((why) => `another server of the cluster: ${why}`);
    const hints = [...error.hints, ...problems];
    return new Unavailable(message, patience, { hints, cause, answered, away, ...(pause !== undefined && { pause }) });
  }
}

/** Watches over one request: whether its server seems to be away. */
class Vigil {
  isAway = false;
  readonly #ended = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #told = Promise.withResolvers<void>();

  constructor(isConnected: boolean) {
    this.#begin(isConnected ? longestAnswer : longestConnect);
  }

  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Resolves when the server seems to be away, at once if it does already. */
  away(): Promise<void> {
    return this.#told.promise;
  }

  /** A connection stands: the server is there, and has its time to answer. */
  opened(): void {
    if (this.ended.aborted) return;
    if (this.isAway) this.#told = Promise.withResolvers();
    this.isAway = false;
    this.#begin(longestAnswer);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#ended.abort();
  }

  #begin(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.isAway = true;
      this.#told.resolve();
    }, ms);
  }
}
