// A stand-in for tailscaled: its LocalAPI's status, on a real Unix socket or, as the macOS app's, on a port with a
// password.
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import type { Cluster } from './cluster.ts';
import type { RouteFault } from './faults.ts';
import { serveWith } from './misbehave.ts';

/** A device of the stand-in's tailnet. */
export interface StandInPeer {
  readonly hostName: string;
  readonly addresses: readonly string[];
  readonly tags?: readonly string[];
  /** Default: true. */
  readonly online?: boolean;
  /** Default: the host name under the suffix, with a dot at the end. */
  readonly dnsName?: string;
  /** Fields of the real document laid over the usual ones; undefined takes one away. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

export interface TailscaledOptions {
  /** Default: in a folder of its own, removed at the end. */
  readonly socketPath?: string;
  /** Listens on 127.0.0.1 with this password instead of on a socket. */
  readonly password?: string;
  readonly suffix?: string;
  readonly self?: StandInPeer;
  readonly peers?: readonly StandInPeer[];
  readonly backendState?: string;
}

/** A running stand-in. What may change while it runs can be set at any time. */
export interface Tailscaled extends AsyncDisposable {
  /** Empty where it listens on a port. */
  readonly socketPath: string;
  readonly port: number | undefined;
  suffix: string;
  self: StandInPeer;
  peers: readonly StandInPeer[];
  backendState: string;
  /** How its answers misbehave, as a TKA route's (`change` gets the real document). */
  fault: RouteFault;
  /** Requests answered with a status, refused (403, 401), and for anything else. */
  readonly counts: { status: number; refused: number; other: number };
  /** Resolves as soon as the status was asked for so many times. */
  seen(count?: number): Promise<void>;
  /** Stops listening and drops every connection; the socket's file goes. */
  stop(): Promise<void>;
  /** Listens again, where it did before. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Starts a stand-in for tailscaled. */
export async function startTailscaled(options: TailscaledOptions = {}): Promise<Tailscaled> {
  const { password } = options;
  const folder =
    password === undefined && options.socketPath === undefined
      ? // Short: a socket's path has 107 bytes at most.
        await mkdtemp(path.join(os.tmpdir(), 'ts-'))
      : undefined;
  const socketPath = password !== undefined ? '' : (options.socketPath ?? path.join(folder ?? '', 's'));
  const counts = { status: 0, refused: 0, other: 0 };
  let waiting: { count: number; done: () => void }[] = [];
  let port: number | undefined;

  const answer: RequestListener = (request, response) => {
    response.setHeader('Tailscale-Version', '1.90.0-sandbox');
    const refusal = refusalOf(request, password);
    if (refusal !== undefined) {
      counts.refused++;
      return plain(response, ...refusal);
    }
    if (request.url?.split('?', 1)[0] !== '/localapi/v0/status') {
      counts.other++;
      return plain(response, 404, '404 page not found');
    }
    response.setHeader('Content-Type', 'application/json');
    // Indented, as the real one.
    response.end(JSON.stringify(documentOf(standIn), undefined, '\t'));
  };
  const server = createServer((request, response) => {
    if (request.url?.startsWith('/localapi/v0/status')) counts.status++;
    waiting = waiting.filter(({ count, done }) => counts.status < count || done());
    request.on('error', () => {});
    response.on('error', () => {});
    const { times = 1 } = standIn.fault;
    if (standIn.fault.times !== undefined && times > 0) standIn.fault.times--;
    serveWith({}, times > 0 ? standIn.fault : {}, request, response, answer).catch(() => response.destroy());
  });
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });

  const start = async () => {
    if (server.listening) return;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      const where = password === undefined ? { path: socketPath } : { host: '127.0.0.1', port: port ?? 0 };
      server.listen(where, () => {
        server.off('error', reject);
        if (password !== undefined) port = (server.address() as AddressInfo).port;
        resolve();
      });
    });
  };
  const stop = async () => {
    if (!server.listening) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  };
  const close = async () => {
    await stop();
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  };
  const standIn: Tailscaled = {
    socketPath,
    get port() {
      return port;
    },
    suffix: options.suffix ?? 'example.ts.net',
    self: options.self ?? { hostName: 'laptop', addresses: ['100.64.0.1', 'fd7a:115c:a1e0::1'] },
    peers: options.peers ?? [],
    backendState: options.backendState ?? 'Running',
    fault: {},
    counts,
    async seen(count = 1) {
      if (counts.status < count) await new Promise<void>((done) => waiting.push({ count, done }));
    },
    start,
    stop,
    close,
    [Symbol.asyncDispose]: close,
  };
  await start();
  return standIn;
}

