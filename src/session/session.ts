import { isFresh } from '../credential/entry.ts';
import { asksAgain, wasChecked, writeChecked, writeServed } from '../credential/served.ts';
import { TkaError } from '../errors.ts';
import { type Network, openNetwork } from '../network/network.ts';
import type { Access } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { Refused, Unavailable } from '../tka/errors.ts';
import { exclusively, type Work } from './lock.ts';
import { type Grant, obtain } from './obtain.ts';
import { type Revoked, revoke } from './revoke.ts';
import { type Failure, type Session, type SessionStore, type SignedOut, timeLeft } from './store.ts';
import { tryToken } from './verify.ts';

/** How long a refresh may take while the old token is still good. */
const refreshBudget = 5000;
/** A token that is good for no longer is handed out no more. */
const lastUse = 30_000;
/** After a refresh that failed, the next one waits so long. */
const retryPause = 30_000;
/** client-go asks up to seven times in a row: a process that was told no is told so again at once, for so long. */
const sameAnswer = 500;
/** Who fails with less time left than that has run out of it, which says nothing to others who have more. */
const lastMoment = 500;
/** The Go server deletes a sign-in that is made within about a second of a logout. */
const logoutAftermath = 1500;

export interface SessionOptions {
  readonly store: SessionStore;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  /** The way to servers; a direct one if absent. */
  readonly network?: Network;
  /** One line for the person, on stderr. */
  readonly warn: (line: string) => void;
  readonly log: (line: string) => void;
}

/** What kubectl asks for. */
export interface CredentialRequest {
  readonly server: string;
  /** The API server that the token must be for; undefined: whichever it is for. */
  readonly apiServer: string | undefined;
  /** The process that asks. */
  readonly parent: number;
  /** It is client-go, which may ask again at once after a failure. */
  readonly byClientGo?: boolean;
}

/** Obtains, keeps, refreshes and revokes tokens, one process per server at a time. */
export class Sessions {
  readonly store: SessionStore;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  readonly #network: Network;
  readonly #warn: (line: string) => void;
  readonly #log: (line: string) => void;

