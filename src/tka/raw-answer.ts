// HTTP answers of a TKA server before they are parsed, and the errors that they mean.

import { Unavailable } from '../network/failure.ts';
import type { TkaError } from '../util/errors.ts';
import { isObject, own, parseJson } from '../util/json.ts';
import { cleanText, isPlainName } from '../util/text.ts';
import { joinedNameOf, placeOf } from '../util/url.ts';
import { NotSignedIn, Refused } from './errors.ts';
import { noGrantIn, policyPage } from './no-grant.ts';

/** An HTTP answer as it arrived; header names in lower case. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: string;
}

// Milliseconds. A failing server usually recovers within seconds, or not at all.
const answeredPatience = 5_000;

// JSON such as `[{},{},{}` uses a hundred times its length in memory. No answer of the protocol has so many values.
const valueLimit = 1_000_000;

/** Returns the value of a JSON body; undefined if it is invalid or has more than a million values. */
export function parseAnswer(text: string): unknown {
  return text.length > valueLimit && countValues(text) > valueLimit ? undefined : parseJson(text);
}

// An upper bound, because characters within strings count too.
function countValues(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x2c || c === 0x5b || c === 0x7b) count++;
  }
  return count;
}

/** Returns the server's Retry-After in milliseconds; undefined if it is missing or not in seconds. */
export function retryAfter(answer: RawAnswer): number | undefined {
  const seconds = answer.headers['retry-after']?.trim() ?? '';
  return /^[0-9]{1,6}$/.test(seconds) ? Number(seconds) * 1000 : undefined;
}

/** Returns the answer's Date in milliseconds since the epoch; undefined if it is missing or invalid. */
export function serverTime(answer: RawAnswer): number | undefined {
  const date = answer.headers.date ?? '';
  // The format of RFC 9110. Date.parse alone accepts other forms, and years of six digits.
  if (!/^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(date)) return undefined;
  const time = Date.parse(date);
  return Number.isNaN(time) ? undefined : time;
}

const adviceLimit = 64;

/** Returns the outermost and the innermost message of an error body, and its advice; undefined for other bodies. */
export function errorWords(body: string): { message: string; advice: string[] } | undefined {
  const top = parseAnswer(body);
  if (!isObject(top)) return undefined;
  const messages: string[] = [];
  const advice: string[] = [];
  for (let at: unknown = top, depth = 0; isObject(at) && depth < 16; at = own(at, 'cause'), depth++) {
    const message = [own(at, 'message'), own(at, 'error')].find(isText);
    if (message !== undefined) messages.push(cleanText(message, 600));
    const lines = own(at, 'advice');
    for (const line of Array.isArray(lines) ? lines : []) if (isText(line)) advice.push(line);
  }
  if (messages.length === 0) return undefined;
  const told = advice.slice(0, adviceLimit).map((line) => cleanText(line, 1000));
  if (advice.length > told.length) told.push(`and ${advice.length - told.length} more`);
  return { message: [...new Set([messages[0], messages.at(-1)])].join(': '), advice: told };
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && cleanText(value) !== '';
}

const policyHint = `ask a maintainer of the tailnet policy; its rules: ${policyPage}`;
const taggedHint =
  'the Go server accepts people only, not tagged devices: sign in from a device of a person, or use a tka-server with identity.allowTagged';

