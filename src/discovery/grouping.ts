// Which TKA servers are of one cluster. A list is what its members say, and anyone can claim an endpoint and a name, so
// this is for display and naming only: before a server is signed in to, trust.ts confirms it.
import { isIP } from 'node:net';
import { hostOf } from '../util/url.ts';
import type { Cluster, ClusterServer, ClusterState, KnownPair } from './clusters.ts';
import { shortName } from './clusters.ts';

/** One TKA server, as a list or a context states it. */
export interface ServerRow extends Omit<ClusterServer, 'name'> {
  /** Of the server. */
  readonly name: string | null;
  /** The name of its cluster; null from servers that state none (Go, 0.1.0). */
  readonly cluster: string | null;
  readonly apiEndpoint: string;
  readonly labels: ReadonlyMap<string, string>;
  /** False where trust.ts would refuse the server: it then speaks only for a cluster that has no other. */
  readonly usable: boolean;
  /** When a list first named it, in milliseconds of the epoch. */
  readonly since: number;
}

export interface GroupOptions {
  /** Servers that the user's contexts name, the current one first. */
  readonly known?: readonly KnownPair[];
  /** What the tailnet calls the host of a server that has an address for a host. */
  readonly nameOf?: (server: string) => string | undefined;
}

/** Best first. */
const states: readonly ClusterState[] = ['healthy', 'unknown', 'suspected', 'unresolved', 'dead', 'missing'];
const last: readonly ClusterState[] = ['suspected', 'dead', 'missing'];
/** A list may hold thousands of clusters that all claim one name. */
const mostWarnings = 5;

/**
 * Groups servers into clusters, in an order that is the same on every machine. Servers are of one cluster if they state
 * the same API endpoint and the same name. Those that state no name are grouped by endpoint, with the servers that do
 * state one if all of them state the same. `warnings` are about names that several clusters claim.
 */
export function groupServers(
  rows: readonly ServerRow[],
  options: GroupOptions = {},
): { readonly clusters: Cluster[]; readonly warnings: string[] } {
  const groups = [...Map.groupBy(rows, ({ apiEndpoint }) => apiEndpoint).values()].flatMap(splitByName);
  const endpointHost = hostsOf(rows);
  const known = Map.groupBy(options.known ?? [], ({ apiServer }) => apiServer);
  const named = (row: ServerRow) => row.name ?? nameOfHost(row.server, options) ?? endpointHost(row.apiEndpoint);
  const made = groups.map((group) => {
    const ranked = [...group].sort(
      (a, b) => standing(a) - standing(b) || a.since - b.since || compare(named(a), named(b)),
    );
    const [speaker] = ranked as [ServerRow];
    const name = group.find((row) => row.cluster !== null && row.usable === speaker.usable)?.cluster ?? named(speaker);
    return { ranked, name, speaker };
  });
  const warnings: string[] = [];
  const renamed = new Map<(typeof made)[number], string>();
  for (const [name, alike] of Map.groupBy(made, (each) => each.name)) {
    const there = alike.filter(({ ranked }) => ranked.some(({ state }) => state !== 'missing'));
    if (there.length < 2) continue;
    if (warnings.length < mostWarnings) warnings.push(claimed(name, there));
    const [owner, ...others] = ownersOf(there);
    if (owner === undefined || others.length > 0) continue;
    for (const each of there.filter((one) => one !== owner)) {
      const { server, apiEndpoint } = each.speaker;
      renamed.set(each, nameOfHost(server, options) ?? endpointHost(apiEndpoint));
    }
  }
  const clusters = made.map((each) => {
    const { ranked, speaker } = each;
    return clusterOf(renamed.get(each) ?? each.name, ranked, named, known.get(speaker.apiEndpoint) ?? []);
  });
  const rank = (cluster: Cluster) => last.indexOf(cluster.state);
  clusters.sort((a, b) => rank(a) - rank(b) || compare(a.name, b.name) || compare(a.apiEndpoint, b.apiEndpoint));
  return { clusters, warnings };
}

/** Splits the servers of one endpoint. A server that may not be used has no say in how the others are grouped. */
function splitByName(rows: readonly ServerRow[]): ServerRow[][] {
  const usable = rows.filter((row) => row.usable);
  const names = new Set((usable.length > 0 ? usable : rows).flatMap(({ cluster }) => cluster ?? []));
  const [only] = names.size === 1 ? names : [];
  return [...Map.groupBy(rows, ({ cluster }) => cluster ?? only ?? null).values()];
}

