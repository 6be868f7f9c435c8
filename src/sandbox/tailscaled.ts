// A stand-in for tailscaled: status, whois and certificates of its LocalAPI. It listens on a real Unix socket, or on a
// port with a password like the macOS app.
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import { type SandboxCluster, urlHost } from './cluster.ts';
import { Counter } from './counter.ts';
import type { RouteFault } from './faults.ts';
import { serveWith } from './misbehave.ts';
import {
  certAnswer,
  type StandInAnswer,
  type StandInCaller,
  type StandInKeyPair,
  whoisAnswer,
} from './tailscaled-answers.ts';

export type { StandInCaller, StandInKeyPair } from './tailscaled-answers.ts';

/** A device of the stand-in's tailnet. */
export interface StandInPeer {
  readonly hostName: string;
  readonly addresses: readonly string[];
  readonly tags?: readonly string[];
  /** Default: true. */
  readonly online?: boolean;
  /** Default: the host name and the suffix, with a dot at the end. */
  readonly dnsName?: string;
  /** Fields that replace the usual ones of the real document. undefined removes a field. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** What a stand-in says about its tailnet. Everything can be set at any time. */
interface Tailnet {
  /** Default: `example.ts.net`. */
  suffix: string;
  /** The tailnet's name. Default: `example.com`. */
  tailnet: string;
  self: StandInPeer;
  peers: readonly StandInPeer[];
  backendState: string;
  /** Default: false, which means userspace networking. */
  tun: boolean;
  /** Returns the device and user of a connection from this address. Default: nobody is known. */
  whois: (address: string, port: number) => StandInCaller | undefined;
  /** Returns the certificate for a name. Default: none. */
  certificate: (name: string) => StandInKeyPair | undefined;
}

export interface TailscaledOptions extends Readonly<Partial<Tailnet>> {
  /** Default: in a temporary folder, which is removed at the end. */
  readonly socketPath?: string;
  /** Listens on 127.0.0.1 with this password instead of on a socket. */
  readonly password?: string;
}

export interface Tailscaled extends Tailnet, AsyncDisposable {
  /** Empty if it listens on a port. */
  readonly socketPath: string;
  readonly port: number | undefined;
  /** How its answers misbehave, like those of a TKA route. `change` gets the real document. */
  fault: RouteFault;
  /** Number of requests for the status, whois and certificates, of refused requests (403, 401), and of all others. */
  readonly counts: Record<Counted, number>;
  /** Resolves as soon as `what` has been requested `count` times. Default: the status, once. */
  seen(count?: number, what?: Counted): Promise<void>;
  /** Stops listening, closes all connections and removes the socket file. */
  stop(): Promise<void>;
  /** Listens again at the same place. */
  start(): Promise<void>;
  close(): Promise<void>;
}

type Counted = 'status' | 'whois' | 'cert' | 'refused' | 'other';

/** Starts a stand-in for tailscaled. */
export async function startTailscaled(options: TailscaledOptions = {}): Promise<Tailscaled> {
  const { password, socketPath: wantedPath, ...tailnet } = options;
  const folder =
    password === undefined && wantedPath === undefined
      ? // Short, because a socket path has at most 107 bytes.
        await mkdtemp(path.join(os.tmpdir(), 'ts-'))
      : undefined;
  const socketPath = password !== undefined ? '' : (wantedPath ?? path.join(folder ?? '', 's'));
  const counter = new Counter({ status: 0, whois: 0, cert: 0, refused: 0, other: 0 });
  let port: number | undefined;

  const answerTo = (request: IncomingMessage): StandInAnswer => {
    const refusal = refusalOf(request, password);
    if (refusal !== undefined) {
      counter.count('refused');
      return refusal;
    }
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://local-tailscaled.sock');
    const [, what, name = ''] = pathname.match(/^\/localapi\/v0\/([a-z]+)(?:\/([^/]+))?$/) ?? [];
    // Indented like the real answer.
    if (what === 'status') return [200, JSON.stringify(documentOf(standIn), undefined, '\t'), 'application/json'];
    if (what === 'whois') return whoisAnswer(searchParams, standIn.whois);
    if (what === 'cert') return certAnswer(decodeURIComponent(name), searchParams, standIn.certificate);
    counter.count('other');
    return [404, '404 page not found\n'];
  };
  const answer: RequestListener = (request, response) => {
    const [status, text, type = 'text/plain; charset=utf-8'] = answerTo(request);
    response.statusCode = status;
    response.setHeader('Tailscale-Version', '1.90.0-sandbox');
    response.setHeader('Content-Type', type);
    response.end(text);
  };
  const server = createServer((request, response) => {
    const [, what] = request.url?.match(/^\/localapi\/v0\/(status|whois|cert)\b/) ?? [];
    if (what !== undefined) counter.count(what as Counted);
    request.on('error', () => {});
    response.on('error', () => {});
    const { times = 1 } = standIn.fault;
    if (standIn.fault.times !== undefined && times > 0) standIn.fault.times--;
    serveWith({}, times > 0 ? standIn.fault : {}, request, response, answer).catch(() => response.destroy());
  });
  const start = async () => {
    if (server.listening) return;
    server.listen(password === undefined ? { path: socketPath } : { host: '127.0.0.1', port: port ?? 0 });
    await once(server, 'listening');
    if (password !== undefined) port = (server.address() as AddressInfo).port;
  };
  const stop = async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
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
    suffix: 'example.ts.net',
    tailnet: 'example.com',
    self: { hostName: 'laptop', addresses: ['100.64.0.1', 'fd7a:115c:a1e0::1'] },
    peers: [],
    backendState: 'Running',
    tun: false,
    whois: () => undefined,
    certificate: () => undefined,
    ...tailnet,
    fault: {},
    counts: counter.counts,
    seen: (count = 1, what = 'status') => counter.seen(what, count),
    start,
    stop,
    close,
    [Symbol.asyncDispose]: close,
  };
  await start();
  return standIn;
}

