// Join tokens at the login server: Secrets of the type tka.specht-labs.de/join-token. An administrator creates one
// without data, and the server fills it. Deleting it revokes the token.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import { own, parseJson } from '../../util/json.ts';
import { quoted } from '../../util/text.ts';
import { Buckets } from '../http/limits.ts';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import type { ObjectEvents } from '../provisioner/events.ts';
import { group } from '../provisioner/objects.ts';
import { WorkQueue } from '../provisioner/queue.ts';
import type { JoinRequest, Refused } from './contract.ts';
import { dataOf, federationPaths, isClusterName, rightsHint, type Secret, textsOf } from './objects.ts';

export const joinTokenType = `${group}/join-token`;

/**
 * Annotations of a join token's Secret. The server writes two, with hashes of keys: `usedBy` before a cluster joins,
 * and `spent` when its TkaCluster was created. Between the two, the owner of the key may try again.
 */
export const tokenAnnotation = {
  cluster: `${group}/cluster-name`,
  ttl: `${group}/ttl`,
  uses: `${group}/uses`,
  usedBy: `${group}/used-by`,
  spent: `${group}/spent`,
} as const;

export const usualTtlMs = 24 * 3_600_000;
const ttlLimitMs = 365 * 24 * 3_600_000;
export const usesLimit = 1_000;

/** What a join token says. It begins with `tka-join-`, and the rest is base64url of JSON. */
export interface TokenContent {
  /** The name that the cluster gets. */
  readonly cluster: string;
  /** The name of the token's Secret. */
  readonly secret: string;
  /** 32 random bytes, base64url. */
  readonly key: string;
  /** The keyHash (keys.ts) of the login server's signing key. */
  readonly hash: string;
}

const mark = 'tka-join-';

export const writeToken = (content: TokenContent): string =>
  mark + Buffer.from(JSON.stringify({ v: 1, ...content })).toString('base64url');

/** Returns the content of a token, or undefined if the text is not a token. */
export function readToken(token: string): TokenContent | undefined {
  if (token.length > 4096 || !token.startsWith(mark)) return undefined;
  const json = parseJson(Buffer.from(token.slice(mark.length), 'base64url').toString());
  const [cluster, secret, key, hash] = ['cluster', 'secret', 'key', 'hash'].map((name) => own(json, name));
  if (own(json, 'v') !== 1 || typeof cluster !== 'string' || !isClusterName(cluster)) return undefined;
  if (typeof secret !== 'string' || !isObjectName(secret)) return undefined;
  if (typeof key !== 'string' || !digest.test(key) || typeof hash !== 'string' || !digest.test(hash)) return undefined;
  return { cluster, secret, key, hash };
}

const digest = /^[A-Za-z0-9_-]{43}$/;

// A DNS subdomain (RFC 1123), in linear time.
const isObjectName = (text: string): boolean =>
  text.length <= 253 && text.split('.').every((label) => /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/.test(label));

/** What the annotations of a join token's Secret say. */
export interface Terms {
  readonly cluster: string;
  readonly ttlMs: number;
  readonly uses: number;
  readonly usedBy: readonly string[];
  readonly spent: readonly string[];
}

/** Returns the terms of a join token's Secret, or what is wrong with them. */
export function termsOf({ metadata: { annotations = {} } }: Pick<Secret, 'metadata'>): Terms | string {
  const cluster = annotations[tokenAnnotation.cluster];
  if (cluster === undefined) return `the annotation ${tokenAnnotation.cluster} is missing: the name for the cluster`;
  if (!isClusterName(cluster)) {
    return `${tokenAnnotation.cluster}: ${quoted(cluster, 80)} is not a DNS label, like "prod-eu"`;
  }
  const ttl = annotations[tokenAnnotation.ttl];
  const ttlMs = ttl === undefined ? usualTtlMs : ttlOf(ttl);
  if (ttlMs === undefined) return `${tokenAnnotation.ttl}: ${quoted(ttl ?? '', 80)} ${ttlRule}`;
  const uses = annotations[tokenAnnotation.uses] ?? '1';
  if (!/^[1-9]\d{0,3}$/.test(uses) || Number(uses) > usesLimit) {
    return `${tokenAnnotation.uses}: ${quoted(uses, 80)} ${usesRule}`;
  }
  const hashesIn = (name: string): string[] => [
    ...new Set((annotations[name] ?? '').split(',').filter((hash) => digest.test(hash))),
  ];
  const [usedBy, spent] = [hashesIn(tokenAnnotation.usedBy), hashesIn(tokenAnnotation.spent)];
  return { cluster, ttlMs, uses: Number(uses), usedBy, spent };
}

