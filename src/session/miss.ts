// The walk to a token for kubectl where the entry is missing, stale, damaged or in doubt:
//
//   lock the entry → look again → sign in → check the token → write the entry → unlock
//
// While the token in the cache is still good, a refresh that fails or takes too long costs nothing: that one is served.
import { isFresh } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import type { EntryLock } from './lock.ts';
import { type LockedWalk, waitedTooLong } from './lock.ts';
import {
  type CredentialRequest,
  lastUse,
  noteFailure,
  Question,
  tellIfSignedOut,
  throwIfSignedOut,
  throwIfToldBefore,
  throwIfToldMeanwhile,
} from './question.ts';
import { roleNotice, roleRemedy, type Session, timeLeft } from './session.ts';
import type { Tools } from './tools.ts';

/** How long a refresh may take while the old token is still good, in milliseconds. */
const refreshBudget = 5000;
/** The pause after a refresh that failed, in milliseconds. */
const retryPause = 30_000;

/**
 * Returns a token for kubectl: the cached one while it is fresh, else a new one, else the old one while it is good. A
 * process that asks twice for one token says by this that the API server refused it. Throws TkaError when signed out,
 * refused, out of time, or when the server's token is for another API server.
 */
export async function credential(tools: Tools, request: CredentialRequest): Promise<Session> {
  const { store, log } = tools;
  tellIfSignedOut(store, request);
  const question = new Question(request, store);
  const walk = new Miss(tools, question);
  let session = walk.lookAtCache();
  if (session === undefined) {
    throwIfToldBefore(store, question, log);
    session = await tools.withLock(request.server, walk);
  }
  question.noteServed(session);
  return session;
}

class Miss implements LockedWalk<Session> {
  readonly #tools: Tools;
  readonly #question: Question;
  readonly #server: string;
  readonly #apiServer: string | undefined;
  readonly #deadline: number;

  constructor(tools: Tools, question: Question) {
    this.#tools = tools;
    this.#question = question;
    this.#server = question.request.server;
    this.#apiServer = question.request.apiServer;
    this.#deadline = question.start + tools.timeout;
  }

  lookAtCache(): Session | undefined {
    const session = this.#question.cached();
    if (session !== undefined) this.#tools.log('the cached token is fresh');
    return session;
  }

  // Asked again and again: the old token may cross its last use while we wait.
  deadline(): number {
    return this.#question.stillGood() === undefined ? this.#deadline : this.#question.start + refreshBudget;
  }

  look(waited: boolean): Session | undefined {
    const { store } = this.#tools;
    throwIfSignedOut(store, this.#server);
    const session = this.lookAtCache();
    if (session === undefined && waited) throwIfToldMeanwhile(store, this.#question);
    return session;
  }

  async act(lock: EntryLock | undefined): Promise<Session> {
    return (await this.#confirmDoubted(lock)) ?? (await this.#fetch(lock));
  }

  late(): Session {
    // A new token may have come at this moment, and the deadline was that of callers with an old one.
    const session = this.lookAtCache();
    if (session !== undefined) return session;
    const old = this.#question.stillGood();
    if (old !== undefined) return this.#serveOld(old, new TkaError('another process is still signing in'));
    const hint = 'try again, or allow more time with TKA_TIMEOUT=60s';
    throw waitedTooLong(this.#server, this.#tools.timeout, hint);
  }

  /** Returns the cached session, if its token is in doubt and the API server takes it; removes a refused one. */
  async #confirmDoubted(lock: EntryLock | undefined): Promise<Session | undefined> {
    const { log } = this.#tools;
    const session = this.#question.inDoubt();
    if (session === undefined) return undefined;
    log('asked for the same token again: asking the API server about it');
    const verdict = await this.#tools.tryToken(session.token, session);
    if (verdict === 'refused') {
      log('the API server refuses the cached token: signing in again');
      this.#question.noteRefused(session);
      this.#tools.remove(this.#server, lock);
      return undefined;
    }
    // Not before: others that were refused the token must wait for the verdict, and not be served it again.
    this.#question.noteChecked();
    return isFresh(session, Date.now()) ? session : undefined;
  }

  /** Signs in and keeps the token; serves the old one, while it is good, if that fails. */
  async #fetch(lock: EntryLock | undefined): Promise<Session> {
    const { store, log } = this.#tools;
    const old = this.#question.stillGood();
    // Read now: the sign-in that is extended may have another role, and its entry may be removed.
    const before = store.read(this.#server);
    const refreshDeadline = Math.max(this.#question.start + refreshBudget, performance.now() + 1000);
    const deadline = old === undefined ? this.#deadline : Math.min(this.#deadline, refreshDeadline);
    log(old === undefined ? 'there is no token that is good: signing in' : 'the token ends soon: signing in');
    try {
      const grant = await this.#tools.obtain(this.#server, this.#apiServer, {
        deadline,
        ...(old !== undefined && { patience: 500 }),
        mayLogin: () => throwIfSignedOut(store, this.#server),
        accept: (access) => store.consents.check(this.#server, access, this.#apiServer, false),
      });
      throwIfSignedOut(store, this.#server);
      const session = this.#tools.keep(this.#server, grant, before, lock);
      if (session.formerRole !== undefined) this.#tools.say(`${roleNotice(session)}: ${roleRemedy(this.#server)}`);
      return session;
    } catch (error) {
      return this.#afterFailure(error, old, deadline, lock);
    }
  }

  /** Serves the old token and lets the server rest for a while; throws the error if there is none to serve. */
  #afterFailure(error: unknown, old: Session | undefined, deadline: number, lock: EntryLock | undefined): Session {
    const { store } = this.#tools;
    const refused = this.#tools.removeIfRefused(this.#server, error, lock);
    if (old === undefined || refused || store.signedOut.read(this.#server) !== undefined) {
      noteFailure(store, this.#question.request, error, deadline, lock);
      throw error;
    }
    this.#serveOld(old, error);
    const pause = Math.min(retryPause, timeLeft(old) - lastUse);
    // Rounded up, so that even the shortest pause is one.
    this.#tools.write({ ...old, freshUntil: Math.ceil((Date.now() + pause) / 1000) }, lock);
    return old;
  }

  #serveOld(old: Session, why: unknown): Session {
    this.#tools.warn(
      `${why instanceof Error ? why.message : why}: using the cached token, valid until ${old.expirationTimestamp}`,
    );
    return old;
  }
}
