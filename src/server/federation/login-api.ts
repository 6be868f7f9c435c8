// The API of joined clusters on their login server: passes requests through a tunnel, each with an assertion about its
// caller. Only what has been checked comes back: a joined cluster can state anything about itself, and nothing else.
import { apiPath, type ClusterInfo, type KubeconfigAnswer, type LoginAnswer } from '../../tka/types.ts';
import { quoted } from '../../util/text.ts';
import { type Caller, type JoinedAccess, type JoinedRequest, Refusal, type SignIns } from '../http/contract.ts';
import { Turns } from '../http/limits.ts';
import type { Log } from '../log/log.ts';
import {
  InvalidAnswer,
  isAssertionRefused,
  readClusterInfo,
  readKubeconfig,
  readRefusal,
  readSignIn,
} from './answers.ts';
import type { JoinedCluster, JoinedClusters, Tunnel, TunnelAnswer } from './contract.ts';

/** A request of a caller through a tunnel. */
export interface Asserted {
  readonly tunnel: Tunnel;
  readonly method: string;
  readonly path: string;
  readonly caller: Caller;
}

export interface LoginApiOptions {
  readonly clusters: JoinedClusters;
  /** Returns whether all joined clusters are known. Default: they always are. */
  readonly isReady?: () => boolean;
  /** Returns whether what is known about joined clusters is too old for sign-ins. Default: it never is. */
  readonly isStale?: () => boolean;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** Returns a signed assertion (assertion.ts). Without a role, it ends the access that its caller has. */
  readonly assert: (asserted: Asserted) => Promise<string>;
  readonly log: Log;
  /** How long to wait for the answers of a joined cluster, in milliseconds. Default: 15 s. */
  readonly patienceMs?: number;
}

// A client gives up after 20 s.
const usualPatienceMs = 15_000;
/** How many tunnels of a cluster to try: a replica that is gone is noticed only after some seconds. */
const mostTunnels = 2;
/** How many requests of one login wait for one cluster at the same time. A tunnel has 64 streams. */
const atOnce = 16;

/** Returns the access to joined clusters for HandlerOptions.joined. */
export function loginApi(options: LoginApiOptions): (request: JoinedRequest) => JoinedAccess {
  const turns = new Turns(atOnce);
  return (request) => new JoinedApi(options, request, turns);
}

/** A joined cluster for the time of one request. */
class JoinedApi implements JoinedAccess {
  readonly name: string;
  readonly signIns: SignIns;
  readonly problem: Refusal | undefined;
  readonly #options: LoginApiOptions;
  readonly #request: JoinedRequest;
  readonly #turns: Turns;
  readonly #cluster: JoinedCluster | undefined;

  constructor(options: LoginApiOptions, request: JoinedRequest, turns: Turns) {
    this.name = request.cluster;
    this.#options = options;
    this.#request = request;
    this.#turns = turns;
    this.#cluster = options.clusters.get(request.cluster);
    if (options.isReady?.() === false)
      this.problem = unavailable('the login server is not ready for its joined clusters yet');
    this.signIns = this.#signIns();
  }

  get labels(): JoinedAccess['labels'] {
    return this.#cluster?.labels;
  }

  async clusterInfo(caller: Caller): Promise<ClusterInfo> {
    this.#mustBeUsable(caller);
    const answer = await this.#exchange('GET', '/cluster-info', caller);
    if (answer.status !== 200) throw this.#refusal(answer);
    return this.#read(answer, (cluster) => readClusterInfo(answer, cluster, this.#options.primary));
  }

