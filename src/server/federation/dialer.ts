// The joined cluster's side: joins the login server, then keeps one tunnel to each of its replicas.
import type { TLSSocket } from 'node:tls';
import type { JoinAnswer, OwnTunnel, RefusalCode } from './contract.ts';
import { Dialer } from './dial.ts';
import { HandshakeFailure, type Introduction, introduceToDial, introduceToJoin } from './handshake.ts';
import { keyHash } from './keys.ts';
import { defaultTimes, type EndCode, type Link } from './link.ts';
import type { LoginHello } from './messages.ts';
import type { Counts, JoinOptions, KeepTunnelsOptions, OwnTunnels } from './options.ts';
import { serveTunnel } from './own-tunnel.ts';

// The login server says how many replicas it has. More connections than this are never opened.
const replicaLimit = 16;
const stopMs = 5_000;
// Another key does not come from the login server: a wrong server can be at its address for a while.
const refusals: Readonly<Record<string, RefusalCode>> = { clock: 'clock', version: 'version' };

/**
 * Joins the login server. Resolves with its answer, or with a refusal that says why there was no answer. Never rejects.
 */
export async function join(options: JoinOptions): Promise<JoinAnswer> {
  const { cluster, replica, key, statement, token, signal } = options;
  const dialer = new Dialer(options);
  const isKnown = (publicKey: string): boolean => keyHash(publicKey) === options.keyHash;
  const introduction: Introduction = { host: dialer.host, cluster, replica, key, statement, isKnown };
  try {
    const ms = options.times?.handshakeMs ?? defaultTimes.handshakeMs;
    const { answer, hello } = await dialer.dial(ms, signal, async (socket) => {
      const introduced = await introduceToJoin(socket, introduction, token);
      socket.destroy();
      return introduced;
    });
    if (!answer.ok) return answer;
    if (answer.primary === hello.cluster && answer.keys.some(isKnown)) return answer;
    throw new HandshakeFailure('protocol', 'answers with another name or key than it has proved');
  } catch (error) {
    const { code, message } = dialer.failureOf(error);
    return { ok: false, code: refusals[code] ?? 'unavailable', message };
  }
}

/** Dials the login server, and again whenever a tunnel is missing, until it is closed or this cluster is evicted. */
export function keepTunnels(options: KeepTunnelsOptions): OwnTunnels {
  const tunnels = new Tunnels(options);
  tunnels.run().catch((error) => options.log.error({ err: error }, 'no further tunnels to the login server'));
  return tunnels;
}

interface Open {
  readonly tunnel: OwnTunnel;
  readonly link: Link;
  /** What this cluster said about itself. */
  readonly said: string;
  /** The login server has other keys now, or another clock. */
  isOutdated: boolean;
}

class Tunnels implements OwnTunnels {
  readonly #options: KeepTunnelsOptions;
  readonly #times: typeof defaultTimes;
  readonly #dialer: Dialer;
  /** By the replica of the login server. */
  readonly #open = new Map<string, Open>();
  readonly #all = new Set<Link>();
  readonly #closed: Record<string, number> = {};
  readonly #failed: Record<string, number> = {};
  readonly #stop = new AbortController();
  #opened = 0;
  #wanted = 1;
  #known: readonly string[];
  #problem: string | undefined;
  /** Failed dials since the last one that opened a tunnel, and tunnels in a row that broke soon. */
  #attempts = 0;
  #flaps = 0;
  /** Dials in a row that reached a replica that has a tunnel. */
  #duplicates = 0;
  /** Ends the wait for a change. */
  #wake = (): void => {};

  constructor(options: KeepTunnelsOptions) {
    this.#options = options;
    this.#times = { ...defaultTimes, ...options.times };
    this.#dialer = new Dialer(options);
    this.#known = options.keys;
  }

