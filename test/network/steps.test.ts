// The steps reported during a connection, and that no request is sent over it.
import * as net from 'node:net';
import { TLSSocket } from 'node:tls';
import { beforeAll, expect, it } from 'vitest';
import { type ConnectOptions, type NetworkOptions, openNetwork } from '../../src/network/network.ts';
import type { ConnectStep } from '../../src/network/steps.ts';
import { type Authority, makeAuthority } from './certificates.ts';
import { closedPort, echo, httpProxy, type Listening, listen } from './servers.ts';

const name = 'tka.example.ts.net';
const proxyName = 'proxy.test';
let authority: Authority;
let secure: Listening;
let plain: Listening;

beforeAll(async () => {
  authority = await makeAuthority();
  secure = await listen(echo(await authority.issue(name)));
  plain = await listen(echo());
});

/** Connects, and returns the steps without the socket, and the error. */
async function walk(origin: string, options: Partial<NetworkOptions & ConnectOptions>) {
  const steps: unknown[] = [];
  const onStep = (done: ConnectStep) => {
    steps.push(done.step === 'open' ? { step: 'open', isTls: done.socket instanceof TLSSocket } : done);
  };
  const { connectTimeout = 5000, insecure, ...rest } = options;
  const network = openNetwork({ env: {}, ...rest });
  try {
    const socket = await network.connect(origin, { connectTimeout, insecure, onStep });
    socket.destroy();
    return { steps, error: undefined, socket };
  } catch (error) {
    return { steps, error, socket: undefined };
  }
}

const direct = { step: 'route', route: undefined };
const resolves = (...addresses: string[]) => ({
  lookup: async (host: string) =>
    (host === proxyName ? ['127.0.0.1'] : addresses).map((address) => ({ address, family: net.isIP(address) })),
});
const unknown = {
  lookup: async (host: string) => {
    throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: 'ENOTFOUND' });
  },
};

it('reports route, resolver, name, tcp and open', async () => {
  const { steps } = await walk(`https://${name}:${secure.port}`, {
    ...resolves('127.0.0.1'),
    caFile: authority.file,
  });
  expect(steps).toEqual([
    direct,
    { step: 'resolver', addresses: ['127.0.0.1'] },
    { step: 'name', addresses: ['127.0.0.1'] },
    { step: 'tcp', address: '127.0.0.1' },
    { step: 'open', isTls: true },
  ]);
});

it('leaves out the resolver if the tailnet knows the name, and TLS for plain http', async () => {
  const { steps } = await walk(`http://${name}:${plain.port}`, { tailnetAddresses: async () => ['127.0.0.1'] });
  expect(steps).toEqual([
    direct,
    { step: 'name', addresses: ['127.0.0.1'] },
    { step: 'tcp', address: '127.0.0.1' },
    { step: 'open', isTls: false },
  ]);
});

it('ends with the last step before the failure', async () => {
  const found = { step: 'name', addresses: ['127.0.0.1'] };
  expect(await walk(`http://127.0.0.1:${await closedPort()}`, {})).toMatchObject({
    steps: [direct, found],
    error: { code: 'ECONNREFUSED' },
  });
  expect(await walk('https://nowhere.test', unknown)).toMatchObject({
    steps: [direct, { step: 'resolver', addresses: [] }],
    error: { code: 'ENOTFOUND' },
  });
  expect(await walk(`https://127.0.0.1:${plain.port}`, {})).toMatchObject({
    steps: [direct, found, { step: 'tcp', address: '127.0.0.1' }],
    error: { code: expect.stringMatching(/SSL|TLS/) },
  });
  expect(await walk('http://203.0.113.7', {})).toMatchObject({
    steps: [direct],
    error: { message: expect.stringContaining('plain http') },
  });
  expect(await walk(`https://${name}`, { env: { HTTPS_PROXY: 'ftp://x' } })).toMatchObject({
    steps: [],
    error: { message: expect.stringMatching(/^HTTPS_PROXY names a proxy/) },
  });
});

it('reports that the proxy resolves the name; for plain http, the tailnet does', async () => {
  const proxy = await httpProxy({
    knows: { [`${name}:443`]: secure.port, '100.64.0.7:8080': plain.port, '100.64.0.9:8080': plain.port },
  });
  const url = `http://${proxyName}:${proxy.port}`;
  const env = { HTTPS_PROXY: url, HTTP_PROXY: url };
  const through = (variable: string) => ({ step: 'route', route: { proxy: url, variable } });
  const tls = await walk(`https://${name}`, { env, ...resolves(), caFile: authority.file });
  expect(tls.steps).toEqual([
    through('HTTPS_PROXY'),
    { step: 'tcp', address: undefined },
    { step: 'open', isTls: true },
  ]);
  const tailnetAddresses = async () => ['100.64.0.7', '100.64.0.8'];
  expect((await walk(`http://${name}:8080`, { env, ...resolves(), tailnetAddresses })).steps).toEqual([
    through('HTTP_PROXY'),
    { step: 'name', addresses: ['100.64.0.7', '100.64.0.8'] },
    { step: 'tcp', address: undefined },
    { step: 'open', isTls: false },
  ]);
  await proxy.connections(0);
});

it('reports the certificate error of an insecure connection, and sends no request', async () => {
  const stranger = await makeAuthority();
  let requests = 0;
  const server = await listen(echo(await stranger.issue(name)).on('request', () => requests++));
  const options = { ...resolves('127.0.0.1'), caFile: authority.file };
  const origin = `https://${name}:${server.port}`;
  expect(await walk(origin, options)).toMatchObject({ error: { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' } });
  const { socket } = await walk(origin, { ...options, insecure: true });
  expect(socket).toMatchObject({ authorized: false, authorizationError: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
  await server.connections(0);
  expect(requests).toBe(0);
});

it('gives up after connectTimeout and closes the socket', async () => {
  const silent = await listen(net.createServer((socket) => socket.resume()));
  const { error } = await walk(`https://127.0.0.1:${silent.port}`, { connectTimeout: 100 });
  expect(error).toMatchObject({ name: 'ConnectTimeout' });
  await silent.connections(0);
});
