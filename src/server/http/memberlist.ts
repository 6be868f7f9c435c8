// The memberlist as JSON, and as a page with the servers of one cluster together. Every member writes into it: all of it is text to be escaped, none of it is a link.

import type { MemberRow, MemberState } from '../../tka/types.ts';
import { cleanText } from '../../util/text.ts';
import { escaped, htmlAnswer, jsonAnswer, type RouteAnswer } from './answers.ts';

const columns = ['Cluster', 'Server', 'State', 'Last seen', 'URL', 'Kubernetes API', 'Version', 'Labels'];
const states: readonly (MemberState | undefined)[] = ['healthy', 'suspected', 'dead'];

// Runs in the browser. Without it the table is complete, in the order of the names. The first server of a cluster is its
// best: the cluster is sorted by it.
const script = `
'use strict';
const table = document.querySelector('table');
const clusters = [...table.tBodies];
const order = new Intl.Collator(undefined, { numeric: true });
const keyOf = (cluster, column) => {
  const cell = cluster.rows[0].cells[column];
  return cell.dataset.key ?? cell.textContent.trim();
};

const input = document.createElement('input');
input.type = 'search';
input.placeholder = 'Filter: name, state, label=value';
input.setAttribute('aria-label', 'Filter');
const count = document.querySelector('.count');
const all = count.textContent;
count.setAttribute('role', 'status');
input.addEventListener('input', () => {
  const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const cluster of clusters) {
    const text = cluster.textContent.toLowerCase();
    cluster.hidden = !words.every((word) => text.includes(word));
  }
  const shown = clusters.filter((cluster) => !cluster.hidden).length;
  count.textContent = shown === clusters.length ? all : shown + ' of ' + all;
});
count.before(input);

const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    clusters.sort((a, b) => {
      const [x, y] = [keyOf(a, column), keyOf(b, column)];
      // What is not known comes last, whichever way the rest is sorted.
      if (x === '' || y === '') return (x === '') - (y === '');
      return (down ? -1 : 1) * order.compare(x, y);
    });
    table.append(...clusters);
  });
});
`;

// What the client reads of a list (src/tka/client.ts). 10,000 rows without labels fit.
const listLimit = 16 * 1024 * 1024;

/** Returns the rows as JSON, without labels if they make it longer than clients read. */
export function memberlistJson(rows: readonly MemberRow[]): RouteAnswer {
  const list = jsonAnswer(200, rows);
  const bare = () => rows.map((row) => ({ ...row, labels: {} }));
  return Buffer.byteLength(list.body ?? '') > listLimit ? jsonAnswer(200, bare()) : list;
}

/** Returns the members as a page for a browser; `now` is in milliseconds. */
export function memberlistPage(rows: readonly MemberRow[], now: number): RouteAnswer {
  const clusters = byCluster(rows);
  const heads = columns.map((name) => `<th scope="col">${name}</th>`).join('');
  const ways = `The same as JSON: <code>curl</code> this address. To sign in to one: <code>kubectl tka login NAME</code>`;
  const body = `<h1>TKA clusters</h1>
<p class="count">${clusters.length} ${clusters.length === 1 ? 'cluster' : 'clusters'}</p>
<div class="wide"><table>
<thead><tr>${heads}</tr></thead>
${clusters.map((servers) => clusterOf(servers, now)).join('\n')}
</table></div>
<p>As of ${new Date(now).toISOString()}. ${ways}</p>`;
  return htmlAnswer('TKA clusters', body, script);
}

/**
 * Returns the servers of each cluster, the best first: those with the same API endpoint and the same cluster name. A server
 * that states no name is one of the only cluster at its endpoint.
 */
function byCluster(rows: readonly MemberRow[]): readonly (readonly MemberRow[])[] {
  const namesAt = new Map<string, Set<string>>();
  for (const { apiEndpoint, cluster } of rows) {
    if (cluster === undefined) continue;
    const names = namesAt.get(apiEndpoint) ?? new Set();
    namesAt.set(apiEndpoint, names.add(cluster));
  }
  const clusters = new Map<string, MemberRow[]>();
  for (const row of rows) {
    const names = [...(namesAt.get(row.apiEndpoint) ?? [])];
    const name = row.cluster ?? (names.length === 1 ? names[0] : undefined);
    const key = JSON.stringify([row.apiEndpoint, name]);
    const servers = clusters.get(key);
    if (servers === undefined) clusters.set(key, [row]);
    else servers.push(row);
  }
  const rank = ({ state }: MemberRow): number => (state === undefined ? states.length : states.indexOf(state));
  for (const servers of clusters.values()) servers.sort((a, b) => rank(a) - rank(b));
  return [...clusters.values()];
}

function clusterOf(servers: readonly MemberRow[], now: number): string {
  const name = servers.find(({ cluster }) => cluster !== undefined)?.cluster ?? '';
  const span = servers.length === 1 ? '' : ` rowspan="${servers.length}"`;
  const cluster = `<th scope="rowgroup"${span}>${shown(name)}</th>`;
  const api = `<td${span}><code>${shown(servers[0]?.apiEndpoint ?? '')}</code></td>`;
  const rows = servers.map((server, i) => (i === 0 ? rowOf(server, now, cluster, api) : rowOf(server, now)));
  return `<tbody>\n${rows.join('\n')}\n</tbody>`;
}

/** Returns a server's row; `cluster` and `api` are the cells that it shares with the other servers of its cluster. */
function rowOf(row: MemberRow, now: number, cluster = '', api = ''): string {
  const { name = '', state, lastSeen = '', server = '', version = '', labels } = row;
  const rank = states.indexOf(state);
  const items = Object.entries(labels ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `<li>${shown(`${key}=${value}`)}</li>`);
  const cells = [
    cluster,
    `<td>${shown(name)}</td>`,
    rank < 0 ? '<td></td>' : `<td class="${state}" data-key="${rank}">${state}</td>`,
    seenCell(lastSeen, now),
    `<td><code>${shown(server)}</code></td>`,
    api,
    `<td>${shown(version)}</td>`,
    items.length === 0 ? '<td></td>' : `<td><ul class="labels">${items.join('')}</ul></td>`,
  ];
  return `<tr>${cells.join('')}</tr>`;
}

const shown = (text: string): string => escaped(cleanText(text, 400));

function seenCell(lastSeen: string, now: number): string {
  const then = Date.parse(lastSeen);
  if (Number.isNaN(then)) return '<td></td>';
  const date = new Date(then).toISOString();
  const ago = Math.max(0, Math.round((now - then) / 1000));
  // The newest first.
  return `<td data-key="${ago}"><time datetime="${date}" title="${date}">${agoText(ago)}</time></td>`;
}

function agoText(seconds: number): string {
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} d ago`;
}
