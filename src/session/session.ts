import type { CacheEntry } from '../credential/entry.ts';
import type { SignIn } from '../tka/answers.ts';
import { isObject, parseJson } from '../util/json.ts';
import { cleanText } from '../util/text.ts';

/** What the slow path knows of an entry beyond what the fast path needs. Times are RFC 3339. */
export interface SessionDetails {
  readonly username: string;
  readonly role: string;
  /**
   * The role of the sign-in that this one extends, if it was another: some servers (the Go server) keep it until a
   * logout. Undefined if the server has applied `role`.
   */
  readonly formerRole?: string | undefined;
  readonly until: string;
  /** The server's clock minus ours, in milliseconds, when the token came. */
  readonly clockOffset: number;
  /** Base64 of PEM; empty: the system's CAs. */
  readonly caData: string;
  readonly insecureSkipTlsVerify: boolean;
}

/** A token in the cache, with the user and the role that it stands for. */
export interface Session extends Omit<CacheEntry, 'details'>, SessionDetails {}

/** Milliseconds for which a session's token is still good. */
export function timeLeft(session: Session, now = Date.now()): number {
  return Date.parse(session.expirationTimestamp) - now;
}

/** A time (milliseconds of the epoch) in whole seconds, cut, UTC: `2026-11-21T04:47:00Z`. */
export function rfc3339(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

/** Returns the session that an entry holds; undefined if its details are damaged. */
export function sessionOf(entry: CacheEntry): Session | undefined {
  const details = parseDetails(entry.details);
  if (details === undefined) return undefined;
  const { inServersClock, ...rest } = details;
  const session = { ...entry, ...rest };
  if (inServersClock === 0) return session;
  const ends = new Date(Date.parse(entry.expirationTimestamp) - inServersClock);
  return Number.isNaN(ends.getTime()) ? undefined : { ...session, expirationTimestamp: rfc3339(ends.getTime()) };
}

/** Returns the entry that holds a session. */
export function entryOf(session: Session): CacheEntry {
  const { username, role, formerRole, until, clockOffset, caData, insecureSkipTlsVerify } = session;
  // 0.1.0 reads the entry's time by the server's clock, unless `clockOffset` is 0.
  const clocks = { clockOffset: 0, serverClock: clockOffset };
  const details = { username, role, formerRole, until, ...clocks, caData, insecureSkipTlsVerify };
  return { ...session, details: JSON.stringify(details) };
}

/** `inServersClock`: the server's clock minus ours, if 0.1.0 wrote the entry's time by the server's clock; else 0. */
function parseDetails(text: string): (SessionDetails & { inServersClock: number }) | undefined {
  const value = parseJson(text);
  if (!isObject(value)) return undefined;
  const { username, role, until, clockOffset, serverClock = clockOffset, caData, insecureSkipTlsVerify } = value;
  const formerRole = typeof value.formerRole === 'string' ? cleanText(value.formerRole) : undefined;
  if (typeof username !== 'string' || typeof role !== 'string' || !isTimestamp(until)) return undefined;
  if (!isFiniteNumber(clockOffset) || !isFiniteNumber(serverClock)) return undefined;
  if (typeof caData !== 'string' || typeof insecureSkipTlsVerify !== 'boolean') return undefined;
  const names = { username: cleanText(username), role: cleanText(role), formerRole };
  return { ...names, until, clockOffset: serverClock, inServersClock: clockOffset, caData, insecureSkipTlsVerify };
}

/** True for a time as this program writes it. Date.parse alone takes much else, comments with escapes in them too. */
export function isTimestamp(value: unknown): value is string {
  return (
    typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) && !Number.isNaN(Date.parse(value))
  );
}

function isFiniteNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

// A role that has changed: the Go server cannot change the role of a sign-in, and deletes it only at a logout or its end.

/** Returns the role of the sign-in that a new one extends, if it was another. */
export function formerRoleOf(before: Session | undefined, { username, role }: SignIn): string | undefined {
  if (before === undefined || before.username !== username) return undefined;
  const ended = Date.parse(before.until) - before.clockOffset <= Date.now();
  const first = before.formerRole ?? before.role;
  return ended || first === role ? undefined : first;
}

/** Says that a role has changed and may not be in force. */
export function roleNotice({ role, formerRole }: Session): string {
  return `your role is now ${role} (was ${formerRole}). some servers apply a new role only after a logout`;
}

/** Says what to type then. */
export function roleRemedy(server: string): string {
  return `kubectl tka logout ${server} && kubectl tka login ${server}`;
}