export const ttlRule = `is not a duration from 1s to ${formatGoDuration(ttlLimitMs).replace(/0m0s$/, '')}, like "24h"`;
export const usesRule = `is not a whole number from 1 to ${usesLimit}`;

/** Returns a token's lifetime in milliseconds, or undefined if the text is not a valid duration. */
export function ttlOf(text: string): number | undefined {
  const ms = text.length > 64 ? undefined : goDuration(text);
  return ms !== undefined && ms >= 1_000 && ms <= ttlLimitMs ? ms : undefined;
}

export interface JoinTokenOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly events: ObjectEvents;
  /** `federation.endpoint`. */
  readonly endpoint: string;
  /** Returns the keyHash of the signing key, or undefined if there is none yet. */
  readonly hash: () => string | undefined;
  /** Returns a Secret as the watch knows it. */
  readonly known: (name: string) => Secret | undefined;
  /** Returns all Secrets that the watch knows. */
  readonly all: () => Iterable<Secret>;
}

/** A token, the name that a cluster wants with it, and where it comes from. */
export type Presented = Pick<JoinRequest, 'token' | 'cluster' | 'address'>;

// Reads of Secrets that the watch does not know, per second and at once. Anybody can present a token.
const readsPerSecond = 10;
const readsAtOnce = 50;
// How often to start over when other replicas change the same Secret.
const attempts = 5;

/** Fills the Secrets of join tokens, and checks the tokens that clusters present. */
export class JoinTokens {
  readonly #options: JoinTokenOptions;
  readonly #reads = new Buckets(readsPerSecond, readsAtOnce, 1);
  readonly #queue: WorkQueue;

