// Reads JSON from elsewhere: nothing in it is taken for granted.

export type Json = Readonly<Record<string, unknown>>;

/** Returns the value of a JSON text, undefined if it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Returns a field of a value; undefined if it is no object or does not have the field itself. */
export const own = (object: unknown, key: string): unknown =>
  isObject(object) && Object.hasOwn(object, key) ? object[key] : undefined;

/** Returns the texts among the first `limit` items of a list; none if the value is no list. */
export const texts = (value: unknown, limit: number): string[] =>
  Array.isArray(value) ? value.slice(0, limit).filter((item) => typeof item === 'string') : [];
