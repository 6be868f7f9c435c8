// The memberlist as JSON, and as a page of clusters with their servers. Every member contributes text, so all text is
// escaped and none becomes a link.
import { isIP } from 'node:net';
import type { MemberRow } from '../../tka/types.ts';
import { cleanText, isPlainName } from '../../util/text.ts';
import { canonicalServer, hostOf, joinedNameOf } from '../../util/url.ts';
import { jsonAnswer, type RouteAnswer } from './answers.ts';
import type { RequestHead } from './contract.ts';
import { escaped, iconLink, pageAnswer, statusPath } from './page.ts';
import { statusScript } from './status-script.ts';

// The client reads a list up to this size, in bytes (src/tka/client.ts). 10,000 rows without labels fit.
const listLimit = 16 * 1024 * 1024;

/** Returns the rows as JSON. Omits the labels if the list would be longer than the client reads. */
export function memberlistJson(rows: readonly MemberRow[]): RouteAnswer {
  const list = jsonAnswer(200, rows);
  const bare = () => rows.map((row) => ({ ...row, labels: {} }));
  return Buffer.byteLength(list.body ?? '') > listLimit ? jsonAnswer(200, bare()) : list;
}

/** The worst state first. */
const states = ['dead', 'suspected', 'unknown', 'healthy'] as const;
type State = (typeof states)[number];
const stateOf = ({ state }: MemberRow): State => state ?? 'unknown';
const rankOf = (row: MemberRow): number => states.indexOf(stateOf(row));

interface Cluster {
  /** The name that the client uses; undefined if there is no valid name. */
  readonly name: string | undefined;
  /** The argument for `kubectl tka login`, safe in any shell. */
  readonly login: string | undefined;
  readonly apiEndpoint: string;
  /** The login server's cluster, if the cluster is signed in to only through that one. */
  readonly through: string | undefined;
  /** `key=value`, of all servers of the cluster. */
  readonly labels: readonly string[];
  /** Sorted by state, the worst first. */
  readonly servers: readonly MemberRow[];
}

/** The order of the totals: "57 healthy, 1 dead". */
const inWords: readonly State[] = ['healthy', 'suspected', 'dead', 'unknown'];

const columns = ['Cluster', 'Labels', 'State', 'Server', 'Last seen', 'Version'];
const classes = ['', ' class="labels"', ' class="state"', ' class="server"', ' class="seen"', ' class="version"'];

/**
 * Returns the members as a page for a browser, filtered by the query parameter `q` if it is set. `now` is Unix time in
 * milliseconds.
 */
export function memberlistPage(request: RequestHead, rows: readonly MemberRow[], now: number): RouteAnswer {
  const query = cleanText(new URLSearchParams((request.url ?? '').split('?').slice(1).join('?')).get('q') ?? '', 200);
  const totals = inWords
    .map((state) => [state, rows.filter((row) => stateOf(row) === state).length] as const)
    .filter(([, count]) => count > 0);
  const total = totals.map(([state, count]) => `${count} ${state}`).join(', ') || 'no servers';
  const links = totals.map(([state, count]) => `<a class="${state}" href="?q=${state}">${count} ${state}</a>`);
  // Stays the same within a minute, as long as the page shows the same about every member.
  const same = [Math.floor(now / 60_000), query, rows.map((row) => ({ ...row, lastSeen: seenOf(row, now) }))];
  return pageAnswer(request, {
    title: `${total} · TKA clusters`,
    path: statusPath,
    hasStatus: true,
    head: `${iconLink(rows.some(({ state }) => state !== 'healthy') ? 'dead' : 'healthy')}
<noscript><meta http-equiv="refresh" content="60"></noscript>`,
    body: () => `<h1>${links.join(', ') || total}</h1>\n${listMarkup(rows, query, now)}`,
    script: statusScript,
    content: JSON.stringify(same),
  });
}

function listMarkup(rows: readonly MemberRow[], query: string, now: number): string {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const clusters = clustersOf(rows);
  const matches = clusters.map((cluster) => {
    const text = textOf(cluster);
    return words.every((word) => text.includes(word));
  });
  const of = counted(clusters.length, 'cluster');
  const all = `${counted(rows.length, 'server')} in ${of}`;
  const shown = matches.filter(Boolean).length;
  const heads = columns.map((name, i) => `<th scope="col"${classes[i]}>${name}</th>`).join('');
  return `<p class="count" role="status" data-all="${all}" data-of="${of}">${words.length === 0 ? all : `${shown} of ${of}`}</p>
<p class="live away" role="status"></p>
<form method="get" role="search">
<label for="q">Filter</label>
<input type="search" id="q" name="q" value="${escaped(query)}" maxlength="200" placeholder="name, state, label=value" autocomplete="off" spellcheck="false">
<button>Filter</button>
</form>
<p class="stale" role="alert" hidden></p>
<table>
<caption class="away">Clusters and their TKA servers</caption>
<thead><tr>${heads}</tr></thead>
${clusters.map((cluster, i) => clusterBody(cluster, matches[i] === true, now)).join('\n')}
</table>
<footer>
<p>Sign in: <code>kubectl tka login NAME</code>. The same list as JSON: <code>curl</code> this address.</p>
<p>As of ${timeOf(now, `${new Date(now).toISOString().slice(11, 16)} UTC`)}.<noscript> The page reloads every minute.</noscript></p>
</footer>`;
}

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

