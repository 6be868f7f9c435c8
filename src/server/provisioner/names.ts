// The names of sign-ins and of their bindings, as the Go server gives them and as this server does.
import { createHash } from 'node:crypto';
import type { Caller } from '../http/contract.ts';

/** The name that the Go server gives every sign-in of a username, and we to those of the tailnet's own domain. */
export const plainName = (username: string): string => `tka-user-${username}`;

const isName = (name: string): boolean =>
  name.length <= 240 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);

/**
 * Returns the names that a caller's sign-in for a role may have, the first choice first. A plain name says whose it is in
 * the tailnet's own domain only. The others carry a hash of login and role, `tka-login-jurgen-0f3a…`: 80 bits, so that
 * nobody finds a login with the hash of somebody else's.
 */
export function namesOf({ username, login, ownDomain, role }: Caller): readonly string[] {
  const hash = createHash('sha256').update(`${login}\0${role}`).digest('hex').slice(0, 20);
  const readable = username
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, (other) => (/^\p{M}+$/u.test(other) ? '' : '-'))
    .slice(0, 30)
    .replace(/^-+|-+$/g, '');
  const hashed = `tka-login-${readable === '' ? '' : `${readable}-`}${hash}`;
  return ownDomain === true && isName(plainName(username)) ? [plainName(username), hashed] : [hashed];
}

export const bindingName = (name: string): string => `${name}-binding`;

/** Returns the name of the sign-in whose binding has this name; undefined where it can be no sign-in's. */
export const signInOfBinding = (binding: string): string | undefined => /^(.+)-binding$/s.exec(binding)?.[1];
