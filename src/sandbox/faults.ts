// How a cluster of the sandbox can be told to misbehave. Everything is off until a test sets it.
import type { ClusterInfo, KubeconfigAnswer, LoginAnswer } from '../tka/types.ts';
import { type GossipMember, goPage, goRows } from './go-memberlist.ts';

export type RouteName = 'login' | 'loginGet' | 'kubeconfig' | 'logout' | 'clusterInfo' | 'memberlist' | 'other' | 'api';

/** What happens to the requests of one route. All fields may be combined. */
export interface RouteFault {
  /** How many requests it meets, then it is over; counted down. Default: every request. */
  times?: number;
  /** Waits before the request is looked at. */
  latencyMs?: number;
  /** The same, until a promise settles. */
  hold?: Promise<unknown>;
  /** Reads the request and never answers. */
  silent?: boolean;
  /** A TCP reset: before the server does anything, after it did its work, or in the middle of the body. */
  reset?: 'before' | 'after' | 'middle';
  /** A fixed answer; the server does nothing. An object is sent as JSON. */
  answer?: {
    status: number;
    body?: string | Buffer | object;
    contentType?: string;
    headers?: Readonly<Record<string, string>>;
  };
  /** Changes a normal JSON answer (2xx); a string is sent as it is. */
  // biome-ignore lint/suspicious/noExplicitAny: a test may make anything of it
  change?: (answer: any) => unknown;
  /** Content type of what `change` made. */
  changedType?: string;
  /** Headers laid over the answer's; null takes one away (`Date`, `Content-Type`). */
  headers?: Readonly<Record<string, string | null>>;
  /** 200 and no JSON, but still the JSON content type. */
  notJson?: boolean;
  /** 200 and a JSON object of so many MiB, streamed. */
  oversizeMiB?: number;
  /** Ends the connection cleanly after half the body, or so many bytes. */
  truncate?: true | number;
  /** One byte of the body every so many milliseconds. */
  trickleMs?: number;
}

/** All faults of one cluster: change them at any time. */
export interface Faults {
  /** Per route; of a list, the first that has requests left. `all` goes for every TKA route that has no entry of its own. */
  routes: { [route in RouteName | 'all']?: RouteFault | RouteFault[] };
  /** GET /kubeconfig answers 202: so long after the POST, for so many requests (counted down), or for ever. */
  pending?: { ms?: number; requests?: number; forever?: boolean; retryAfter?: string | number } | undefined;
  /** The token in the kubeconfig answer. */
  token?: TokenFault | undefined;
  /** `until` of the login answers: moved by so many milliseconds, or this text. */
  until?: number | string | undefined;
  /** The Date header of every answer, moved. */
  dateSkewMs?: number | undefined;
  /** After a POST that extends, so many GET /kubeconfig are answered from the old sign-in, with its end; counted down. */
  extensionRace?: number | undefined;
  /** A sign-in made within so many milliseconds of a logout is deleted again at the end of them. */
  logoutRaceMs?: number | undefined;
  /** A changed role is answered but the binding keeps the old one. */
  roleNotApplied?: boolean | undefined;
  /**
   * `go-json`: as the Go server, JSON for `Accept: application/json` and its page for any other. `go-json-only`: a server
   * that has no page. What its members say of themselves is in `cluster.gossip`.
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

/** What is wrong with the tokens that are minted. The first of `empty`, `raw` and the rest counts. */
export interface TokenFault {
  /** No token at all: the user's entry is `{}`. */
  empty?: boolean;
  /** This text instead of a JWT. */
  raw?: string;
  /** `exp` so many milliseconds from now. */
  expOffsetMs?: number;
  /** Claims laid over the usual ones; undefined leaves one out (`{ exp: undefined }`). */
  claims?: Readonly<Record<string, unknown>>;
}

/** True where its lists are the Go server's, which states no name of its cluster and no store of sign-ins. */
export const isGo = ({ memberlist }: Faults): boolean => memberlist === 'go-json' || memberlist === 'go-json-only';

/** What an answer's shape may depend on. */
export interface Asked {
  readonly accept: string | undefined;
  readonly gossip: () => readonly GossipMember[];
}

/** The fault that meets the next request of a route, counted down. */
export function takeFault(faults: Faults, route: RouteName): RouteFault | undefined {
  const set = faults.routes[route] ?? (route === 'api' ? undefined : faults.routes.all);
  const fault = (Array.isArray(set) ? set : [set]).find((f) => f !== undefined && (f.times ?? 1) > 0);
  if (fault?.times !== undefined) fault.times--;
  return fault;
}

/** The faults that are told per cluster, as what they do to one route. */
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
    return { change: typeof clusterInfo === 'function' ? clusterInfo : (answer) => ({ ...answer, ...clusterInfo }) };
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

/** A moment as the Go server writes it: whole seconds, UTC. */
export function rfc3339(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString().replace(/\.\d+Z$/, 'Z');
}
