import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RouteFault } from './faults.ts';

const json = 'application/json; charset=utf-8';

/** Handles one request with a handler, changed by `fault`. `shape` is the cluster's own change below it. */
export async function serveWith(
  shape: RouteFault,
  fault: RouteFault,
  request: IncomingMessage,
  response: ServerResponse,
  next: RequestListener,
): Promise<void> {
  if (fault.latencyMs !== undefined) await wait(fault.latencyMs, response);
  await fault.hold;
  if (response.destroyed) return;
  if (fault.silent) return void request.resume();
  if (fault.reset === 'before') return reset(request.socket);

  const end = response.end.bind(response) as (body?: string | Buffer) => ServerResponse;
  response.end = ((body: string | Buffer = '') => {
    response.end = end as ServerResponse['end'];
    // A fault must never crash the test process.
    deliver(shape, fault, response, Buffer.from(body as string)).catch(() => response.destroy());
    return response;
  }) as ServerResponse['end'];

  const answer = fault.answer ?? shape.answer;
  if (answer === undefined) return next(request, response);
  const { status, body = '', contentType, headers = {} } = answer;
  const isText = typeof body === 'string' || Buffer.isBuffer(body);
  response.statusCode = status;
  response.setHeader('Content-Type', contentType ?? (isText ? 'text/plain' : json));
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  request.resume();
  response.end(isText ? body : JSON.stringify(body));
}

async function deliver(shape: RouteFault, fault: RouteFault, response: ServerResponse, normal: Buffer): Promise<void> {
  let body = normal;
  if (isJson(response) && response.statusCode < 300 && fault.answer === undefined) {
    for (const { change, changedType } of [shape, fault]) {
      // After a change to another content type, the next change does not apply.
      if (change === undefined || !isJson(response)) continue;
      const changed = change(JSON.parse(body.toString()) as never);
      body = Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed));
      if (changedType !== undefined) response.setHeader('Content-Type', changedType);
    }
  }
  if (fault.notJson || fault.oversizeMiB !== undefined) {
    response.statusCode = 200;
    response.setHeader('Content-Type', json);
  }
  if (fault.notJson) body = Buffer.from('this is not JSON {"username": ');
  for (const [name, value] of Object.entries({ ...shape.headers, ...fault.headers })) {
    if (value !== null) response.setHeader(name, value);
    else if (name.toLowerCase() === 'date') response.sendDate = false;
    else response.removeHeader(name);
  }

  const socket = response.socket;
  if (socket === null) return;
  if (fault.reset === 'after') return reset(socket);
  if (fault.oversizeMiB !== undefined) return oversize(response, fault);
  const cut = fault.reset === 'middle' ? true : fault.truncate;
  if (cut === undefined && fault.trickleMs === undefined) return void response.end(body);

  if (!response.hasHeader('transfer-encoding')) response.setHeader('Content-Length', body.length);
  const part = cut === undefined ? body : body.subarray(0, cut === true ? Math.floor(body.length / 2) : cut);
  response.flushHeaders();
  if (fault.trickleMs === undefined) await written(response, part);
  else {
    for (const byte of part) {
      await wait(fault.trickleMs, response);
      if (response.destroyed) return;
      await written(response, Buffer.of(byte));
    }
  }
  if (fault.reset === 'middle') reset(socket);
  else if (cut !== undefined) socket.destroySoon();
  else response.end();
}

const isJson = (response: ServerResponse): boolean =>
  String(response.getHeader('content-type')).startsWith('application/json');

async function oversize(response: ServerResponse, { oversizeMiB = 0, headers = {} }: RouteFault): Promise<void> {
  if (headers['Content-Length'] === undefined) response.removeHeader('content-length');
  const chunk = Buffer.alloc(1 << 20, 'x');
  await written(response, Buffer.from('{"username":"'));
  for (let i = 0; i < oversizeMiB && !response.destroyed; i++) await written(response, chunk);
  response.end('"}');
}

/** Writes, and waits until the data has been sent or the connection is closed. */
async function written(response: ServerResponse, data: Buffer): Promise<void> {
  if (data.length === 0 || response.destroyed) return;
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    response.write(data, () => {
      response.off('close', resolve);
      resolve();
    });
  });
}

/** Waits, but stops waiting when the caller disconnects. */
async function wait(ms: number, response: ServerResponse): Promise<void> {
  const hungUp = new AbortController();
  const abort = () => hungUp.abort();
  response.once('close', abort);
  await sleep(ms, undefined, { signal: hungUp.signal }).catch(() => {});
  response.off('close', abort);
}

function reset(socket: Socket): void {
  // The API stand-in uses TLS. Only the TCP socket below it can be reset.
  const below = (socket as Socket & { _parent?: Socket })._parent;
  if (below) below.resetAndDestroy();
  else if (!('encrypted' in socket)) socket.resetAndDestroy();
  socket.destroy();
}
