// The gossip port: two routes over node:http.
import type { IncomingMessage, RequestListener } from 'node:http';
import { checkCaller, Denied, type Gate } from './gate.ts';
import { type PageQuestion, readPageQuestion } from './joined.ts';
import { instanceHeader, sealHeader } from './seal.ts';
import { type GossipQuestion, messageLimit, readQuestion } from './wire.ts';

export const gossipPath = '/gossip/v2';
/**
 * Where members fetch the page of joined clusters. A seal does not cover the path, but no body is valid at both paths.
 */
export const joinedPath = '/gossip/v2/joined';

export interface FaceOptions {
  readonly gate: Gate;
  /** Returns the answer to a question, or undefined while this member cannot answer yet. */
  readonly answer: (question: GossipQuestion) => Promise<Buffer> | undefined;
  /** Returns the page of joined clusters, or undefined while this member cannot answer yet. */
  readonly page: (question: PageQuestion) => Buffer | undefined;
  /** Called for each refused caller, with its address and the reason. */
  readonly onDenied?: (address: string, why: string) => void;
}

/**
 * Returns the request listener of the gossip port. It reads no question of a caller that is not admitted, and tells it
 * nothing.
 */
export function gossipListener({ gate, answer, page, onDenied }: FaceOptions): RequestListener {
  async function answerTo(request: IncomingMessage): Promise<{ body: Buffer; seal?: string }> {
    const isPage = request.url === joinedPath;
    if (request.url !== gossipPath && !isPage) throw new Denied(404, 'not found');
    if (request.method !== 'POST') throw new Denied(405, 'method not allowed');
    const { remoteAddress, remotePort } = request.socket;
    const seal = await checkCaller(gate, request.headers[sealHeader], remoteAddress, remotePort);
    const body = await bodyOf(request);
    const sealAnswer = seal !== undefined && 'key' in gate ? gate.key.take(seal, body) : undefined;
    if (typeof sealAnswer === 'string') throw new Denied(401, sealAnswer);
    const answered = await (isPage ? page(valid(readPageQuestion(body))) : answer(valid(readQuestion(body))));
    if (answered === undefined) throw new Denied(503, 'not ready');
    return { body: answered, ...(sealAnswer !== undefined && { seal: sealAnswer(answered) }) };
  }

  return (request, response) => {
    const address = request.socket.remoteAddress ?? '';
    answerTo(request)
      .then(({ body, seal }) => {
        response.setHeader('Content-Type', 'application/json');
        if (request.url === joinedPath) response.setHeader('Content-Encoding', 'gzip');
        if (seal !== undefined) response.setHeader(sealHeader, seal);
        response.end(body);
      })
      .catch((error: unknown) => {
        // The caller hung up, or was cut off: nobody reads an answer.
        if (request.socket.destroyed) return;
        const denied = error instanceof Denied ? error : new Denied(500, 'internal error');
        if (denied.logged) onDenied?.(address, error instanceof Denied ? error.message : String(error));
        response.statusCode = denied.status;
        if (denied.status === 401 && 'key' in gate) response.setHeader(instanceHeader, gate.key.instance);
        response.setHeader('Connection', 'close');
        // Do not wait for the rest of the request.
        response.end(() => request.socket.destroySoon());
      })
      .catch(() => response.destroy());
  };
}

/** Returns a question that was read. Throws Denied with what is wrong with it. */
function valid<T>(question: T | string): T {
  if (typeof question === 'string') throw new Denied(400, `invalid message: ${question}`);
  return question;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > messageLimit) throw new Denied(413, 'message too large');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > messageLimit) throw new Denied(413, 'message too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
