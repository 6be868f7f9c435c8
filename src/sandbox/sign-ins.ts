// A stand-in for the operator and the cluster: sign-ins, their ServiceAccounts and tokens. There are no timers. Events
// in the future are stored as a time, which is compared with the clock at the next access.
import { randomUUID } from 'node:crypto';
import { type Caller, Refusal, type SignedOut, type SignIns } from '../server/http/contract.ts';
import type { KubeconfigAnswer, LoginAnswer } from '../tka/types.ts';
import { type Faults, rfc3339 } from './faults.ts';
import { makeIssuer } from './tokens.ts';

const minimumMs = 10 * 60_000;

/** A ServiceAccount with the role of its binding. */
interface Account {
  readonly uid: string;
  readonly username: string;
  readonly role: string;
  goneAt: number;
}

interface SignIn {
  readonly username: string;
  role: string;
  account: Account;
  until: number;
  /** The end before the last extension. */
  oldUntil: number;
  postedAt: number;
  readyAt: number;
  goneAt: number;
}

/** A sign-in as a test sees it. */
export interface SignInView {
  readonly username: string;
  /** The role in the login answer. */
  readonly role: string;
  /** UID of the ServiceAccount. */
  readonly uid: string;
  readonly until: Date;
}

/** The user of a token, for the API stand-in. */
export interface TokenUser {
  readonly username: string;
  readonly uid: string;
  readonly role: string;
}

/** Options of `issueToken`. */
export interface IssueOptions {
  readonly user?: string;
  /** Default: the role of the user's sign-in, or `viewer`. With a role, the token gets its own ServiceAccount. */
  readonly role?: string;
  /** Lifetime. Default: one hour. */
  readonly ttlMs?: number;
  readonly claims?: Readonly<Record<string, unknown>>;
}

export interface SandboxSignInsOptions {
  readonly faults: Faults;
  readonly readyAfterMs: () => number;
  /** The API server in the kubeconfig answer. */
  readonly target: () => { readonly server: string; readonly caData: string };
}

/** The sign-ins of one cluster, with methods for tests to change them. */
export class SandboxSignIns implements SignIns {
  readonly #options: SandboxSignInsOptions;
  readonly #issuer = makeIssuer();
  readonly #signIns = new Map<string, SignIn>();
  readonly #accounts = new Map<string, Account>();
  readonly #loggedOutAt = new Map<string, number>();
  #extensionRace = 0;

  constructor(options: SandboxSignInsOptions) {
    this.#options = options;
  }

