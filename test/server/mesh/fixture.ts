// Members of the mesh on loopback, and messages as any sender might send them.
import * as http from 'node:http';
import { afterEach, beforeEach } from 'vitest';
import { gossipPath } from '../../../src/server/mesh/face.ts';
import { digestOf } from '../../../src/server/mesh/member.ts';
import { type Mesh, startMesh } from '../../../src/server/mesh/mesh.ts';
import type { MeshOptions } from '../../../src/server/mesh/options.ts';
import { instanceHeader, SharedKey, sealHeader, sealText, whichProcess } from '../../../src/server/mesh/seal.ts';

export const key = 'a shared key of at least 32 characters';
export const host = '127.0.0.1';
const running: Mesh[] = [];
const closing: http.Server[] = [];
/** Log lines of members since the test started. */
export const logged: string[] = [];
beforeEach(() => {
  logged.length = 0;
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((mesh) => mesh.stop()));
  for (const server of closing.splice(0)) server.close().closeAllConnections();
});

/** Starts a member without peers, which sends no requests. */
export async function member(name: string, more: Partial<MeshOptions> = {}): Promise<Mesh> {
  const mesh = await startMesh({
    name,
    record: { server: 'http://127.0.0.1:8123', apiEndpoint: 'https://api.example.com', labels: {}, version: '1' },
    hosts: [host],
    port: 0,
    intervalMs: 100,
    log: (_, line) => logged.push(line),
    ...more,
  });
  running.push(mesh);
  return mesh;
}

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Returns a member's answer to bytes; status 0 if it hung up. */
export function post(
  mesh: Mesh,
  body: Buffer,
  headers: http.OutgoingHttpHeaders = {},
  path = gossipPath,
): Promise<Answer> {
  return new Promise((resolve) => {
    const nothing = { status: 0, headers: {}, body: Buffer.alloc(0) };
    http
      .request({ host, port: mesh.port, path, method: 'POST', headers, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response
          .on('data', (chunk) => chunks.push(chunk))
          .on('error', () => resolve(nothing))
          .on('end', () =>
            resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
          );
      })
      .on('error', () => resolve(nothing))
      .end(body);
  });
}

export const record = {
  server: 'https://tka-x.example.ts.net',
  gossipPort: 7946,
  apiEndpoint: 'https://api.x.example.com',
  labels: { region: 'eu' },
  version: '1.4.0',
};
/** Returns a record as read at this address. */
export const recordAt = (address: string) => ({
  ...record,
  server: `http://${host}:8123`,
  gossipPort: Number(address.split(':')[1]),
});
const said = { v: 2, name: 'x', process: 'p1', version: 'v1' };
/** Returns a request as any member might send it. */
export const question = (more: object = {}): Buffer =>
  Buffer.from(JSON.stringify({ ...said, at: '127.0.0.1:9', members: [1, 'd1'], ...more }));
export const asking = question();
/** Returns an answer as any member might give it, over a connection to it. */
export function telling(more: object = {}): Buffer {
  const merged = { ...said, record, others: [], ...more };
  return Buffer.from(JSON.stringify({ ...merged, version: digestOf(JSON.stringify(merged.record)), ...more }));
}
/** Starts a peer that gives this answer to each request. Returns its host and port, and the requests that it got. */
export async function peer(answer: (address: string) => Buffer) {
  const asked: Buffer[] = [];
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk) => chunks.push(chunk))
      .on('end', () => {
        asked.push(Buffer.concat(chunks));
        response.end(answer(address));
      });
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  closing.push(server);
  const { port } = server.address() as { port: number };
  const address = `${host}:${port}`;
  return { address, port, asked };
}
/** Returns the ID of the process that answers at a member's port. */
export async function instanceOf(mesh: Mesh): Promise<string> {
  const { status, headers } = await post(mesh, Buffer.alloc(0), { [sealHeader]: whichProcess });
  return status === 401 ? String(headers[instanceHeader]) : '';
}
/** Returns the header of a request to a member. */
export async function sealed(mesh: Mesh, body: Buffer, with_: string | string[] = key, wall = () => Date.now()) {
  return { [sealHeader]: sealText(new SharedKey(with_, wall).seal(body, await instanceOf(mesh))) };
}
export const names = (mesh: Mesh) => mesh.members().map(({ name }) => name);
