// What tailscaled answers is looked at with these: nothing in it is taken for granted.
import type { TailscaleError } from './problem.ts';

export type Json = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A field of what may be no object, or may not have it. */
export const own = (object: unknown, key: string): unknown =>
  isObject(object) && Object.hasOwn(object, key) ? object[key] : undefined;

/** The texts in what may be no list, so many at most. */
export function texts(value: unknown, limit: number): string[] {
  return Array.isArray(value) ? value.slice(0, limit).filter((item) => typeof item === 'string') : [];
}

/** Throws what `unreadable` makes of it where it is no JSON. */
export function parseJson(text: string, unreadable: (what: string, cause?: unknown) => TailscaleError): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw unreadable('no JSON', cause);
  }
}
