// The shared key: what carries its seal comes from one who holds it, was made for this purpose, and is new.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { UsageError } from '../../errors.ts';

export const sealHeader = 'tka-gossip-seal';

/** How far clocks may be apart, in milliseconds; a seal is remembered for that long on both sides of its time. */
export const sealWindow = 5 * 60 * 1000;

// Six a second is much for one member.
const sealLimit = 20_000;
const keyLimit = 32;

/** A request's seal as it was written or read. */
export interface Seal {
  readonly time: number;
  readonly nonce: string;
  readonly mac: string;
}

/** Makes and checks seals with one key. */
export class SharedKey {
  readonly #key: Buffer;
  readonly #wall: () => number;
  /** Nonces of requests that were taken, and their times, oldest first. */
  readonly #taken = new Map<string, number>();
  readonly #limit: number;

  /** `wall`: milliseconds of the epoch. Throws UsageError for a key that is too short. */
  constructor(key: string, wall: () => number, limit = sealLimit) {
    this.#key = Buffer.from(key.trim());
    this.#wall = wall;
    this.#limit = limit;
    if (this.#key.length < keyLimit) {
      throw new UsageError(`gossip.key has ${this.#key.length} characters, and must have ${keyLimit} at least`, {
        hints: ['make one, the same for all members: openssl rand -base64 32'],
      });
    }
  }

  /** A new seal for a request. */
  seal(body: Buffer): Seal {
    const time = Math.floor(this.#wall());
    const nonce = randomBytes(16).toString('base64url');
    return { time, nonce, mac: this.#requestMac(time, nonce, body) };
  }

  /** The seal in a request's header, or what is wrong with it before the body is there. */
  read(header: unknown): Seal | string {
    const [, digits, nonce, mac] =
      typeof header === 'string' ? (/^v1 (\d{1,15}) ([\w-]{22}) ([\w-]{43})$/.exec(header) ?? []) : [];
    if (digits === undefined || nonce === undefined || mac === undefined) return 'no seal of the shared key';
    const time = Number(digits);
    if (Math.abs(time - this.#wall()) > sealWindow) return 'a seal of another time';
    return { time, nonce, mac };
  }

  /** Takes a request, once; what is wrong with it otherwise. */
  take({ time, nonce, mac }: Seal, body: Buffer): string | undefined {
    if (!equal(mac, this.#requestMac(time, nonce, body))) return 'a seal of another key';
    const now = this.#wall();
    if (Math.abs(time - now) > sealWindow) return 'a seal of another time';
    for (const [old, at] of this.#taken) {
      if (at + sealWindow >= now) break;
      this.#taken.delete(old);
    }
    if (this.#taken.has(nonce)) return 'a seal for the second time';
    // Only who holds the key comes so far. To forget some would be to take them again.
    if (this.#taken.size >= this.#limit) return 'more requests than can be remembered';
    this.#taken.set(nonce, time);
    return undefined;
  }

  /** The seal of the answer to a request. */
  sealAnswer(request: Seal, body: Buffer): string {
    return `v1 ${this.#mac(`tka-gossip answer\n${request.mac}\n`, body)}`;
  }

  /** Whether an answer was made for this request by one who holds the key. */
  isAnswer(request: Seal, header: unknown, body: Buffer): boolean {
    return typeof header === 'string' && equal(header, this.sealAnswer(request, body));
  }

  #requestMac(time: number, nonce: string, body: Buffer): string {
    return this.#mac(`tka-gossip request\n${time}\n${nonce}\n`, body);
  }

  #mac(purpose: string, body: Buffer): string {
    return createHmac('sha256', this.#key).update(purpose).update(body).digest('base64url');
  }
}

/** The header of a request's seal. */
export const sealText = ({ time, nonce, mac }: Seal): string => `v1 ${time} ${nonce} ${mac}`;

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
