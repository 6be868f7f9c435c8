// Joins a login server, one step at a time. Only the holder of the leader lease does this. All facts are in Kubernetes
// (join-records.ts), so another replica can continue at every step. The cluster's key is written before it is used: a
// join that is repeated with the same key is the same join for the login server.
import { cleanText } from '../../util/text.ts';
import type { Log } from '../log/log.ts';
import type { JoinAnswer } from './contract.ts';
import {
  type FoundStatus,
  infoName,
  type JoinRecord,
  type JoinRecords,
  type JoinStatus,
  type Membership,
} from './join-records.ts';
import type { FoundSecret, JoinSecret } from './join-secret.ts';
import { type FederationKey, keyHash, newKey } from './keys.ts';
import { federationNamespace } from './objects.ts';

export interface JoiningOptions {
  readonly records: JoinRecords;
  readonly log: Log;
  /** `federation.loginServer`. */
  readonly loginServer: string | undefined;
  /** Sends one request to join. Rejects if the login server cannot be reached, or does not prove that it is the right one. */
  readonly join: (secret: JoinSecret, key: FederationKey, signal: AbortSignal) => Promise<JoinAnswer>;
  /** Ends what came through a login server of this name. Called before the cluster joins another one, or as another cluster. */
  readonly leave: (old: Membership) => Promise<void>;
  /**
   * Returns whether the other members of the mesh know that this cluster has this key (keyHash). A login server in the
   * same mesh would take it for another cluster before. Default: true.
   */
  readonly isAnnounced?: ((keyHash: string) => boolean) | undefined;
  /** The shortest and the longest pause between two requests to join, in milliseconds. Default: 1 s and 60 s. */
  readonly pauseMs?: readonly [shortest: number, longest: number];
  /**
   * How long the other replicas may still let callers in through a login server that the cluster has left, in
   * milliseconds. Default: 30 s.
   */
  readonly settleMs?: number;
}

// How long to wait for the mesh. Some servers cannot be members of theirs just now, and can join nevertheless.
const announceMs = 30_000;

export class Joining {
  readonly #options: JoiningOptions;
  /** The join Secret that was tried last, the number of failures, and when to try again (performance.now()). */
  #tried = { hash: '', failures: 0, at: 0 };
  /** The key that the mesh is to know (keyHash), and since when it is waited for (performance.now()). */
  #announcing: { readonly hash: string; readonly since: number } | undefined;
  /** The join Secret of the login server that is joined next, and since when this process knows (performance.now()). */
  #settling: { readonly hash: string; readonly since: number } | undefined;

  constructor(options: JoiningOptions) {
    this.#options = options;
  }

