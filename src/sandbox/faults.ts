// Faults of a sandbox cluster. All are off until a test sets them.
import type { ClusterInfo, KubeconfigAnswer, LoginAnswer } from '../tka/types.ts';
import { type GossipMember, goPage, goRows } from './go-memberlist.ts';

export type RouteName = 'login' | 'loginGet' | 'kubeconfig' | 'logout' | 'clusterInfo' | 'memberlist' | 'other' | 'api';

/** A fault of one route. All fields can be combined. */
export interface RouteFault {
  /** The number of affected requests, counted down. Default: all requests. */
  times?: number;
  /** Delay before the request is processed, in milliseconds. */
  latencyMs?: number;
  /** Delay until a promise settles. */
  hold?: Promise<unknown>;
  /** Reads the request but never answers. */
  silent?: boolean;
  /** A TCP reset: before the server processes the request, after it has, or in the middle of the body. */
  reset?: 'before' | 'after' | 'middle';
  /** A fixed answer instead of the server's. An object is sent as JSON. */
  answer?: {
    status: number;
    body?: string | Buffer | object;
    contentType?: string;
    headers?: Readonly<Record<string, string>>;
  };
  /** Changes a normal JSON answer (2xx); takes what its route answers. A string is sent unchanged. */
  change?: (answer: never) => unknown;
  /** Content type of the changed answer. */
  changedType?: string;
  /** Additional headers of the answer. null removes a header (`Date`, `Content-Type`). */
  headers?: Readonly<Record<string, string | null>>;
  /** 200 with the JSON content type, but an invalid body. */
  notJson?: boolean;
  /** 200 with a streamed JSON object of this size. */
  oversizeMiB?: number;
  /** Closes the connection cleanly after half of the body, or after this number of bytes. */
  truncate?: true | number;
  /** Sends one byte of the body at a time, with this interval. */
  trickleMs?: number;
}

/** The faults of one cluster. They can be changed at any time. */
export interface Faults {
  /**
   * Faults by route. Of a list, the first with requests left applies. `all` applies to all TKA routes without an entry.
   */
  routes: { [route in RouteName | 'all']?: RouteFault | RouteFault[] };
  /** GET /kubeconfig answers 202: for `ms` after the POST, for `requests` requests (counted down), or always. */
  pending?: { ms?: number; requests?: number; forever?: boolean; retryAfter?: string | number } | undefined;
  /** A fault of the token in the kubeconfig answer. */
  token?: TokenFault | undefined;
  /** Changes `until` in the login answers: a shift in milliseconds, or this text. */
  until?: number | string | undefined;
  /** Shifts the Date header of every answer. */
  dateSkewMs?: number | undefined;
  /** Number of GET /kubeconfig, after a POST that extends, that use the old sign-in's end. Counted down. */
  extensionRace?: number | undefined;
  /** A sign-in made within this time after a logout is deleted at the end of this time. */
  logoutRaceMs?: number | undefined;
  /** The answer states a changed role, but the binding keeps the old one. */
  roleNotApplied?: boolean | undefined;
  /**
   * `go-json`: like the Go server, JSON for `Accept: application/json` and its page for anything else. `go-json-only`:
   * like a server without a page. `cluster.gossip` sets what its members state.
   */
  memberlist?:
    | 'ours'
    | 'go-json'
    | 'go-json-only'
    | 'absent-404'
    | 'gossip-503'
    | { raw: string | Buffer; contentType?: string }
    | undefined;
  clusterInfo?: Partial<ClusterInfo> | ((normal: ClusterInfo) => unknown) | undefined;
  kubeconfig?: ((normal: KubeconfigAnswer) => unknown) | undefined;
}

/** A fault of minted tokens. `empty` takes precedence over `raw`, and `raw` over the others. */
export interface TokenFault {
  /** No token: the user's entry is `{}`. */
  empty?: boolean;
  /** This text instead of a JWT. */
  raw?: string;
  /** Time from now to `exp`, in milliseconds. */
  expOffsetMs?: number;
  /** Claims that replace the usual ones. undefined removes a claim (`{ exp: undefined }`). */
  claims?: Readonly<Record<string, unknown>>;
}

/**
 * Returns whether the cluster answers with the Go server's lists. That server states no cluster name and no sign-in
 * store.
 */
export const isGo = ({ memberlist }: Faults): boolean => memberlist === 'go-json' || memberlist === 'go-json-only';

/** The parts of a request that an answer may depend on. */
export interface Asked {
  readonly accept: string | undefined;
  readonly gossip: () => readonly GossipMember[];
}

/** Returns the fault for the next request of a route, and counts it down. */
export function takeFault(faults: Faults, route: RouteName): RouteFault | undefined {
  const set = faults.routes[route] ?? (route === 'api' ? undefined : faults.routes.all);
  const fault = (Array.isArray(set) ? set : [set]).find((f) => f !== undefined && (f.times ?? 1) > 0);
  if (fault?.times !== undefined) fault.times--;
  return fault;
}

/** Converts the cluster's faults to a fault of one route. */
export function shapeFault(faults: Faults, route: RouteName, asked: Asked): RouteFault {
  const headers: Record<string, string> = {};
  if (faults.dateSkewMs !== undefined) headers.Date = new Date(Date.now() + faults.dateSkewMs).toUTCString();
  if (route === 'kubeconfig' && faults.pending?.retryAfter !== undefined) {
    headers['Retry-After'] = String(faults.pending.retryAfter);
  }
  return { headers, ...shapeOf(faults, route, asked) };
}

function shapeOf({ until, clusterInfo, memberlist }: Faults, route: RouteName, asked: Asked): RouteFault {
  if ((route === 'login' || route === 'loginGet' || route === 'logout') && until !== undefined) {
    return {
      change: (answer: LoginAnswer) => ({
        ...answer,
        until: typeof until === 'string' ? until : rfc3339(Date.parse(answer.until) + until),
      }),
    };
  }
  if (route === 'clusterInfo' && clusterInfo !== undefined) {
    return {
      change: typeof clusterInfo === 'function' ? clusterInfo : (answer: object) => ({ ...answer, ...clusterInfo }),
    };
  }
  if (route !== 'memberlist' || memberlist === undefined || memberlist === 'ours') return {};
  if (memberlist === 'absent-404') {
    return { answer: { status: 404, body: '404 page not found', contentType: 'text/plain' } };
  }
  if (memberlist === 'gossip-503') return { answer: { status: 503, body: { error: 'Gossip not enabled' } } };
  if (memberlist === 'go-json-only') return { change: () => goRows(asked.gossip()) };
  if (memberlist === 'go-json') {
    if (asked.accept?.includes('application/json')) return { change: () => goRows(asked.gossip()) };
    return { change: () => goPage(asked.gossip()), changedType: 'text/html; charset=utf-8' };
  }
  const { raw, contentType = 'application/json; charset=utf-8' } = memberlist;
  return { answer: { status: 200, body: raw, contentType } };
}

/** Formats a time like the Go server: whole seconds, UTC. */
export function rfc3339(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString().replace(/\.\d+Z$/, 'Z');
}
