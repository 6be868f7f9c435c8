// Traces by OTLP over gRPC, from the built server to a real gRPC server.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { type StandInCaller, startTailscaled } from '../../../src/sandbox/tailscaled.ts';
import { traceTarget } from '../../../src/server/telemetry/traces.ts';
import { freePort } from '../../fixtures/ports.ts';
import { fileFolder, testFolder } from '../../fixtures/temporary.ts';
import { ask, program, TkaServerProcess } from '../program.ts';

test.each([
  ['collector:4317', true, { grpc: true, url: 'http://collector:4317' }],
  ['collector:4317', false, { grpc: true, url: 'https://collector:4317' }],
  ['jaeger:14250', true, { grpc: true, url: 'http://jaeger:14250' }],
  ['[::1]:80', true, { grpc: true, url: 'http://[::1]:80' }],
  ['collector:4318', true, { grpc: false, url: 'http://collector:4318/v1/traces' }],
  ['collector:4318', false, { grpc: false, url: 'https://collector:4318/v1/traces' }],
  ['http://collector:4317', false, { grpc: false, url: 'http://collector:4317/v1/traces' }],
  ['https://traces.example.com/otlp', true, { grpc: false, url: 'https://traces.example.com/otlp' }],
])('%s, insecure: %s', (endpoint, insecure, target) => {
  expect(traceTarget(endpoint, insecure)).toEqual(target);
});

/** A message of protobuf's wire format: its fields by number, each with all its values. */
class Message {
  readonly #fields = new Map<number, (Buffer | bigint)[]>();

  constructor(bytes: Buffer) {
    let at = 0;
    const varint = () => {
      let value = 0n;
      for (let shift = 0n; ; shift += 7n) {
        const byte = bytes[at++] ?? 0;
        value |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
      }
    };
    const take = (length: number) => {
      at += length;
      return bytes.subarray(at - length, at);
    };
    while (at < bytes.length) {
      const tag = Number(varint());
      const kind = tag & 7;
      const value = kind === 0 ? varint() : take(kind === 1 ? 8 : kind === 5 ? 4 : Number(varint()));
      this.#fields.set(tag >> 3, [...(this.#fields.get(tag >> 3) ?? []), value]);
    }
  }

  messages(...[field = 0, ...further]: readonly number[]): Message[] {
    const found = (this.#fields.get(field) ?? []).map((value) => new Message(value as Buffer));
    return further.length === 0 ? found : found.flatMap((message) => message.messages(...further));
  }

  value(field: number): string | number | undefined {
    const [first] = this.#fields.get(field) ?? [];
    return typeof first === 'bigint' ? Number(first) : first?.toString();
  }

  /** Returns the attributes in a field, of the types string_value (1) and int_value (3). */
  attributes(field: number): Record<string, unknown> {
    const entries = this.messages(field).map((one) => {
      const [value] = one.messages(2);
      return [one.value(1), value?.value(1) ?? value?.value(3)];
    });
    return Object.fromEntries(entries);
  }
}

const alice: StandInCaller = {
  login: 'alice@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
};

/** Starts the trace service of OTLP on 127.0.0.1, and returns the requests that it got. */
async function startCollector(credentials: ServerCredentials) {
  const got: Message[] = [];
  const server = new Server();
  const service = {
    Export: {
      path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: Buffer) => message,
      requestDeserialize: (bytes: Buffer) => new Message(bytes),
      responseSerialize: (message: Buffer) => message,
      responseDeserialize: (bytes: Buffer) => bytes,
    },
  } as const;
  server.addService(service, {
    Export: (call: { request: Message }, answer: (error: null, value: Buffer) => void) => {
      got.push(call.request);
      answer(null, Buffer.alloc(0));
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error === null ? resolve(port) : reject(error)));
  });
  return { got, port, [Symbol.dispose]: () => server.forceShutdown() };
}

