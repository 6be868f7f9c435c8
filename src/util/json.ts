// Reads untrusted JSON, without assumptions about its shape.

export type Json = Readonly<Record<string, unknown>>;

/** Returns the value of a JSON text; undefined if it is invalid. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Returns an object's own field; undefined if the value is not an object or lacks the field. */
export const own = (object: unknown, key: string): unknown =>
  isObject(object) && Object.hasOwn(object, key) ? object[key] : undefined;

/** Returns the strings among the first `limit` items of a list; an empty list if the value is not a list. */
export const texts = (value: unknown, limit: number): string[] =>
  Array.isArray(value) ? value.slice(0, limit).filter((item) => typeof item === 'string') : [];
