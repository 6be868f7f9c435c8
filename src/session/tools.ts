import type { Client } from '../network/http.ts';
import { type Network, openNetwork } from '../network/network.ts';
import type { ClusterAccess } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { Refused } from '../tka/errors.ts';
import { placeOf, withoutSlashes } from '../util/url.ts';
import { FailoverClient } from './failover.ts';
import { type EntryLock, type LockedWalk, LostLock, withLock } from './lock.ts';
import { type ObtainOptions, obtain, type SignInGrant } from './obtain.ts';
import { formerRoleOf, rfc3339, type Session } from './session.ts';
import type { Siblings } from './siblings.ts';
import type { SessionStore } from './store.ts';

export interface SessionOptions {
  readonly store: SessionStore;
  /** Time limit for getting a token, including the wait for the lock, in milliseconds. */
  readonly timeout: number;
  /** Network for connections to servers; direct connections if absent. */
  readonly network?: Network;
  /**
   * Finds the trusted other servers of a server's cluster, if what the server reported about the cluster is known.
   * Called only while the server is away.
   */
  readonly siblings?: (server: string, apiServer: string | undefined) => Promise<Siblings | undefined>;
  /** Prints one line for the user on stderr. */
  readonly warn: (line: string) => void;
  readonly log: (line: string) => void;
}

/** Shared by the commands of this folder: access to the servers, the cache and the user. */
export class Tools {
  readonly options: SessionOptions;
  /** Servers that were away in this process, so that another server took over. */
  readonly away: Set<string>;
  readonly store: SessionStore;
  readonly timeout: number;
  readonly say: (line: string) => void;
  readonly log: (line: string) => void;
  readonly #network: Network;
  #warned = false;

  constructor(options: SessionOptions, away: Set<string>) {
    const { store, timeout, network, warn, log } = options;
    this.options = options;
    this.away = away;
    this.store = store;
    this.timeout = timeout;
    this.say = warn;
    this.log = log;
    this.#network = network ?? openNetwork({ env: {}, log });
  }

  /**
   * Returns a client for a server that fails over to the other servers of its cluster. `apiServer` is the API server
   * that the cluster must have; undefined for the one that the server reported before. Call close() on the client at
   * the end.
   */
  client(server: string, apiServer: string | undefined): FailoverClient {
    const { log, away } = this;
    return new FailoverClient(server, {
      client: (url, onOpen) => new TkaClient(url, { network: this.#network, log, onOpen }),
      siblings: async () => this.options.siblings?.(server, apiServer),
      isRefused: async (access) => (await this.tryToken(access.token, access)) === 'refused',
      wasAway: away.has(server),
      onMove: () => away.add(server),
      log,
    });
  }

  /** Runs `act` with such a client and closes it. */
  async ask<T>(server: string, apiServer: string | undefined, act: (client: FailoverClient) => Promise<T>): Promise<T> {
    const client = this.client(server, apiServer);
    try {
      return await act(client);
    } finally {
      await client.close();
    }
  }

  /** Signs in to a server. Tells the user if another server of the cluster took over. Throws what obtain() throws. */
  obtain(server: string, apiServer: string | undefined, options: Omit<ObtainOptions, 'log'>): Promise<SignInGrant> {
    return this.ask(server, apiServer, async (client) => {
      const grant = await obtain(client, { ...options, log: this.log });
      if (client.hasMoved)
        this.say(`${placeOf(server)} is away: signed in through ${client.server}, of the same cluster`);
      return grant;
    });
  }

  tryToken(token: string, access: ClusterAccess): Promise<TokenVerdict> {
    return tryToken(token, access, this.#network, this.log);
  }

  /** Runs the steps under the lock of a server's entry; see lock.ts. */
  withLock<T>(server: string, walk: LockedWalk<T>): Promise<T> {
    return withLock(this.store.entryFile(server), walk, (why) => this.#unwritable(why));
  }

  /** Stores the result of a sign-in and returns its session. `before` is the session that it replaces. */
  keep(server: string, grant: SignInGrant, before: Session | undefined, lock: EntryLock | undefined): Session {
    const { signIn, access, expires, clockOffset } = grant;
    // client-go compares with the caller's clock.
    const ends = expires - clockOffset;
    const freshUntil = ends - Math.max(60_000, (ends - Date.now()) / 10);
    const session: Session = {
      server,
      apiServer: access.apiServer,
      expirationTimestamp: rfc3339(ends),
      token: access.token,
      freshUntil: Math.max(0, Math.floor(freshUntil / 1000)),
      username: signIn.username,
      role: signIn.role,
      formerRole: signIn.roleApplied ? undefined : formerRoleOf(before, signIn),
      until: rfc3339(signIn.until),
      clockOffset,
      caData: access.caData,
      insecureSkipTlsVerify: access.insecureSkipTlsVerify,
    };
    this.write(session, lock);
    this.store.failures.remove(server, lock);
    return session;
  }

  /** Writes a session's entry. Only warns on failure, because the token is still good. */
  write(session: Session, lock: EntryLock | undefined): void {
    this.#attempt(() => this.store.write(session, lock));
  }

  /** Removes a server's entry. Only warns on failure. */
  remove(server: string, lock: EntryLock | undefined): void {
    this.#attempt(() => this.store.remove(server, lock));
  }

  /**
   * Removes the entry and returns true if the server refused the sign-in. A server with a broken setup does not count.
   */
  removeIfRefused(server: string, error: unknown, lock: EntryLock | undefined): boolean {
    const refused = error instanceof Refused && !error.isSetUp;
    if (refused) this.remove(server, lock);
    return refused;
  }

  /** Prints the first warning and logs the others: one warning about the cache is enough. */
  warn(line: string): void {
    if (this.#warned) this.log(line);
    else this.say(line);
    this.#warned = true;
  }

  #unwritable(why: string): void {
    this.warn(`cannot write the token cache, so every call signs in: ${why}`);
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      // Another process has taken over the cache entry.
      if (error instanceof LostLock) this.log(`nothing is kept: ${error.message}`);
      else this.#unwritable(error instanceof Error ? error.message : String(error));
    }
  }
}

/** In milliseconds. */
const trialTimeout = 2000;

/** What an API server says about a token; 'unknown' if it does not answer. */
export type TokenVerdict = 'accepted' | 'refused' | 'unknown';

/**
 * Asks an API server whether it accepts a token. Returns 'refused' for HTTP 401, 'accepted' for any other answer and
 * 'unknown' if there is none within 2 s. Any path works, because authentication comes first. Never throws.
 */
export async function tryToken(
  token: string,
  access: ClusterAccess,
  network: Network,
  log: (line: string) => void,
): Promise<TokenVerdict> {
  const url = new URL(access.apiServer);
  let client: Client | undefined;
  try {
    client = network.client(url.origin, {
      connectTimeout: trialTimeout,
      insecure: access.insecureSkipTlsVerify,
      ...(access.caData !== '' && { ca: Buffer.from(access.caData, 'base64').toString('latin1') }),
    });
    const { statusCode } = await client.request({
      method: 'GET',
      path: `${withoutSlashes(url.pathname)}/version`,
      headers: { authorization: `Bearer ${token}`, accept: 'application/json', 'user-agent': 'kubectl-tka' },
      signal: AbortSignal.timeout(trialTimeout),
    });
    log(`${access.apiServer} answers the token with HTTP ${statusCode}`);
    return statusCode === 401 ? 'refused' : 'accepted';
  } catch (error) {
    log(`${access.apiServer} could not be asked about the token: ${error}`);
    return 'unknown';
  } finally {
    await client?.destroy().catch(() => {});
  }
}
