import { isFresh } from '../credential/entry.ts';
import { asksAgain, callerOf, wasChecked, writeChecked, writeServed } from '../credential/served.ts';
import { Unavailable } from '../network/failure.ts';
import { type Network, openNetwork } from '../network/network.ts';
import type { TokenAccess } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { Refused } from '../tka/errors.ts';
import { TkaError } from '../util/errors.ts';
import { FailoverClient, type Siblings } from './failover.ts';
import { type Lock, LostLock, type Work, withLock } from './lock.ts';
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
const sameAnswer = 2000;
/** The same for an answer that is final: for so long after each time, and in all. */
const sameFinalAnswer = 3000;
const longestFinalAnswer = 20_000;
/** The same for being signed out, which is looked up each time: a program that goes on asking is told once a minute. */
const sameSignedOut = 60_000;
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
  /**
   * Finds the other servers of a server's cluster that may be used, if what it stated of the cluster is known. Asked only
   * while the server is away.
   */
  readonly siblings?: (server: string, apiServer: string | undefined) => Promise<Siblings | undefined>;
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

/** A request on its way. */
interface Question extends CredentialRequest {
  /** As performance.now() counts. */
  readonly start: number;
  readonly deadline: number;
  /** Milliseconds of the epoch. */
  readonly startedAt: number;
  /** The cached token, where this caller got it a moment ago and asks again. */
  readonly doubted: string | undefined;
  /** The same, once the API server has refused it. */
  refused: string | undefined;
}

/** Obtains, keeps, refreshes and revokes tokens, one process per server at a time. */
export class Sessions {
  readonly store: SessionStore;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  readonly #network: Network;
  readonly #options: SessionOptions;
  readonly #siblings: NonNullable<SessionOptions['siblings']>;
  /** Servers that others have taken over from in this process. */
  readonly #away: Set<string>;
  /** Of the cache: one thing that is wrong with it a call, however many of its files cannot be written. */
  readonly #warn: (line: string) => void;
  readonly #say: (line: string) => void;
  readonly #log: (line: string) => void;

