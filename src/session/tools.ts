import type { Client } from '../network/http.ts';
import { type Network, openNetwork } from '../network/network.ts';
import type { ClusterAccess } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { Refused } from '../tka/errors.ts';
import { withoutSlashes } from '../util/url.ts';
import { FailoverClient } from './failover.ts';
import { type EntryLock, type LockedWalk, LostLock, withLock } from './lock.ts';
import { type ObtainOptions, obtain, type SignInGrant } from './obtain.ts';
import { formerRoleOf, rfc3339, type Session } from './session.ts';
import type { Siblings } from './siblings.ts';
import type { SessionStore } from './store.ts';

export interface SessionOptions {
  readonly store: SessionStore;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  /** The way to servers; a direct one if absent. */
  readonly network?: Network;
  /**
   * Finds the other servers of a server's cluster that may be used, if what it stated of the cluster is known. Asked only
   * while the server is away.
   */
  readonly siblings?: (server: string, apiServer: string | undefined) => Promise<Siblings | undefined>;
  /** One line for the person, on stderr. */
  readonly warn: (line: string) => void;
  readonly log: (line: string) => void;
}

/** What the walks of this room share: the way to the servers, to the cache and to the person. */
export class Tools {
  readonly options: SessionOptions;
  /** Servers that others have taken over from in this process. */
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
   * Returns a client for a server, and while it is away, for the others of its cluster. `apiServer` is the API server that
   * the cluster must have; undefined: the one that the server stated before. close() the client at the end.
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

  /** Runs `act` with such a client. */
  async ask<T>(server: string, apiServer: string | undefined, act: (client: FailoverClient) => Promise<T>): Promise<T> {
    const client = this.client(server, apiServer);
    try {
      return await act(client);
    } finally {
      await client.close();
    }
  }

  /** Signs in to a server; says so if another one of its cluster took its place. Throws as obtain() does. */
  obtain(server: string, apiServer: string | undefined, options: Omit<ObtainOptions, 'log'>): Promise<SignInGrant> {
    return this.ask(server, apiServer, async (client) => {
      const grant = await obtain(client, { ...options, log: this.log });
      if (client.hasMoved) this.say(`${server} is away: signed in through ${client.server}, of the same cluster`);
      return grant;
    });
  }

  tryToken(token: string, access: ClusterAccess): Promise<TokenVerdict> {
    return tryToken(token, access, this.#network, this.log);
  }

  /** Takes a walk through the lock of a server's entry; see lock.ts. */
  withLock<T>(server: string, walk: LockedWalk<T>): Promise<T> {
    return withLock(this.store.entryFile(server), walk, (why) => this.#unwritable(why));
  }

  /** Keeps what a sign-in gave. `before` is the session that it takes the place of. */
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

  /** Writes a session's entry. A token that cannot be kept is good all the same: that is a warning. */
  write(session: Session, lock: EntryLock | undefined): void {
    this.#attempt(() => this.store.write(session, lock));
  }

  /** Removes a server's entry, if that is possible. */
  remove(server: string, lock: EntryLock | undefined): void {
    this.#attempt(() => this.store.remove(server, lock));
  }

  /** Removes the entry of a server that has refused the sign-in: its word counts, but for an error in its set-up. */
  removeIfRefused(server: string, error: unknown, lock: EntryLock | undefined): boolean {
    const refused = error instanceof Refused && !error.isSetUp;
    if (refused) this.remove(server, lock);
    return refused;
  }

  /** Says the first line, and logs the others: one thing that is wrong with the cache is enough. */
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
      // What is in the cache is another process's by now.
      if (error instanceof LostLock) this.log(`nothing is kept: ${error.message}`);
      else this.#unwritable(error instanceof Error ? error.message : String(error));
    }
  }
}

const trialTimeout = 2000;

/** What an API server says of a token; 'unknown' if it does not answer. */
export type TokenVerdict = 'accepted' | 'refused' | 'unknown';

/**
 * Asks an API server whether it still takes a token: 'refused' for a 401, 'accepted' for any other answer, 'unknown'
 * without one within 2 s. Any path would do, since authentication comes first. Never throws.
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
