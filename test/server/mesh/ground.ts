// What the tests of the gossip port stand on: members on loopback, and messages as anybody might send them.
import * as http from 'node:http';
import { afterEach, beforeEach } from 'vitest';
import { type Mesh, type MeshOptions, startMesh } from '../../../src/server/mesh/mesh.ts';
import { instanceHeader, SharedKey, sealHeader, sealText, whichProcess } from '../../../src/server/mesh/seal.ts';

export const key = 'a shared key of at least 32 characters';
export const host = '127.0.0.1';
const running: Mesh[] = [];
/** What members have said since the test began. */
export const logged: string[] = [];
beforeEach(() => {
  logged.length = 0;
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((mesh) => mesh.stop()));
});

/** A member without peers, which never asks anybody. */
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

/** What a member answers to bytes; status 0 where it hung up. */
export function post(
  mesh: Mesh,
  body: Buffer,
  headers: http.OutgoingHttpHeaders = {},
  path = '/gossip/v1',
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
export const envelope = (more: object = {}): Buffer =>
  Buffer.from(JSON.stringify({ v: 1, teller: 'x', beats: [], records: [], want: [], ...more }));
export const now = Date.now();
export const telling = envelope({
  range: ['', ''],
  beats: ['a', now, 3, 0, 'x', now, 5, 0],
  records: [
    ['x', now, 5, 0, record],
    ['y', now, 7, 10, { ...record, labels: { 'a/b': 'c', d: '' } }],
  ],
  want: ['a'],
});
/** The process that answers at a member's port. */
export async function instanceOf(mesh: Mesh): Promise<string> {
  const { status, headers } = await post(mesh, Buffer.alloc(0), { [sealHeader]: whichProcess });
  return status === 401 ? String(headers[instanceHeader]) : '';
}
/** The header of a request to a member. */
export async function sealed(mesh: Mesh, body: Buffer, with_: string | string[] = key, wall = () => Date.now()) {
  return { [sealHeader]: sealText(new SharedKey(with_, wall).seal(body, await instanceOf(mesh))) };
}
export const names = (mesh: Mesh) => mesh.members().map(({ name }) => name);
