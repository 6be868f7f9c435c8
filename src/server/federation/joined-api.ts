// The joined side of the API: answers what the login server asks through a tunnel, with the routes of the HTTP API. A
// login server can do here what its assertions say, up to this cluster's own limits (`federation.roles`,
// `federation.maxPeriod`), and only to the sign-ins that came through it.
import { setTimeout as delay } from 'node:timers/promises';
import { apiPath } from '../../tka/types.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { jsonAnswer, messagesOf, type RouteAnswer, refusalAnswer, requestId } from '../http/answers.ts';
import { type Answered, type Caller, type Decided, Refusal, type RefusalReason } from '../http/contract.ts';
import { Buckets, CallerLimits } from '../http/limits.ts';
import { apiRoutes, type Served } from '../http/routes.ts';
import type { Log } from '../log/log.ts';
import { namesOf } from '../provisioner/objects.ts';
import { AssertionError, AssertionVerifier } from './assertion.ts';
import {
  assertionRefused,
  evictedPath,
  type OwnTunnel,
  type TunnelAnswer,
  type TunnelRequest,
  tunnelBodyLimit,
  tunnelHeaders,
  tunnelPaths,
} from './contract.ts';

export interface JoinedApiOptions extends Omit<Served, 'members'> {
  /** As in Provisioner. */
  readonly endAllThrough: (loginServer: string) => Promise<number>;
  /** Returns the names of the sign-ins through this login server that have not ended. Absent: they are not limited. */
  readonly signInsThrough?: (loginServer: string) => ReadonlySet<string>;
  /** `federation.roles`: the only roles that can be used through a login server. Empty: all. */
  readonly roles: readonly string[];
  /** `federation.maxPeriod` in milliseconds. */
  readonly maxPeriodMs: number;
  /** `api.retryAfterSeconds`. */
  readonly retryAfterSeconds?: number;
  /** Called when the login server says that this cluster is not joined any more. Must not throw. */
  readonly onEvicted: (tunnel: OwnTunnel) => void;
  readonly log: Log;
  /** As in HandlerOptions. */
  readonly onRequest?: (answered: Answered) => void;
  readonly onDecided?: (decided: Decided) => void;
  /** Number of requests that one tunnel may have at the same time. Default: 64. */
  readonly atOnce?: number;
}

// So many requests of one tunnel are answered at the same time.
const usualAtOnce = 64;
// A login server says who its callers are, so limits for one login do not limit it. Forty kubectl that need a new token
// in the same second send about a hundred requests.
const [perSecond, burst, patienceMs] = [50, 200, 1_000];
const mostSignIns = 5_000;
// A request that was started before an eviction may take this long: the calls of the API server end in time.
const finishMs = 20_000;

const passing: readonly string[] = tunnelHeaders;
const served: readonly string[] = tunnelPaths;
const loginPath = `${apiPath}/login`;

/** Answers the requests of all tunnels of this replica. */
export class JoinedApi {
  readonly #options: JoinedApiOptions;
  readonly #limits = new CallerLimits();
  /** By login server and the name of this cluster there. */
  readonly #rate = new Buckets(perSecond, burst);
  readonly #verifier = new AssertionVerifier();
  readonly #atOnce: number;
  readonly #retryAfter: Readonly<Record<'Retry-After', string>>;
  /** The requests that are being answered, by the tunnel's ID. */
  readonly #running = new Map<string, Set<Promise<RouteAnswer>>>();

  constructor(options: JoinedApiOptions) {
    this.#options = options;
    this.#atOnce = options.atOnce ?? usualAtOnce;
    this.#retryAfter = { 'Retry-After': String(options.retryAfterSeconds ?? 1) };
  }