  constructor(options: JoinTokenOptions) {
    this.#options = options;
    this.#queue = new WorkQueue({
      // A key hash behind the name: a use that is spent.
      work: async (item) => {
        const [name = '', keyHash] = item.split(' ');
        await (keyHash === undefined ? this.#fill(name) : this.spend(name, keyHash));
      },
      onError: (item, error) => {
        const [name] = item.split(' ');
        options.log.warn({ err: error, name, hints: rightsHint(error) }, 'could not write the Secret of a join token');
      },
      concurrency: 4,
    });
  }

  /** Takes note of a Secret that is new or has changed. */
  changed(name: string): void {
    this.#queue.add(name);
  }

  /** Spends the tokens with which the owner of a key has joined: its TkaCluster is gone. */
  evicted(cluster: string, keyHash: string): void {
    for (const secret of this.#options.all()) {
      // The watch may be late with the uses: `spend` reads them afresh.
      if (secret.type !== joinTokenType || secret.metadata.annotations?.[tokenAnnotation.cluster] !== cluster) continue;
      this.#queue.add([secret.metadata.name, keyHash].join(' '));
    }
  }

  stop(): Promise<void> {
    return this.#queue.stop();
  }

  /** Returns the Secret of a token that a cluster presents, or why it is not accepted. Throws a KubeError. */
  async check({ token, cluster, address }: Presented): Promise<Secret | Refused> {
    const { kube, known } = this.#options;
    const content = readToken(token);
    if (content === undefined) return rejected('this is not a join token');
    const isKnown = isSame(token, tokenIn(known(content.secret)));
    // Strangers can send any number of invented tokens.
    if (!isKnown && 'overMs' in this.#reads.take('', 0)) return { ok: false, code: 'unavailable', message: busy };
    // Fresh: the watch may be late, and the token is revoked or used up.
    const secret = await kube.get<Secret>(federationPaths.secrets(content.secret));
    if (secret === undefined || secret.type !== joinTokenType || !isSame(token, tokenIn(secret))) {
      return rejected('the join token is not valid: it was revoked, or another login server made it');
    }
    const terms = termsOf(secret);
    if (typeof terms === 'string')
      return this.#refuse(secret, `the Secret of the join token is not valid: ${terms}`, address);
    if (terms.cluster !== cluster || content.cluster !== cluster) {
      return this.#refuse(secret, `the join token is not for the cluster name "${cluster}"`, address);
    }
    const made = Date.parse(secret.metadata.creationTimestamp ?? '');
    const isOver = secret.metadata.deletionTimestamp !== undefined || !(kube.now() < made + terms.ttlMs);
    return isOver ? this.#refuse(secret, 'the join token has expired: create a new one', address) : secret;
  }

  /**
   * Counts a use of a token by the owner of a key. The same key counts once: its answer may have been lost. After an
   * eviction it does not count again: `isJoined` says whether the TkaCluster with this key exists. Returns false if the
   * Secret has changed since it was read. Throws a KubeError.
   */
  async count(secret: Secret, keyHash: string, address: string, isJoined: boolean): Promise<boolean | Refused> {
    const terms = termsOf(secret);
    if (typeof terms === 'string') return rejected(terms);
    const isSpent = terms.spent.includes(keyHash) && !isJoined;
    if (terms.usedBy.includes(keyHash) && !isSpent) return true;
    if (isSpent || terms.usedBy.length >= terms.uses) {
      return this.#refuse(secret, 'the join token has been used already: create a new one', address);
    }
    const { name, resourceVersion } = secret.metadata;
    const annotations = { [tokenAnnotation.usedBy]: [...terms.usedBy, keyHash].join(',') };
    try {
      await this.#options.kube.patch(federationPaths.secrets(name), { metadata: { resourceVersion, annotations } });
      return true;
    } catch (error) {
      if (isStatus(error, 404, 409)) return false;
      throw error;
    }
  }

  /** Notes that a use has led to a TkaCluster. Does nothing if the key has not used the token. Throws a KubeError. */
  async spend(name: string, keyHash: string): Promise<void> {
    const { kube } = this.#options;
    for (let attempt = 1; ; attempt++) {
      const secret = await kube.get<Secret>(federationPaths.secrets(name));
      const terms = secret && termsOf(secret);
      if (secret === undefined || typeof terms !== 'object') return;
      if (!terms.usedBy.includes(keyHash) || terms.spent.includes(keyHash)) return;
      const { resourceVersion } = secret.metadata;
      const marks = { [tokenAnnotation.spent]: [...terms.spent, keyHash].join(',') };
      try {
        await kube.patch(federationPaths.secrets(name), { metadata: { resourceVersion, annotations: marks } });
        return;
      } catch (error) {
        // Another replica was faster, or the Secret is gone.
        if (attempt === attempts || !isStatus(error, 404, 409)) throw error;
      }
    }
  }

  /** Refuses a token that is real. An Event says so: it may have been stolen. */
  #refuse({ metadata }: Secret, message: string, address: string): Refused {
    const note = `refused a server at ${address}: ${message}`;
    const told = { type: 'Warning', reason: 'JoinRefused', action: 'JoinCluster', note } as const;
    this.#options.events.tell({ apiVersion: 'v1', kind: 'Secret', metadata }, told);
    return rejected(message);
  }

  /** Writes endpoint and token into a Secret that has no token. */
  async #fill(name: string): Promise<void> {
    const { kube, known, endpoint, hash, events, log } = this.#options;
    const secret = known(name);
    const keyHash = hash();
    if (secret === undefined || secret.type !== joinTokenType || tokenIn(secret) !== '') return;
    // The caller adds all Secrets again when there is a key.
    if (keyHash === undefined) return;
    const terms = termsOf(secret);
    if (typeof terms === 'string') {
      log.warn({ name, problem: terms }, 'the Secret of a join token is not valid');
      const told = { type: 'Warning', reason: 'InvalidJoinToken', action: 'FillJoinToken', note: terms } as const;
      events.tell({ apiVersion: 'v1', kind: 'Secret', metadata: secret.metadata }, told);
      return;
    }
    const key = randomBytes(32).toString('base64url');
    const token = writeToken({ cluster: terms.cluster, secret: name, key, hash: keyHash });
    const { resourceVersion } = secret.metadata;
    try {
      await kube.patch(federationPaths.secrets(name), {
        metadata: { resourceVersion },
        data: dataOf({ endpoint, token }),
      });
      log.info({ name, cluster: terms.cluster }, 'filled the Secret of a join token');
    } catch (error) {
      // Another replica was faster, or the Secret is gone: the watch reports it.
      if (!isStatus(error, 404, 409)) throw error;
    }
  }
}

const busy = 'the login server is busy';

const rejected = (message: string): Refused => ({ ok: false, code: 'rejected', message });

const tokenIn = (secret: Secret | undefined): string =>
  secret === undefined ? '' : (textsOf(secret).get('token') ?? '');

/** Compares in constant time. False for an empty text. */
function isSame(presented: string, stored: string): boolean {
  const [a, b] = [presented, stored].map((text) => createHash('sha256').update(text).digest());
  return stored !== '' && a !== undefined && b !== undefined && timingSafeEqual(a, b);
}
