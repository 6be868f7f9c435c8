import type { Cluster, ClusterServer } from '../../discovery/clusters.ts';
import { timeLeft } from '../../session/session.ts';
import type { Style } from '../../terminal/colour.ts';
import type { Cell, OutputFormat } from '../../terminal/output.ts';
import { localTime, shortDuration } from '../../util/time.ts';
import type { Context } from '../context/context.ts';
import { contextsByCluster } from '../target/contexts.ts';
import type { Feed } from './feed.ts';
import type { Probe, Probed } from './probe.ts';

/** A cluster as `-o json` prints it. */
export interface Row {
  readonly name: string;
  readonly server: string | null;
  /** The name of the login server's cluster, if the user signs in through it; else null. */
  readonly through: string | null;
  readonly apiEndpoint: string;
  readonly state: Cluster['state'];
  readonly reason: string | null;
  readonly lastSeen: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly context: string | null;
  readonly session: { readonly username: string; readonly role: string; readonly until: string } | null;
  /** All its TKA servers. */
  readonly servers: readonly Pick<ClusterServer, 'name' | 'server' | 'state'>[];
  /** Only with --probe. */
  readonly probe?: Probe;
}

/** A row, with data that only tables show. */
export interface Listed {
  readonly row: Row;
  /** True if its context is the current one. */
  readonly current: boolean;
  /** Milliseconds until the session ends. */
  readonly left: number;
  /** The number of its servers that are up and may be used. */
  readonly up: number;
  readonly probed: Probed | undefined;
  /** When its state was current, in milliseconds since the epoch; undefined for now. */
  readonly stateAt: number | undefined;
}

/**
 * Returns a function that adds the user's context and session to a cluster of the list. `at` is the time of a list that
 * is not current.
 */
export function lister(
  context: Context,
  { clusters, view, at }: Pick<Feed, 'clusters' | 'view' | 'at'>,
): (cluster: Cluster) => Listed {
  const contexts = contextsByCluster(view, clusters);
  return (cluster) => {
    const { name, server, through, apiEndpoint, state, reason, lastSeen, servers } = cluster;
    const known = server === null ? undefined : context.sessions.store.read(server);
    const left = known === undefined ? 0 : timeLeft(known);
    const all = contexts.get(cluster) ?? [];
    const current = all.find((ours) => ours.name === view.currentContext);
    const ours = current ?? all[0];
    const row = {
      ...{ name, server, through, apiEndpoint, state, reason, lastSeen },
      labels: Object.fromEntries(cluster.labels),
      context: ours?.name ?? null,
      session:
        known === undefined || left <= 0 ? null : { username: known.username, role: known.role, until: known.until },
      servers: servers.map((each) => ({ name: each.name, server: each.server, state: each.state })),
    };
    const up = servers.filter(isUp).length;
    return { row, current: current !== undefined, left, up, probed: undefined, stateAt: at };
  };
}

// A server with a reason must not be used, or its address is unknown.
function isUp({ state, reason }: ClusterServer): boolean {
  return reason === null && (state === 'healthy' || state === 'unknown');
}

/** Returns a row with the result of its probe. */
export function withProbe(listed: Listed, probed: Probed): Listed {
  const state = agreedState(listed.row.state, probed);
  const stateAt = probed.probe.reachable === null ? listed.stateAt : undefined;
  return { ...listed, row: { ...listed.row, state, probe: probed.probe }, probed, stateAt };
}

/**
 * Combines the states of list and probe: a server that answers is not dead, and one that does not answer is not
 * healthy.
 */
function agreedState(state: Row['state'], { probe, brief }: Probed): Row['state'] {
  if (probe.reachable === false && state === 'healthy') return 'suspected';
  if (probe.reachable === true && (state === 'dead' || state === 'suspected'))
    return brief === null ? 'healthy' : 'suspected';
  return state;
}

/** The optional columns of the table. */
export interface Columns {
  readonly wide: boolean;
  readonly probe: boolean;
}

/** Returns the headings of a table of clusters. */
export function headingsOf({ wide, probe }: Columns): string[] {
  return [
    'CURRENT',
    'NAME',
    'STATE',
    ...(probe ? ['REACHABLE', 'LATENCY', 'TLS', 'VERSION', 'SIGN-IN'] : []),
    'CONTEXT',
    'SESSION',
    'LABELS',
    ...(wide ? ['SERVERS', 'TKA SERVER', 'API ENDPOINT', 'LAST SEEN', 'THROUGH'] : []),
  ];
}

