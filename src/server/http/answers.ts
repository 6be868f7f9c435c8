// The answer of a route, before it is written to a connection.
import { randomUUID } from 'node:crypto';
import { apiPath, type ErrorBody } from '../../tka/types.ts';
import { cleanText } from '../../util/text.ts';
import type { Access, Refusal } from './contract.ts';

export interface RouteAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** The access that this answer gives to the caller, or ends. Never sent. */
  readonly access?: Access;
}

type Headers = Readonly<Record<string, string>>;

export const jsonAnswer = (status: number, value: unknown, headers: Headers = {}): RouteAnswer => ({
  status,
  headers: { 'Content-Type': 'application/json; charset=utf-8', ...headers },
  body: JSON.stringify(value),
});

export const textAnswer = (status: number, body: string, headers: Headers = {}): RouteAnswer => ({
  status,
  headers: { 'Content-Type': 'text/plain', ...headers },
  body,
});

export const notFound = textAnswer(404, '404 page not found');

/** Returns the answer to a request for this path that is refused. */
export function refusalAnswer(refusal: Refusal, path: string, retryAfter: Headers): RouteAnswer {
  const { status, body, retryAfterSeconds } = refusal;
  // The Go server sends Retry-After with this route's 401 and 500 as well.
  const again = path === `${apiPath}/kubeconfig` && (status === 401 || status === 500);
  const headers =
    retryAfterSeconds !== undefined ? { 'Retry-After': String(retryAfterSeconds) } : again ? retryAfter : {};
  return jsonAnswer(status, body, headers);
}

/** Returns an error with its causes in one line, for the log: its readers need the causes to fix the problem. */
export function messagesOf(body: ErrorBody): string {
  const messages: string[] = [];
  for (let at: ErrorBody | undefined = body; at && messages.length < 5; at = at.cause) messages.push(at.message);
  return cleanText(messages.join(': '), 1000);
}

/** Returns the request ID that a caller states if it is safe to log, or a new one. */
export function requestId(given: unknown): string {
  return typeof given === 'string' && /^[\w.:-]{1,64}$/.test(given) ? given : randomUUID();
}
