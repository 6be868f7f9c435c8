// What is told of each request: to the log, and to whoever counts them.
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, RequestListener } from 'node:http';
import { cleanText } from '../../tka/text.ts';
import type { Log } from '../log.ts';
import type { Caller, Identity } from './contract.ts';

/** A request that was answered, or whose caller hung up before. */
export interface Answered {
  readonly id: string;
  readonly method: string;
  /** Without its query; fit to be shown. */
  readonly path: string;
  /** undefined: the caller hung up. */
  readonly status: number | undefined;
  readonly ms: number;
  /** Set where the caller was named. */
  readonly caller: Caller | undefined;
}

/** Gives each request an ID, which its caller is told as well, and logs it when it is over. */
export class Requests {
  readonly #log: Log;
  readonly #onAnswered: ((answered: Answered) => void) | undefined;
  readonly #seen = new WeakMap<IncomingMessage, { readonly id: string; caller?: Caller }>();

  constructor(log: Log, onAnswered?: (answered: Answered) => void) {
    this.#log = log;
    this.#onAnswered = onAnswered;
  }

  /** The ID of a request that went through `listener`. */
  id(request: IncomingMessage): string | undefined {
    return this.#seen.get(request)?.id;
  }

  /** The same identity, whose answers are remembered for the log. */
  identity(identity: Identity): Identity {
    return {
      whoIs: async (request) => {
        const caller = await identity.whoIs(request);
        const seen = this.#seen.get(request);
        if (seen !== undefined) seen.caller = caller;
        return caller;
      },
    };
  }

  listener(handler: RequestListener): RequestListener {
    return (request, response) => {
      const started = performance.now();
      const id = randomUUID();
      this.#seen.set(request, { id });
      response.setHeader('X-Request-Id', id);
      // Gone by the time it is over.
      const { remoteAddress: address, remotePort: port } = request.socket;
      response.once('close', () => {
        const method = cleanText(request.method ?? '', 16);
        const path = cleanText((request.url ?? '').split('?', 1)[0] ?? '', 200);
        const status = response.writableFinished ? response.statusCode : undefined;
        const ms = Math.round((performance.now() - started) * 10) / 10;
        const caller = this.#seen.get(request)?.caller;
        const told = caller && { user: caller.login, role: caller.role };
        this.#log.info({ request: id, method, path, status, ms, address, port, ...told }, 'request');
        this.#onAnswered?.({ id, method, path, status, ms, caller });
      });
      handler(request, response);
    };
  }
}
