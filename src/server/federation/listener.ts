// The login server's listener for tunnels. It has a port and a certificate of its own, and serves nothing else. Nothing
// that connects is trusted: until the handshake is done, a connection costs little, and not for long.
import { createServer, type TLSSocket } from 'node:tls';
import { systemCode } from '../../util/errors.ts';
import { listen } from '../http/listen.ts';
import { type Log, Seldom } from '../log/log.ts';
import { type Pair, readPair, watchPair } from './certificate-files.ts';
import type { Tunnel } from './contract.ts';
import { HandshakeFailure, receive } from './handshake.ts';
import { defaultTimes, type EndCode } from './link.ts';
import type { Counts, ListenOptions, TunnelListener } from './options.ts';
import { networkOf, Strangers } from './strangers.ts';
import { LoginTunnel } from './tunnel.ts';

/** Maximum number of tunnels of one cluster, and of connections. */
const tunnelLimit = 16;
const connectionLimit = 4_096;
// Many clusters may come through one address, that of a load balancer.
const strangerLimits = { all: 64, perAddress: 32, perSecond: 100, burst: 500 };
// Warnings in a minute that connections without a tunnel can cause.
const warningLimit = 20;
// What is left of a request's time when the server stops.
const stopMs = 5_000;

/**
 * Listens for the tunnels of joined clusters, and for clusters that join. Throws TkaError if the certificate cannot be
 * used, and the system's error if it cannot listen.
 */
export async function listenForTunnels(options: ListenOptions): Promise<TunnelListener> {
  const { host, port, log } = options;
  const times = { ...defaultTimes, ...options.times };
  const pair = await readPair(options);
  const tunnels = new Tunnels(options);
  const strangers = new Strangers({ ...strangerLimits, ms: times.handshakeMs }, (why) => tunnels.refuse(why));
  // `strangers` limits the time of the TLS handshake too.
  const server = createServer({ ...pair, minVersion: 'TLSv1.3', ALPNProtocols: ['http/1.1'] });
  server.maxConnections = connectionLimit;
  server.prependListener('connection', (socket) => strangers.add(socket));
  server.on('tlsClientError', (error, socket) => {
    // A load balancer's probe, or a connection that was closed for another reason.
    if (systemCode(error) === 'ECONNRESET') return;
    tunnels.refuse('tls');
    log.debug({ err: error, address: socket.remoteAddress }, 'a connection for a tunnel failed');
  });
  server.on('secureConnection', (socket) => {
    // Without a listener the socket's error would end the process. What waits for the socket gets it too.
    socket.on('error', () => {});
    welcome(socket, tunnels, options).then((isTunnel) => isTunnel && strangers.remove(socket));
  });
  const bound = await listen(server, host ?? '::', port).catch((error) => {
    // The machine has no IPv6.
    if (host !== undefined || error.code !== 'EAFNOSUPPORT') throw error;
    return listen(server, '0.0.0.0', port);
  });
  server.on('error', (error) => log.error({ err: error }, 'the listening socket for tunnels failed'));
  log.info({ host, port: bound }, 'listening for tunnels of joined clusters');
  const renew = (renewed: Pair): void => server.setSecureContext({ ...renewed, minVersion: 'TLSv1.3' });
  const unwatch = watchPair(options, pair, log, renew, options.certificateMs);
  return {
    port: bound,
    tunnels: (cluster) => tunnels.all(cluster),
    counts: () => tunnels.counts(),
    async close() {
      unwatch();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      strangers.close();
      await tunnels.close();
      await closed;
    },
  };
}

/** Does the handshake on a connection. Resolves with true if it has become a tunnel. */
async function welcome(socket: TLSSocket, tunnels: Tunnels, options: ListenOptions): Promise<boolean> {
  const { cluster, replica, admission, log } = options;
  const gone = new AbortController();
  socket.once('close', () => gone.abort(new HandshakeFailure('broken', 'closed the connection')));
  const address = socket.remoteAddress ?? '';
  try {
    requirePlainName(socket);
    const own = { cluster, replica, replicas: options.replicas(), keys: options.keys(), admission, address };
    const { hello, keys } = await receive(socket, own, gone.signal);
    if (hello.kind === 'join') {
      log.info({ cluster: hello.cluster, replica: hello.replica, address }, 'a cluster has joined');
      // The other side closes the connection when it has read the answer.
      socket.resume();
      socket.end();
      return false;
    }
    // No session may begin on a connection that is closed.
    gone.signal.throwIfAborted();
    const tunnel = tunnels.create(socket, { ...hello, id: hello.tunnel, keys });
    await tunnel.ready(gone.signal);
    tunnels.add(tunnel, address);
    return true;
  } catch (error) {
    // Sends what is written before it closes.
    socket.destroySoon();
    const code = error instanceof HandshakeFailure ? error.code : 'broken';
    tunnels.refuse(code);
    // Anyone can cause these as often as they like, and name any cluster in them.
    const isOdd = ['clock', 'signature', 'rejected', 'evicted'].includes(code);
    const level: keyof Log = isOdd && tunnels.warned.is(`${code} ${networkOf(address)}`) ? 'warn' : 'debug';
    log[level]({ err: error, address, code }, 'refused a connection for a tunnel');
    return false;
  }
}