  /** Returns the milliseconds until the next request to join is due. */
  pauseMs(): number {
    return Math.max(0, this.#tried.at - performance.now());
  }

  /**
   * Takes the step that the join Secret asks for, and writes how it went. Returns what tka-cluster-info says afterwards.
   * Throws a KubeError if the API server refuses; the next step then continues.
   */
  async step(found: FoundSecret, record: JoinRecord, signal: AbortSignal): Promise<JoinRecord> {
    const { membership, evicted } = record;
    if (evicted !== undefined && (found.kind === 'none' || ('hash' in found && found.hash === evicted))) {
      await this.#stayOut(evicted);
      return record;
    }
    if (found.kind === 'none') {
      if (membership === undefined) await this.#giveUp();
      return record;
    }
    if (found.kind === 'unreadable') {
      if (membership === undefined) await this.#wait(found.problem, '');
      return record;
    }
    const { hash } = found;
    const problem = this.#problemOf(found);
    if (problem !== undefined) {
      await this.#tell({ status: 'Rejected', ...problem, hash }, membership);
      return record;
    }
    if (record.problem !== undefined) {
      await this.#wait(record.problem, hash);
      return record;
    }
    if (membership?.hash === hash) {
      await this.#tell({ status: 'Joined', reason: '', msg: '', hash }, membership);
      return record;
    }
    if (found.kind !== 'secret' || (membership === undefined && (await this.#isOver(hash)))) return record;
    if (await this.#isRefused(hash)) return record;
    if (this.#tried.hash !== hash) this.#tried = { hash, failures: 0, at: 0 };
    return this.pauseMs() > 0 ? record : await this.#join(found, record, signal);
  }

  /** Returns why the join Secret cannot be used with this configuration. */
  #problemOf(found: Extract<FoundSecret, { hash: string }>): Pick<JoinStatus, 'reason' | 'msg'> | undefined {
    if (found.kind === 'invalid') return { reason: 'InvalidSecret', msg: found.problem };
    const { loginServer } = this.#options;
    if (loginServer === undefined || new URL(loginServer).origin === new URL(found.endpoint).origin) return undefined;
    const msg = `federation.loginServer is ${loginServer}, but the endpoint of the join Secret is ${found.endpoint}`;
    return { reason: 'OtherLoginServer', msg };
  }

  /** Returns whether the login server has refused this very join Secret. */
  async #isRefused(hash: string): Promise<boolean> {
    const told = await this.#options.records.status();
    return told?.status === 'Rejected' && told.hash === hash && told.reason === 'Refused';
  }

  /** Makes sure that the status says that the cluster was evicted: the leader may have written another one meanwhile. */
  async #stayOut(hash: string): Promise<void> {
    const told = await this.#options.records.status();
    if (told?.status === 'Rejected' && told.reason === 'Evicted' && told.hash === hash) return;
    const msg = 'the login server has evicted this cluster';
    // Not over what the replica that was evicted writes now: it knows why.
    await this.#tell({ status: 'Rejected', reason: 'Evicted', msg, hash }, undefined, told);
  }

  async #join(secret: JoinSecret, record: JoinRecord, signal: AbortSignal): Promise<JoinRecord> {
    const { records, join, log } = this.#options;
    const { hash, endpoint, cluster } = secret;
    const known = record.key === undefined ? await records.write(record, newKey(), {}) : record;
    if (known.key === undefined) throw new Error(`the API server did not keep the key: ${known.problem}`);
    if (!this.#isAnnounced(known.key)) {
      await this.#wait('the members of the mesh are told first that this cluster is to join', hash);
      return known;
    }
    const { settling } = known;
    if (!this.#isSettled(known)) {
      await this.#wait('the tunnels to the previous login server of the same name are closed first', hash);
      return known;
    }
    // It is joined already: a token is not used twice.
    if (settling?.hash === hash) return await this.#joined(settling, known.key, known);
    if (this.#tried.failures === 0) {
      await records.tell({ status: 'Joining', reason: '', msg: '', hash });
      log.info({ endpoint, cluster }, 'joining the login server');
    }
    const answer = await join(secret, known.key, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.debug({ err: error }, 'could not join');
      return {
        ok: false,
        code: 'unavailable',
        message: error instanceof Error ? error.message : String(error),
      } as const;
    });
    if (!answer.ok) {
      await this.#refused(answer, secret, known);
      return known;
    }
    const { primary, keys } = answer;
    const { membership: old } = known;
    const membership = { cluster, endpoint, primary, keys, hash };
    if (old?.primary === primary && !isSameLoginServer(old, membership)) {
      // Their sign-ins look the same. So first all replicas leave, and what they let in until then ends as well.
      return await records.write(known, known.key, { settling: membership });
    }
    return await this.#joined(membership, known.key, known);
  }

  /** Writes that the cluster has joined. */
  async #joined(membership: Membership, key: FederationKey, known: JoinRecord): Promise<JoinRecord> {
    const { records, leave } = this.#options;
    const { membership: old } = known;
    // Sign-ins of this name can be there before the first join: somebody may have deleted tka-cluster-info.
    // An eviction of the old name would not find the sign-ins later.
    if (old === undefined || !isSameLoginServer(old, membership) || old.cluster !== membership.cluster) {
      // A leader that was suspended meanwhile must not end the sign-ins after another one has joined.
      const now = await records.read();
      if (now.version !== known.version) return now;
      await leave(old ?? membership);
    }
    const joined = await records.write(known, key, { membership });
    await this.#tell({ status: 'Joined', reason: '', msg: '', hash: membership.hash }, membership);
    return joined;
  }

