// Outgoing HTTP requests with undici: HTTP/1.1, one request at a time on each connection, no redirects.
import type { Dispatcher } from 'undici';

/** Options for every Pool and Client. The caller's signal is the timeout, so undici's own timeouts are off. */
export const dispatcherOptions = {
  // One HTTP/2 session would carry all calls, and a dead session would block all of them.
  allowH2: false,
  pipelining: 1,
  maxHeaderSize: 16 * 1024,
  headersTimeout: 0,
  bodyTimeout: 0,
} as const;

export type OutgoingRequest = Omit<Dispatcher.RequestOptions, 'origin' | 'signal'>;

/**
 * Sends a request. Resolves when the response begins. Rejects as soon as the signal aborts, even while the request
 * waits for a connection: undici itself checks the signal only when it has one.
 */
export function send(
  dispatcher: Dispatcher,
  request: OutgoingRequest,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  return untilAborted(signal, dispatcher.request({ ...request, signal } as Dispatcher.RequestOptions));
}

/** Settles like the promise, or rejects with the signal's reason if the signal aborts first. */
export function untilAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(signal.reason);
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}