// A copy outside the project, as in the image, which can load only what is in the bundle.
const copy = path.join(fileFolder(), 'tka-server');
const folderOf = (file: string) => path.join(path.dirname(file), 'lib');
fs.mkdirSync(folderOf(copy));
fs.copyFileSync(program, copy);
fs.copyFileSync(path.join(folderOf(program), 'tka-server.cjs'), path.join(folderOf(copy), 'tka-server.cjs'));
fs.symlinkSync(path.join(folderOf(program), 'node'), path.join(folderOf(copy), 'node'));
const insteadOfProgram = ['sh', '-c', 'shift; exec "$0" "$@"', copy];

/** Runs a server that sends its traces there, with one request to it, until it ends. */
async function served(otel: object, env: Readonly<Record<string, string>> = {}) {
  const tailscaled = await startTailscaled({ whois: () => alice });
  const port = await freePort('127.0.0.1');
  const config = {
    clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
    server: { host: '127.0.0.1' },
    tailscale: { port },
    health: { port: await freePort('127.0.0.1') },
    otel,
  };
  const all = { TS_SOCKET: tailscaled.socketPath, ...env };
  await using server = new TkaServerProcess(config, all, undefined, insteadOfProgram);
  await server.said(/listening for the API/);
  const { status, headers } = await ask(`http://127.0.0.1:${port}/api/v1alpha1/cluster-info`);
  server.child.kill('SIGTERM');
  const { status: exit } = await server.ended;
  await tailscaled.close();
  return { status, id: headers['x-request-id'], exit, lines: server.lines };
}

function spansIn(got: readonly Message[]) {
  const resources = got.flatMap((request) => request.messages(1));
  const services = resources.flatMap((one) => one.messages(1)).map((one) => one.attributes(1)['service.name']);
  const spans = resources.flatMap((one) => one.messages(2, 2));
  return { services, spans: spans.map((span) => ({ name: span.value(5), ...span.attributes(9) })) };
}

test('host:port gets traces of requests over gRPC, the last ones at the end', async () => {
  using collector = await startCollector(ServerCredentials.createInsecure());
  const { id, exit, lines } = await served({ endpoint: `127.0.0.1:${collector.port}` });
  expect(exit).toBe(0);
  const { services, spans } = spansIn(collector.got);
  expect(services).toContain('tka-server');
  expect(spans).toContainEqual({
    name: 'GET /api/v1alpha1/cluster-info',
    'http.request.method': 'GET',
    'url.path': '/api/v1alpha1/cluster-info',
    'http.response.status_code': 200,
    'tka.request.id': id,
    'user.name': 'alice@example.com',
    'tka.role': 'view',
  });
  expect(lines.filter(({ msg }) => /could not send traces/.test(msg))).toEqual([]);
});

test('uses TLS if otel.insecure is false', async () => {
  const { ca, key, cert } = await makeCertificates('localhost');
  const pair = { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) };
  using collector = await startCollector(ServerCredentials.createSsl(null, [pair]));
  const authority = path.join(testFolder(), 'ca.pem');
  fs.writeFileSync(authority, ca);
  const otel = { endpoint: `localhost:${collector.port}`, insecure: false };
  await served(otel, { NODE_EXTRA_CA_CERTS: authority });
  expect(spansIn(collector.got).services).toContain('tka-server');
  collector.got.length = 0;
  const { lines } = await served(otel);
  expect(collector.got).toEqual([]);
  expect(lines.find(({ msg }) => msg === 'could not send traces')).toMatchObject({ level: 'warn', protocol: 'gRPC' });
});

test('an unreachable collector is a warning, and delays neither requests nor the end', async () => {
  const { status, exit, lines } = await served({ endpoint: `127.0.0.1:${await freePort('127.0.0.1')}` });
  expect(status).toBe(200);
  expect(exit).toBe(0);
  expect(lines.filter(({ msg }) => msg === 'could not send traces')).toHaveLength(1);
});