/**
 * How much a server has to say about its cluster, the least first. Two devices of a tailnet never have the same name,
 * so in a cluster that is called like one, that device comes before all that only claim to be of it, as do those that
 * `deploy/` calls NAME-1, NAME-2 and so on.
 */
function standing({ usable, server, cluster, state }: ServerRow): number {
  if (!usable) return 4;
  if (state === 'missing') return 3;
  if (server === null || cluster === null) return 2;
  const [label = ''] = new URL(server).hostname.split('.', 1);
  const name = cluster.toLowerCase();
  if (label === name) return 0;
  return label.startsWith(`${name}-`) && /^[0-9]{1,4}$/.test(label.slice(name.length + 1)) ? 1 : 2;
}

function clusterOf(
  name: string,
  ranked: readonly ServerRow[],
  named: (row: ServerRow) => string,
  known: readonly KnownPair[],
): Cluster {
  const [speaker] = ranked as [ServerRow];
  // Servers that only claim to be of the cluster do not count beside those that are called like it.
  const limit = Math.max(1, standing(speaker));
  const counted = ranked.filter((row) => standing(row) <= limit);
  // The sort is stable: of servers in the same state, the one with the best standing comes first.
  const best = [...counted].sort((a, b) => states.indexOf(a.state) - states.indexOf(b.state))[0] ?? speaker;
  const servers = new Set(known.map(({ server }) => server));
  const isKnown = ({ server, state, usable }: ServerRow) =>
    server !== null && servers.has(server) && usable && (state !== 'missing' || best.state === 'missing');
  const own = [...servers].flatMap((server) => ranked.find((row) => row.server === server && isKnown(row)) ?? []);
  const { server, provenance, version } = own[0] ?? best;
  const seen = counted.flatMap(({ lastSeen }) => lastSeen ?? []).sort((a, b) => Date.parse(b) - Date.parse(a));
  return {
    name,
    server,
    provenance,
    apiEndpoint: speaker.apiEndpoint,
    state: best.state,
    reason: best.reason,
    lastSeen: seen[0] ?? null,
    version,
    labels: speaker.labels,
    servers: serversOf(ranked, named),
  };
}

function serversOf(rows: readonly ServerRow[], named: (row: ServerRow) => string): ClusterServer[] {
  const servers = rows.map((row): ClusterServer => {
    const { server, provenance, state, reason, lastSeen, version } = row;
    return { name: named(row), server, provenance, state, reason, lastSeen, version };
  });
  servers.sort((a, b) => states.indexOf(a.state) - states.indexOf(b.state) || compare(a.name, b.name));
  const seen = new Set<string>();
  // A list may name a server twice.
  return servers.filter(({ server }) => server === null || (!seen.has(server) && seen.add(server)));
}

/** The clusters that have more right to a name than the others that claim it; several where nothing tells them apart. */
function ownersOf<T extends { readonly ranked: readonly ServerRow[] }>(alike: readonly T[]): T[] {
  const usable = alike.filter(({ ranked }) => ranked.some((row) => row.usable));
  const own = usable.filter(({ ranked }) => ranked.some((row) => standing(row) === 0));
  return own.length > 0 ? own : usable;
}

function claimed(name: string, alike: readonly { readonly speaker: ServerRow }[]): string {
  const shown = alike.slice(0, 4).map(({ speaker }) => speaker);
  const places = shown.map(({ apiEndpoint, server }) => `${apiEndpoint} (${server ?? 'no TKA server'})`);
  const more = alike.length > places.length ? `, and ${alike.length - places.length} more` : '';
  return `${alike.length} clusters claim the name ${JSON.stringify(name)}: ${places.join(' and ')}${more}`;
}

/** The name of a server's host: that of its device, not an address. */
function nameOfHost(server: string | null, { nameOf }: GroupOptions): string | undefined {
  if (server === null) return undefined;
  const host = hostOf(server);
  if (isIP(host) !== 0 || host === 'localhost') return nameOf?.(server);
  return shortName(server, '');
}

/** The host of an API endpoint, with its port where several that have no other name are on one host. */
function hostsOf(rows: readonly ServerRow[]): (endpoint: string) => string {
  const hosts = new Map<string, Set<string>>();
  for (const { name, apiEndpoint } of rows) {
    if (name !== null) continue;
    const { hostname, host } = new URL(apiEndpoint);
    hosts.set(hostname, (hosts.get(hostname) ?? new Set()).add(host));
  }
  return (endpoint) => {
    const { hostname, host } = new URL(endpoint);
    return ((hosts.get(hostname)?.size ?? 0) > 1 ? host : hostname).replace(/[[\]]/g, '');
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
