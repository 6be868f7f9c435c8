// Groups TKA servers into clusters. The list is untrusted, because any member can claim any endpoint and name. So the
// groups are for display and naming only: trust.ts checks a server before a sign-in.
import { isIP } from 'node:net';
import { hostOf } from '../util/url.ts';
import type { Cluster, ClusterServer, ClusterState, KnownPair } from './clusters.ts';
import { shortName } from './clusters.ts';

/** One TKA server, as a list or a context describes it. */
export interface ServerRow extends Omit<ClusterServer, 'name'> {
  /** The name of the server. */
  readonly name: string | null;
  /** The name of its cluster; null from servers that do not report it (Go, 0.1.0). */
  readonly cluster: string | null;
  readonly apiEndpoint: string;
  readonly labels: ReadonlyMap<string, string>;
  /** False if trust.ts would refuse the server. It then represents its cluster only if there is no other server. */
  readonly usable: boolean;
  /** When a list first contained it, in milliseconds since the epoch. */
  readonly since: number;
}

export interface GroupOptions {
  /** Servers in the user's contexts, the current context first. */
  readonly known?: readonly KnownPair[];
  /** Returns the tailnet's host name of a server whose URL has an IP address. */
  readonly nameOf?: (server: string) => string | undefined;
}

/** All states, best first. */
const states: readonly ClusterState[] = ['healthy', 'unknown', 'suspected', 'unresolved', 'dead', 'missing'];
const last: readonly ClusterState[] = ['suspected', 'dead', 'missing'];
/** Limit on the warnings, because thousands of clusters may claim the same names. */
const mostWarnings = 5;

/**
 * Groups servers into clusters, in an order that is the same on every machine. Servers belong to one cluster if they
 * report the same API endpoint and the same cluster name. Servers without a cluster name are grouped by endpoint. They
 * join the servers with a name at that endpoint if these all have the same name. `warnings` are about names that
 * several clusters claim.
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

/** Splits the servers of one endpoint by cluster name. Unusable servers do not affect how the others are grouped. */
function splitByName(rows: readonly ServerRow[]): ServerRow[][] {
  const usable = rows.filter((row) => row.usable);
  const names = new Set((usable.length > 0 ? usable : rows).flatMap(({ cluster }) => cluster ?? []));
  const [only] = names.size === 1 ? names : [];
  return [...Map.groupBy(rows, ({ cluster }) => cluster ?? only ?? null).values()];
}

/**
 * Returns the rank of a server in its cluster; 0 is the most trusted to describe the cluster. Device names in a tailnet
 * are unique. So a device with the same name as the cluster ranks before servers that only claim to belong to it. The
 * devices that `deploy/` names NAME-1, NAME-2 and so on come next.
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
  // Servers that only claim to belong to the cluster do not count if others have its name.
  const limit = Math.max(1, standing(speaker));
  const counted = ranked.filter((row) => standing(row) <= limit);
  // The sort is stable: among servers in the same state, the one with the best rank comes first.
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
  // A list may contain a server twice.
  return servers.filter(({ server }) => server === null || (!seen.has(server) && seen.add(server)));
}

/** Returns the clusters with the best claim to a name; several if their claims are equal. */
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

/** Returns the host name of a server; for an IP address, the name of its device if known. */
function nameOfHost(server: string | null, { nameOf }: GroupOptions): string | undefined {
  if (server === null) return undefined;
  const host = hostOf(server);
  if (isIP(host) !== 0 || host === 'localhost') return nameOf?.(server);
  return shortName(server, '');
}

/** Returns the host of an API endpoint, with its port if several endpoints without a name share one host. */
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