/**
 * Throws HandshakeFailure if the connection names an invalid host (SNI). node:http2 makes a URL of this name when an
 * answer has status 421, or names origins: an invalid name would end the process.
 */
function requirePlainName({ servername }: TLSSocket): void {
  const isPlain =
    typeof servername !== 'string' || (/^[\w.-]+$/.test(servername) && URL.canParse(`https://${servername}`));
  if (!isPlain) throw new HandshakeFailure('request', 'names an invalid host');
}

/** The open tunnels, and counts of what happened. */
class Tunnels {
  readonly #options: ListenOptions;
  readonly #open = new Map<string, Map<string, LoginTunnel>>();
  readonly #closed: Record<string, number> = {};
  readonly #refused: Record<string, number> = {};
  /** Tunnels that are open or about to close. */
  readonly #all = new Set<LoginTunnel>();
  /** What was warned of in the last minute. */
  readonly warned = new Seldom(warningLimit);
  #opened = 0;
  #isClosed = false;

  constructor(options: ListenOptions) {
    this.#options = options;
  }

  create(
    socket: TLSSocket,
    hello: Pick<LoginTunnel, 'id' | 'cluster' | 'replica' | 'statement' | 'keys'>,
  ): LoginTunnel {
    const { replicas, keys, times } = this.#options;
    const tunnel = new LoginTunnel(socket, {
      ...hello,
      times: { ...defaultTimes, ...times },
      news: () => ({ replicas: replicas(), keys: keys().map(({ publicKey }) => publicKey) }),
      onEnd: (ended, code, reason) => this.#remove(ended, code, reason),
    });
    this.#all.add(tunnel);
    socket.once('close', () => this.#all.delete(tunnel));
    return tunnel;
  }

  /** Opens a tunnel for requests. Closes the older one of the same replica, and the oldest if there are too many. */
  add(tunnel: LoginTunnel, address: string): void {
    const { cluster, replica, id } = tunnel;
    if (this.#isClosed) tunnel.close('this login server stops');
    if (!tunnel.isOpen) return;
    const ofCluster = this.#open.get(cluster) ?? new Map<string, LoginTunnel>();
    const older = ofCluster.get(replica);
    // Puts the new one behind all others: the first one is the oldest.
    ofCluster.delete(replica);
    ofCluster.set(replica, tunnel);
    this.#open.set(cluster, ofCluster);
    this.#opened++;
    older?.leave('replaced', 'the same replica has opened another one');
    const [oldest] = ofCluster.values();
    if (ofCluster.size > tunnelLimit) oldest?.leave('replaced', `the cluster has more than ${tunnelLimit}`);
    this.#options.log.info({ cluster, replica, tunnel: id, address }, 'a tunnel is open');
    this.#options.onOpen?.(tunnel);
  }

  all(cluster?: string): readonly Tunnel[] {
    const found =
      cluster === undefined
        ? [...this.#open.values()].flatMap((ofCluster) => [...ofCluster.values()])
        : [...(this.#open.get(cluster)?.values() ?? [])];
    return found.sort((a, b) => b.lastSeen() - a.lastSeen());
  }

  refuse(code: string): void {
    this.#refused[code] = (this.#refused[code] ?? 0) + 1;
  }

  counts(): { opened: number; closed: Counts; refused: Counts } {
    return { opened: this.#opened, closed: { ...this.#closed }, refused: { ...this.#refused } };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#all].map((tunnel) => tunnel.leave('closed', 'this login server stops', stopMs)));
  }

  #remove(tunnel: LoginTunnel, code: EndCode, reason: string): void {
    const { cluster, replica, id, since } = tunnel;
    const ofCluster = this.#open.get(cluster);
    const isOpen = ofCluster?.get(replica) === tunnel;
    if (isOpen) ofCluster.delete(replica);
    if (ofCluster?.size === 0) this.#open.delete(cluster);
    // A tunnel that was replaced has left its place to the new one.
    if (!isOpen && code !== 'replaced') return;
    this.#closed[code] = (this.#closed[code] ?? 0) + 1;
    const openSeconds = Math.round((Date.now() - since) / 1_000);
    this.#options.log.info({ cluster, replica, tunnel: id, code, reason, openSeconds }, 'a tunnel is closed');
    this.#options.onClose?.(tunnel, reason);
  }
}
