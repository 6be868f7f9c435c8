// A role that has changed: the Go server cannot change the role of a sign-in, and deletes it only at a logout or its end.
import type { SignIn } from '../tka/answers.ts';
import type { Session } from './session.ts';

/** Returns the role of the sign-in that a new one extends, if it was another. */
export function formerRoleOf(before: Session | undefined, { username, role }: SignIn): string | undefined {
  if (before === undefined || before.username !== username) return undefined;
  const ended = Date.parse(before.until) - before.clockOffset <= Date.now();
  const first = before.formerRole ?? before.role;
  return ended || first === role ? undefined : first;
}

/** Says that a role has changed and may not be in force. */
export function roleNotice({ role, formerRole }: Session): string {
  return `your role is ${role} now; before, it was ${formerRole}. some servers apply a changed role only after a logout`;
}

/** Says what to type then. */
export function roleRemedy(server: string): string {
  return `kubectl tka logout ${server} && kubectl tka login ${server}`;
}
