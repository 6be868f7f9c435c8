// The steps to a token for kubectl if the entry is missing, stale, damaged or possibly refused by the API server:
//
//   lock the entry → look again → sign in → check the token → write the entry → unlock
//
// While the cached token is still good, a refresh that fails or takes too long does no harm: kubectl gets the cached
// one.
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
 * Returns a token for kubectl: the cached one while it is fresh, else a new one, else the old one while it is good. If
 * a process asks twice for one token, the API server may have refused it. Throws TkaError if the user is signed out,
 * the server refuses, the time runs out or the server's token is for another API server.
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

  // Checked every time, because the old token may expire during the wait.
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
    // Another process may just have stored a new token.
    const session = this.lookAtCache();
    if (session !== undefined) return session;
    const old = this.#question.stillGood();
    if (old !== undefined) return this.#serveOld(old, new TkaError('another process is still signing in'));
    const hint = 'try again, or allow more time with TKA_TIMEOUT=60s';
    throw waitedTooLong(this.#server, this.#tools.timeout, hint);
  }

  /** Tries a doubted token at the API server. Returns the cached session if it is accepted; removes it if refused. */
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
    // Only now: other callers with the refused token must wait for this verdict instead of getting the same token
    // again.
    this.#question.noteChecked();
    return isFresh(session, Date.now()) ? session : undefined;
  }

  /** Signs in and stores the token. If that fails, serves the old token while it is good. */
  async #fetch(lock: EntryLock | undefined): Promise<Session> {
    const { store, log } = this.#tools;
    const old = this.#question.stillGood();
    // Read the entry now: the old sign-in may have another role, and its entry may be removed below.
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

  /** Serves the old token and pauses refreshes for a while. Throws the error if there is no old token to serve. */
  #afterFailure(error: unknown, old: Session | undefined, deadline: number, lock: EntryLock | undefined): Session {
    const { store } = this.#tools;
    const refused = this.#tools.removeIfRefused(this.#server, error, lock);
    if (old === undefined || refused || store.signedOut.read(this.#server) !== undefined) {
      noteFailure(store, this.#question.request, error, deadline, lock);
      throw error;
    }
    this.#serveOld(old, error);
    const pause = Math.min(retryPause, timeLeft(old) - lastUse);
    // Round up, so that a short pause does not become zero.
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