/**
 * Returns the state of a cluster, with its age if it is from a list that is not current: `healthy (3h ago)`. `stateAt`
 * is the time of that list, in milliseconds since the epoch.
 */
export function stateText(state: Row['state'], stateAt: number | undefined, now = Date.now()): string {
  // A missing cluster has a time in its reason, and an unknown state has no time.
  if (stateAt === undefined || state === 'missing' || state === 'unknown') return state;
  return `${state} (${shortDuration(Math.max(0, now - stateAt))} ago)`;
}

const stateStyles: Readonly<Record<Row['state'], Style | undefined>> = {
  healthy: 'green',
  suspected: 'yellow',
  unresolved: 'yellow',
  dead: 'red',
  missing: 'red',
  unknown: undefined,
};

/** Returns one line of the table. */
export function cellsOf(listed: Listed, { wide, probe }: Columns, now = Date.now()): Cell[] {
  const { row, current, left, up, probed } = listed;
  const labels = Object.entries(row.labels).map(([key, value]) => `${key}=${value}`);
  return [
    { text: current ? '*' : '', style: 'green' },
    row.name,
    { text: stateText(row.state, listed.stateAt, now), style: stateStyles[row.state] },
    ...(probe ? probeCells(probed, now) : []),
    row.context ?? '-',
    row.session === null ? '-' : sessionText(row.session, localTime(now + left, now)),
    labels.join(',') || '-',
    ...(wide
      ? [
          `${up}/${row.servers.length}`,
          row.server ?? '-',
          row.apiEndpoint,
          lastSeenText(row.lastSeen, now),
          row.through ?? '-',
        ]
      : []),
  ];
}

/** Returns a sign-in that is active, in one cell. */
function sessionText({ username, role }: { username: string; role: string | null }, expiry: string): string {
  return `${username} (${role}), expires ${expiry}`;
}

function lastSeenText(lastSeen: string | null, now: number): string {
  const time = Date.parse(lastSeen ?? '');
  return Number.isNaN(time) ? (lastSeen ?? '-') : localTime(Math.min(time, now - 1), now);
}

function probeCells(probed: Probed | undefined, now: number): Cell[] {
  if (probed === undefined) return ['?', '-', '-', '-', '-'];
  const { probe, brief } = probed;
  const { reachable, latencyMs, tls, version, signIn } = probe;
  const word = reachable === null ? '-' : !reachable ? 'no' : brief === null ? 'yes' : 'error';
  return [
    { text: brief === null ? word : `${word} (${brief})`, style: reachStyles[word] },
    latencyMs === null ? '-' : latencyMs < 10 ? `${latencyMs} ms` : `${Math.round(latencyMs)} ms`,
    tls === null ? '-' : (tls.problem ?? (tls.daysLeft === null ? 'valid' : `${tls.daysLeft}d left`)),
    version ?? '-',
    signIn === null ? '-' : signInCell(signIn, now),
  ];
}

const reachStyles = { yes: 'green', error: 'yellow', no: 'red', '-': undefined } as const;

function signInCell({ state, username, role, until }: NonNullable<Probe['signIn']>, now: number): string {
  if (username === null) return state;
  if (state !== 'active' || until === null) return `${username} (${role}), ${state}`;
  return sessionText({ username, role }, localTime(Math.max(now, Date.parse(until)), now));
}

/** Returns what an output format shows of a cluster, without times. If it differs, the cluster has changed. */
export function substanceOf({ row, current, up, probed }: Listed, format: OutputFormat): unknown {
  const { name, state, context, labels, session, probe, server, servers, apiEndpoint, reason, through } = row;
  const hidden = { server, apiEndpoint, reason, through };
  const more = {
    json: [hidden, servers],
    yaml: [hidden, servers],
    table: current,
    wide: [current, hidden, up, servers.length],
  };
  const rest = [name, state, context, labels, format in more ? more[format as keyof typeof more] : null];
  const seen = probe && { ...probe, latencyMs: null, tls: { ...probe.tls, validUntil: null }, error: probed?.brief };
  const who = (of: { username: string | null; role: string | null } | null | undefined) => of && [of.username, of.role];
  return [...rest, who(session), seen && { ...seen, signIn: [seen.signIn?.state, who(seen.signIn)] }];
}
