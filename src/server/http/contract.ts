import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { ClusterInfo, ErrorBody, KubeconfigAnswer, LoginAnswer, MemberRow } from '../../tka/types.ts';

/** Who is calling, and what the policy grants them. */
export interface Caller {
  /** The login name up to the `@`. */
  readonly username: string;
  readonly login: string;
  /** The login is of the tailnet's own domain: nobody else there has this username. Default: false. */
  readonly ownDomain?: boolean;
  /** The tailnet's ID of the device that asks; absent where tailscaled knows none. */
  readonly device?: string;
  /** Empty where the policy grants none, or cannot be read. */
  readonly role: string;
  readonly periodMs: number;
  /** Why this caller cannot sign in. Logging out is possible all the same. */
  readonly problem?: Refusal;
  /** The policy grants nothing: what this device has ends at its next question. */
  readonly revoked?: boolean;
}

/** Which device asks, and whose it is, as tailscaled says. What is not known is absent. */
export interface Origin {
  readonly login?: string;
  /** The device's name on the tailnet: `laptop.example.ts.net`. */
  readonly node?: string;
  /** The device's address on the tailnet. */
  readonly address?: string;
  /** A tagged device has no user. */
  readonly tags?: readonly string[];
}

/** How a caller is asked about. */
export interface Asking {
  /** Aborted when the caller has gone. */
  readonly signal: AbortSignal;
  /** Told of the device as soon as tailscaled has named it, also if its request is refused then. */
  readonly named: (origin: Origin) => void;
  /** Told whose the connection is before the grant is read; rejects with a Refusal for a caller that is over its limits. */
  readonly admit: (who: string) => Promise<void>;
}

/** Names the caller of a request, or throws a Refusal. */
export interface Identity {
  whoIs(request: IncomingMessage, asking?: Asking): Caller | Promise<Caller>;
}

/** How much of the server one caller may take. Every promise rejects with a Refusal where that is exceeded. */
export interface RequestLimits {
  /** Names the caller of a request, within the limits of its connection, its address and its login. */
  whoIs(identity: Identity, request: IncomingMessage, asking: Omit<Asking, 'admit'>): Promise<Caller>;
  /** Whether this connection's caller is known. No other connection is kept open after its first answer. */
  knows(socket: Socket): boolean;
  /** Admits a request that tailscaled is not asked about. */
  anonymous(signal: AbortSignal): Promise<void>;
  /** Resolves when it is the turn of a request of this login, to what ends its turn. */
  turn(login: string, signal: AbortSignal): Promise<() => void>;
}

/** A sign-in that was made or extended. */
export interface SignedIn extends LoginAnswer {
  /** The name of its ServiceAccount. */
  readonly account?: string;
}

/** A sign-in that was ended. */
export interface SignedOut {
  /** What the sign-in was. */
  readonly answer: LoginAnswer;
  /** Its account is gone as well, and nothing that still runs can take a new sign-in for the old one. */
  readonly complete: boolean;
  /** The names of all ServiceAccounts that ended with it. */
  readonly accounts?: readonly string[];
}

/** The sign-ins of one cluster. Each call may throw a Refusal. */
export interface SignIns {
  /** A role that has changed is in force as soon as signIn() has answered with it. (Not with a Go operator.) */
  readonly appliesRoles?: boolean;
  /** Creates the caller's sign-in, or extends it. */
  signIn(caller: Caller): Promise<SignedIn>;
  /** The caller's sign-in; undefined when not signed in (any more). Throws the problem of a caller who had none. */
  get(caller: Caller): Promise<{ readonly answer: LoginAnswer; readonly provisioned: boolean } | undefined>;
  /** Mints a token and answers with it; else as `get`. The signal is aborted when the caller has gone. */
  kubeconfig(caller: Caller, signal?: AbortSignal): Promise<KubeconfigAnswer | 'pending' | undefined>;
  /** Ends all that the caller has; undefined when not signed in. */
  signOut(caller: Caller): Promise<SignedOut | undefined>;
}

/** What the HTTP face is given. */
export interface HandlerOptions {
  readonly identity: Identity;
  readonly signIns: SignIns;
  /** undefined, or answering undefined: a server without gossip, whose route is absent. */
  readonly members?: (() => readonly MemberRow[] | undefined) | undefined;
  readonly clusterInfo: () => ClusterInfo | Promise<ClusterInfo>;
  readonly retryAfterSeconds?: number;
  /** Default: none. */
  readonly limits?: RequestLimits;
  /** Told of what answered 500 "internal error"; it never reaches the caller. */
  readonly onError?: (error: unknown, request: IncomingMessage, id: string) => void;
  /** Told of every request when it is over. */
  readonly onRequest?: (answered: Answered) => void;
  /** Told once how each request of the API was decided, whether or not its caller still waits for the answer. */
  readonly onDecided?: (decided: Decided) => void;
}

/** What a request gave its caller, or ended. */
export interface Access {
  readonly role?: string;
  /** RFC 3339. */
  readonly until?: string;
  /** The names of the ServiceAccounts, with a comma between them. */
  readonly account?: string;
}

/** How a request of the API was decided. */
export interface Decided {
  /** As in Answered. */
  readonly id: string;
  readonly method: string;
  readonly route: string;
  /** 499: the caller hung up before. */
  readonly status: number;
  readonly refusal: string | undefined;
  readonly caller: Caller | undefined;
  readonly origin: Origin;
  /** The address of the connection. */
  readonly address: string | undefined;
  readonly access: Access | undefined;
}

/** A request that was answered, or whose caller hung up before. */
export interface Answered {
  /** The caller's `X-Request-Id` where that is clean, else a new one; the caller is told it. */
  readonly id: string;
  readonly method: string;
  /** The path of the route; undefined where there is none. */
  readonly route: string | undefined;
  /** What was asked for, without its query; fit to be shown. */
  readonly path: string;
  /** undefined: the caller hung up. */
  readonly status: number | undefined;
  /** Why it was refused, where it was, down to the cause; fit to be shown. */
  readonly refusal: string | undefined;
  /** The kind of refusal; undefined where the request was not refused. */
  readonly reason: RefusalReason | undefined;
  readonly ms: number;
  /** Set where the caller was named. */
  readonly caller: Caller | undefined;
  readonly address: string | undefined;
  readonly port: number | undefined;
}

/**
 * Why a request is refused. A metric has them as the values of a label, so they are few and fixed; docs/runbooks.md says
 * what each means.
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

/** Thrown by identity and sign-ins: answered to the caller as it is. */
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
