// The signing keys of the login server: the Secret tka-federation/signing-key, which its replicas share.
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type FederationKey, newKey, readKeys, writeKeys } from './keys.ts';
import { dataOf, federationNamespace, federationPaths, rightsHint, type Secret, textsOf } from './objects.ts';

export const signingKeyName = 'signing-key';
const dataKey = 'keys.pem';
const where = `the Secret ${federationNamespace}/${signingKeyName}`;
const firstRetryMs = 1_000;
const lastRetryMs = 30_000;

export interface SigningKeyOptions {
  readonly kube: Kube;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with each new list of keys, including the first. Must not throw. */
  readonly onKeys: (keys: readonly FederationKey[]) => void;
}

/** Follows the Secret with the keys. Creates it if there is none. An administrator rotates the keys in it. */
export class SigningKeys {
  readonly #options: SigningKeyOptions;
  #keys: readonly FederationKey[] = [];
  #problem: string | undefined = `${where} has not been read yet`;
  #exists = false;
  #isCreating = false;

  constructor(options: SigningKeyOptions) {
    this.#options = options;
  }

  /** Returns the keys, the one that signs first. Empty before they are read. */
  all(): readonly FederationKey[] {
    return this.#keys;
  }

  /** Returns why the keys may be old or missing, or undefined. */
  problem(): string | undefined {
    return this.#problem;
  }

  /**
   * Takes a version of the Secret. Keeps the last keys if it has none that can be used. Undefined: there is no such
   * Secret. Then creates it in the background, with the last keys: joined clusters know no others.
   */
  read(secret: Secret | undefined): void {
    this.#exists = secret !== undefined;
    if (secret === undefined) {
      this.#problem = `${where} does not exist`;
      if (!this.#isCreating) void this.#create();
      return;
    }
    const { log, onKeys } = this.#options;
    let keys: readonly FederationKey[];
    try {
      keys = readKeys(textsOf(secret).get(dataKey) ?? '');
    } catch (error) {
      this.#problem = `${where} cannot be used: ${(error as Error).message}`;
      const rest = this.#keys.length > 0 ? 'the last keys stay in use' : 'no cluster can join or connect until then';
      const hints = [`correct its ${dataKey}, or delete the Secret: the server writes the last keys again; ${rest}`];
      log.error({ err: error, hints }, `${where} cannot be used`);
      return;
    }
    this.#problem = undefined;
    const isSame =
      keys.map(({ publicKey }) => publicKey).join() === this.#keys.map(({ publicKey }) => publicKey).join();
    if (isSame) return;
    log.info({ keys: keys.length, signs: keys[0]?.publicKey }, 'the signing keys have changed');
    this.#keys = keys;
    onKeys(keys);
  }

  async #create(): Promise<void> {
    const { log, signal } = this.#options;
    this.#isCreating = true;
    for (let retryMs = firstRetryMs; !this.#exists && !signal.aborted; retryMs = Math.min(2 * retryMs, lastRetryMs)) {
      try {
        const keys = this.#keys.length > 0 ? this.#keys : [newKey()];
        const secret = await this.#createWith(keys);
        if (secret !== undefined) this.read(secret);
      } catch (error) {
        if (signal.aborted) break;
        log.warn({ err: error, hints: rightsHint(error) }, `could not create ${where}`);
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
    this.#isCreating = false;
  }

  /** Returns the new Secret, or the one that another replica created first. Undefined if that one is gone already. */
  async #createWith(keys: readonly FederationKey[]): Promise<Secret | undefined> {
    const { kube } = this.#options;
    const metadata = { name: signingKeyName, labels: { 'app.kubernetes.io/managed-by': 'tka-server' } };
    const data = dataOf({ [dataKey]: writeKeys(keys) });
    try {
      return await kube.create<Secret>(federationPaths.secrets(), { apiVersion: 'v1', kind: 'Secret', metadata, data });
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
      return await kube.get<Secret>(federationPaths.secrets(signingKeyName));
    }
  }
}
