// Probes the current state of a TKA server: two requests over one connection, neither of which creates anything.

import { TLSSocket } from 'node:tls';
import type { Cluster, ClusterState } from '../../discovery/clusters.ts';
import type { Network } from '../../network/network.ts';
import { progressBar } from '../../terminal/progress.ts';
import { parseClusterInfo, parseSignIn } from '../../tka/answers.ts';
import { TkaClient } from '../../tka/client.ts';
import { NotSignedIn, Refused } from '../../tka/errors.ts';
import type { RawAnswer } from '../../tka/raw-answer.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import { placeOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';

/** The certificate of a server that speaks https. */
export interface TlsState {
  readonly valid: boolean;
  /** RFC 3339; null if it is not valid or the end is unknown. */
  readonly validUntil: string | null;
  /** Whole days. */
  readonly daysLeft: number | null;
  /** Why it is invalid. */
  readonly problem: string | null;
}

/** The user's sign-in as the server reports it. */
export interface SignInState {
  /** `pending`: not provisioned yet; `refused`: no grant. */
  readonly state: 'active' | 'pending' | 'signed-out' | 'refused';
  readonly username: string | null;
  readonly role: string | null;
  /** RFC 3339. */
  readonly until: string | null;
}

/** What `clusters --probe` shows of a cluster; null means unknown. */
export interface Probe {
  /** True if there was an HTTP answer; null if no server was asked. */
  readonly reachable: boolean | null;
  /** Duration of one /cluster-info request on an open connection, in milliseconds. */
  readonly latencyMs: number | null;
  /** null for plain http. */
  readonly tls: TlsState | null;
  readonly version: string | null;
  readonly signIn: SignInState | null;
  /** Why it is not reachable, or what is wrong with its answers. */
  readonly error: string | null;
}

/** A probe with a short form of its error; null if there is no error, or another column shows it. */
export interface Probed {
  readonly probe: Probe;
  readonly brief: string | null;
}

/** The answer of a server, independent of the cluster that lists it. */
export interface ServerProbe extends Probed {
  /** The API endpoint that the server states. */
  readonly apiServer: string | null;
}

/** A client for one server that reports when its connection was opened. */
export interface ConnectionProbe {
  readonly client: TkaClient;
  /** Returns when its last connection was opened (performance.now()), and until when the certificate is valid. */
  readonly opened: () => { readonly at: number; readonly validUntil: number | undefined } | undefined;
}

/** A server to probe. */
export interface ProbeTarget {
  readonly server: string;
  /** The API endpoints of the clusters that list it. */
  readonly endpoints: ReadonlySet<string>;
  /** Timeout for its answer, in milliseconds. */
  readonly patience: number;
}

/** Maximum number of concurrent probes. */
const probesAtOnce = 16;
const patience = { listed: 5000, gone: 2000 };
/** Minimum timeout of the second request, in milliseconds. */
const leastTime = 1000;
const gone: ReadonlySet<ClusterState> = new Set(['dead', 'suspected', 'missing']);
const dayMs = 86_400_000;
/** Timeout for opening a connection, in milliseconds. */
const connectTimeout = 2000;
/**
 * Limit for all probes of a list, in milliseconds. At 16 at a time, it is enough for 480 servers that cannot be
 * reached.
 */
export const probeBudget = 60_000;
const nothing: Probe = { reachable: null, latencyMs: null, tls: null, version: null, signIn: null, error: null };

/** Returns the servers to ask about a cluster: the preferred one first, then the others that may be used. */
export function serversToProbe({ server: own, servers }: Cluster): string[] {
  if (own === null) return [];
  return [own, ...servers.flatMap(({ server, reason }) => (server === own || reason !== null ? [] : (server ?? [])))];
}

/** Returns the servers of clusters, each once, in list order. */
export function probeTargets(clusters: readonly Cluster[]): ProbeTarget[] {
  const targets = new Map<string, { server: string; endpoints: Set<string>; patience: number }>();
  for (const cluster of clusters) {
    const states = new Map(cluster.servers.map(({ server, state }) => [server, state]));
    for (const server of serversToProbe(cluster)) {
      const target = targets.get(server) ?? { server, endpoints: new Set(), patience: 0 };
      target.endpoints.add(cluster.apiEndpoint);
      const isGone = gone.has(states.get(server) ?? cluster.state);
      target.patience = Math.max(target.patience, isGone ? patience.gone : patience.listed);
      targets.set(server, target);
    }
  }
  return [...targets.values()];
}