/** Returns the error for an answer of a server with an unexpected status. */
export function refusal(answer: RawAnswer, server: string, doing: string): TkaError {
  const { status } = answer;
  const who = placeOf(server);
  const words = errorWords(answer.body);
  const said = words === undefined ? '' : `: ${words.message}`;
  const advice = words?.advice ?? [];
  if (status === 429) return tooMany(answer, who, doing, said, advice);
  if (words === undefined) {
    return status === 401
      ? new NotSignedIn(`${who} has no sign-in for you (HTTP 401)`)
      : notProtocol(server, doing, `HTTP ${status}`, isGateways(status));
  }
  const noGrant = status === 403 ? noGrantIn(parseAnswer(answer.body), server, words) : undefined;
  if (noGrant !== undefined) return noGrant;
  const hints = [...advice, ...ownHints(status, words.message, advice), ...unconnectedHints(answer, server, advice)];
  if (status === 401) return new NotSignedIn(`${who} has no sign-in for you${said}`, { hints });
  const isModified = isConflict(words.message);
  // 409: a joined cluster that conflicts with another one.
  if (
    [400, 403, 404, 422].includes(status) ||
    (status === 409 && !isModified) ||
    (status === 500 && isAboutPeriod(words.message))
  ) {
    return new Refused(`${who} refused ${doing}${said} (HTTP ${status})`, status, { hints });
  }
  const kind =
    (status === 409 || status === 500) && isModified ? { pause: 0 } : { answered: true, away: isGateways(status) };
  return new Unavailable(`${who} failed at ${doing}${said} (HTTP ${status})`, answeredPatience, { hints, ...kind });
}

/** Returns our hints for a refusal, besides the server's own advice. */
function ownHints(status: number, message: string, advice: readonly string[]): string[] {
  if (/^tagged nodes not \(yet\) supported/i.test(message)) return [taggedHint];
  const isGrant = status === 403 && advice.length === 0 && /grant|not authori[sz]ed/i.test(message);
  return (isGrant || isAboutRule(message)) && !advice.some((line) => line.includes(policyPage)) ? [policyHint] : [];
}

/** Returns the hint for a joined cluster that has no connection to its login server, if the server gives none. */
function unconnectedHints({ status }: RawAnswer, server: string, advice: readonly string[]): string[] {
  const name = joinedNameOf(server);
  if (name === undefined || status !== 503 || advice.length > 0) return [];
  return [`try again: ${name} connects by itself; if it stays away, its administrator must check its TKA server`];
}

/** Returns whether the status is a proxy's or load balancer's while the server behind it is down. */
function isGateways(status: number): boolean {
  return status === 502 || status === 503 || status === 504;
}

// The Go server's words for an invalid or too short period in the policy. A retry does not help.
function isAboutPeriod(message: string): boolean {
  return /`period`|parsing duration/i.test(message);
}

// The Go server's words for rules of the policy that it cannot read, or that contradict each other.
function isAboutRule(message: string): boolean {
  return isAboutPeriod(message) || /capability (?:map|rule)|same priority/i.test(message);
}

// Kubernetes' words if another request changed the same sign-in at the same time. A retry helps at once.
function isConflict(message: string): boolean {
  return message.includes('the object has been modified');
}

// A retry is worthwhile for as long as the server asks, up to the caller's time limit.
function tooMany(answer: RawAnswer, who: string, doing: string, why: string, advice: readonly string[]): Unavailable {
  const pause = retryAfter(answer) ?? 1000;
  return new Unavailable(
    `${who} is rate-limiting and did not answer ${doing}${why} (HTTP 429)`,
    Number.POSITIVE_INFINITY,
    {
      hints: [...advice, `try again in ${Math.ceil(pause / 1000)} s`],
      pause,
    },
  );
}

/** Returns the error for an answer that is not of the protocol; `what` says why. */
export function notProtocol(server: string, doing: string, what: string, away = false): Unavailable {
  return new Unavailable(
    `${placeOf(server)} answered ${doing} with something that is not the TKA protocol (${what})`,
    answeredPatience,
    {
      answered: true,
      away,
      hints: ['check that this address is a TKA server, not a proxy or another service: kubectl tka config'],
    },
  );
}

/** Matches a time in RFC 3339 format. */
export const rfc3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/;

/** Returns the name of a server or a cluster; null if it is not a valid name. */
export const nameIn = (value: unknown): string | null =>
  typeof value === 'string' && isPlainName(value) ? value : null;

/** Returns at most 64 labels, cleaned. */
export function labelsOf(value: unknown): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  if (!isObject(value)) return labels;
  for (const [key, label] of Object.entries(value).slice(0, 64)) {
    // Kubernetes allows 253 + 1 + 63 characters for a key and 63 for a value.
    if (typeof label === 'string' && cleanText(key, 317) !== '') labels.set(cleanText(key, 317), cleanText(label));
  }
  return labels;
}
