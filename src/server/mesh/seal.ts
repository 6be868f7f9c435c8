// The shared key: a request with its seal was made by a holder of the key, for this process, and is new.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { UsageError } from '../../util/errors.ts';

export const sealHeader = 'tka-gossip-seal';
/** Names the process that answers: on every 401, so that the caller can seal its request for it. */
export const instanceHeader = 'tka-gossip-instance';

/** How far clocks may be apart, in milliseconds; a seal is remembered for that long on both sides of its time. */
export const sealWindow = 5 * 60 * 1000;

const sealLimit = 50_000;
const keyLimit = 32;

/** A request's seal as it was written or read. */
export interface Seal {
  /** The process that the request is for. */
  readonly instance: string;
  readonly time: number;
  readonly nonce: string;
  readonly mac: string;
}

/** Makes and checks seals. Several keys are accepted, so that the key can be changed without an interruption. */
export class SharedKey {
  /** This process. A restart makes another, so no request from before the restart is taken again. */
  readonly instance: string = randomBytes(16).toString('base64url');
  readonly #keys: readonly Buffer[];
  readonly #wall: () => number;
  /** Nonces of requests that were taken, and their times, oldest first. */
  readonly #taken = new Map<string, number>();
  readonly #limit: number;

  /** Signs with the first key and accepts all. `wall`: milliseconds of the epoch. Throws UsageError for a key that is too short. */
  constructor(keys: string | readonly string[], wall: () => number, limit = sealLimit) {
    this.#keys = [keys].flat().map((key) => Buffer.from(key.trim()));
    this.#wall = wall;
    this.#limit = limit;
    const shortest = Math.min(...this.#keys.map((key) => key.length));
    if (!(shortest >= keyLimit && shortest < Number.POSITIVE_INFINITY)) {
      throw new UsageError(`gossip.key has ${shortest} characters, and must have ${keyLimit} at least`, {
        hints: ['make one, the same for all members: openssl rand -base64 32'],
      });
    }
  }

  /** A new seal for a request to the process of that name. */
  seal(body: Buffer, instance: string): Seal {
    const unsigned = { instance, time: Math.floor(this.#wall()), nonce: randomBytes(16).toString('base64url') };
    return { ...unsigned, mac: requestMac(this.#keys[0] as Buffer, unsigned, body) };
  }

  /** The seal in a request's header, or what is wrong with it before the body is there. */
  read(header: unknown): Seal | string {
    if (header === whichProcess) return otherProcess;
    const [, instance, digits, nonce, mac] =
      typeof header === 'string' ? (/^v2 ([\w-]{22}) (\d{1,15}) ([\w-]{22}) ([\w-]{43})$/.exec(header) ?? []) : [];
    if (instance === undefined || digits === undefined || nonce === undefined || mac === undefined) {
      return 'no seal of the shared key';
    }
    if (instance !== this.instance) return otherProcess;
    const time = Number(digits);
    if (Math.abs(time - this.#wall()) > sealWindow) return 'a seal of another time';
    return { instance, time, nonce, mac };
  }

  /** Takes a request, once: returns the function that seals its answer, or what is wrong with the request. */
  take(seal: Seal, body: Buffer): ((answer: Buffer) => string) | string {
    const { time, nonce, mac } = seal;
    const key = this.#keys.find((key) => equal(mac, requestMac(key, seal, body)));
    if (key === undefined) return 'a seal of another key';
    const now = this.#wall();
    if (Math.abs(time - now) > sealWindow) return 'a seal of another time';
    for (const [old, at] of this.#taken) {
      if (at + sealWindow >= now) break;
      this.#taken.delete(old);
    }
    if (this.#taken.has(nonce)) return 'a seal for the second time';
    // Only a holder of the key comes so far. To forget some nonces would be to take their requests again.
    if (this.#taken.size >= this.#limit) return 'more requests than can be remembered';
    this.#taken.set(nonce, time);
    // With the caller's key: it may not have another one yet.
    return (answer) => answerSeal(key, seal, answer);
  }

  /** Whether an answer was made for this request, which we sealed, by a holder of the key. */
  isAnswer(request: Seal, header: unknown, body: Buffer): boolean {
    return typeof header === 'string' && equal(header, answerSeal(this.#keys[0] as Buffer, request, body));
  }
}

/** What a caller sends instead of a seal, with an empty body, to learn which process answers. */
export const whichProcess = 'v2 ?';

/** What is wrong with a request whose caller has yet to learn which process answers: no person needs to hear of it. */
export const otherProcess = 'a seal for another process';

function requestMac(key: Buffer, { instance, time, nonce }: Omit<Seal, 'mac'>, body: Buffer): string {
  return macOf(key, `tka-gossip request\n${instance}\n${time}\n${nonce}\n`, body);
}

function answerSeal(key: Buffer, request: Seal, body: Buffer): string {
  return `v2 ${macOf(key, `tka-gossip answer\n${request.mac}\n`, body)}`;
}

function macOf(key: Buffer, purpose: string, body: Buffer): string {
  return createHmac('sha256', key).update(purpose).update(body).digest('base64url');
}

/** The header of a request's seal. */
export const sealText = ({ instance, time, nonce, mac }: Seal): string => `v2 ${instance} ${time} ${nonce} ${mac}`;

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