/**
 * Asks a server for its cluster and, if the cluster is the listed one, for the user's sign-in. Returns errors as part
 * of the result.
 */
async function probeServer(target: ProbeTarget, open: (server: string) => ConnectionProbe): Promise<ServerProbe> {
  const { server } = target;
  const connection = open(server);
  const { client } = connection;
  const started = performance.now();
  try {
    const answer = await client.ask('GET', '/cluster-info', { timeout: target.patience });
    const ended = performance.now();
    const opened = connection.opened();
    const found: Probe = {
      ...nothing,
      reachable: true,
      latencyMs: Math.round((ended - Math.max(started, opened?.at ?? started)) * 10) / 10,
      tls: server.startsWith('https:') ? validTls(opened?.validUntil) : null,
      version: ownVersion(answer),
    };
    return await judged(answer, found, target, client, ended - started);
  } catch (error) {
    return unreachable(server, error);
  } finally {
    await client.close();
  }
}

async function judged(
  answer: RawAnswer,
  found: Probe,
  target: ProbeTarget,
  client: TkaClient,
  took: number,
): Promise<ServerProbe> {
  let apiServer: string;
  try {
    ({ apiServer } = parseClusterInfo(answer, target.server));
  } catch (error) {
    const message = messageOf(error);
    if (error instanceof Refused && answer.status === 403) {
      const signIn = { state: 'refused', username: null, role: null, until: null } as const;
      return { probe: { ...found, signIn, error: message }, brief: null, apiServer: null };
    }
    const brief = answer.status === 200 ? 'not the TKA protocol' : `HTTP ${answer.status}`;
    return { probe: { ...found, error: message }, brief, apiServer: null };
  }
  // A sign-in to another cluster says nothing about this one.
  if (!target.endpoints.has(apiServer)) return { probe: found, brief: null, apiServer };
  const timeout = Math.max(leastTime, target.patience - took);
  return { probe: { ...found, ...(await askSignIn(client, timeout)) }, brief: null, apiServer };
}

async function askSignIn(client: TkaClient, timeout: number): Promise<Pick<Probe, 'signIn' | 'error'>> {
  const nobody = { username: null, role: null, until: null };
  try {
    const answer = await client.ask('GET', '/login', { timeout });
    const { username, role, until } = parseSignIn(answer, client.server, 'the sign-in query');
    const state = answer.status === 202 ? 'pending' : 'active';
    return { signIn: { state, username, role, until: rfc3339(until) }, error: null };
  } catch (error) {
    if (error instanceof NotSignedIn) return { signIn: { state: 'signed-out', ...nobody }, error: null };
    const signIn = error instanceof Refused ? ({ state: 'refused', ...nobody } as const) : null;
    return { signIn, error: messageOf(error) };
  }
}

function unreachable(server: string, error: unknown): ServerProbe {
  const message = messageOf(error);
  const prefix = `cannot reach ${placeOf(server)}: `;
  const words = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  const isTls = server.startsWith('https:') && /CERT|SSL|TLS|SELF_SIGNED|VERIFY/.test(systemCode(error) ?? '');
  // After a semicolon, Node recommends an option that kubectl's users cannot set.
  const problem = words.replace(/^TLS handshake failed: /, '').replace(/; .*/, '');
  const tls = isTls ? { valid: false, validUntil: null, daysLeft: null, problem } : null;
  return {
    probe: { ...nothing, reachable: false, tls, error: message },
    brief: isTls ? 'TLS' : words.replace(/^its /, ''),
    apiServer: null,
  };
}

function messageOf(error: unknown): string {
  if (error instanceof TkaError) return error.message;
  return `unexpected: ${cleanText(error instanceof Error ? error.message : String(error))}`;
}

function validTls(validUntil: number | undefined): TlsState {
  const known = validUntil !== undefined && rfc3339(validUntil) !== null;
  return {
    valid: true,
    validUntil: known ? rfc3339(validUntil) : null,
    daysLeft: known ? Math.floor((validUntil - Date.now()) / dayMs) : null,
    problem: null,
  };
}

function rfc3339(time: number): string | null {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? null : date.toISOString().replace(/\.\d+Z$/, 'Z');
}

