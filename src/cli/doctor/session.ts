// Checks of the session on this machine. SessionStore.read() would repair file modes, but doctor changes nothing.
import * as fs from 'node:fs';
import { isFresh, readEntry } from '../../credential/entry.ts';
import { roleNotice, roleRemedy, type Session, sessionOf } from '../../session/session.ts';
import { checkToken } from '../../tka/token.ts';
import { localTime, shortDuration } from '../../util/time.ts';
import type { Context } from '../context/context.ts';
import { type Checks, dependsOn, failed, ok, skipped, type Verdict, warning } from './check.ts';
import type { Told } from './server.ts';

/** Returns the session in a server's file; 'damaged' if the file holds no valid one. */
export function heldSession({ sessions }: Context, server: string): Session | 'damaged' | undefined {
  const { store } = sessions;
  const file = store.entryFile(server);
  if (store.folder === undefined || file === undefined) return undefined;
  const entry = readEntry(store.folder, server);
  const session = entry && sessionOf(entry);
  if (session !== undefined) return session;
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false }) === undefined ? undefined : 'damaged';
  } catch {
    return undefined;
  }
}

/** Sets the verdicts on grant, sign-in and token. Returns the session if its token can be sent to the API server. */
export function checkSession(context: Context, checks: Checks, server: string, told: Told): Session | undefined {
  const held = heldSession(context, server);
  const mark = context.sessions.store.signedOut.read(server);
  const session = held === 'damaged' || mark !== undefined ? undefined : held;
  // The Date header has whole seconds, so ignore differences below 2 s.
  const offset = told.skew === undefined ? (session?.clockOffset ?? 0) : Math.abs(told.skew) < 2000 ? 0 : told.skew;
  const now = Date.now() + offset;
  const login = `kubectl tka login ${server}`;

  const signIn = checks.set('sign-in', signInVerdict(session, held, mark, now, login));
  const active = signIn.status === 'ok' ? session : undefined;
  if (told.refused) checks.set('grant', dependsOn('tka-api'));
  else if (active === undefined) checks.set('grant', skipped('shown after a sign-in', login));
  else if (active.formerRole !== undefined) checks.set('grant', warning(roleNotice(active), roleRemedy(server)));
  else checks.set('grant', ok(`${active.username} has the role ${active.role}`));

  if (active === undefined) {
    checks.set('token', dependsOn('sign-in'));
    return undefined;
  }
  const token = checks.set('token', tokenVerdict(active, now, login));
  return token.status === 'ok' ? active : undefined;
}

function signInVerdict(
  session: Session | undefined,
  held: Session | 'damaged' | undefined,
  mark: { readonly at: number } | undefined,
  now: number,
  login: string,
): Verdict {
  if (mark !== undefined)
    return warning(`signed out ${localTime(mark.at)}; kubectl is refused until the next login`, login);
  if (held === 'damaged') {
    return warning('its cache entry is damaged; the next kubectl call signs in again', login);
  }
  if (session === undefined) return skipped('not signed in yet', login);
  const until = Date.parse(session.until);
  const end = localTime(until - now + Date.now());
  const who = `${session.username}, role ${session.role}`;
  if (until <= now) {
    return warning(`${who}: expired ${end}; the next kubectl call signs in again`, login);
  }
  return ok(`${who}; expires ${end}`);
}

function tokenVerdict(session: Session, now: number, login: string): Verdict {
  const claims = checkToken(session.token, now);
  // At the end of the sign-in the server deletes the ServiceAccount. That ends the token even if it is valid for
  // longer.
  const ends = Date.parse(session.expirationTimestamp) + (now - Date.now());
  const expires = Math.min(typeof claims === 'string' ? now : claims.expires, ends);
  if (typeof claims !== 'string' && expires > now) return ok(`valid for ${shortDuration(expires - now)}`);
  if (isFresh(session, Date.now())) {
    const why = typeof claims === 'string' ? claims : 'the token has already expired';
    return failed(`${why}, but kubectl still gets it`, login);
  }
  return typeof claims === 'string' && !/expired/.test(claims)
    ? failed(claims, login)
    : warning('expired; the next kubectl call gets a new one', login);
}
