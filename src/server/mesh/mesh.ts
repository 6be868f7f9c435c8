// A member of the mesh: listens on the gossip port, reads some members in each interval, and reports which members
// there are.
import type { Server } from 'node:http';
import type { MemberRow, MemberState } from '../../tka/types.ts';
import { systemCode } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import { close, createTkaServer, listen } from '../http/listen.ts';
import { Seldom } from '../log/log.ts';
import { Claims, type ClusterClaim } from './claims.ts';
import { gossipListener, joinedPath } from './face.ts';
import { type JoinedRow, memberRows, type PageQuestion, pageLimit, readPageAnswer } from './joined.ts';
import { gossipAddress } from './member.ts';
import { type Ask, Membership } from './membership.ts';
import { checkAddress, checkOptions, gateOf, type KnownMember, type MeshOptions, type OwnRecord } from './options.ts';
import { type PageAsk, pageRounds } from './pages.ts';
import { dialDirectly, type PeerAnswer, post } from './peer.ts';
import { type GossipQuestion, readAnswer } from './wire.ts';

export type { ClusterClaim } from './claims.ts';
export type { TailnetNode, Whois } from './gate.ts';
export type { Dial } from './peer.ts';

export type MemberCounts = Readonly<Record<MemberState | 'left', number>>;

/** What one member knows about another. */
export interface MemberOverview extends MemberRow {
  readonly name: string;
  readonly state: MemberState;
  readonly lastSeen: string;
  /** True for this server itself. */
  readonly self: boolean;
  /** True if the member announced that it leaves. */
  readonly left: boolean;
  /** Its address for gossip: `host:port`. */
  readonly gossip: string;
}

export interface Mesh extends AsyncDisposable {
  /** The gossip port. */
  readonly port: number;
  /**
   * Returns all members, including this one, sorted by name. After them come the joined clusters: those of this server,
   * then those of each other login server.
   */
  members(): readonly MemberRow[];
  /** Returns the members without joined clusters, with details that the memberlist omits. */
  overview(): readonly MemberOverview[];
  /** Forgets a member if it is dead. Returns the state of the member, or undefined if there is no such member. */
  drop(name: string): MemberState | undefined;
  /**
   * Returns the number of members by state, including this one. Members that announced that they leave count as `left`,
   * not as `dead`.
   */
  counts(): MemberCounts;
  /**
   * Returns the members (this one included, and dead ones) whose cluster has this name or this canonical API endpoint,
   * as of the last round. Some are missing until `isSettled`.
   */
  claims(cluster: string, apiEndpoint: string): readonly ClusterClaim[];
  /** Returns whether this member has run for long enough to know the living members. */
  isSettled(): boolean;
  /** Returns whether this server's record has had this key for long enough that the living members know it. */
  hasAnnounced(federationKey: string): boolean;
  /** Publishes a new record of this server. Throws UsageError if the record is invalid. */
  update(record: OwnRecord): void;
  /** Tells the other members that this one leaves (for at most 2 s), then stops. */
  leave(): Promise<void>;
  /** Stops without telling the other members. */
  stop(): Promise<void>;
}

const farewellMs = 2000;

// Number of rounds until the living members have read a new record that this member tells them about, and until a new
// member has read theirs.
const settleRounds = 5;

// Timeout for a page of joined clusters, which has up to 1 MiB.
const pageMs = 10_000;

// Number of members that are told about the leave at the same time.
const farewells = 64;

// Maximum number of incoming connections. Strangers can hold all of them for some seconds. Meanwhile this member still
// asks the others.
const connectionLimit = 128;