/** Servers of one cluster, and the login server's cluster if they are all reached through it. */
interface Group {
  readonly servers: MemberRow[];
  readonly through?: string;
}

/**
 * Groups the servers as the client does (src/discovery/grouping.ts): by API endpoint and cluster name. A server without
 * a cluster name belongs to the only named cluster at its endpoint, if there is exactly one. A joined cluster is one
 * cluster at all replicas of its login server, and never together with others, whatever it states; unless the login
 * server knows that it is in the tailnet as well. The cluster in the worst state comes first.
 */
function groupsOf(rows: readonly MemberRow[]): Group[] {
  const isApart = ({ server, through, direct }: MemberRow) =>
    through !== undefined && direct !== true && joinedNameOf(server ?? '') !== undefined;
  const { apart = [], others = [] } = Object.groupBy(rows, (row) => (isApart(row) ? 'apart' : 'others'));
  const joined = Map.groupBy(apart, ({ server, through }) => `${joinedNameOf(server ?? '')}\n${through}`);
  const groups = [...Map.groupBy(others, ({ apiEndpoint }) => apiEndpoint).values()].flatMap((servers) => {
    const names = new Set(servers.flatMap(({ cluster }) => nameIn(cluster) ?? []));
    const [only] = names.size === 1 ? names : [];
    return [...Map.groupBy(servers, ({ cluster }) => nameIn(cluster) ?? only).values()];
  });
  return [
    ...groups.map((servers) => ({ servers })),
    ...[...joined.values()].map((servers) => ({ servers, through: servers[0]?.through ?? '' })),
  ];
}

