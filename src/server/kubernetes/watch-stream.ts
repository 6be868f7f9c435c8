// Parses the events of a watch: one JSON object per line.
import { KubeError, refusalOf } from './errors.ts';

/** A change of an object, or a bookmark: no changes up to its version. */
export interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

// The API server accepts objects up to 3 MiB.
const eventLimit = 4 * 1024 * 1024;

/** Yields the events of a stream. Calls `heard` for every chunk. Throws a KubeError for an error event. */
export async function* eventsOf<T>(
  stream: AsyncIterable<Uint8Array>,
  url: string,
  heard: () => void,
): AsyncGenerator<WatchEvent<T>> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    heard();
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > eventLimit) throw new Error(`a watch event is larger than ${eventLimit >> 20} MiB`);
    for (const line of lines) if (line !== '') yield eventIn<T>(line, url);
  }
}

function eventIn<T>(line: string, url: string): WatchEvent<T> {
  const { type, object } = (parseJson(line) ?? {}) as { readonly type?: unknown; readonly object?: unknown };
  const { code, metadata } = (object ?? {}) as { readonly code?: unknown; readonly metadata?: unknown };
  const isEvent = type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED' || type === 'BOOKMARK';
  if (isEvent && typeof metadata === 'object' && metadata !== null) return { type, object: object as T };
  if (type === 'ERROR' && typeof code === 'number') throw refusalOf(object, code, url);
  throw new KubeError(`Get "${url}": invalid watch event`);
}

/** Returns the parsed JSON, or undefined if the text is invalid. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