// The `Server` header often comes from a proxy, so use it only if it names TKA.
function ownVersion({ headers }: RawAnswer): string | null {
  const own = headers['tka-version'] ?? headers['x-tka-version'];
  const named = /^tka(?:-server)?\/(\S+)/i.exec(headers.server ?? '')?.[1];
  return cleanText(own ?? named ?? '', 64) || null;
}

/** Returns the probe of a cluster: that of the first server with a good answer, else that of the preferred server. */
export function probeOf(cluster: Cluster, found: ReadonlyMap<string, ServerProbe>): Probed {
  if (cluster.server === null) {
    return { probe: { ...nothing, error: cluster.reason ?? 'unknown TKA server' }, brief: null };
  }
  const all = serversToProbe(cluster).flatMap((server) => {
    const answer = found.get(server);
    return answer === undefined ? [] : [probeOfServer(cluster, server, answer)];
  });
  const good = all.find(({ probe, brief }) => probe.reachable === true && brief === null);
  return good ?? all[0] ?? { probe: { ...nothing, error: 'not asked' }, brief: null };
}

function probeOfServer(cluster: Cluster, server: string, answer: ServerProbe): Probed {
  const stated = cluster.servers.find((each) => each.server === server)?.version ?? null;
  const probe = { ...answer.probe, version: stated ?? answer.probe.version };
  const { apiServer } = answer;
  if (apiServer === null || apiServer === cluster.apiEndpoint) return { probe, brief: answer.brief };
  const error = `${placeOf(server)} serves ${apiServer}, not ${cluster.apiEndpoint}`;
  return { probe: { ...probe, signIn: null, error }, brief: 'another cluster' };
}

export interface ProbeOptions {
  readonly open: (server: string) => ConnectionProbe;
  /** Milliseconds after which no more servers are asked. */
  readonly budget: number;
  /** Called after each server, with the answers so far. */
  readonly onDone: (found: ReadonlyMap<string, ServerProbe>, server: string) => void;
}

/** Asks servers, 16 at a time. Leaves out servers that are not reached within the budget. */
export async function probeAll(
  targets: readonly ProbeTarget[],
  options: ProbeOptions,
): Promise<ReadonlyMap<string, ServerProbe>> {
  const found = new Map<string, ServerProbe>();
  const end = performance.now() + options.budget;
  let next = 0;
  const worker = async () => {
    for (let target = targets[next++]; target !== undefined && performance.now() < end; target = targets[next++]) {
      found.set(target.server, await probeServer(target, options.open));
      options.onDone(found, target.server);
    }
  };
  await Promise.all(Array.from({ length: Math.min(probesAtOnce, targets.length) }, worker));
  return found;
}

/** Returns a function that opens a connection to a server, with a timeout of 2 s. */
export function connectionProbes({ network, terminal }: Pick<Context, 'network' | 'terminal'>) {
  return (server: string): ConnectionProbe => {
    let opened: ReturnType<ConnectionProbe['opened']>;
    const watched: Network = {
      ...network,
      client: (origin, options) =>
        network.client(origin, {
          ...options,
          connectTimeout,
          onStep: (done) => {
            options.onStep?.(done);
            if (done.step !== 'open') return;
            const certificate = done.socket instanceof TLSSocket ? done.socket.getPeerX509Certificate() : undefined;
            opened = {
              at: performance.now(),
              validUntil: certificate === undefined ? undefined : Date.parse(certificate.validTo),
            };
          },
        }),
    };
    return { client: new TkaClient(server, { network: watched, log: terminal.log }), opened: () => opened };
  };
}

/** Probes clusters and shows progress. Returns the results in the order of the clusters. */
export async function probeClusters(context: Context, clusters: readonly Cluster[]): Promise<Probed[]> {
  const targets = probeTargets(clusters);
  let done = 0;
  const onDone = (answered: ReadonlyMap<string, unknown>) => {
    done = answered.size;
  };
  const found = await context.terminal.waiting(
    () => `probing the servers ${progressBar(done, targets.length)}`,
    () => probeAll(targets, { open: connectionProbes(context), budget: probeBudget, onDone }),
  );
  const left = targets.length - found.size;
  if (left > 0) {
    context.terminal.warn(`${left} of ${targets.length} servers were not asked in time; select fewer with -l`);
  }
  return clusters.map((cluster) => probeOf(cluster, found));
}