function clustersOf(rows: readonly MemberRow[]): Cluster[] {
  const named = groupsOf(rows).map(({ servers, through }) => ({
    servers: servers.sort((a, b) => rankOf(a) - rankOf(b) || compare(nameFor(a), nameFor(b))),
    through,
    name:
      (through === undefined ? undefined : joinedNameOf(servers[0]?.server ?? '')) ??
      servers.map(({ cluster }) => nameIn(cluster)).find(Boolean) ??
      servers.map(nameOf).filter(Boolean).sort()[0],
  }));
  const uses = Map.groupBy(named, ({ name }) => name);
  const clusters = named.map(({ servers, name, through }): Cluster => {
    const labels = new Set(
      servers.flatMap((row) =>
        Object.entries(row.labels ?? {})
          .slice(0, 64)
          .map(labelOf),
      ),
    );
    const { apiEndpoint } = servers.at(-1) as MemberRow;
    // Several clusters may claim the same name, but a server belongs to only one of them. The last server has the best
    // state.
    const address = servers.map(({ server }) => plainServer(server)).findLast(Boolean);
    const login = name !== undefined && uses.get(name)?.length === 1 ? name : address;
    return { name, login, apiEndpoint, through, labels: shortened([...labels].sort(compare)), servers };
  });
  const best = ({ servers }: Cluster) => rankOf(servers.at(-1) as MemberRow);
  const worst = ({ servers }: Cluster) => rankOf(servers[0] as MemberRow);
  return clusters.sort(
    (a, b) =>
      best(a) - best(b) ||
      worst(a) - worst(b) ||
      compare(a.name ?? '', b.name ?? '') ||
      compare(a.apiEndpoint, b.apiEndpoint) ||
      compare(a.through ?? '', b.through ?? ''),
  );
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const nameIn = (name: string | undefined): string | undefined =>
  name !== undefined && isPlainName(name) ? name : undefined;
const labelOf = ([key, value]: [string, string]): string => cleanText(`${key}=${value}`, 200);

const labelsLimit = 1_000;

/** Returns the first labels, up to 1,000 characters together, and how many more there are. */
function shortened(labels: readonly string[]): readonly string[] {
  let room = labelsLimit;
  const end = labels.findIndex((label) => {
    room -= label.length;
    return room < 0;
  });
  return end < 0 ? labels : [...labels.slice(0, end), `… ${labels.length - end} more`];
}

/** Returns the name of the device on which a server runs, from its URL. Empty if the URL has none. */
function deviceOf({ server }: MemberRow): string {
  const host = URL.canParse(server ?? '') ? hostOf(server as string) : '';
  return isIP(host) === 0 && host !== 'localhost' ? (/^([^.]+)\.[^.]+\.ts\.net$/.exec(host)?.[1] ?? host) : '';
}

/** Returns the name of a server. A joined cluster has none: it is that of its login server's device. */
const nameFor = (row: MemberRow): string => row.name ?? (row.through === undefined ? '' : deviceOf(row));

/**
 * Returns the client's name for the cluster of a server that states no cluster: the server's name, its host, or the
 * API's host.
 */
function nameOf(row: MemberRow): string | undefined {
  const { name, apiEndpoint } = row;
  const device = deviceOf(row);
  const api = URL.canParse(apiEndpoint) ? hostOf(apiEndpoint) : '';
  return [name, device, api].map(nameIn).find(Boolean);
}

/** Returns the URL of a TKA server, or undefined if it is invalid or has characters with a meaning for a shell. */
function plainServer(server: string | undefined): string | undefined {
  try {
    const url = canonicalServer(server ?? '');
    return /^[a-z0-9:/._-]+$/.test(url) ? url : undefined;
  } catch {
    return undefined;
  }
}

const short = (text: string | undefined, limit = 100): string => cleanText(text ?? '', limit);
const versionOf = ({ version }: MemberRow): string => short(version, 40);
const urlOf = (url: string | undefined): string => short(url, 300);
const throughOf = ({ through }: Cluster): string => (through === undefined ? '' : `through ${short(through)}`);

/** Returns the text that the filter searches: all texts of a cluster except times, in lower case. */
function textOf(cluster: Cluster): string {
  const { name, apiEndpoint, labels, servers } = cluster;
  const texts = servers.flatMap((row) => [stateOf(row), short(nameFor(row)), urlOf(row.server), versionOf(row)]);
  return [short(name), urlOf(apiEndpoint), throughOf(cluster), ...labels, ...texts]
    .filter(Boolean)
    .join('\n')
    .toLowerCase();
}

function clusterBody(cluster: Cluster, isShown: boolean, now: number): string {
  const { name, login, apiEndpoint, labels, servers } = cluster;
  const span = servers.length === 1 ? '' : ` rowspan="${servers.length}"`;
  const items = labels.map((label) => `<li>${escaped(label)}</li>`).join(' ');
  const whole = labels.join(' ');
  // The column may cut longer labels, so the tooltip shows them in full.
  const title = whole.length > 36 ? ` title="${escaped(whole)}"` : '';
  const through = cluster.through === undefined ? '' : `<code>${escaped(throughOf(cluster))}</code>`;
  const shared = [
    `<th scope="rowgroup"${span}>${pair(short(name), urlOf(apiEndpoint))}${through}</th>`,
    `<td class="labels"${span}>${items === '' ? '' : `<ul${title}>${items}</ul>`}</td>`,
  ];
  const rows = servers.map((server, i) => `<tr>${i === 0 ? shared.join('') : ''}${serverCells(server, now)}</tr>`);
  const use = login === undefined ? '' : ` data-login="${escaped(login)}"`;
  return `<tbody${use}${isShown ? '' : ' hidden'}>\n${rows.join('\n')}\n</tbody>`;
}

function serverCells(row: MemberRow, now: number): string {
  const state = stateOf(row);
  const seen = seenOf(row, now);
  return [
    `<td class="state ${state}">${state}</td>`,
    `<td class="server">${pair(short(nameFor(row)), urlOf(row.server))}</td>`,
    `<td class="seen">${seen === '' ? '' : timeOf(Date.parse(row.lastSeen ?? ''), seen)}</td>`,
    `<td class="version">${escaped(versionOf(row))}</td>`,
  ].join('');
}

const pair = (name: string, url: string): string => `<b>${escaped(name)}</b><code>${escaped(url)}</code>`;

const recentMs = 60_000;

/** Returns how long ago a member was seen: `2 min ago`. A healthy member was seen `just now` for up to a minute. */
function seenOf(row: MemberRow, now: number): string {
  const ms = Math.max(0, now - Date.parse(row.lastSeen ?? ''));
  if (Number.isNaN(ms)) return '';
  return row.state === 'healthy' && ms < recentMs ? 'just now' : agoText(Math.round(ms / 1000));
}

function agoText(seconds: number): string {
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} d ago`;
}

/** Returns markup that shows the exact time as a tooltip. */
function timeOf(at: number, text: string): string {
  const date = new Date(at).toISOString();
  return `<time datetime="${date}" title="${date.slice(0, 19).replace('T', ' ')} UTC">${text}</time>`;
}
