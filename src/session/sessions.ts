import { type Network, openNetwork } from '../network/network.ts';
import type { FailoverClient } from './failover.ts';
import { Keeper } from './keeper.ts';
import { type LoginOptions, type LoginResult, login } from './login.ts';
import { logout, logoutHere } from './logout.ts';
import { credential } from './miss.ts';
import type { CredentialRequest } from './question.ts';
import type { Tools } from './servers.ts';
import { Servers } from './servers.ts';
import type { Session } from './session.ts';
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

/** Obtains, keeps, refreshes and revokes tokens, one process per server at a time. */
export class Sessions {
  readonly store: SessionStore;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  readonly #options: SessionOptions;
  /** Servers that others have taken over from in this process. */
  readonly #away: Set<string>;
  readonly #tools: Tools;

  constructor(options: SessionOptions, away = new Set<string>()) {
    const { store, timeout, warn: say, log } = options;
    const { network = openNetwork({ env: {}, log }), siblings = async () => undefined } = options;
    this.store = store;
    this.timeout = timeout;
    this.#options = options;
    this.#away = away;
    const servers = new Servers({ network, siblings, away, say, log });
    this.#tools = { store, keeper: new Keeper(store, say, log), servers, timeout, say, log };
  }

  /** The same sessions, with another way to tell the person something. */
  saying(warn: (line: string) => void): Sessions {
    return new Sessions({ ...this.#options, warn }, this.#away);
  }

  /** A client for a server; see Servers.client(). */
  client(server: string, apiServer: string | undefined): FailoverClient {
    return this.#tools.servers.client(server, apiServer);
  }

  /** A token for kubectl; see miss.ts. */
  credential(request: CredentialRequest): Promise<Session> {
    return credential(this.#tools, request);
  }

  /** Signs in anew; see login.ts. */
  signIn(server: string, options: LoginOptions): Promise<LoginResult> {
    return login(this.#tools, server, options);
  }

  /** Signs out here and on the server; see logout.ts. */
  signOut(server: string): Promise<boolean> {
    return logout(this.#tools, server);
  }

  /** Signs out on this machine only; see logout.ts. */
  signOutHere(server: string, forgotten: boolean): Promise<void> {
    return logoutHere(this.#tools, server, forgotten);
  }
}
