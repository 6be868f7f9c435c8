// Groups TKA servers into clusters. The list is untrusted, because any member can claim any endpoint and name. So the
// groups are for display and naming only: trust.ts checks a server before a sign-in.
import { isIP } from 'node:net';
import { hostOf, joinedNameOf, originOf } from '../util/url.ts';
import type { Cluster, ClusterServer, ClusterState, KnownPair } from './clusters.ts';
import { nameThrough, shortName } from './clusters.ts';
import { isJoined, loginServerName, waysIn } from './joined.ts';

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
  /** Of a joined cluster: the name of the login server's cluster, if stated. */
  readonly through?: string;
  /** True if the login server says that a server in the list serves the same cluster. */
  readonly direct?: boolean;
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
 * join the servers with a name at that endpoint if these all have the same name. Rows of joined clusters have groups of
 * their own, one for each name and login server; see splitByWay(). `warnings` are about names that several clusters
 * claim.
 */
export function groupServers(
  rows: readonly ServerRow[],
  options: GroupOptions = {},
): { readonly clusters: Cluster[]; readonly warnings: string[] } {
  const groups = splitByWay(rows);
  const endpointHost = hostsOf(rows);
  const known = Map.groupBy(options.known ?? [], ({ apiServer }) => apiServer);
  const named = (row: ServerRow) => {
    // The name of a login server means that server, not a cluster behind it.
    const own = isJoined(row) ? null : row.name;
    return own ?? nameOfHost(row.server, options) ?? endpointHost(row.apiEndpoint);
  };
  const made = groups.map((group) => {
    const ranked = [...group].sort(
      (a, b) => standing(a) - standing(b) || a.since - b.since || compare(named(a), named(b)),
    );
    const [speaker] = ranked as [ServerRow];
    const stated = group.find((row) => row.cluster !== null && row.usable === speaker.usable)?.cluster;
    const name = joinedNameOf(speaker.server ?? '') ?? stated ?? named(speaker);
    return { ranked, name, speaker, through: throughOf(speaker) };
  });
  const warnings: string[] = [];
  const renamed = new Map<(typeof made)[number], string>();
  for (const [name, alike] of Map.groupBy(made, (each) => each.name)) {
    const there = alike.filter(({ ranked }) => ranked.some(({ state }) => state !== 'missing'));
    const listed = new Set(there);
    // A joined cluster does not get the name of a cluster that is missing for the moment.
    const owners = ownersOf(alike.filter((each) => each.through === null || listed.has(each)));
    for (const each of alike) {
      if (each.through !== null && alike.length > 1 && (owners.length > 1 || owners[0] !== each))
        renamed.set(each, nameThrough(name, each.through));
    }
    // A joined cluster that is missing for the moment loses its name too.
    const claimants = alike.filter((each) => listed.has(each) || renamed.has(each));
    if (there.length === 0 || claimants.length < 2) continue;
    if (warnings.length < mostWarnings) warnings.push(claimed(name, claimants));
    const [owner, ...others] = ownersOf(there);
    if (owner === undefined || others.length > 0) continue;
    for (const each of there.filter((one) => one !== owner && one.through === null)) {
      const { server, apiEndpoint } = each.speaker;
      renamed.set(each, nameOfHost(server, options) ?? endpointHost(apiEndpoint));
    }
  }
  const clusters = made.map((each) => {
    const { ranked, speaker } = each;
    const name = renamed.get(each) ?? each.name;
    return clusterOf(name, ranked, named, known.get(speaker.apiEndpoint) ?? []);
  });
  const rank = (cluster: Cluster) => last.indexOf(cluster.state);
  clusters.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      compare(a.name, b.name) ||
      compare(a.apiEndpoint, b.apiEndpoint) ||
      compare(a.server ?? '', b.server ?? ''),
  );
  return { clusters, warnings };
}

/**
 * Splits servers into clusters. The rows of a joined cluster are one cluster if they have the same name and replicas of
 * the same login server, whatever endpoint they state. Only if their login server says that servers in this list serve
 * the same cluster, they are further ways to it. The endpoint and the name must then be the same.
 */
function splitByWay(rows: readonly ServerRow[]): ServerRow[][] {
  const wayOf = waysIn(rows);
  const [own, joined] = [rows.filter((row) => !isJoined(row)), rows.filter(isJoined)];
  const groups = [...Map.groupBy(own, ({ apiEndpoint }) => apiEndpoint).values()].flatMap(splitByName);
  const identityOf = ({ cluster, apiEndpoint }: ServerRow) => `${cluster} ${apiEndpoint}`;
  const direct = new Map(
    groups.flatMap((group) =>
      group.flatMap((row) => (row.cluster === null ? [] : [[identityOf(row), group] as const])),
    ),
  );
  const others = joined.filter((row) => {
    const group = row.direct === true ? direct.get(identityOf(row)) : undefined;
    group?.push(row);
    return group === undefined;
  });
  return [...groups, ...Map.groupBy(others, wayOf).values()];
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
 * devices that `deploy/` names NAME-1, NAME-2 and so on come next. A way through a login server comes after the
 * cluster's own servers.
 */
function standing(row: ServerRow): number {
  const { usable, server, cluster, state } = row;
  if (!usable) return 5;
  if (state === 'missing') return 4;
  if (isJoined(row)) return 3;
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
  const chosen = own[0] ?? best;
  const { server, provenance, version } = chosen;
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
    through: throughOf(chosen),
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

/** Returns the name of the login server's cluster for a way through it; null for a server of the cluster itself. */
function throughOf({ server, through }: ServerRow): string | null {
  return server !== null && isJoined({ server }) ? loginServerName(server, through) : null;
}

/** Returns the clusters with the best claim to a name; several if their claims are equal. */
function ownersOf<T extends { readonly ranked: readonly ServerRow[]; readonly through: string | null }>(
  alike: readonly T[],
): T[] {
  const all = alike.filter(({ ranked }) => ranked.some((row) => row.usable));
  const direct = all.filter(({ through }) => through === null);
  const usable = direct.length > 0 ? direct : all;
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
  const name = isIP(host) !== 0 || host === 'localhost' ? nameOf?.(server) : shortName(originOf(server), '');
  const joined = joinedNameOf(server);
  return joined === undefined ? name : nameThrough(joined, name ?? host);
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
