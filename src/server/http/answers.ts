// The answer of a route, before it is written to a connection.
import type { Access } from './contract.ts';

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
