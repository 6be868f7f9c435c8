// The shared key. A valid seal proves that a holder of the key made the request, that it is for this process, and that
// it is new.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { UsageError } from '../../util/errors.ts';

export const sealHeader = 'tka-gossip-seal';
/**
 * Names the process that answers. Each 401 has this header, so that the caller can seal its request for that process.
 */
export const instanceHeader = 'tka-gossip-instance';

/**
 * Maximum difference between two clocks, in milliseconds. Seals are accepted, and so remembered, for this long before
 * and after their time.
 */
export const sealWindow = 5 * 60 * 1000;

const sealLimit = 50_000;
const keyLimit = 32;

/** The seal of a request. */
export interface Seal {
  /** The process that the request is for. */
  readonly instance: string;
  readonly time: number;
  readonly nonce: string;
  readonly mac: string;
}

/** Makes and checks seals. Accepts several keys, so that the key can be changed without an interruption. */
export class SharedKey {
  /** ID of this process. A restart changes it, so requests from before the restart are not accepted again. */
  readonly instance: string = randomBytes(16).toString('base64url');
  readonly #keys: readonly Buffer[];
  readonly #wall: () => number;
  /** Nonces of accepted requests and their times, oldest first. */
  readonly #taken = new Map<string, number>();
  readonly #limit: number;

  /**
   * Signs with the first key and accepts all. `wall` returns Unix time in milliseconds. Throws UsageError if a key is
   * too short.
   */
  constructor(keys: string | readonly string[], wall: () => number, limit = sealLimit) {
    this.#keys = [keys].flat().map((key) => Buffer.from(key.trim()));
    this.#wall = wall;
    this.#limit = limit;
    const shortest = Math.min(...this.#keys.map((key) => key.length));
    if (!(shortest >= keyLimit && shortest < Number.POSITIVE_INFINITY)) {
      throw new UsageError(`gossip.key has ${shortest} characters, but needs at least ${keyLimit}`, {
        hints: ['create one key for all members: openssl rand -base64 32'],
      });
    }
  }

  /** Returns a new seal for a request to the process `instance`. */
  seal(body: Buffer, instance: string): Seal {
    const unsigned = { instance, time: Math.floor(this.#wall()), nonce: randomBytes(16).toString('base64url') };
    return { ...unsigned, mac: requestMac(this.#keys[0] as Buffer, unsigned, body) };
  }

  /** Reads the seal in a request's header, or returns what is wrong with it. Does not need the body. */
  read(header: unknown): Seal | string {
    if (header === whichProcess) return otherProcess;
    const [, instance, digits, nonce, mac] =
      typeof header === 'string' ? (/^v2 ([\w-]{22}) (\d{1,15}) ([\w-]{22}) ([\w-]{43})$/.exec(header) ?? []) : [];
    if (instance === undefined || digits === undefined || nonce === undefined || mac === undefined) {
      return 'missing or invalid seal';
    }
    if (instance !== this.instance) return otherProcess;
    const time = Number(digits);
    if (Math.abs(time - this.#wall()) > sealWindow) return 'the time of the seal is out of range';
    return { instance, time, nonce, mac };
  }

  /** Accepts a request, once. Returns the function that seals its answer, or what is wrong with the request. */
  take(seal: Seal, body: Buffer): ((answer: Buffer) => string) | string {
    const { time, nonce, mac } = seal;
    const key = this.#keys.find((key) => equal(mac, requestMac(key, seal, body)));
    if (key === undefined) return 'sealed with another key';
    const now = this.#wall();
    if (Math.abs(time - now) > sealWindow) return 'the time of the seal is out of range';
    for (const [old, at] of this.#taken) {
      if (at + sealWindow >= now) break;
      this.#taken.delete(old);
    }
    if (this.#taken.has(nonce)) return 'the seal was already used';
    // Only a holder of the key gets this far. If we forgot some nonces, we would accept their requests again.
    if (this.#taken.size >= this.#limit) return 'too many requests to remember';
    this.#taken.set(nonce, time);
    // Seals with the caller's key, because the caller may not have the others yet.
    return (answer) => answerSeal(key, seal, answer);
  }

  /** Returns whether a holder of the key made this answer to our sealed request. */
  isAnswer(request: Seal, header: unknown, body: Buffer): boolean {
    return typeof header === 'string' && equal(header, answerSeal(this.#keys[0] as Buffer, request, body));
  }
}

/** Sent instead of a seal, with an empty body, to learn which process answers. */
export const whichProcess = 'v2 ?';

/** The problem with a request whose caller does not know yet which process answers. It is not logged. */
export const otherProcess = 'the seal is for another process';

function requestMac(key: Buffer, { instance, time, nonce }: Omit<Seal, 'mac'>, body: Buffer): string {
  return macOf(key, `tka-gossip request\n${instance}\n${time}\n${nonce}\n`, body);
}

function answerSeal(key: Buffer, request: Seal, body: Buffer): string {
  return `v2 ${macOf(key, `tka-gossip answer\n${request.mac}\n`, body)}`;
}

function macOf(key: Buffer, purpose: string, body: Buffer): string {
  return createHmac('sha256', key).update(purpose).update(body).digest('base64url');
}

/** Returns the header value of a request's seal. */
export const sealText = ({ instance, time, nonce, mac }: Seal): string => `v2 ${instance} ${time} ${nonce} ${mac}`;

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