  constructor(options: SessionOptions, away = new Set<string>()) {
    this.#options = options;
    this.store = options.store;
    this.timeout = options.timeout;
    this.#network = options.network ?? openNetwork({ env: {}, log: options.log });
    this.#siblings = options.siblings ?? (async () => undefined);
    this.#away = away;
    this.#log = options.log;
    this.#say = options.warn;
    let warned = false;
    this.#warn = (line) => {
      if (warned) options.log(line);
      else options.warn(line);
      warned = true;
    };
  }

  /** The same sessions, with another way to tell the person something. */
  saying(warn: (line: string) => void): Sessions {
    return new Sessions({ ...this.#options, warn }, this.#away);
  }

  /**
   * A client for a server and, while it is away, for the other servers of its cluster; see failover.ts. `apiServer` is the
   * API server that the cluster must have; undefined: whichever the server stated before. close() it at the end.
   */
  client(server: string, apiServer: string | undefined): FailoverClient {
    return new FailoverClient(server, {
      client: (url, onOpen) => new TkaClient(url, { network: this.#network, log: this.#log, onOpen }),
      siblings: () => this.#siblings(server, apiServer),
      tryToken: (access) => tryToken(access.token, access, this.#network, this.#log),
      wasAway: this.#away.has(server),
      onMove: () => this.#away.add(server),
      log: this.#log,
    });
  }

  /** Runs `act` with such a client. */
  async #withClient<T>(
    server: string,
    apiServer: string | undefined,
    act: (client: FailoverClient) => Promise<T>,
  ): Promise<T> {
    const client = this.client(server, apiServer);
    try {
      return await act(client);
    } finally {
      await client.close();
    }
  }

  /**
   * A token for kubectl: the cached one while it is fresh, else a new one, else the old one while it is good.
   * `parent` is the process that asks: asking twice for one token, it says that the API server refused it.
   * Throws TkaError when signed out, refused, out of time, or when the server's token is for another API server.
   */
  async credential(request: CredentialRequest): Promise<Session> {
    const { store } = this;
    const question = this.#ask(request);
    const cached = this.#cached(question);
    if (cached === undefined) this.#sayAgain(question);
    const session = cached ?? (await this.#underLock(question));
    const { folder } = store;
    // What was not kept was not served from the cache.
    if (folder !== undefined && store.read(request.server)?.token === session.token)
      writeServed(folder, request.server, request.parent);
    return session;
  }

  /** Looks at the cache, and whether the caller doubts what is there. Throws TkaError when signed out. */
  #ask(request: CredentialRequest): Question {
    const { store } = this;
    const { server, parent } = request;
    const startedAt = Date.now();
    const start = performance.now();
    if (store.signedOut(server) !== undefined) throw this.#toldSignedOut(request);
    const { folder } = store;
    const doubted =
      folder !== undefined && asksAgain(folder, server, parent, startedAt) && !wasChecked(folder, server, startedAt);
    return {
      ...request,
      start,
      startedAt,
      deadline: start + this.timeout,
      doubted: doubted ? store.read(server)?.token : undefined,
      refused: undefined,
    };
  }

  /** The error for a caller while it is signed out: client-go asks up to seven times in a row, and the person is told once. */
  #toldSignedOut({ server, apiServer, parent, byClientGo }: CredentialRequest): TkaError {
    const { message, hints } = signedOutOf(server);
    const caller = callerOf(parent);
    const told = this.store.readFailure(server);
    const now = Date.now();
    const isSame = byClientGo === true && told?.caller === caller && told.message === message;
    if (isSame && now - told.at < sameSignedOut) return again(told, isTellable(caller));
    const note = { at: now, message, hints, apiServer, caller, outOfTime: false, final: true };
    if (byClientGo === true) this.store.writeFailure(server, note, undefined);
    return new TkaError(message, { hints });
  }

  /** The session in the cache that is for this API server, and whose token it has not refused; fresh or not. */
  #kept({ server, apiServer, refused }: Question): Session | undefined {
    const session = this.store.read(server);
    if (session === undefined || session.token === refused) return undefined;
    return apiServer === undefined || session.apiServer === apiServer ? session : undefined;
  }

  /** The same, where it may be served without asking anybody. */
  #cached(question: Question): Session | undefined {
    const session = this.#kept(question);
    if (session === undefined || !isFresh(session, Date.now())) return undefined;
    const { folder } = this.store;
    const doubted = session.token === question.doubted;
    if (doubted && !(folder !== undefined && wasChecked(folder, question.server, Date.now()))) return undefined;
    this.#log('the cached token is fresh');
    return session;
  }

  /** The same, where it is good for a while longer. */
  #stillGood(question: Question): Session | undefined {
    const session = this.#kept(question);
    return session !== undefined && timeLeft(session) > lastUse ? session : undefined;
  }

  /** Throws what this very caller was told a moment ago: client-go asks up to seven times in a row. */
  #sayAgain(question: Question): void {
    const { server, apiServer, parent, byClientGo, startedAt } = question;
    if (byClientGo !== true || question.doubted !== undefined) return;
    const told = this.store.readFailure(server);
    const caller = callerOf(parent);
    if (told === undefined || told.caller !== caller || told.apiServer !== apiServer) return;
    const recent = told.final
      ? startedAt - told.toldAt < sameFinalAnswer && startedAt - told.at < longestFinalAnswer
      : startedAt - told.at < sameAnswer;
    if (!recent || this.#stillGood(question) !== undefined) return;
    this.#log('this caller was told so a moment ago');
    this.store.touchFailure(server);
    throw again(told, told.final && isTellable(caller));
  }

  #underLock(question: Question): Promise<Session> {
    const { server, start, deadline } = question;
    return this.#withLock(server, {
      // The old token may cross its last use while we wait.
      deadline: () => (this.#stillGood(question) === undefined ? deadline : start + refreshBudget),
      look: (waited) => this.#lookAgain(question, waited),
      act: async (lock) => (await this.#doubtedButGood(question, lock)) ?? (await this.#fetch(question, lock)),
      late: () => {
        // With a new token that came at this moment, the deadline of those that have one counts.
        const cached = this.#cached(question);
        if (cached !== undefined) return cached;
        const old = this.#stillGood(question);
        if (old !== undefined) return this.#serveOld(old, new TkaError('another process is still at it'));
        throw this.#late(server, ['try again, or give it longer with TKA_TIMEOUT=60s']);
      },
    });
  }

  /** What another process may have put into the cache meanwhile. Throws what it was told, if it asked for us too. */
  #lookAgain(question: Question, waited: boolean): Session | undefined {
    const { server, apiServer, startedAt } = question;
    this.#refuseSignedOut(server);
    const session = this.#cached(question);
    if (session !== undefined || !waited) return session;
    const failure = this.store.readFailure(server);
    const forUs = failure?.apiServer === apiServer && !failure?.outOfTime;
    if (failure !== undefined && forUs && failure.at >= startedAt) throw again(failure);
    return undefined;
  }

  /** The cached token, where the caller doubts it and the API server does not refuse it; a refused one is removed. */
  async #doubtedButGood(question: Question, lock: Lock | undefined): Promise<Session | undefined> {
    const { store } = this;
    const { server } = question;
    const session = this.#kept(question);
    if (store.folder === undefined || session === undefined || session.token !== question.doubted) return undefined;
    // A new one is due anyway. (The shell front notes a caller before it knows that.)
    if (!isFresh(session, Date.now())) return undefined;
    this.#log('asked for the same token again: asking the API server about it');
    const verdict = await tryToken(session.token, session, this.#network, this.#log);
    if (verdict !== 'refused') {
      // Not before: others that were refused the token must wait for the verdict, and not be served it again.
      writeChecked(store.folder, server);
      return isFresh(session, Date.now()) ? session : undefined;
    }
    this.#log('the API server refuses the cached token: signing in again');
    question.refused = session.token;
    this.#tryStore(() => store.remove(server, lock));
    return undefined;
  }

  /** Signs in and keeps the token; serves the old one, while it is good, where that fails. */
  async #fetch(question: Question, lock: Lock | undefined): Promise<Session> {
    const { server, apiServer, start, deadline } = question;
    const old = this.#stillGood(question);
    // Before its entry goes: the sign-in that is extended may have had another role.
    const before = this.store.read(server);
    const refreshBy = Math.min(deadline, Math.max(start + refreshBudget, performance.now() + 1000));
    const budget = old === undefined ? deadline : refreshBy;
    this.#log(old === undefined ? 'there is no token that is good: signing in' : 'the token ends soon: signing in');
    try {
      const grant = await this.#obtain(server, apiServer, {
        deadline: budget,
        ...(old !== undefined && { patience: 500 }),
        mayLogin: () => this.#refuseSignedOut(server),
        accept: (access) => this.#checkAccess(server, access, apiServer, false),
      });
      this.#refuseSignedOut(server);
      const session = this.#keep(server, grant, before, lock);
      if (session.formerRole !== undefined) this.#say(`${roleNotice(session)}: ${roleRemedy(server)}`);
      return session;
    } catch (error) {
      this.#dropRefused(server, error, lock);
      // The server's word counts, but for an error in its set-up; a logout meanwhile counts before all.
      const refused = error instanceof Refused && !error.isSetUp;
      if (old !== undefined && !refused && this.store.signedOut(server) === undefined)
        return this.#serveForNow(old, error, lock);
      this.#noteFailure(question, error, budget, lock);
      throw error;
    }
  }

  #dropRefused(server: string, error: unknown, lock: Lock | undefined): void {
    if (error instanceof Refused && !error.isSetUp) this.#tryStore(() => this.store.remove(server, lock));
  }

  /** Serves the old token, and lets the server rest for a while. */
  #serveForNow(old: Session, why: unknown, lock: Lock | undefined): Session {
    this.#serveOld(old, why);
    const pause = Math.min(retryPause, timeLeft(old) - lastUse);
    // Rounded up, so that even the shortest pause is one.
    const freshUntil = Math.ceil((Date.now() + pause) / 1000);
    this.#tryStore(() => this.store.write({ ...old, freshUntil }, lock));
    return old;
  }

  #noteFailure(question: Question, error: unknown, budget: number, lock: Lock | undefined): void {
    const { server, apiServer, parent } = question;
    if (!(error instanceof TkaError) || this.store.signedOut(server) !== undefined) return;
    const { message, hints } = error;
    const final = !(error instanceof Unavailable);
    const outOfTime = !final && budget - performance.now() < lastMoment;
    const caller = callerOf(parent);
    this.store.writeFailure(server, { at: Date.now(), message, hints, apiServer, caller, outOfTime, final }, lock);
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
    return this.#withLock(server, {
      deadline: () => deadline,
      act: async (lock) => {
        const mark = store.signedOut(server);
        const before = mark === undefined ? store.read(server) : undefined;
        const previous = before ?? mark;
        // Whoever signs out while we sign in means us too.
        const mayLogin = () => {
          if (store.signedOut(server)?.at !== mark?.at)
            throw new TkaError(`signed out of ${server} meanwhile`, { hints: [`kubectl tka login ${server}`] });
        };
        try {
          const settled = mark === undefined ? 0 : settledAt(mark);
          const accept = (access: TokenAccess) =>
            this.#checkAccess(server, access, options.apiServer, options.insecure);
          const grant = await this.#obtain(server, options.apiServer, { deadline, accept, settled, mayLogin });
          mayLogin();
          if (lock?.held() !== false) store.unmarkSignedOut(server);
          return { session: this.#keep(server, grant, before, lock), previous: known(previous) };
        } catch (error) {
          this.#dropRefused(server, error, lock);
          throw error;
        }
      },
      late: () => {
        throw this.#late(server, [`try again: kubectl tka login ${server}`]);
      },
    });
  }

  /**
   * Signs out: marks the server as signed out on this machine, drops the token, and revokes on the server, or while that
   * is away on another server of its cluster. False where the server knew of no sign-in. Throws TkaError where the server
   * could not be told; the rest is done even then.
   */
  async signOut(server: string): Promise<boolean> {
    const apiServer = this.store.read(server)?.apiServer;
    return this.#end(server, false, () => this.#revoke(server, apiServer));
  }

  /**
   * Signs out on this machine only, where another server of the same cluster is told. `forgotten`: there is nothing to
   * show of it. Throws TkaError where that cannot be kept.
   */
  async signOutHere(server: string, forgotten: boolean): Promise<void> {
    await this.#end(server, forgotten, async () => ({ known: true, complete: false }));
  }

  async #end(server: string, forgotten: boolean, tell: () => Promise<Revoked>): Promise<boolean> {
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
    const mark = (complete: boolean) =>
      attempt(() => store.markSignedOut({ server, username, role, until, complete, forgotten }));
    // The mark comes first: a sign-in that is under way sees it before it keeps its token.
    mark(false);
    const act = async () => {
      // Also where another process has taken the lock over: being signed out counts before all.
      attempt(() => store.remove(server));
      const { known, complete } = await tell().catch((error) => {
        problems.push(error);
        return { known: false, complete: false };
      });
      // Again, for its time: what the server cleans up late, it does from now on.
      mark(complete);
      if (problems.length > 0) throw problems[0];
      return known;
    };
    const deadline = performance.now() + Math.min(this.timeout, refreshBudget);
    return this.#withLock(server, { deadline: () => deadline, act, late: act, quiet: true });
  }

  #revoke(server: string, apiServer: string | undefined): Promise<Revoked> {
    const deadline = performance.now() + Math.min(this.timeout, 10_000);
    return this.#withClient(server, apiServer, (client) => revoke(client, deadline));
  }

  #refuseSignedOut(server: string): void {
    if (this.store.signedOut(server) !== undefined) throw signedOutOf(server);
  }

  #checkAccess(server: string, access: TokenAccess, apiServer: string | undefined, insecure: boolean): void {
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

  #obtain(
    server: string,
    apiServer: string | undefined,
    options: Omit<Parameters<typeof obtain>[1], 'log'>,
  ): Promise<Grant> {
    return this.#withClient(server, apiServer, async (client) => {
      const grant = await obtain(client, { ...options, log: this.#log });
      if (client.hasMoved) this.#say(`${server} is away: signed in through ${client.server}, of the same cluster`);
      return grant;
    });
  }

  #late(server: string, hints: readonly string[]): TkaError {
    const seconds = Math.round(this.timeout / 1000);
    return new TkaError(`timed out after ${seconds} s waiting for another process to sign in to ${server}`, { hints });
  }

  #keep(server: string, grant: Grant, before: Session | undefined, lock: Lock | undefined): Session {
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
    this.#tryStore(() => this.store.write(session, lock));
    this.store.writeFailure(server, undefined, lock);
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
      // The token is good all the same; what is in the cache is another process's by now.
      if (error instanceof LostLock) this.#log(`nothing is kept: ${error.message}`);
      else this.#unwritable(error instanceof Error ? error.message : String(error));
    }
  }

  #unwritable(why: string): void {
    this.#warn(`the token cache cannot be written, so every call signs in: ${why}`);
  }

  #withLock<T>(server: string, work: Work<T>): Promise<T> {
    return withLock(this.store.entryFile(server), work, (why) => {
      if (!work.quiet) this.#unwritable(why);
    });
  }
}

