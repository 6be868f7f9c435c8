// Decides at the login server which clusters join, and whose tunnels are open (listener.ts asks).
import { Buckets } from '../http/limits.ts';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import type { ObjectEvents } from '../provisioner/events.ts';
import { type Clusters, readCluster } from './clusters.ts';
import type { Wish } from './conflicts.ts';
import type { Admission, DialAnswer, DialRequest, JoinAnswer, JoinRequest, RefusalCode, Refused } from './contract.ts';
import type { JoinTokens } from './join-tokens.ts';
import { keyHash } from './keys.ts';
import { apiVersion, endpointLimit, federationPaths, knownCluster, type Secret, type TkaCluster } from './objects.ts';
import { networkOf } from './strangers.ts';

export interface AdmissionOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly events: ObjectEvents;
  readonly clusters: Clusters;
  readonly tokens: JoinTokens;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** Returns the public keys of the login server, the one that signs first. */
  readonly keys: () => readonly string[];
  /** Called when a request to join was decided. Not called if that was not possible. */
  readonly onJoin?: ((outcome: 'joined' | 'rejected') => void) | undefined;
}

/** Maximum number of joined clusters: the list of the mesh has room for as many. */
export const clusterLimit = 1_000;

// How often to start over when another replica changes the same objects.
const attempts = 5;
// Reads of TkaClusters that the watch does not know, per second and at once: for one address, and for all. Strangers can
// dial with any name.
const reads = { perSecond: 10, burst: 50 };
const allReads = { perSecond: 50, burst: 250 };
// Handshakes that are not tunnels yet.
const pendingLimit = 1_024;