/** Starts a member. Throws UsageError for invalid options, and the system's error if it cannot listen. */
export async function startMesh(options: MeshOptions): Promise<Mesh> {
  const { name, factor = 3, intervalMs = 1000, stalenessThreshold = 5, deadThreshold = 10 } = options;
  const { dial = dialDirectly, log = () => {} } = options;
  const gate = gateOf(options);
  checkOptions(options.hosts, { factor, intervalMs, stalenessThreshold, deadThreshold });
  const said = new Seldom(100);
  const warn = (what: string, line: string): void => {
    if (said.is(what)) log('warn', line);
  };
  const bootstrap = options.bootstrapPeers ?? [];
  for (const address of bootstrap) checkAddress(address);

  let answerTo: ((question: GossipQuestion) => Promise<Buffer>) | undefined;
  let pageTo: ((question: PageQuestion) => Buffer) | undefined;
  const servers = options.hosts.map(() => {
    const onDenied = (address: string, why: string) => warn(why, `refused gossip from ${address}: ${why}`);
    const face = gossipListener({
      gate,
      answer: (question) => answerTo?.(question),
      page: (question) => pageTo?.(question),
      onDenied,
    });
    const server = createTkaServer(face, { readTimeoutMs: 5000, readHeaderTimeoutMs: 2000, writeTimeoutMs: 5000 });
    server.maxConnections = connectionLimit;
    return server;
  });
  const port = await listenOnAll(servers, options.hosts, options.port);
  let stated = options.record;
  const recordOf = () => ({ ...stated, gossipPort: port, federationKey: options.federationKey?.() });
  let member: Membership;
  try {
    member = new Membership({
      name,
      record: recordOf(),
      clock: { monotonic: () => performance.now(), wall: () => Date.now() },
      random: Math.random,
      intervalMs,
      factor,
      stalenessThreshold,
      deadThreshold,
      seeds: bootstrap,
      onChange: (known, before) => {
        const was = before === undefined ? 'is new' : before === known.state ? 'has changed' : `was ${before}`;
        log('info', `member ${known.name} (${known.record.server}) ${was}: ${known.state}`);
        options.onChange?.(rowOf(known), before);
      },
      onTwin: () => warn('twin', `another process uses the name ${name}: member names must be unique`),
      onSkip: (skipped, why) => warn(`${skipped} ${why}`, `ignored member ${skipped}: ${why}`),
    });
  } catch (error) {
    await Promise.all(servers.map(close));
    throw error;
  }

  const stopped = new AbortController();
  // Timeout of an exchange: long enough for a slow peer, short enough to notice a silent member within a few rounds.
  const exchangeMs = Math.min(5000, Math.max(1000, 3 * intervalMs));
  /** Open exchanges, by address. */
  const exchanges = new Map<string, Promise<void>>();

  /**
   * Sends a message to a member. Passes the answer to `take`, or calls `failed` if there is no usable one. Never throws.
   */
  async function send(
    { address, body }: { readonly address: string; readonly body: Buffer },
    { timeoutMs, ...place }: { readonly timeoutMs: number; readonly path?: string; readonly limit?: number },
    take: (answer: PeerAnswer) => void,
    failed: () => void,
  ): Promise<void> {
    const timer = new AbortController();
    const timeout = setTimeout(() => timer.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const cut = () => timer.abort(stopped.signal.reason);
    stopped.signal.addEventListener('abort', cut, { once: true });
    try {
      take(await post(address, body, { gate, dial, signal: timer.signal, ...place }));
    } catch (error) {
      failed();
      if (!stopped.signal.aborted) report(address, timer.signal.aborted ? timer.signal.reason : error);
    } finally {
      clearTimeout(timeout);
      stopped.signal.removeEventListener('abort', cut);
    }
  }

  /** Asks a member and processes its answer. Never throws. */
  async function exchange(ask: Ask, timeoutMs: number): Promise<void> {
    const take = ({ body, node }: PeerAnswer) => member.settle(ask, valid(readAnswer(body)), node);
    await send(ask, { timeoutMs }, take, () => member.failed(ask));
  }

  /** Fetches the page of a member. Never throws. */
  async function fetchPage(ask: PageAsk): Promise<void> {
    const take = ({ body, node }: PeerAnswer) => member.settlePage(ask, valid(readPageAnswer(body)), node);
    const how = { timeoutMs: pageMs, path: joinedPath, limit: pageLimit };
    await send(ask, how, take, () => member.failedPage(ask));
  }

  /** Sends the questions that are due. */
  function run(): void {
    if (stopped.signal.aborted) return;
    for (const ask of member.asks()) {
      const going = exchange(ask, exchangeMs).then(run);
      exchanges.set(ask.address, going);
      going.finally(() => exchanges.get(ask.address) === going && exchanges.delete(ask.address));
    }
    for (const ask of member.pageAsks()) void fetchPage(ask).then(run);
  }

  pageTo = (question) => member.answerPage(question);
  answerTo = async (question) => {
    const answer = member.answer(question);
    run();
    // The leaving member stops after this answer, so read its record first.
    if (question.leaving) await exchanges.get(question.at);
    return answer;
  };

  function report(address: string, error: unknown): void {
    const why = systemCode(error) ?? (error instanceof Error ? error.message : 'failed');
    const line = `gossip with ${address} failed: ${cleanText(why)}`;
    if (error instanceof Error && error.name === 'Denied') warn(line, line);
    else log('debug', line);
  }

  let rounds = 0;
  // Whether the joined clusters were known in the last round. If so, they are published every few rounds only.
  let hasPage = false;
  let claims: Claims | undefined;
  // The round in which the key in the record was published.
  let announcedAt = 0;
  let looking = false;
  async function look(): Promise<void> {
    if (looking || bootstrap.length > 0 || options.candidates === undefined) return;
    looking = true;
    try {
      member.setSeeds(await options.candidates());
    } catch (error) {
      const why = error instanceof Error ? cleanText(error.message) : 'failed';
      warn(why, `could not list the peers of the tailnet: ${why}`);
    } finally {
      looking = false;
    }
  }

  /** Publishes what other parts of this server know about its federation. */
  function publish(): void {
    try {
      const key = options.federationKey?.();
      if (key !== member.self.record.federationKey) {
        member.update(recordOf());
        announcedAt = rounds;
      }
      if (hasPage && rounds % pageRounds !== 0) return;
      const rows = options.joined?.();
      if (rows !== undefined) member.publishJoined(rows);
      hasPage = rows !== undefined;
    } catch (error) {
      const why = error instanceof Error ? cleanText(error.message) : 'failed';
      warn(why, `could not publish the joined clusters: ${why}`);
    }
  }

  function round(): void {
    claims = undefined;
    member.tick();
    publish();
    if (rounds % (member.living === 1 ? 5 : 60) === 0) void look();
    rounds++;
    run();
  }
  let timer: NodeJS.Timeout | undefined;
  const next = (afterMs: number) => {
    timer = setTimeout(() => {
      next(intervalMs);
      round();
    }, afterMs);
  };
  void look();
  publish();
  // Members that start together must not all send at once.
  next(Math.random() * Math.min(intervalMs, 200));
  log('info', `member ${name} listens for gossip on ${options.hosts.join(', ')}, port ${port}`);

  let ending: Promise<void> | undefined;
  async function end(leaving: boolean): Promise<void> {
    clearTimeout(timer);
    if (leaving) {
      const asks = member.leave();
      const deadline = performance.now() + farewellMs;
      const tell = async (): Promise<void> => {
        for (let ask = asks.pop(); ask !== undefined; ask = asks.pop()) {
          await exchange(ask, Math.max(1, deadline - performance.now()));
        }
      };
      await Promise.all(Array.from({ length: farewells }, tell));
      log('info', `member ${name} has left the mesh`);
    }
    stopped.abort(new Error('stopped'));
    await Promise.all(servers.map(close));
  }
  const endOnce = (leaving: boolean) => {
    ending ??= end(leaving);
    return ending;
  };
  return {
    port,
    members() {
      const own = { owner: member.known, rows: options.joined?.() ?? [] };
      const pages = [own, ...member.joined()];
      return [...member.members().map(rowOf), ...pages.flatMap(({ owner, rows }) => joinedRowsOf(owner, rows))];
    },
    overview: () =>
      member.members().map((known) => ({
        ...rowOf(known),
        self: known.name === member.name,
        left: known.record.left,
        gossip: gossipAddress(known.record),
      })),
    drop(dropped) {
      const state = member.drop(dropped);
      if (state === 'dead') log('info', `dropped dead member ${dropped}`);
      return state;
    },
    counts() {
      const counts = { healthy: 0, suspected: 0, dead: 0, left: 0 };
      for (const { state, record } of member.members()) counts[state === 'dead' && record.left ? 'left' : state]++;
      return counts;
    },
    claims(cluster, apiEndpoint) {
      claims ??= new Claims(member.members(), member.name);
      return claims.of(cluster, apiEndpoint);
    },
    isSettled: () => rounds >= settleRounds,
    hasAnnounced: (key) => key === member.self.record.federationKey && rounds - announcedAt >= settleRounds,
    update(record) {
      stated = record;
      member.update(recordOf());
    },
    leave: () => endOnce(true),
    stop: () => endOnce(false),
    [Symbol.asyncDispose]: () => endOnce(false),
  };
}

async function listenOnAll(servers: readonly Server[], hosts: readonly string[], wanted: number): Promise<number> {
  let port = wanted;
  try {
    for (const [i, server] of servers.entries()) port = await listen(server, hosts[i] as string, port);
    return port;
  } catch (error) {
    await Promise.all(servers.map(close));
    throw error;
  }
}

/** Returns an answer that was read. Throws an error with what is wrong with it. */
function valid<T>(answer: T | string): T {
  if (typeof answer === 'string') throw new Error(`invalid answer: ${answer}`);
  return answer;
}

/** Returns the clusters that joined a member as rows of the memberlist. */
function joinedRowsOf({ record, state, lastSeen }: KnownMember, rows: readonly JoinedRow[]): MemberRow[] {
  const { server, cluster } = record;
  if (cluster === undefined || rows.length === 0) return [];
  return memberRows(rows, { server, cluster, state, lastSeen: new Date(lastSeen).toISOString() });
}

type SaidByAll = 'name' | 'state' | 'lastSeen';

/** Returns a member as a row of the memberlist. */
function rowOf({ name, record, state, lastSeen }: KnownMember): MemberRow & Pick<MemberOverview, SaidByAll> {
  const { server, apiEndpoint, labels, cluster, version } = record;
  const url = new URL(server);
  const apiPort = Number(url.port || (url.protocol === 'https:' ? 443 : 80));
  const stated = cluster !== undefined && { cluster };
  const seen = new Date(lastSeen).toISOString();
  return { apiEndpoint, apiPort, labels, name, ...stated, server, state, lastSeen: seen, version };
}