/** Refuses a request like the real tailscaled (ipn/localapi, ServeHTTP). */
function refusalOf(request: IncomingMessage, password: string | undefined): StandInAnswer | undefined {
  const { host = '', origin, referer, authorization = '' } = request.headers;
  const local = password !== undefined && /^(?:localhost|127\.0\.0\.1):\d+$/.test(host);
  if (origin !== undefined || referer !== undefined || !(host === 'local-tailscaled.sock' || host === '' || local)) {
    return [403, 'invalid localapi request\n'];
  }
  if (password === undefined) return undefined;
  const [, basic] = /^Basic ([A-Za-z0-9+/=]+)$/.exec(authorization) ?? [];
  if (basic === undefined) return [401, 'auth required\n'];
  const given = Buffer.from(basic, 'base64').toString();
  return given.slice(given.indexOf(':') + 1) === password ? undefined : [403, 'bad password\n'];
}

/** Returns the status document in the real format (ipn/ipnstate.Status). */
function documentOf({ suffix, tailnet, self, peers, backendState, tun, certificate }: Tailscaled): unknown {
  const down = backendState !== 'Running' && backendState !== 'Starting';
  const peer = (device: StandInPeer, index: number) => peerDocument(device, index, suffix);
  const itself = peer(self, 0);
  const name = String(itself.DNSName).replace(/\.$/, '');
  return {
    Version: '1.90.0-sandbox',
    TUN: tun,
    BackendState: backendState,
    HaveNodeKey: backendState !== 'NeedsLogin',
    AuthURL: '',
    TailscaleIPs: down ? null : self.addresses,
    Self: down ? { ...itself, DNSName: '', TailscaleIPs: null, Online: false } : itself,
    Health: [],
    MagicDNSSuffix: down ? '' : suffix,
    CurrentTailnet: down ? null : { Name: tailnet, MagicDNSSuffix: suffix, MagicDNSEnabled: true },
    CertDomains: !down && certificate(name) !== undefined ? [name] : null,
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
    PeerAPIURL: addresses.map((ip) => `http://${urlHost(ip)}:35839`),
    InNetworkMap: true,
    InMagicSock: true,
    InEngine: false,
    ...fields,
  };
}

/** Returns the tailnet device of a cluster's TKA server. */
export function peerOf(cluster: SandboxCluster, fields: Partial<StandInPeer> = {}): StandInPeer {
  return { hostName: cluster.gossip.hostName ?? cluster.name, addresses: [cluster.host], tags: ['tag:tka'], ...fields };
}
