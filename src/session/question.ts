import { isFresh } from '../credential/entry.ts';
import { asksAgain, wasChecked, writeChecked, writeServed } from '../credential/served.ts';
import { type Session, timeLeft } from './session.ts';
import type { SessionStore } from './store.ts';

/** Minimum remaining lifetime of a token that is handed out, in milliseconds. */
export const lastUse = 30_000;

/** What kubectl asks for. */
export interface CredentialRequest {
  readonly server: string;
  /** The API server that the token must be for; undefined: any. */
  readonly apiServer: string | undefined;
  /** The process that asks. */
  readonly parent: number;
  /** It is client-go, which may ask again at once after a failure. */
  readonly byClientGo?: boolean;
}

/** A request on its way, and what the cache has for it. */
export class Question {
  readonly request: CredentialRequest;
  /** As performance.now() counts. */
  readonly start = performance.now();
  /** Milliseconds of the epoch. */
  readonly startedAt = Date.now();
  readonly #store: SessionStore;
  /** The cached token, if this caller got it a moment ago and asks again: the API server may have refused it. */
  readonly #doubted: string | undefined;
  /** The same, once the API server has refused it. */
  #refused: string | undefined;

  constructor(request: CredentialRequest, store: SessionStore) {
    this.request = request;
    this.#store = store;
    const { server, parent } = request;
    const { folder } = store;
    const doubts =
      folder !== undefined &&
      asksAgain(folder, server, parent, this.startedAt) &&
      !wasChecked(folder, server, this.startedAt);
    this.#doubted = doubts ? store.read(server)?.token : undefined;
  }

  get doubts(): boolean {
    return this.#doubted !== undefined;
  }

  /** The cached session, if it may be served without asking any server. */
  cached(): Session | undefined {
    const session = this.#kept();
    if (session === undefined || !isFresh(session, Date.now())) return undefined;
    const doubted = session.token === this.#doubted;
    return doubted && !this.#wasChecked() ? undefined : session;
  }

  /** The cached session, if its token is good for a while longer, fresh or not. */
  stillGood(): Session | undefined {
    const session = this.#kept();
    return session !== undefined && timeLeft(session) > lastUse ? session : undefined;
  }

  /** The cached session, if it is fresh, but the API server may have refused it. */
  inDoubt(): Session | undefined {
    if (this.#doubted === undefined) return undefined;
    const session = this.#kept();
    // A stale one is replaced anyway. (The shell front notes a caller before it knows that.)
    return session?.token === this.#doubted && isFresh(session, Date.now()) ? session : undefined;
  }

  /** Notes that the API server has just been asked about the token, so that others need not ask. */
  noteChecked(): void {
    const { folder } = this.#store;
    if (folder !== undefined) writeChecked(folder, this.request.server);
  }

  /** Notes that the API server refuses the token. */
  noteRefused(session: Session): void {
    this.#refused = session.token;
  }

  /** Notes that the caller gets this session, if it is in the cache: what was not kept was not served from there. */
  noteServed({ token }: Session): void {
    const { server, parent } = this.request;
    const { folder } = this.#store;
    if (folder !== undefined && this.#store.read(server)?.token === token) writeServed(folder, server, parent);
  }

  /** The session in the cache, fresh or not, if it is for this API server, which has not refused its token. */
  #kept(): Session | undefined {
    const { server, apiServer } = this.request;
    const session = this.#store.read(server);
    if (session === undefined || session.token === this.#refused) return undefined;
    return apiServer === undefined || session.apiServer === apiServer ? session : undefined;
  }

  #wasChecked(): boolean {
    const { folder } = this.#store;
    return folder !== undefined && wasChecked(folder, this.request.server, Date.now());
  }
}