  connected(): readonly OwnTunnel[] {
    return [...this.#open.values()].map(({ tunnel }) => tunnel);
  }

  problem(): string | undefined {
    return this.#problem;
  }

  counts(): { opened: number; closed: Counts; failed: Counts } {
    return { opened: this.#opened, closed: { ...this.#closed }, failed: { ...this.#failed } };
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await Promise.all([...this.#all].map((link) => link.leave('closed', 'this server stops', stopMs)));
  }

  async run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      if (this.#isMissing()) {
        await this.#dial();
        if (this.#isMissing()) await this.#pause();
      } else {
        await this.#sleep(undefined, () => this.#isMissing());
        await this.#pause();
      }
    }
  }

  /** Returns whether a replica of the login server has no tunnel, or one that is out of date. */
  #isMissing(): boolean {
    const good = [...this.#open.values()].filter((open) => this.#isGood(open));
    return good.length < this.#wanted;
  }

  #isGood({ said, isOutdated }: Open): boolean {
    return !isOutdated && said === JSON.stringify(this.#options.statement());
  }

  /**
   * Waits for a random time, which is longer after each dial without success. Which replica a load balancer chooses is a
   * matter of luck: the first dials to a wrong one do not count as failures.
   */
  #pause(): Promise<void> {
    const [shortest, longest] = this.#times.redialMs;
    const failures =
      this.#duplicates > 0 ? Math.max(0, this.#duplicates - fewDuplicates) : this.#attempts + this.#flaps;
    const most = Math.min(longest, shortest * 2 ** Math.min(failures + 1, 16));
    return this.#sleep(shortest + Math.random() * (most - shortest), () => false);
  }

  /** Waits for the time, or without end, until `isOver` at a change, or until it is closed. */
  #sleep(ms: number | undefined, isOver: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const end = (): void => {
        clearTimeout(timer);
        this.#wake = () => {};
        resolve();
      };
      this.#wake = () => {
        if (this.#stop.signal.aborted || isOver()) end();
      };
      if (ms !== undefined) timer = setTimeout(end, ms);
      this.#wake();
    });
  }

  async #dial(): Promise<void> {
    const { signal } = this.#stop;
    const { log, endpoint } = this.#options;
    try {
      await this.#dialer.dial(this.#times.handshakeMs, signal, (socket) => this.#connect(socket));
      this.#attempts = 0;
      this.#duplicates = 0;
      this.#problem = undefined;
    } catch (error) {
      if (signal.aborted) return;
      const { code, message } = this.#dialer.failureOf(error);
      if (code === duplicate) {
        this.#duplicates++;
        return log.debug({ endpoint }, message);
      }
      this.#attempts++;
      this.#duplicates = 0;
      this.#problem = message;
      this.#failed[code] = (this.#failed[code] ?? 0) + 1;
      const others = this.#open.size;
      log.warn(
        { err: new HandshakeFailure(code, message), endpoint, others },
        'cannot open a tunnel to the login server',
      );
      if (code === 'evicted') this.#evicted(message);
    }
  }

  #evicted(message: string): void {
    this.close().catch(() => {});
    this.#options.onEvicted?.(message);
  }

  async #connect(socket: TLSSocket): Promise<void> {
    const { cluster, replica, key, primary, log, endpoint } = this.#options;
    const statement = this.#options.statement();
    const said = JSON.stringify(statement);
    const introduction: Introduction = {
      host: this.#dialer.host,
      cluster,
      replica,
      key,
      statement,
      isKnown: (publicKey) => this.#known.includes(publicKey),
      onProved: (hello) => this.#requireNew(hello),
    };
    const { hello, answer, tunnel: id, clockOffsetMs } = await introduceToDial(socket, introduction, primary);
    if (!answer.ok) throw new HandshakeFailure(answer.code, `refuses: ${answer.message}`);
    // Closed since: the session below must not begin on it.
    if (socket.destroyed) throw new HandshakeFailure('broken', 'closed the connection');
    const { keys } = hello;
    const redial = (reason: string): void => {
      if (open.isOutdated) return;
      log.warn({ endpoint, replica: hello.replica, tunnel: id, reason }, 'opens a new tunnel to the login server');
      open.isOutdated = true;
      this.#wake();
    };
    const tunnel = { id, cluster, primary, replica: hello.replica, keys, clockOffsetMs, since: Date.now(), redial };
    let isUp = false;
    let early = new HandshakeFailure('broken', 'closed the connection');
    const { link, up } = serveTunnel(socket, {
      tunnel,
      answer: this.#options.answer,
      times: this.#times,
      onNews: (replicas, hasNewKeys) => {
        this.#wanted = wantedOf(replicas);
        if (hasNewKeys) open.isOutdated = true;
        this.#wake();
      },
      onEnd: (code, reason) => {
        if (isUp) this.#ended(open, code, reason);
        else early = new HandshakeFailure(code, `cannot be used: ${reason}`);
      },
      onError: (error, { path }) => log.error({ err: error, path }, 'could not answer the login server'),
    });
    const open: Open = { tunnel, link, said, isOutdated: false };
    this.#all.add(link);
    link.closed.then(() => this.#all.delete(link));
    await Promise.race([up, link.closed]);
    if (!link.isOpen) throw early;
    isUp = true;
    const older = this.#open.get(hello.replica);
    this.#open.set(hello.replica, open);
    this.#opened++;
    older?.link.leave('replaced', 'there is a newer tunnel');
    log.info({ endpoint, primary, replica: hello.replica, tunnel: id }, 'connected to the login server');
    this.#learn(keys);
  }

  /** Throws HandshakeFailure if there is a good tunnel to this replica already. */
  #requireNew({ replica, replicas }: LoginHello): void {
    this.#wanted = wantedOf(replicas);
    const open = this.#open.get(replica);
    if (open !== undefined && this.#isGood(open)) throw new HandshakeFailure(duplicate, `is replica ${replica} again`);
  }

  #learn(keys: readonly string[]): void {
    if (keys.join() === this.#known.join()) return;
    this.#known = keys;
    this.#options.log.info({ keys: keys.map(keyHash) }, 'the login server has other keys');
    this.#options.onKeys?.(keys);
  }

  #ended({ tunnel, link }: Open, code: EndCode, reason: string): void {
    const { replica, id, since } = tunnel;
    if (this.#open.get(replica)?.link === link) this.#open.delete(replica);
    this.#closed[code] = (this.#closed[code] ?? 0) + 1;
    const isFlap = Date.now() - since < this.#times.redialMs[1] && code !== 'goodbye' && code !== 'replaced';
    this.#flaps = isFlap ? this.#flaps + 1 : 0;
    const { log, endpoint } = this.#options;
    const openSeconds = Math.round((Date.now() - since) / 1_000);
    log.info({ endpoint, replica, tunnel: id, code, reason, openSeconds }, 'disconnected from the login server');
    this.#wake();
  }
}

const duplicate = 'duplicate';
// With two replicas, one of 256 tries to find the other one needs more.
const fewDuplicates = 8;

const wantedOf = (replicas: number): number => Math.min(Math.max(replicas, 1), replicaLimit);
