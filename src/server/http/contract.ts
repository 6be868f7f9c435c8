import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { ClusterInfo, ErrorBody, KubeconfigAnswer, Labels, LoginAnswer, MemberRow } from '../../tka/types.ts';

/** Who is calling, and what the policy grants them. */
export interface Caller {
  /** The login name up to the `@`; of a tagged device, its ID. */
  readonly username: string;
  /** `alice@example.com`; of a tagged device, deviceLogin(). */
  readonly login: string;
  /** Set for a tagged device, which has no user. */
  readonly tagged?: TaggedDevice;
  /**
   * The name of the login server's cluster, for a caller that comes through a login server (federation/contract.ts).
   * Such a caller has sign-ins of its own: they have nothing to do with those of the same login that come directly or
   * through another login server.
   */
  readonly through?: string;
  /** True if the login is of the tailnet's own domain: nobody else there has this username. Default: false. */
  readonly ownDomain?: boolean;
  /** The tailnet's ID of the calling device. Absent if tailscaled knows none. */
  readonly device?: string;
  /** Empty if the policy grants none, or cannot be read. */
  readonly role: string;
  readonly periodMs: number;
  /** Why this caller cannot sign in. The caller can still log out. */
  readonly problem?: Refusal;
  /** True if the policy grants nothing: the next request ends the access that this device has. */
  readonly revoked?: boolean;
  /** True if the policy has rules for joined clusters: this caller may see the list of clusters without a role here. */
  readonly mayList?: boolean;
}

/** A tagged device, as tailscaled reports it. */
export interface TaggedDevice {
  /** Its name on the tailnet: `ci-7.example.ts.net`. It can change. */
  readonly node: string;
  readonly tags: readonly string[];
}

/**
 * Returns what identifies a tagged device where people have their login: `node:nBLYviWLGB11DEVEL`. `id` is its ID in
 * the tailnet (StableNodeID), which never changes. No login of a person counts if it has this form.
 */
export const deviceLogin = (id: string): string => `node:${id}`;

/** The calling device and its user, as tailscaled reports them. Unknown values are absent. */
export interface Origin {
  readonly login?: string;
  /** The device's name on the tailnet: `laptop.example.ts.net`. */
  readonly node?: string;
  /** The device's address on the tailnet. */
  readonly address?: string;
  /** A tagged device has no user. */
  readonly tags?: readonly string[];
}

/** The parts of a request that its answer may depend on. A request through a tunnel has no others. */
export interface RequestHead {
  readonly url?: string | undefined;
  readonly headers: Readonly<IncomingHttpHeaders>;
}

/** Options for identifying a caller. */
export interface Asking {
  /** Aborted when the caller hangs up. */
  readonly signal: AbortSignal;
  /** Called with the device as soon as tailscaled has identified it, even if the request is then refused. */
  readonly named: (origin: Origin) => void;
  /**
   * Called with the owner of the connection before the grant is read. Rejects with a Refusal if the caller is over its
   * limits.
   */
  readonly admit: (who: string) => Promise<void>;
  /** The joined cluster that the request is for. Default: the server's own cluster. */
  readonly cluster?: AskedCluster;
}

/** A joined cluster, as the rules of the policy see it. */
export interface AskedCluster {
  readonly name: string;
  /** The labels that an administrator gave it. Undefined if no cluster of this name has joined. */
  readonly labels: Labels | undefined;
  /** Set while this server does not know yet which clusters have joined. */
  readonly problem?: Refusal | undefined;
}

/** A joined cluster for the time of one request. */
export interface JoinedAccess extends AskedCluster {
  readonly signIns: SignIns;
  readonly clusterInfo: (caller: Caller) => ClusterInfo | Promise<ClusterInfo>;
}

/** A request for a joined cluster. */
export interface JoinedRequest {
  /** The name in the path. A DNS label, but there may be no such cluster. */
  readonly cluster: string;
  /** The ID of the request. */
  readonly id: string;
  /** Aborted when the caller hangs up. */
  readonly signal: AbortSignal;
}

/** Identifies the caller of a request, or throws a Refusal. */
export interface Identity {
  whoIs(request: IncomingMessage, asking?: Asking): Caller | Promise<Caller>;
}

/** Limits how much of the server one caller can use. Every promise rejects with a Refusal if a limit is exceeded. */
export interface RequestLimits {
  /** Identifies the caller of a request, within the limits of its connection, its address and its login. */
  whoIs(identity: Identity, request: IncomingMessage, asking: Omit<Asking, 'admit'>): Promise<Caller>;
  /** Returns whether the caller of this connection is known. Other connections are closed after their first answer. */
  knows(socket: Socket): boolean;
  /** Admits a request for which tailscaled is not asked. */
  anonymous(signal: AbortSignal): Promise<void>;
  /** Resolves when it is the turn of a request of this login, with a function that ends the turn. */
  turn(login: string, signal: AbortSignal): Promise<() => void>;
}

/** A sign-in that was created or extended. */
export interface SignedIn extends LoginAnswer {
  /** The name of its ServiceAccount. */
  readonly account?: string;
}

/** A sign-in that was ended. */
export interface SignedOut {
  /** The sign-in before it ended. */
  readonly answer: LoginAnswer;
  /** True if its account is gone too, and nothing that still runs can mistake a new sign-in for the old one. */
  readonly complete: boolean;
  /** The names of all ServiceAccounts that ended with it. */
  readonly accounts?: readonly string[];
}