  #signIns(): SignIns {
    let appliesRoles = false;
    return {
      get appliesRoles() {
        return appliesRoles;
      },
      signIn: async (caller) => {
        this.#mustSignIn(caller);
        const answer = await this.#exchange('POST', '/login', caller);
        if (answer.status !== 202) throw this.#refusal(answer);
        const signedIn = this.#signIn(answer, caller);
        if (signedIn.role !== caller.role) throw this.#invalid('the answer is about another role');
        appliesRoles = answer.headers['tka-role'] === 'applied';
        return signedIn;
      },
      get: (caller) => this.#get(caller),
      kubeconfig: async (caller) => {
        if (caller.problem !== undefined) {
          await this.#get(caller);
          return undefined;
        }
        this.#mustSignIn(caller);
        const answer = await this.#exchange('GET', '/kubeconfig', caller);
        if (answer.status === 401 && !isAssertionRefused(answer)) return undefined;
        if (answer.status === 202) return 'pending';
        if (answer.status !== 200) throw this.#refusal(answer);
        return this.#read<KubeconfigAnswer>(answer, (cluster) => readKubeconfig(answer, cluster));
      },
      signOut: async (caller) => {
        if (this.problem !== undefined) throw this.problem;
        // Nobody is signed in to a cluster that does not exist (any more).
        if (this.#cluster === undefined) return undefined;
        const answer = await this.#exchange('POST', '/logout', caller);
        if (answer.status === 404) return undefined;
        if (answer.status !== 200) throw this.#refusal(answer);
        return { answer: this.#signIn(answer, caller), complete: answer.headers['tka-logout'] === 'complete' };
      },
    };
  }

  /** Returns the caller's sign-in, or ends it if the policy grants nothing: see SignIns.get. */
  async #get(caller: Caller): ReturnType<SignIns['get']> {
    const { problem } = caller;
    if (problem === undefined) this.#mustSignIn(caller);
    // If the cluster cannot be reached now, the next request ends the access.
    const asked = this.#exchange('GET', '/login', caller);
    const answer = await (problem === undefined ? asked : asked.catch(() => undefined));
    if (answer?.status === 401 && !isAssertionRefused(answer)) return undefined;
    if (problem !== undefined) throw problem;
    if (answer === undefined || (answer.status !== 200 && answer.status !== 202)) throw this.#refusal(answer);
    return { answer: this.#signIn(answer, caller), provisioned: answer.status === 200 };
  }

  /** Throws a Refusal if nobody can sign in to the cluster now. */
  #mustSignIn(caller: Caller): void {
    this.#mustBeUsable(caller);
    if (this.#options.isStale?.() === true) {
      const why = 'the login server cannot reach its Kubernetes API';
      throw unavailable(`sign-ins to cluster ${quoted(this.name)} may be suspended: ${why}`);
    }
    if (this.#cluster?.suspended !== true) return;
    const advice = [`ask the operator of the login server: kubectl get tkaclusters -n tka-federation ${this.name}`];
    // Not 403: a client then deletes the token that it has, and tokens from before the suspension work.
    throw new Refusal(422, { message: `sign-ins to cluster ${quoted(this.name)} are suspended`, advice });
  }

  /** Throws a Refusal if the policy grants nothing that is valid, or if the cluster conflicts with another one. */
  #mustBeUsable({ problem }: Caller): void {
    if (problem !== undefined) throw problem;
    const conflict = this.#cluster?.conflict;
    if (conflict === undefined) return;
    const advice = [`ask the operator of the login server: kubectl get tkaclusters -n tka-federation ${this.name}`];
    const message = `cluster ${quoted(this.name)} cannot be used: it conflicts with another cluster`;
    throw new Refusal(409, { message, advice, cause: { message: conflict } });
  }

  /** Sends a request through a tunnel, and through another one if the first gives no answer. */
  async #exchange(method: string, route: string, caller: Caller): Promise<TunnelAnswer> {
    const { assert, log, patienceMs = usualPatienceMs } = this.#options;
    const { id, signal: gone } = this.#request;
    const late = AbortSignal.timeout(patienceMs);
    const path = apiPath + route;
    const line = `${this.name} ${caller.login}`;
    const end = await this.#turns.take(line, AbortSignal.any([gone, late])).catch((error: unknown) => {
      if (gone.aborted) throw error;
      throw unavailable(`too many of your requests wait for cluster ${quoted(this.name)}`);
    });
    try {
      // The tunnels of the cluster that the policy was compared with: another one may have its name by now.
      const open = this.#cluster?.tunnels.filter((tunnel) => tunnel.cluster === this.name) ?? [];
      const tunnels = open.slice(0, mostTunnels);
      if (tunnels.length === 0) throw unavailable(`cluster ${quoted(this.name)} is not connected to this login server`);
      for (const [i, tunnel] of tunnels.entries()) {
        const isLast = i === tunnels.length - 1;
        const signals = [gone, late, ...(isLast ? [] : [AbortSignal.timeout(Math.ceil(patienceMs / 3))])];
        try {
          const assertion = await assert({ tunnel, method, path, caller });
          return await tunnel.request({ method, path, assertion, id }, AbortSignal.any(signals));
        } catch (error) {
          gone.throwIfAborted();
          const { cluster, replica } = tunnel;
          log.warn({ err: error, request: id, joined: cluster, replica }, 'a joined cluster gave no answer');
        }
      }
      throw unavailable(`cluster ${quoted(this.name)} does not answer through its tunnel`);
    } finally {
      end();
    }
  }

  #signIn(answer: TunnelAnswer, caller: Caller): LoginAnswer {
    return this.#read(answer, () => readSignIn(answer, caller));
  }

  /** Reads an answer. Throws a Refusal if it is invalid. */
  #read<T>(answer: TunnelAnswer, read: (cluster: JoinedCluster) => T): T {
    try {
      if (this.#cluster === undefined) throw new InvalidAnswer(`HTTP ${answer.status}`);
      return read(this.#cluster);
    } catch (error) {
      if (error instanceof InvalidAnswer) throw this.#invalid(error.message);
      throw error;
    }
  }

  /** Returns the refusal of a joined cluster, in the words of the login server. */
  #refusal(answer: TunnelAnswer | undefined): Refusal {
    if (answer === undefined) return unavailable(`cluster ${quoted(this.name)} does not answer through its tunnel`);
    if (answer.status === 401) {
      const advice = ['ask the operator of the cluster: the log of its TKA server says why'];
      return new Refusal(502, { message: `cluster ${quoted(this.name)} does not accept this login server`, advice });
    }
    try {
      return readRefusal(answer, this.name);
    } catch (error) {
      if (error instanceof InvalidAnswer) return this.#invalid(error.message);
      throw error;
    }
  }

  #invalid(what: string): Refusal {
    const advice = ['ask the operator of the cluster to check its TKA server'];
    return new Refusal(502, { message: `the answer of cluster ${quoted(this.name)} is not used: ${what}`, advice });
  }
}

/** Returns the refusal that lets a client go on at another replica of the login server. */
const unavailable = (message: string): Refusal =>
  new Refusal(503, { message, advice: ['try again in a moment'] }, { retryAfterSeconds: 1 });
