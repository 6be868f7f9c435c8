import type { FailoverClient } from './failover.ts';
import { type LoginOptions, type LoginResult, login } from './login.ts';
import { logout, logoutHere } from './logout.ts';
import { credential } from './miss.ts';
import type { CredentialRequest } from './question.ts';
import type { Session } from './session.ts';
import type { SessionStore } from './store.ts';
import { type SessionOptions, Tools } from './tools.ts';

/** Obtains, stores, refreshes and revokes tokens, one process per server at a time. Each method has its own file. */
export class Sessions {
  readonly store: SessionStore;
  /** Time limit for getting a token, including the wait for the lock, in milliseconds. */
  readonly timeout: number;
  readonly #tools: Tools;

  constructor(options: SessionOptions, away = new Set<string>()) {
    this.store = options.store;
    this.timeout = options.timeout;
    this.#tools = new Tools(options, away);
  }

  /** Returns the same sessions with another function for warnings. */
  saying(warn: (line: string) => void): Sessions {
    return new Sessions({ ...this.#tools.options, warn }, this.#tools.away);
  }

  /** Returns a client for a server; see Tools.client(). */
  client(server: string, apiServer: string | undefined): FailoverClient {
    return this.#tools.client(server, apiServer);
  }

  credential(request: CredentialRequest): Promise<Session> {
    return credential(this.#tools, request);
  }

  signIn(server: string, options: LoginOptions): Promise<LoginResult> {
    return login(this.#tools, server, options);
  }

  signOut(server: string): Promise<boolean> {
    return logout(this.#tools, server);
  }

  signOutHere(server: string, forgotten: boolean): Promise<void> {
    return logoutHere(this.#tools, server, forgotten);
  }
}
