// Shared by the tests of the HTTP interface: captured answers, sign-ins that return them, a server on loopback.
import { readFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterEach } from 'vitest';
import type { Caller, HandlerOptions, SignIns } from '../../src/server/http/contract.ts';
import { createHandler } from '../../src/server/http/handler.ts';
import { close, createTkaServer, type Limits, listen } from '../../src/server/http/listen.ts';
import type { LoginAnswer, MemberRow } from '../../src/tka/types.ts';

export interface Sample {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Returns a captured answer of the Go server. */
export function sample(name: string): Sample {
  const file = readFileSync(new URL(`../samples/${name}.http`, import.meta.url), 'utf8');
  const end = file.indexOf('\n\n');
  const [first = '', ...lines] = file.slice(0, end).split('\n');
  const headers = lines.map((line) => line.split(': ', 2) as [string, string]);
  return { status: Number(first.split(' ')[1]), headers: Object.fromEntries(headers), body: file.slice(end + 2) };
}

export const api = '/api/v1alpha1';
export const alice: Caller = { username: 'alice', login: 'alice@example.com', role: 'viewer', periodMs: 1_800_000 };
export const login = JSON.parse(sample('login').body) as LoginAnswer;
export const kubeconfig = JSON.parse(sample('kubeconfig-json').body);

export const signedIn: SignIns = {
  signIn: async () => login,
  get: async () => ({ answer: login, provisioned: true }),
  kubeconfig: async () => kubeconfig,
  signOut: async () => ({ answer: login, complete: true }),
};
export const signedOut: SignIns = {
  signIn: async () => login,
  get: async () => undefined,
  kubeconfig: async () => undefined,
  signOut: async () => undefined,
};
const defaults: HandlerOptions = {
  identity: { whoIs: () => alice },
  signIns: signedIn,
  clusterInfo: () => JSON.parse(sample('cluster-info').body),
};

/** Members as our server knows them, one of them malicious. */
export const members: readonly MemberRow[] = [
  {
    apiEndpoint: 'https://api.prod-us.example.com:6443',
    apiPort: 443,
    labels: { environment: 'production', region: 'us-west-2' },
    name: 'tka-prod-us',
    cluster: 'prod-us',
    server: 'https://tka-prod-us.example.ts.net',
    state: 'healthy',
    lastSeen: new Date(Date.now() - 3_000).toISOString(),
    version: '0.1.0',
  },
  {
    apiEndpoint: 'https://api.evil.example.com:6443/"><img src=x onerror=alert(1)>',
    apiPort: 443,
    labels: { '</table><script>document.title="owned"</script>': '\'"><b>', 'team\u202e': 'x\u0007y' },
    name: '<script>document.title="owned"</script>',
    server: 'javascript:document.title="owned"',
    state: 'dead',
    lastSeen: new Date(Date.now() - 7_300_000).toISOString(),
    version: '"onmouseover="x',
  },
  {
    apiEndpoint: 'https://api.staging.example.com:6443',
    apiPort: 8443,
    labels: null,
    name: 'tka-staging',
    server: 'http://tka-staging.example.ts.net:8443',
    state: 'suspected',
    lastSeen: new Date(Date.now() - 40_000).toISOString(),
    version: '0.1.0',
  },
  { apiEndpoint: 'https://10.0.0.9:6443', apiPort: 443, labels: { environment: 'staging' } },
];

let server: Server | undefined;
let port = 0;
afterEach(async () => {
  if (server) await close(server);
  server = undefined;
});

/** Serves until the test ends; resolves to the port. */
export async function serve(options: Partial<HandlerOptions> = {}, limits?: Limits): Promise<number> {
  if (server) await close(server);
  server = createTkaServer(createHandler({ ...defaults, ...options }), limits);
  port = await listen(server, '127.0.0.1', 0);
  return port;
}

/** Sends a request to the port of `serve`, or to another one. */
export async function ask(
  method: string,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  body = '',
  at = port,
) {
  // For a GET, Node's client sends no headers about a body.
  const length =
    body === '' || 'transfer-encoding' in headers ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest(
      { host: '127.0.0.1', port: at, method, path, headers: { ...length, ...headers }, agent: false },
      resolve,
    )
      .on('error', reject)
      .end(body);
  });
  return { status: response.statusCode ?? 0, headers: response.headers, body: await text(response) };
}