  async signIn(caller: Caller): Promise<LoginAnswer> {
    const { username, role, periodMs } = caller;
    if (periodMs < minimumMs) {
      throw new Refusal(500, {
        message: '`period` may not specify a duration less than 10 minutes',
        advice: [`Specify a period greater than 10 minutes in your api ACL for user ${username}`],
      });
    }
    const now = Date.now();
    const until = Math.floor((now + periodMs) / 1000) * 1000;
    const { faults } = this.#options;
    const old = this.#ofToday(caller);
    if (old !== undefined && old.account.goneAt > now) {
      old.oldUntil = old.until;
      old.until = until;
      old.postedAt = now;
      // The account keeps its role. Only the Go server gets here with a different role.
      old.role = role;
      this.#extensionRace = faults.extensionRace ?? 0;
      return answerOf(old, caller);
    }
    const doomed = (this.#loggedOutAt.get(username) ?? -Infinity) + (faults.logoutRaceMs ?? -Infinity);
    const fresh: SignIn = {
      username,
      role,
      account: this.#newAccount(username, role),
      until,
      oldUntil: until,
      postedAt: now,
      readyAt: now + this.#options.readyAfterMs(),
      goneAt: doomed > now ? doomed : Infinity,
    };
    fresh.account.goneAt = fresh.goneAt;
    this.#signIns.set(username, fresh);
    return answerOf(fresh, caller);
  }

  async get(caller: Caller): Promise<{ answer: LoginAnswer; provisioned: boolean } | undefined> {
    const found = this.#ofToday(caller);
    return found && { answer: answerOf(found, caller), provisioned: !this.#isPending(found) };
  }

  async kubeconfig(caller: Caller): Promise<KubeconfigAnswer | 'pending' | undefined> {
    const { username } = caller;
    const found = this.#ofToday(caller);
    if (found === undefined) return undefined;
    const { faults } = this.#options;
    if (this.#isPending(found)) return 'pending';
    if (faults.pending?.requests !== undefined && faults.pending.requests > 0) {
      faults.pending.requests--;
      return 'pending';
    }
    if (found.account.goneAt <= Date.now()) {
      throw new Refusal(500, {
        message: 'Failed to generate token',
        advice: ['check that the service account exists and Kubernetes has token generation enabled'],
        cause: { message: `serviceaccounts "tka-user-${username}" not found` },
      });
    }
    const answer = this.#answer(username, this.#mint(found));
    return faults.kubeconfig === undefined ? answer : (faults.kubeconfig(answer) as KubeconfigAnswer);
  }

  async signOut({ username }: Caller): Promise<SignedOut | undefined> {
    const found = this.#live(username);
    if (found === undefined) return undefined;
    this.#end(found);
    this.#loggedOutAt.set(username, Date.now());
    return { answer: answerOf(found), complete: this.#options.faults.logoutRaceMs === undefined };
  }

  /** Ends all sign-ins. Returns how many there were. */
  endAll(): number {
    const all = [...this.#signIns.values()];
    for (const signIn of all) this.#end(signIn);
    return all.length;
  }

  view(username: string): SignInView | undefined {
    const found = this.#live(username);
    if (found === undefined) return undefined;
    const { role, account, until } = found;
    return { username, role, uid: account.uid, until: new Date(until) };
  }

  /** Lets the sign-in expire now. */
  expire(username: string): void {
    const found = this.#signIns.get(username);
    if (found) found.until = Math.min(found.until, Date.now());
    this.#live(username);
  }

  /** Deletes the ServiceAccount but not the sign-in. */
  deleteServiceAccount(username: string): void {
    const now = Date.now();
    for (const account of this.#accounts.values()) {
      if (account.username === username) account.goneAt = Math.min(account.goneAt, now);
    }
  }

  /** Returns a token that the API accepts. */
  issueToken(username: string, { role, ttlMs = 3_600_000, claims = {} }: IssueOptions): string {
    const signedIn = role === undefined ? this.#live(username) : undefined;
    const account = signedIn?.account ?? this.#newAccount(username, role ?? 'viewer');
    return this.#issuer.issue(subjectOf(account), Math.floor((Date.now() + ttlMs) / 1000), claims);
  }

  /** Returns the user of a token, as the API server does, or undefined for a 401. */
  authenticate(token: string): TokenUser | undefined {
    const now = Date.now();
    const account = this.#accounts.get(this.#issuer.check(token, now) ?? '');
    if (account === undefined) return undefined;
    this.#live(account.username);
    if (account.goneAt <= now) return undefined;
    const { uid, role } = account;
    return { username: `system:serviceaccount:tka-dev:${subjectOf(account).name}`, uid, role };
  }

  /** Returns the sign-in if it has not ended. If it has, removes it and ends its account. */
  #live(username: string): SignIn | undefined {
    const found = this.#signIns.get(username);
    if (found === undefined) return undefined;
    const now = Date.now();
    const end = Math.min(found.until, found.goneAt);
    if (end > now) return found;
    found.account.goneAt = Math.min(found.account.goneAt, end);
    this.#signIns.delete(username);
    return undefined;
  }

  /** Returns the sign-in if it has the role of today's grant. Otherwise ends it; the Go server does not check this. */
  #ofToday({ username, role }: Caller): SignIn | undefined {
    const found = this.#live(username);
    if (found === undefined || found.role === role || this.#options.faults.roleNotApplied) return found;
    this.#end(found);
    return undefined;
  }

  #end({ account, username }: SignIn): void {
    account.goneAt = Date.now();
    this.#signIns.delete(username);
  }

  #isPending({ postedAt, readyAt }: SignIn): boolean {
    const { forever, ms = 0 } = this.#options.faults.pending ?? {};
    return forever === true || Date.now() < Math.max(readyAt, postedAt + ms);
  }

  #newAccount(username: string, role: string): Account {
    const account = { uid: randomUUID(), username, role, goneAt: Infinity };
    this.#accounts.set(account.uid, account);
    return account;
  }

  #mint(found: SignIn): string | undefined {
    const { token: fault = {} } = this.#options.faults;
    if (fault.empty) return undefined;
    if (fault.raw !== undefined) return fault.raw;
    const now = Date.now();
    let until = found.until;
    if (this.#extensionRace > 0) {
      this.#extensionRace--;
      until = found.oldUntil;
    }
    // The lifetime is cut to whole seconds, so exp is usually one second before the sign-in's end.
    const lifetime = Math.floor((fault.expOffsetMs ?? Math.max(until - now, minimumMs)) / 1000);
    return this.#issuer.issue(subjectOf(found.account), Math.floor(now / 1000) + lifetime, fault.claims);
  }

  #answer(username: string, token: string | undefined): KubeconfigAnswer {
    const { server, caData } = this.#options.target();
    const user = `tka-user-${username}`;
    const context = `tka-context-${username}`;
    return {
      kind: 'Config',
      apiVersion: 'v1',
      clusters: { 'tka-cluster': { server, 'certificate-authority-data': caData } },
      users: { [user]: token === undefined ? {} : { token } },
      contexts: { [context]: { cluster: 'tka-cluster', user } },
      'current-context': context,
    };
  }
}

const subjectOf = ({ username, uid }: Account) => ({ name: `tka-user-${username}`, uid });
const answerOf = ({ username, role, until }: SignIn, caller?: Caller): LoginAnswer => ({
  username,
  role,
  until: rfc3339(until),
  ...(caller?.tagged && { node: caller.tagged.node }),
});
