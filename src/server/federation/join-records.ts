// What a joined cluster keeps in its own Kubernetes API: the Secrets tka-cluster-info and tka-join-status, in the
// namespace tka-federation. The names of their keys are those of Kasten K10's multi-cluster manager.
import { isPlainName } from '../../util/text.ts';
import { canonicalApiServer } from '../../util/url.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { type FederationKey, isPublicKey, readKeys, writeKeys } from './keys.ts';
import { dataOf, federationNamespace, federationPaths, isClusterName, type Secret, textsOf } from './objects.ts';

/** The login server that this cluster has joined. */
export interface Membership {
  /** The name of this cluster at the login server. */
  readonly cluster: string;
  /** The login server's URL for tunnels. */
  readonly endpoint: string;
  /** The name of the login server's own cluster. */
  readonly primary: string;
  /** The public keys of the login server, the one that signs first. */
  readonly keys: readonly string[];
  /** The hash of the join Secret with which the cluster joined (join-secret.ts). */
  readonly hash: string;
}

/** What tka-cluster-info says. */
export interface JoinRecord {
  /** The cluster's own key. It is made before the first join, and stays the same for all joins. */
  readonly key: FederationKey | undefined;
  readonly membership: Membership | undefined;
  /** The hash of the join Secret that must not be used again, because the login server has evicted the cluster. */
  readonly evicted: string | undefined;
  /** The login server that is joined next: first, all replicas leave another one of the same name. */
  readonly settling: Membership | undefined;
  /** Why the Secret cannot be used. */
  readonly problem: string | undefined;
  /** The version of the Secret that was read. Undefined if there is none. */
  readonly version: string | undefined;
}

export type JoinState = 'Joining' | 'Joined' | 'Rejected';

/**
 * Why a cluster has not joined. `Refused` and `Evicted` come from the login server, `Left` from an administrator here.
 * These three are final for a join Secret.
 */
export type JoinReason =
  | 'Waiting'
  | 'Unavailable'
  | 'NoSecret'
  | 'InvalidSecret'
  | 'OtherLoginServer'
  | 'Refused'
  | 'Evicted'
  | 'Left';

/** What tka-join-status says. */
export interface JoinStatus {
  readonly status: JoinState;
  /** Empty for a cluster that has joined, and during the first attempt. */
  readonly reason: JoinReason | '';
  /** One line for people. Empty like `reason`. */
  readonly msg: string;
  /** The hash of the join Secret that this is about. */
  readonly hash: string;
}

/** A status as it was read. */
export type FoundStatus = JoinStatus & { readonly version: string };

export const infoName = 'tka-cluster-info';
export const statusName = 'tka-join-status';
const hashKey = 'tka-join.hash';
const evictedKey = 'tka-join.evicted';
const settlingKey = 'tka-join.settling';

/** Reads and writes both Secrets. All calls throw a KubeError. */
export class JoinRecords {
  readonly #kube: Kube;

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  /** Returns what tka-cluster-info says. */
  async read(): Promise<JoinRecord> {
    // Without the Secret, the cluster leaves its login server.
    const found = await this.#kube.getSurely<Secret>(federationPaths.secrets(infoName));
    return found === undefined ? nothing : recordOf(found);
  }