/** When a server's clean-up after a logout is over (milliseconds of the epoch): of a mark from the future, soon enough. */
function settledAt({ at, complete }: SignedOut): number {
  return complete ? 0 : Math.min(at, Date.now()) + logoutAftermath;
}

function signedOutOf(server: string): TkaError {
  return new TkaError(`signed out of ${server}`, { hints: [`kubectl tka login ${server}`] });
}

// Processes of several containers can have one ID: one without a start time may not have been told before.
function isTellable(caller: string): boolean {
  return process.platform !== 'linux' || caller.includes(':');
}

function again(failure: Failure, heard = false): TkaError {
  return new TkaError(failure.message, { hints: failure.hints, heard });
}

/** A time (milliseconds of the epoch) in whole seconds, cut, UTC. */
function rfc3339(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

/**
 * The role of the sign-in that a new one extends, if it was another. The Go server cannot change it, and deletes it only
 * at a logout or at its end.
 */
function formerRoleOf(before: Session | undefined, { username, role }: Grant['signIn']): string | undefined {
  if (before === undefined || before.username !== username) return undefined;
  const ended = Date.parse(before.until) - before.clockOffset <= Date.now();
  const first = before.formerRole ?? before.role;
  return ended || first === role ? undefined : first;
}

/** Says that a role has changed and may not be in force. */
export function roleNotice({ role, formerRole }: Session): string {
  return `your role is ${role} now; before, it was ${formerRole}. some servers apply a changed role only after a logout`;
}

/** What to type then. */
export function roleRemedy(server: string): string {
  return `kubectl tka logout ${server} && kubectl tka login ${server}`;
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
