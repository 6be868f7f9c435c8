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
import type { ClusterDescription, TokenAccess } from '../tka/answers.ts';
import type { AskOptions, TkaClient } from '../tka/client.ts';
import { accessDisagreement, OtherServers, type OtherServersOptions, roundPause } from './siblings.ts';

export interface FailoverOptions extends Omit<OtherServersOptions, 'open'> {
  readonly client: (server: string, onOpen: () => void) => TkaClient;
  /** Asks the API server whether it refuses a token. */
  readonly isRefused: (access: TokenAccess) => Promise<boolean>;
  /** The server was away a moment ago: the others are asked first. */
  readonly wasAway?: boolean;
  /** Called when another server takes over from the first. */
  readonly onMove?: () => void;
}

/** The server has changed: what is under way has to begin again, with the sign-in. */
export class MovedOn extends Error {
  override readonly name = 'MovedOn';
}

/** A request that has failed waits so long for the other servers before it is made again, in milliseconds. */
const grace = 300;

/** A server that failed is tried again for so long while others have not answered yet, in milliseconds. */
const searchPatience = 2500;

type Exchange<T> = (client: TkaClient, options: AskOptions) => Promise<T>;

/**
 * A TKA client that changes to another server of the same cluster while its own is away. It throws as TkaClient does, and
 * MovedOn after a change: the sign-in then has to be asked for again. Call close() at the end.
 */
export class FailoverClient {
  /** The server that it was made for. */
  readonly first: string;
  readonly #options: FailoverOptions;
  readonly #others: OtherServers;
  #current: TkaClient;
  #vigil: Vigil | undefined;
  #wasAway: boolean;

  constructor(server: string, options: FailoverOptions) {
    this.first = server;
    this.#options = options;
    this.#wasAway = options.wasAway === true;
    this.#current = this.#open(server);
    const { siblings, log } = options;
    this.#others = new OtherServers(server, { open: (other) => this.#open(other), siblings, log });
  }

  /** The server that is asked at the moment. */
  get server(): string {
    return this.#current.server;
  }

  get clockOffset(): number {
    return this.#current.clockOffset;
  }

  /** True if another server has taken over. */
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

  /** Closes all connections at once. */
  async close(): Promise<void> {
    this.#vigil?.end();
    await Promise.all([this.#current.close(), this.#others.drop()]);
  }

  #open(server: string): TkaClient {
    const client: TkaClient = this.#options.client(server, () => {
      if (client === this.#current) this.#vigil?.opened();
    });
    return client;
  }

  async #ask<T>(options: AskOptions, exchange: Exchange<T>): Promise<T> {
    const deadline = performance.now() + options.timeout;
    await this.#moveIfWasAway();
    const vigil = new Vigil(this.#current.isConnected);
    this.#vigil = vigil;
    try {
      const answer = await this.#exchange(options, exchange, vigil);
      await this.#others.drop();
      return answer;
    } catch (error) {
      if (error instanceof MovedOn) throw error;
      if (!(error instanceof Unavailable) || !error.away) {
        await this.#others.drop();
        throw error;
      }
      await this.#moveInstead(error, deadline);
      throw this.#inFull(error);
    } finally {
      vigil.end();
    }
  }

  async #moveIfWasAway(): Promise<void> {
    if (!this.#wasAway) return;
    this.#wasAway = false;
    await this.#others.search(this.server);
    await this.#moveIfFound();
  }

  /** One exchange with the present server; it is ended, and the server left, once another has confirmed itself. */
  async #exchange<T>(options: AskOptions, exchange: Exchange<T>, vigil: Vigil): Promise<T> {
    const request = new AbortController();
    let isAnswered = false;
    const answer = exchange(this.#current, { ...options, signal: request.signal }).finally(() => {
      isAnswered = true;
    });
    const other = await Promise.race([answer.then(() => undefined), this.#otherWhileAway(vigil)]);
    if (other === undefined || isAnswered) return answer;
    request.abort(new MovedOn('another server has taken over'));
    await answer.catch(() => {});
    return this.#moveTo(other);
  }

  /** Another server, once it has confirmed itself while the present one is away. */
  async #otherWhileAway(vigil: Vigil): Promise<TkaClient> {
    for (;;) {
      await vigil.away();
      await this.#others.search(this.server);
      if (this.#others.found !== undefined && vigil.isAway) return this.#others.found;
      await delay(roundPause, undefined, { signal: vigil.ended });
    }
  }

  /** Gives the other servers a moment to take over after a failure; without patience, all the time that is left. */
  async #moveInstead(error: Unavailable, deadline: number): Promise<void> {
    const search = this.#others.search(this.server);
    const left = Math.max(0, deadline - performance.now());
    const pause = error.patience === 0 ? left : Math.min(left, grace);
    await Promise.race([search, delay(pause, undefined, { ref: false })]);
    await this.#moveIfFound();
  }

  async #moveIfFound(): Promise<void> {
    if (this.#others.found !== undefined) await this.#moveTo(this.#others.found);
  }

  /** Leaves the present server. One sign-in is in flight at a time: what was asked of it has ended. Throws MovedOn. */
  async #moveTo(to: TkaClient): Promise<never> {
    const from = this.#current;
    this.#others.leave(from.server);
    await from.close();
    this.#current = to;
    if (from.server === this.first) this.#options.onMove?.();
    this.#options.log(`${from.server} is away: going on at ${to.server}, of the same cluster`);
    throw new MovedOn(`${to.server} has taken over from ${from.server}`);
  }

  /** Compares what another server gives with what is known of the cluster; leaves it if that is not the same. */
  async #check(access: TokenAccess): Promise<void> {
    const known = await this.#others.known();
    if (known === undefined) return;
    let difference = accessDisagreement(known, access);
    if (difference === undefined && (await this.#options.isRefused(access)))
      difference = 'the API server refuses its token';
    if (difference === undefined) return;
    this.#others.refuse(this.server, difference);
    await this.#moveTo(this.#open(this.first));
  }

  /** The error, with what became of the other servers; while these are being asked, it is worth trying again. */
  #inFull(error: Unavailable): Unavailable {
    const { problems, isSearching } = this.#others;
    if (problems.length === 0 && !isSearching) return error;
    const { message, cause, answered, away, pause } = error;
    const patience = isSearching ? Math.max(error.patience, searchPatience) : error.patience;
    const hints = [...error.hints, ...problems];
    return new Unavailable(message, patience, { hints, cause, answered, away, ...(pause !== undefined && { pause }) });
  }
}

/** A server seems to be away without a connection for so long, and then without an answer. In milliseconds. */
const longestConnect = 300;
const longestAnswer = 2000;

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