  /** Answers a request that came through a tunnel. Never rejects. The signal is aborted when nobody waits any more. */
  async answer(request: TunnelRequest, tunnel: OwnTunnel, signal: AbortSignal): Promise<TunnelAnswer> {
    const { method, path } = request;
    const { primary: through } = tunnel;
    const started = performance.now();
    const id = requestId(request.id);
    const told: Told = {};
    const running = this.#running.get(tunnel.id) ?? new Set();
    this.#running.set(tunnel.id, running);
    const isBusy = running.size >= this.#atOnce;
    const work = isBusy
      ? Promise.resolve(this.#refused(tooMany(atTheSameTime), path, told))
      : this.#work(request, tunnel, signal, told);
    running.add(work);
    const answer = await work;
    running.delete(work);
    if (running.size === 0) this.#running.delete(tunnel.id);
    const { caller, refusal, reason } = told;
    const isKnown = served.includes(path);
    if (isKnown && Object.hasOwn(apiRoutes.get(path) ?? {}, method)) {
      const origin = caller?.tagged ?? {};
      const { status, access } = answer;
      const decided = { id, method, route: path, status, refusal, caller, origin, address: undefined, access };
      this.#options.onDecided?.({ ...decided, through });
    }
    this.#options.onRequest?.({
      id,
      method: isKnown ? method : cleanText(method, 20),
      route: isKnown ? path : undefined,
      path: cleanText(path, 200),
      status: signal.aborted ? undefined : answer.status,
      refusal,
      reason,
      ms: performance.now() - started,
      caller,
      through,
      address: undefined,
      port: undefined,
    });
    return passed(answer);
  }

  /**
   * Ends all sign-ins of this login server, after the requests that still run. Returns how many this replica ended.
   * Close the tunnels first. Throws a KubeError if some could not be ended.
   */
  async endAllThrough(loginServer: string): Promise<number> {
    const running = [...this.#running.values()].flatMap((tunnel) => [...tunnel]);
    const late = new AbortController();
    await Promise.race([
      Promise.allSettled(running),
      delay(finishMs, undefined, { signal: late.signal, ref: false }).catch(() => undefined),
    ]);
    late.abort();
    return await this.#options.endAllThrough(loginServer);
  }

  async #work(request: TunnelRequest, tunnel: OwnTunnel, signal: AbortSignal, told: Told): Promise<RouteAnswer> {
    try {
      return await this.#answerTo(request, tunnel, signal, told);
    } catch (error) {
      if (error instanceof Refusal) return this.#refused(error, request.path, told);
      if (signal.aborted) {
        told.refusal = 'the login server closed the request';
        return { status: 499 };
      }
      this.#options.log.error({ err: error, request: requestId(request.id) }, 'internal error');
      return this.#refused(new Refusal(500, { message: 'internal error' }), request.path, told);
    }
  }

  #refused(refusal: Refusal, path: string, told: Told): RouteAnswer {
    told.refusal = messagesOf(refusal.body);
    told.reason = refusal.reason;
    return refusalAnswer(refusal, path, this.#retryAfter);
  }

  async #answerTo(
    { method, path, assertion }: TunnelRequest,
    tunnel: OwnTunnel,
    signal: AbortSignal,
    told: Told,
  ): Promise<RouteAnswer> {
    const methods = served.includes(path) ? apiRoutes.get(path) : undefined;
    const route = methods !== undefined && Object.hasOwn(methods, method) ? methods[method] : undefined;
    const isEviction = path === evictedPath && method === 'POST';
    if (route === undefined && !isEviction) {
      const isKnown = served.includes(path);
      throw new Refusal(isKnown ? 405 : 404, {
        message: `this ${isKnown ? 'method' : 'path'} is not served through a tunnel`,
      });
    }
    const asserted = await this.#verify(assertion, method, path, tunnel);
    if (isEviction) {
      this.#options.onEvicted(tunnel);
      return jsonAnswer(202, {});
    }
    if (route === undefined || asserted === undefined) throw notAccepted('it names no caller');
    const caller = this.#limited(asserted, tunnel);
    told.caller = caller;
    await this.#admit(caller, method === 'POST' && path === loginPath, tunnel, signal);
    const end = await this.#limits.turn(caller.login, signal);
    try {
      signal.throwIfAborted();
      const { signIns, clusterInfo } = this.#options;
      const request = { url: path, headers: {} };
      const retryAfter = this.#retryAfter;
      const answer = await route({ caller, request, options: { signIns, clusterInfo }, signal, retryAfter });
      if (Buffer.byteLength(answer.body ?? '') <= tunnelBodyLimit) return answer;
      throw new Refusal(500, { message: 'the answer is too large for the tunnel' });
    } finally {
      end();
    }
  }

  async #verify(assertion: string, method: string, path: string, tunnel: OwnTunnel): Promise<Caller | undefined> {
    try {
      return await this.#verifier.verify(assertion, { method, path }, tunnel);
    } catch (error) {
      if (!(error instanceof AssertionError)) throw error;
      const { problem, message } = error;
      if (problem === 'busy') throw tooMany(atTheSameTime);
      if (problem === 'clock' || problem === 'key') tunnel.redial?.(`an assertion was not accepted: ${message}`);
      throw notAccepted(message);
    }
  }

  /** Limits what a login server can use of this cluster. What ends a sign-in always passes the limit of sign-ins. */
  async #admit(caller: Caller, isSignIn: boolean, tunnel: OwnTunnel, signal: AbortSignal): Promise<void> {
    const { primary, cluster } = tunnel;
    const taken = this.#rate.take(`${primary}\0${cluster}`, patienceMs);
    if ('overMs' in taken) throw tooMany('too many requests through this login server');
    if (taken.inMs > 0) await delay(taken.inMs, undefined, { signal });
    if (!isSignIn || caller.role === '') return;
    const there = this.#options.signInsThrough?.(primary);
    // People who have one can renew it.
    if (there === undefined || there.size < mostSignIns || namesOf(caller).some((name) => there.has(name))) return;
    throw tooMany(`there are ${mostSignIns} sign-ins through this login server`);
  }

  /** Returns a caller within the limits of this cluster. */
  #limited(caller: Caller, { cluster, primary }: OwnTunnel): Caller {
    const { roles, maxPeriodMs } = this.#options;
    const { role } = caller;
    if (role === '' || roles.length === 0 || roles.includes(role)) {
      return { ...caller, periodMs: Math.min(caller.periodMs, maxPeriodMs) };
    }
    const message = `the role ${quoted(role, 253)} cannot be used in the cluster "${cluster}" through the login server "${primary}"`;
    const advice = [`ask the operator of the cluster "${cluster}" to add the role to federation.roles`];
    const problem = new Refusal(403, { message, advice }, { reason: 'missing_role' });
    // As without a grant: this also ends what the caller has from the time when the role was allowed.
    return { ...caller, role: '', periodMs: 0, problem, revoked: true };
  }
}

/** What the log and the audit log say about a request. */
interface Told {
  caller?: Caller;
  refusal?: string;
  reason?: RefusalReason;
}

const notAccepted = (why: string): Refusal =>
  new Refusal(401, { message: assertionRefused, cause: { message: why } }, { reason: 'other' });

const atTheSameTime = 'too many requests through this tunnel at the same time';

const tooMany = (message: string): Refusal =>
  new Refusal(503, { message, advice: ['try again in a moment'] }, { retryAfterSeconds: 1, reason: 'rate_limited' });

/** Returns an answer as it passes through a tunnel. */
function passed({ status, headers = {}, body = '' }: RouteAnswer): TunnelAnswer {
  const named = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const);
  return { status, headers: Object.fromEntries(named.filter(([name]) => passing.includes(name))), body };
}
