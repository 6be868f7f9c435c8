// Failover: while the server in the kubeconfig is away, the sign-in continues at another server of the same cluster.
//
// A server is away if the connection takes longer than 300 ms or fails, if there is no answer within 2 s, or if it
// answers with HTTP 502, 503 or 504. Only then does the client ask the cluster's other servers for their /cluster-info,
// all at once. It moves to the first that reports the same API server, CA, cluster name and sign-in store as the first
// server did. It does not move if the first server is back by then: it never leaves a server that is slow but answers.
// It aborts the old request first, so that only one sign-in is in flight at a time. Before it uses the new server's
// token, it compares the access with the context and tries the token at the API server.

import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { ClusterDescription, TokenAccess } from '../tka/answers.ts';
import type { AskOptions, TkaClient } from '../tka/client.ts';
import { accessDisagreement, OtherServers, type OtherServersOptions, roundPause } from './siblings.ts';

export interface FailoverOptions extends Omit<OtherServersOptions, 'open'> {
  readonly client: (server: string, onOpen: () => void) => TkaClient;
  /** Asks the API server whether it refuses a token. */
  readonly isRefused: (access: TokenAccess) => Promise<boolean>;
  /** True if the server was away a moment ago. The client then asks the other servers first. */
  readonly wasAway?: boolean;
  /** Called when another server takes over from the first. */
  readonly onMove?: () => void;
}

/** Thrown after a move to another server. The caller must start again with the sign-in. */
export class MovedOn extends Error {
  override readonly name = 'MovedOn';
}

/** How long to wait for the other servers after a failed request, before the caller retries. In milliseconds. */
const grace = 300;

/** How long to retry a failed server while the others have not answered yet, in milliseconds. */
const searchPatience = 2500;

type Exchange<T> = (client: TkaClient, options: AskOptions) => Promise<T>;

/**
 * A TKA client that moves to another server of the same cluster while its own server is away. Throws what TkaClient
 * throws, and MovedOn after a move: the caller must then sign in again. Call close() at the end.
 */
export class FailoverClient {
  /** The server that the client was created for. */
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

  /** The server that the client uses now. */
  get server(): string {
    return this.#current.server;
  }

  get clockOffset(): number {
    return this.#current.clockOffset;
  }

  /** True if the client has moved to another server. */
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

  /** Returns the cluster description of the server, or of the server that takes over. */
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

  /** Makes one request to the current server. Aborts it and moves if another server is confirmed in the meantime. */
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

  /** Waits until another server is confirmed while the current one is away, and returns its client. */
  async #otherWhileAway(vigil: Vigil): Promise<TkaClient> {
    for (;;) {
      await vigil.away();
      await this.#others.search(this.server);
      if (this.#others.found !== undefined && vigil.isAway) return this.#others.found;
      await delay(roundPause, undefined, { signal: vigil.ended });
    }
  }

  /**
   * Waits `grace` after a failure for another server and moves to it. Waits until the deadline if retries are useless.
   */
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

  /** Moves to another server and throws MovedOn. The request to the current server must have ended already. */
  async #moveTo(to: TkaClient): Promise<never> {
    const from = this.#current;
    this.#others.leave(from.server);
    await from.close();
    this.#current = to;
    if (from.server === this.first) this.#options.onMove?.();
    this.#options.log(`${from.server} is away: going on at ${to.server}, of the same cluster`);
    throw new MovedOn(`${to.server} has taken over from ${from.server}`);
  }

  /**
   * Checks the access that another server gives. Moves back to the first server if it differs from the known cluster.
   */
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

  /**
   * Adds the problems of the other servers to the error. Allows more retries while those servers are still being asked.
   */
  #inFull(error: Unavailable): Unavailable {
    const { problems, isSearching } = this.#others;
    if (problems.length === 0 && !isSearching) return error;
    const { message, cause, answered, away, pause } = error;
    const patience = isSearching ? Math.max(error.patience, searchPatience) : error.patience;
    const hints = [...error.hints, ...problems];
    return new Unavailable(message, patience, { hints, cause, answered, away, ...(pause !== undefined && { pause }) });
  }
}

/** Time limits for a connection and then for an answer, in milliseconds. After them, a server counts as away. */
const longestConnect = 300;
const longestAnswer = 2000;

/** Tells for one request whether its server seems to be away. */
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

  /** Resolves when the server seems to be away; at once if it already does. */
  away(): Promise<void> {
    return this.#told.promise;
  }

  /** Notes that a connection is open. The server is not away, and its time limit for the answer starts. */
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