/** The sign-ins of one cluster. Each call may throw a Refusal. */
export interface SignIns {
  /** True if a changed role is in force as soon as signIn() has returned it. (Not with a Go operator.) */
  readonly appliesRoles?: boolean;
  /** Creates or extends the caller's sign-in. */
  signIn(caller: Caller): Promise<SignedIn>;
  /**
   * Returns the caller's sign-in, or undefined if the caller is not signed in (any more). Throws the caller's problem
   * if there is one and no sign-in was ended because of it.
   */
  get(caller: Caller): Promise<{ readonly answer: LoginAnswer; readonly provisioned: boolean } | undefined>;
  /**
   * Mints a token and returns a kubeconfig with it, or else behaves like `get`. The signal is aborted when the caller
   * hangs up.
   */
  kubeconfig(caller: Caller, signal?: AbortSignal): Promise<KubeconfigAnswer | 'pending' | undefined>;
  /** Ends all access of the caller. Returns undefined if the caller is not signed in. */
  signOut(caller: Caller): Promise<SignedOut | undefined>;
}

/** Options of the HTTP handler. */
export interface HandlerOptions {
  readonly identity: Identity;
  readonly signIns: SignIns;
  /** Absent, or returns undefined, on a server without gossip. The route does not exist then. */
  readonly members?: (() => readonly MemberRow[] | undefined) | undefined;
  readonly clusterInfo: (caller: Caller) => ClusterInfo | Promise<ClusterInfo>;
  /** Returns a joined cluster. Absent on a server that is not a login server: `/clusters/...` does not exist there. */
  readonly joined?: ((request: JoinedRequest) => JoinedAccess) | undefined;
  readonly retryAfterSeconds?: number;
  /** Default: none. */
  readonly limits?: RequestLimits;
  /** Called with the error behind a 500 "internal error". The caller never sees it. */
  readonly onError?: (error: unknown, request: IncomingMessage, id: string) => void;
  /** Called for every request when it is over. */
  readonly onRequest?: (answered: Answered) => void;
  /** Called once for each request of the API with its outcome, whether or not the caller still waits for the answer. */
  readonly onDecided?: (decided: Decided) => void;
}

/** The access that a request gave its caller, or ended. */
export interface Access {
  readonly role?: string;
  /** RFC 3339. */
  readonly until?: string;
  /** The names of the ServiceAccounts, separated by commas. */
  readonly account?: string;
}

/** The outcome of a request of the API. */
export interface Decided {
  /** As in Answered. */
  readonly id: string;
  readonly method: string;
  readonly route: string;
  /** The joined cluster that it was for; undefined for the server's own cluster. */
  readonly cluster?: string | undefined;
  /** 499 if the caller hung up first. */
  readonly status: number;
  readonly refusal: string | undefined;
  readonly caller: Caller | undefined;
  /** The name of the login server's cluster, if the request came through one. Known even if the caller is not. */
  readonly through?: string;
  readonly origin: Origin;
  /** The address of the connection. */
  readonly address: string | undefined;
  readonly access: Access | undefined;
}

/** A request that was answered, or whose caller hung up first. */
export interface Answered {
  /** The caller's `X-Request-Id` if it is clean, else a new one. The answer carries it. */
  readonly id: string;
  readonly method: string;
  /** The path of the route, with `{cluster}` for the name of a joined cluster; undefined if there is none. */
  readonly route: string | undefined;
  /** The requested path without its query, safe to display. */
  readonly path: string;
  /** Undefined if the caller hung up. */
  readonly status: number | undefined;
  /** Why it was refused, with all causes, safe to display. Undefined if it was not refused. */
  readonly refusal: string | undefined;
  /** The kind of refusal; undefined if the request was not refused. */
  readonly reason: RefusalReason | undefined;
  readonly ms: number;
  /** Set if the caller was identified. */
  readonly caller: Caller | undefined;
  /** The name of the login server's cluster, if the request came through one. Known even if the caller is not. */
  readonly through?: string;
  readonly address: string | undefined;
  readonly port: number | undefined;
}

/**
 * The kinds of refusal. They are the values of a metric's label, so they are few and fixed. docs/runbooks.md explains
 * each.
 */
export const refusalReasons = [
  'no_grant',
  'invalid_policy',
  'missing_role',
  'tagged_device',
  'outside_tailnet',
  'foreign_page',
  'rate_limited',
  'blocked',
  'unavailable',
  'error',
  'other',
] as const;

export type RefusalReason = (typeof refusalReasons)[number];

/** Thrown by identity and sign-ins. The caller gets it as it is. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly body: ErrorBody;
  readonly retryAfterSeconds: number | undefined;
  readonly reason: RefusalReason;

  constructor(
    status: number,
    body: ErrorBody,
    more: { readonly retryAfterSeconds?: number; readonly reason?: RefusalReason } = {},
  ) {
    super(body.message);
    this.status = status;
    this.body = body;
    this.retryAfterSeconds = more.retryAfterSeconds;
    this.reason = more.reason ?? (status === 503 ? 'unavailable' : status >= 500 ? 'error' : 'other');
  }
}
