import type { CacheEntry } from '../credential/entry.ts';
import type { SignIn } from '../tka/answers.ts';
import { isObject, parseJson } from '../util/json.ts';
import { cleanText } from '../util/text.ts';

/** The part of an entry that only the slow path needs. Times are RFC 3339. */
export interface SessionDetails {
  readonly username: string;
  readonly role: string;
  /**
   * The previous role, if this sign-in extends one with another role. Some servers (the Go server) keep that role until
   * a logout. Undefined if the server has applied `role`.
   */
  readonly formerRole?: string | undefined;
  readonly until: string;
  /** The server's clock minus the local clock when the token arrived, in milliseconds. */
  readonly clockOffset: number;
  /** PEM in base64; empty for the system's CAs. */
  readonly caData: string;
  readonly insecureSkipTlsVerify: boolean;
}

/** A cached token with its user and role. */
export interface Session extends Omit<CacheEntry, 'details'>, SessionDetails {}

/** Returns how long a session's token is still valid, in milliseconds. */
export function timeLeft(session: Session, now = Date.now()): number {
  return Date.parse(session.expirationTimestamp) - now;
}

/** Formats a time (milliseconds since the epoch) in UTC, rounded down to seconds: `2026-11-21T04:47:00Z`. */
export function rfc3339(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}

/** Returns the session that an entry holds, or undefined if its details are damaged. */
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
  // Version 0.1.0 reads the entry's time by the server's clock unless `clockOffset` is 0.
  const clocks = { clockOffset: 0, serverClock: clockOffset };
  const details = { username, role, formerRole, until, ...clocks, caData, insecureSkipTlsVerify };
  return { ...session, details: JSON.stringify(details) };
}

/**
 * Parses the details of an entry. `inServersClock` is the server's clock minus the local clock if version 0.1.0 wrote
 * the entry's time by the server's clock, else 0.
 */
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

/** Returns true for a time as rfc3339() writes it. Date.parse alone accepts far more, even comments with escapes. */
export function isTimestamp(value: unknown): value is string {
  return (
    typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) && !Number.isNaN(Date.parse(value))
  );
}

function isFiniteNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

// Changed roles: the Go server cannot change the role of a sign-in. It deletes a sign-in only at a logout or its end.

/** Returns the role of the previous sign-in if the new one extends it with another role. */
export function formerRoleOf(before: Session | undefined, { username, role }: SignIn): string | undefined {
  if (before === undefined || before.username !== username) return undefined;
  const ended = Date.parse(before.until) - before.clockOffset <= Date.now();
  const first = before.formerRole ?? before.role;
  return ended || first === role ? undefined : first;
}

/** Returns a notice that the role has changed and may not be in effect. */
export function roleNotice({ role, formerRole }: Session): string {
  return `your role is now ${role} (was ${formerRole}). some servers apply a new role only after a logout`;
}

/** Returns the command that applies the new role. */
export function roleRemedy(server: string): string {
  return `kubectl tka logout ${server} && kubectl tka login ${server}`;
}