  /**
   * Writes tka-cluster-info: the cluster has joined, or not (yet), or was evicted. Returns what is there now. Throws a
   * KubeError with status 409 if the Secret has changed since `old` was read.
   */
  async write(
    old: JoinRecord,
    key: FederationKey,
    { membership, evicted, settling }: Partial<Pick<JoinRecord, 'membership' | 'evicted' | 'settling'>>,
  ): Promise<JoinRecord> {
    const at = membership ?? settling;
    const texts = {
      privateKey: writeKeys([key]),
      clusterName: at?.cluster,
      endpoint: at?.endpoint,
      primaryName: at?.primary,
      primaryPublicKey: at?.keys.join('\n'),
      [hashKey]: at?.hash,
      [evictedKey]: evicted,
      [settlingKey]: settling && 'true',
    };
    return recordOf(await this.#put(infoName, old.version, texts));
  }

  /** Returns what tka-join-status says, or undefined if there is nothing useful. */
  async status(): Promise<FoundStatus | undefined> {
    const found = await this.#kube.get<Secret>(federationPaths.secrets(statusName));
    if (found === undefined) return undefined;
    const texts = textsOf(found);
    return {
      status: texts.get('status') as JoinState,
      reason: (texts.get('reason') ?? '') as JoinReason | '',
      msg: texts.get('msg') ?? '',
      hash: texts.get(hashKey) ?? '',
      version: found.metadata.resourceVersion,
    };
  }

  /**
   * Writes tka-join-status if it says something else. Returns whether it did. Throws a KubeError with status 409 if the
   * Secret has changed since `known` was read.
   */
  async tell({ status, reason, msg, hash }: JoinStatus, known?: FoundStatus): Promise<boolean> {
    const old = known ?? (await this.status());
    const isSame = old?.status === status && old.reason === reason && old.msg === msg && old.hash === hash;
    if (isSame) return false;
    const timestamp = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    await this.#put(statusName, old?.version, { status, reason, msg, timestamp, [hashKey]: hash });
    return true;
  }

  /** Creates a Secret, or changes its values (undefined removes one). Keeps what others have added to it. */
  async #put(
    name: string,
    version: string | undefined,
    texts: Readonly<Record<string, string | undefined>>,
  ): Promise<Secret> {
    const isSet = ([, text]: readonly [string, string | undefined]) => text !== undefined;
    const data = dataOf(Object.fromEntries(Object.entries(texts).filter(isSet)) as Record<string, string>);
    if (version === undefined) {
      const metadata = { name, labels: { 'app.kubernetes.io/managed-by': 'tka-server' } };
      const secret = { apiVersion: 'v1', kind: 'Secret', type: 'Opaque', metadata, data };
      return await this.#kube.create<Secret>(federationPaths.secrets(), secret);
    }
    const removed = Object.fromEntries(Object.keys(texts).map((key) => [key, null]));
    const patch = { metadata: { resourceVersion: version }, data: { ...removed, ...data } };
    return await this.#kube.patch<Secret>(federationPaths.secrets(name), patch);
  }
}

const nothing: JoinRecord = {
  key: undefined,
  membership: undefined,
  evicted: undefined,
  settling: undefined,
  problem: undefined,
  version: undefined,
};

function recordOf(secret: Secret): JoinRecord {
  const texts = textsOf(secret);
  const version = secret.metadata.resourceVersion;
  const where = `Secret ${federationNamespace}/${infoName}`;
  let key: FederationKey | undefined;
  try {
    [key] = readKeys(texts.get('privateKey') ?? '');
  } catch {
    const problem = `the ${where} has no valid privateKey: restore it, or delete the Secret and join again`;
    return { ...nothing, problem, version };
  }
  const evicted = texts.get(evictedKey);
  // Not joined yet, or not any more.
  if (!texts.has('primaryName')) return { ...nothing, key, evicted, version };
  const membership = membershipIn(texts);
  if (texts.has(settlingKey)) return { ...nothing, key, settling: membership, version };
  const problem = membership === undefined ? `the ${where} is damaged: delete it, and join again` : undefined;
  return { ...nothing, key, membership, evicted, problem, version };
}

function membershipIn(texts: ReadonlyMap<string, string>): Membership | undefined {
  const cluster = texts.get('clusterName') ?? '';
  const primary = texts.get('primaryName') ?? '';
  const keys = (texts.get('primaryPublicKey') ?? '').split(/\s+/).filter((key) => key !== '');
  if (!isClusterName(cluster) || !isPlainName(primary) || keys.length === 0 || !keys.every(isPublicKey))
    return undefined;
  try {
    const endpoint = canonicalApiServer(texts.get('endpoint') ?? '');
    return { cluster, endpoint, primary, keys, hash: texts.get(hashKey) ?? '' };
  } catch {
    return undefined;
  }
}
