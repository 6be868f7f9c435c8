import { createHash } from 'node:crypto';

const shape = /\/through\/([^/]+)$/;

/**
 * Returns the sign-in store of sign-ins through a login server: `STORE/through/PRIMARY`. A direct sign-in and one through
 * a login server have nothing in common but the cluster, so their stores differ. Clients accept at most 200 printable
 * ASCII characters.
 */
export const storeThrough = (store: string, primary: string): string => `${store}/through/${suffixOf(primary)}`;

/** Returns true for the sign-in store of sign-ins through a login server. */
export const isThrough = (store: string): boolean => shape.test(store);

/** Returns true if a sign-in store is known to be that of another login server than that of the cluster `primary`. */
export function isThroughAnother(store: string | undefined, primary: string | null): boolean {
  const [, suffix] = shape.exec(store ?? '') ?? [];
  return suffix !== undefined && primary !== null && suffix !== suffixOf(primary);
}

function suffixOf(primary: string): string {
  const name = encodeURIComponent(primary.toWellFormed());
  return name.length <= 63 ? name : createHash('sha256').update(primary).digest('base64url');
}