  constructor(options: SessionOptions) {
    this.store = options.store;
    this.timeout = options.timeout;
    this.#network = options.network ?? openNetwork({ env: {}, log: options.log });
    this.#log = options.log;
    let warned = false;
    // A call says one thing that is wrong with the cache, however many of its files it fails to write.
    this.#warn = (line) => {
      if (warned) options.log(line);
      else options.warn(line);
      warned = true;
    };
  }

  /**
   * A token for kubectl: the cached one while it is fresh, else a new one, else the old one while it is good.
   * `parent` is the process that asks: asking twice for one token, it says that the API server refused it.
   * Throws TkaError when signed out, refused, out of time, or when the server's token is for another API server.
   */
  async credential(request: CredentialRequest): Promise<Session> {
    const session = await this.#freshSession(request);
    if (this.store.folder !== undefined) writeServed(this.store.folder, request.server, request.parent);
    return session;
  }

  async #freshSession(request: CredentialRequest): Promise<Session> {
    const { server, apiServer, parent } = request;
    const { store } = this;
    const start = performance.now();
    const startedAt = Date.now();
    const deadline = start + this.timeout;
    const usable = (session: Session | undefined): session is Session =>
      session !== undefined &&
      (apiServer === undefined || session.apiServer === apiServer) &&
      session.token !== refused;

    let refused: string | undefined;
    const first = store.read(server);
    this.#refuseSignedOut(server);
    if (usable(first) && isFresh(first, Date.now())) {
      const { folder } = store;
      const doubted =
        folder !== undefined && asksAgain(folder, server, parent, startedAt) && !wasChecked(folder, server, startedAt);
      if (!doubted) return first;
      writeChecked(folder, server);
      if ((await tryToken(first.token, first, this.#network, this.#log)) !== 'refused') return first;
      this.#log('the API server refuses the cached token: signing in again');
      refused = first.token;
    }

    const look = (waited: boolean): Session | undefined => {
      this.#refuseSignedOut(server);
      const session = store.read(server);
      if (usable(session) && isFresh(session, Date.now())) return session;
      const failure = store.readFailure(server);
      // Whoever held the lock while we waited has asked for all of us.
      const forUs = failure?.apiServer === apiServer && !failure?.outOfTime;
      if (waited && failure !== undefined && forUs && failure.at >= startedAt) throw again(failure);
      return undefined;
    };
    const stillGood = () => {
      const session = store.read(server);
      return usable(session) && timeLeft(session) > lastUse ? session : undefined;
    };
    const told = store.readFailure(server);
    const repeated = request.byClientGo === true && told?.parent === parent && startedAt - told.at < sameAnswer;
    if (repeated && told.apiServer === apiServer && stillGood() === undefined) throw again(told);
    return this.#exclusively(server, {
      // The old token may cross its last use while we wait.
      deadline: () => (stillGood() === undefined ? deadline : start + refreshBudget),
      look,
      act: async () => {
        const old = stillGood();
        if (refused !== undefined && store.read(server)?.token === refused) this.#tryStore(() => store.remove(server));
        const budget =
          old === undefined ? deadline : Math.min(deadline, Math.max(start + refreshBudget, performance.now() + 1000));
        try {
          const grant = await this.#obtain(server, {
            deadline: budget,
            ...(old !== undefined && { patience: 500 }),
            mayLogin: () => this.#refuseSignedOut(server),
            accept: (access) => this.#checkAccess(server, access, apiServer, false),
          });
          this.#refuseSignedOut(server);
          return this.#keep(server, grant);
        } catch (error) {
          if (error instanceof Refused && !error.isSetUp) this.#tryStore(() => store.remove(server));
          else if (old !== undefined && store.signedOut(server) === undefined) {
            this.#serveOld(old, error);
            const pause = Math.min(retryPause, timeLeft(old) - lastUse);
            // Rounded up, so that even the shortest pause is one.
            this.#tryStore(() => store.write({ ...old, freshUntil: Math.ceil((Date.now() + pause) / 1000) }));
            return old;
          }
          if (error instanceof TkaError && store.signedOut(server) === undefined) {
            const { message, hints } = error;
            const outOfTime = error instanceof Unavailable && budget - performance.now() < lastMoment;
            store.writeFailure(server, { at: Date.now(), message, hints, apiServer, parent, outOfTime });
          }
          throw error;
        }
      },
      late: () => {
        const old = stillGood();
        if (old !== undefined) return this.#serveOld(old, new TkaError('another process is still at it'));
        throw new TkaError(
          `timed out after ${Math.round(this.timeout / 1000)} s waiting for another process to sign in to ${server}`,
          {
            hints: ['try again, or give it longer with TKA_TIMEOUT=60s'],
          },
        );
      },
    });
  }

  /**
   * Signs in anew, whatever the cache holds, and keeps the token. `previous` is the session that it takes the place of.
   * Throws as obtain() does, and TkaError for an insecure API server without consent.
   */
  async signIn(
    server: string,
    options: { insecure: boolean; apiServer?: string | undefined },
  ): Promise<{ session: Session; previous: Previous | undefined }> {
    const { store } = this;
    const deadline = performance.now() + this.timeout;
    return this.#exclusively(server, {
      deadline: () => deadline,
      act: async () => {
        const mark = store.signedOut(server);
        const previous = store.read(server) ?? mark;
        // Whoever signs out while we sign in means us too.
        const mayLogin = () => {
          if (store.signedOut(server)?.at !== mark?.at)
            throw new TkaError(`signed out of ${server} meanwhile`, { hints: [`kubectl tka login ${server}`] });
        };
        try {
          const settled = mark === undefined ? 0 : settledAt(mark);
          const accept = (access: Access) => this.#checkAccess(server, access, options.apiServer, options.insecure);
          const grant = await this.#obtain(server, { deadline, accept, settled, mayLogin });
          mayLogin();
          store.unmarkSignedOut(server);
          return { session: this.#keep(server, grant), previous: known(previous) };
        } catch (error) {
          if (error instanceof Refused && !error.isSetUp) this.#tryStore(() => store.remove(server));
          throw error;
        }
      },
      late: () => {
        throw new TkaError(
          `timed out after ${Math.round(this.timeout / 1000)} s waiting for another process to sign in to ${server}`,
        );
      },
    });
  }

  /**
   * Signs out: marks the server as signed out on this machine, drops the token, and revokes on the server. False where
   * the server knew of no sign-in. Throws TkaError where the server could not be told; the rest is done even then.
   */
  async signOut(server: string): Promise<boolean> {
    const { store } = this;
    const before = store.read(server) ?? store.signedOut(server);
    const { username = null, role = null, until = null } = before ?? {};
    const problems: unknown[] = [];
    const attempt = (act: () => void) => {
      try {
        act();
      } catch (error) {
        problems.push(error);
      }
    };
    const mark = (complete: boolean) => attempt(() => store.markSignedOut({ server, username, role, until, complete }));
    // The mark comes first: a sign-in that is under way sees it before it keeps its token.
    mark(false);
    const act = async () => {
      attempt(() => store.remove(server));
      const { known, complete } = await this.#revoke(server).catch((error) => {
        problems.push(error);
        return { known: false, complete: false };
      });
      // Again, for its time: what the server cleans up late, it does from now on.
      mark(complete);
      if (problems.length > 0) throw problems[0];
      return known;
    };
    const deadline = performance.now() + Math.min(this.timeout, refreshBudget);
    return this.#exclusively(server, { deadline: () => deadline, act, late: act, quiet: true });
  }

  async #revoke(server: string): Promise<Revoked> {
    const client = new TkaClient(server, { network: this.#network, log: this.#log });
    try {
      return await revoke(client, performance.now() + Math.min(this.timeout, 10_000));
    } finally {
      await client.close();
    }
  }

  #refuseSignedOut(server: string): void {
    if (this.store.signedOut(server) === undefined) return;
    throw new TkaError(`signed out of ${server}`, { hints: [`kubectl tka login ${server}`] });
  }

  #checkAccess(server: string, access: Access, apiServer: string | undefined, insecure: boolean): void {
    if (apiServer !== undefined && access.apiServer !== apiServer) {
      throw new TkaError(`${server} gives tokens for ${access.apiServer}, not for ${apiServer}`, {
        hints: [`if the cluster has moved, renew the context: kubectl tka login ${server}`],
      });
    }
    if (!access.insecureSkipTlsVerify || this.store.insecureConsent(server) === access.apiServer) return;
    if (!insecure) {
      throw new TkaError(`${server} asks to reach ${access.apiServer} without a look at its certificate`, {
        hints: [`if you accept that, type: kubectl tka login ${server} --insecure-skip-tls-verify`],
      });
    }
    this.store.giveInsecureConsent(server, access.apiServer);
  }

  async #obtain(server: string, options: Omit<Parameters<typeof obtain>[1], 'log'>): Promise<Grant> {
    const client = new TkaClient(server, { network: this.#network, log: this.#log });
    try {
      return await obtain(client, { ...options, log: this.#log });
    } finally {
      await client.close();
    }
  }

  #keep(server: string, grant: Grant): Session {
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
      until: rfc3339(signIn.until),
      clockOffset,
      caData: access.caData,
      insecureSkipTlsVerify: access.insecureSkipTlsVerify,
    };
    this.#tryStore(() => this.store.write(session));
    this.store.writeFailure(server, undefined);
    return session;
  }

  #serveOld(old: Session, why: unknown): Session {
    this.#warn(
      `${why instanceof Error ? why.message : why}: serving the cached token, which is good until ${old.expirationTimestamp}`,
    );
    return old;
  }

  #tryStore(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#warn(
        `the token cache cannot be written, so every call signs in: ${error instanceof Error ? error.message : error}`,
      );
    }
  }

  #exclusively<T>(server: string, work: Work<T>): Promise<T> {
    return exclusively(this.store.entryFile(server), work, (why) => {
      if (!work.quiet) this.#warn(`the token cache cannot be written, so every call signs in: ${why}`);
    });
  }
}

/** When a server's clean-up after a logout is over (milliseconds of the epoch): of a mark from the future, soon enough. */
function settledAt({ at, complete }: SignedOut): number {
  return complete ? 0 : Math.min(at, Date.now()) + logoutAftermath;
}

function again(failure: Failure): TkaError {
  return new TkaError(failure.message, { hints: failure.hints });
}

/** A time (milliseconds of the epoch) in whole seconds, cut, UTC. */
function rfc3339(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

/** Who one was before a sign-in. */
export interface Previous {
  readonly username: string;
  readonly role: string;
}

function known(previous: { username: string | null; role: string | null } | undefined): Previous | undefined {
  if (previous === undefined || previous.username === null || previous.role === null) return undefined;
  return { username: previous.username, role: previous.role };
}