  #isAnnounced({ publicKey }: FederationKey): boolean {
    const hash = keyHash(publicKey);
    if (this.#options.isAnnounced?.(hash) !== false) {
      this.#announcing = undefined;
      return true;
    }
    if (this.#announcing?.hash !== hash) this.#announcing = { hash, since: performance.now() };
    return performance.now() - this.#announcing.since > announceMs;
  }

  #isSettled({ settling }: JoinRecord): boolean {
    if (settling === undefined) return true;
    const { hash } = settling;
    if (this.#settling?.hash !== hash) this.#settling = { hash, since: performance.now() };
    const { settleMs = 30_000 } = this.#options;
    return performance.now() - this.#settling.since >= settleMs;
  }

  async #refused(
    { code, message }: Extract<JoinAnswer, { ok: false }>,
    { hash, endpoint }: JoinSecret,
    { membership }: JoinRecord,
  ): Promise<void> {
    const why = cleanText(message, 300);
    if (code === 'rejected' || code === 'evicted') {
      const msg = `cannot join ${endpoint}: ${why}`;
      await this.#tell({ status: 'Rejected', reason: 'Refused', msg, hash }, membership);
      return;
    }
    const [shortest, longest] = this.#options.pauseMs ?? [1_000, 60_000];
    const { failures } = this.#tried;
    const pause = Math.min(shortest * 2 ** failures, longest) * (0.8 + Math.random() * 0.4);
    this.#tried = { hash, failures: failures + 1, at: performance.now() + pause };
    const msg = `cannot join ${endpoint} yet: ${why}`;
    await this.#tell({ status: 'Joining', reason: 'Unavailable', msg, hash }, membership);
  }

  /**
   * Returns whether the cluster has left: an administrator deleted tka-cluster-info after it had joined with this
   * Secret. It does not join again automatically, also because kubelet keeps the files of a deleted Secret for a minute.
   */
  async #isOver(hash: string): Promise<boolean> {
    const told = await this.#options.records.status();
    if (told?.hash !== hash) return false;
    if (told.status === 'Joined') await this.#tell({ ...left, hash }, undefined);
    return told.status === 'Joined' || (told.status === 'Rejected' && told.reason === 'Left');
  }

  /** The join Secret was deleted, and the cluster has not joined. Says so, unless the status is the end already. */
  async #giveUp(): Promise<void> {
    const told = await this.#options.records.status();
    if (told?.status === 'Rejected') return;
    const noSecret = { status: 'Rejected', reason: 'NoSecret', msg: 'the join Secret was deleted' } as const;
    const [end, hash] = told?.status === 'Joined' ? ([left, told.hash] as const) : ([noSecret, ''] as const);
    await this.#tell({ ...end, hash }, undefined);
  }

  async #wait(msg: string, hash: string): Promise<void> {
    await this.#tell({ status: 'Joining', reason: 'Waiting', msg, hash }, undefined);
  }

  /** Writes the status, and logs it if it is news. */
  async #tell(status: JoinStatus, membership: Membership | undefined, known?: FoundStatus): Promise<void> {
    const { records, log } = this.#options;
    const isJoined = status.status === 'Joined';
    const still = isJoined || membership === undefined ? '' : `; still joined to ${membership.endpoint}`;
    const msg = `${status.msg}${still}`;
    if (!(await records.tell({ ...status, msg }, known))) return;
    const { endpoint, primary, cluster } = membership ?? {};
    if (isJoined) log.info({ endpoint, primary, cluster }, 'joined the login server');
    else log.warn({ status: status.status, reason: status.reason }, `not joined: ${msg}`);
  }
}

/** Returns whether both mean the same login server, which may have changed its address or one of its keys. */
export const isSameLoginServer = (a: Membership, b: Membership): boolean =>
  a.primary === b.primary && a.keys.some((key) => b.keys.includes(key));

const left = {
  status: 'Rejected',
  reason: 'Left',
  msg: `this cluster has left its login server: the Secret ${federationNamespace}/${infoName} was deleted`,
} as const;