function plain(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`${text}\n`);
}

/** How the real one refuses a request (ipn/localapi, ServeHTTP). */
function refusalOf(request: IncomingMessage, password: string | undefined): [status: number, text: string] | undefined {
  const { host = '', origin, referer, authorization = '' } = request.headers;
  const local = password !== undefined && /^(?:localhost|127\.0\.0\.1):\d+$/.test(host);
  if (origin !== undefined || referer !== undefined || !(host === 'local-tailscaled.sock' || host === '' || local)) {
    return [403, 'invalid localapi request'];
  }
  if (password === undefined) return undefined;
  const [, basic] = /^Basic ([A-Za-z0-9+/=]+)$/.exec(authorization) ?? [];
  if (basic === undefined) return [401, 'auth required'];
  const given = Buffer.from(basic, 'base64').toString();
  return given.slice(given.indexOf(':') + 1) === password ? undefined : [403, 'bad password'];
}

/** The document in the real one's shape (ipn/ipnstate.Status). */
function documentOf({ suffix, self, peers, backendState }: Tailscaled): unknown {
  const down = backendState !== 'Running' && backendState !== 'Starting';
  const peer = (device: StandInPeer, index: number) => peerDocument(device, index, suffix);
  const itself = peer(self, 0);
  return {
    Version: '1.90.0-sandbox',
    TUN: false,
    BackendState: backendState,
    HaveNodeKey: backendState !== 'NeedsLogin',
    AuthURL: '',
    TailscaleIPs: down ? null : self.addresses,
    Self: down ? { ...itself, DNSName: '', TailscaleIPs: null, Online: false } : itself,
    Health: [],
    MagicDNSSuffix: down ? '' : suffix,
    CurrentTailnet: down ? null : { Name: 'example.com', MagicDNSSuffix: suffix, MagicDNSEnabled: true },
    CertDomains: null,
    Peer: down ? null : Object.fromEntries(peers.map((device, i) => [nodeKey(i + 1), peer(device, i + 1)])),
    User: { 1: { ID: 1, LoginName: 'alice@example.com', DisplayName: 'Alice', ProfilePicURL: '' } },
    ClientVersion: null,
  };
}

const nodeKey = (index: number): string => `nodekey:${index.toString(16).padStart(64, '0')}`;

function peerDocument(device: StandInPeer, index: number, suffix: string): Readonly<Record<string, unknown>> {
  const { hostName, addresses, tags, online = true, dnsName = `${hostName}.${suffix}.`, fields } = device;
  const never = '0001-01-01T00:00:00Z';
  return {
    ID: `n${index}CNTRL`,
    PublicKey: nodeKey(index),
    HostName: hostName,
    DNSName: dnsName,
    OS: 'linux',
    UserID: tags === undefined ? 1 : 0,
    TailscaleIPs: addresses,
    AllowedIPs: addresses.map((ip) => `${ip}/${ip.includes(':') ? 128 : 32}`),
    Tags: tags,
    Addrs: null,
    CurAddr: '',
    Relay: 'fra',
    RxBytes: 0,
    TxBytes: 0,
    Created: '2026-01-01T00:00:00Z',
    LastWrite: never,
    LastSeen: never,
    LastHandshake: never,
    Online: online,
    ExitNode: false,
    ExitNodeOption: false,
    Active: false,
    PeerAPIURL: addresses.map((ip) => `http://${ip.includes(':') ? `[${ip}]` : ip}:35839`),
    InNetworkMap: true,
    InMagicSock: true,
    InEngine: false,
    ...fields,
  };
}

/** The device that a cluster's TKA server runs on, as the tailnet would have it. */
export function peerOf(cluster: Cluster, fields: Partial<StandInPeer> = {}): StandInPeer {
  return { hostName: cluster.gossip.hostName ?? cluster.name, addresses: [cluster.host], tags: ['tag:tka'], ...fields };
}