export class KubeAdmission implements Admission {
  readonly #options: AdmissionOptions;
  readonly #reads = new Buckets(reads.perSecond, reads.burst);
  readonly #allReads = new Buckets(allReads.perSecond, allReads.burst, 1);
  // By cluster and tunnel: the key that was proved in the handshake.
  readonly #pending = new Map<string, string>();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  async join(request: JoinRequest): Promise<JoinAnswer> {
    const { log, onJoin } = this.#options;
    try {
      const answer = await this.#join(request);
      if (answer.ok || answer.code === 'rejected') onJoin?.(answer.ok ? 'joined' : 'rejected');
      return answer;
    } catch (error) {
      log.warn({ err: error, name: request.cluster }, 'could not decide on a cluster that wants to join');
      return unavailable;
    }
  }

  async dial(request: DialRequest): Promise<DialAnswer> {
    const { log } = this.#options;
    const { cluster: name, publicKey, tunnel } = request;
    try {
      const refused = await this.#refusalOf(request);
      if (refused !== undefined) return refused;
      this.#remember(`${name} ${tunnel}`, publicKey);
      return { ok: true };
    } catch (error) {
      log.warn({ err: error, name }, 'could not decide on the tunnel of a cluster');
      return unavailable;
    }
  }

  /** Returns the key that was proved for a tunnel which is open now. Returns it once. */
  keyOf({ cluster, id }: { readonly cluster: string; readonly id: string }): string | undefined {
    const key = this.#pending.get(`${cluster} ${id}`);
    this.#pending.delete(`${cluster} ${id}`);
    return key;
  }

  #remember(tunnel: string, publicKey: string): void {
    this.#pending.delete(tunnel);
    this.#pending.set(tunnel, publicKey);
    for (const oldest of this.#pending.keys()) {
      if (this.#pending.size <= pendingLimit) break;
      this.#pending.delete(oldest);
    }
  }

  /** Returns why a cluster gets no tunnel. Throws a KubeError. */
  async #refusalOf({ cluster: name, publicKey, address }: DialRequest): Promise<Refused | undefined> {
    const { kube, clusters } = this.#options;
    if (clusters.known(name)?.publicKey === publicKey) return undefined;
    if ('overMs' in this.#reads.take(networkOf(address), 0) || 'overMs' in this.#allReads.take('', 0)) {
      return refusal('unavailable', 'the login server is busy');
    }
    // "Evicted" ends sign-ins at the joined server, so the watch is not enough: it may be late.
    const object = await readCluster(kube, name);
    if (object === undefined || object.metadata.deletionTimestamp !== undefined) {
      return refusal('evicted', `the cluster "${name}" is not joined to this login server`);
    }
    clusters.put(object);
    const known = knownCluster(object);
    if (typeof known === 'string') return refusal('unavailable', `the TkaCluster "${name}" cannot be used: ${known}`);
    if (known.publicKey === publicKey) return undefined;
    return refusal('evicted', `the cluster "${name}" is joined to this login server with another key`);
  }

  async #join(request: JoinRequest): Promise<JoinAnswer> {
    const { kube, clusters, tokens, primary, keys } = this.#options;
    const { cluster: name, publicKey, address } = request;
    const hash = keyHash(publicKey);
    for (let attempt = 0; attempt < attempts; attempt++) {
      const secret = await tokens.check(request);
      if ('ok' in secret) return secret;
      const existing = await readCluster(kube, name);
      if (existing !== undefined) clusters.put(existing);
      const problem = this.#conflictOf(request, hash, existing, secret);
      if (problem !== undefined) return problem;
      const counted = await tokens.count(secret, hash, address, existing !== undefined);
      if (typeof counted !== 'boolean') return counted;
      if (!counted) continue;
      const joined = existing ?? (await this.#create(request));
      if (joined === undefined) continue;
      clusters.put(joined);
      // Before the answer: afterwards the cluster may be evicted at any time.
      await tokens.spend(secret.metadata.name, hash);
      this.#tell(joined, 'Normal', 'Joined', `joined from ${address} with the token of Secret ${secret.metadata.name}`);
      return { ok: true, primary, keys: keys() };
    }
    return refusal('unavailable', 'other replicas of the login server change the same objects');
  }

  /** Returns why a cluster may not join although its token is good. Events say so too. */
  #conflictOf(
    request: JoinRequest,
    hash: string,
    existing: TkaCluster | undefined,
    secret: Secret,
  ): Refused | undefined {
    const { clusters } = this.#options;
    const { cluster: name, publicKey, statement, address } = request;
    const known = existing && knownCluster(existing);
    const refuse = (why: string, told = why): Refused => {
      const note = `refused a server at ${address} with the token of Secret ${secret.metadata.name}: ${why}`;
      const about = { type: 'Warning', reason: 'Conflict', action: 'JoinCluster', note } as const;
      this.#options.events.tell({ apiVersion: 'v1', kind: 'Secret', metadata: secret.metadata }, about);
      if (existing !== undefined) this.#tell(existing, 'Warning', 'Conflict', note);
      return refusal('rejected', told);
    };
    if (typeof known === 'string') return refuse(`the TkaCluster "${name}" cannot be used: ${known}`);
    if (known !== undefined && known.publicKey !== publicKey) {
      return refuse(`another cluster has joined as "${name}": if it is gone, delete its TkaCluster`);
    }
    if (existing?.metadata.deletionTimestamp !== undefined) return unavailable;
    if (known === undefined && clusters.size >= clusterLimit) {
      return refuse(`the login server has ${clusterLimit} joined clusters, which is the limit`);
    }
    if (statement.apiEndpoint.length > endpointLimit) return refuse('its API endpoint is too long');
    const wish: Wish = known ?? {
      name,
      apiEndpoint: statement.apiEndpoint,
      keyHash: hash,
    };
    const conflict = clusters.conflict(wish);
    if (conflict === 'unknown') {
      return refusal('unavailable', 'the login server does not know the members of the mesh yet');
    }
    return conflict && refuse(conflict.message, conflict.told);
  }

  /** Returns the new TkaCluster, or undefined if there is one of this name already. Throws a KubeError. */
  async #create({ cluster: name, publicKey, statement }: JoinRequest): Promise<TkaCluster | undefined> {
    const object = {
      apiVersion,
      kind: 'TkaCluster',
      metadata: { name },
      spec: { publicKey, apiEndpoint: statement.apiEndpoint, suspended: false },
    };
    try {
      return await this.#options.kube.create<TkaCluster>(federationPaths.clusters(), object);
    } catch (error) {
      if (isStatus(error, 409)) return undefined;
      throw error;
    }
  }

  #tell({ metadata }: TkaCluster, type: 'Normal' | 'Warning', reason: string, note: string): void {
    this.#options.events.tell(
      { apiVersion, kind: 'TkaCluster', metadata },
      { type, reason, action: 'JoinCluster', note },
    );
  }
}

const refusal = (code: RefusalCode, message: string): Refused => ({ ok: false, code, message });

const unavailable = refusal('unavailable', 'the login server cannot reach its Kubernetes API now');
