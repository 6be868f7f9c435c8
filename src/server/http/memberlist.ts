// The memberlist as a page. Every member writes into it: all of it is text to be escaped, none of it is a link.
import { cleanText } from '../../tka/text.ts';
import type { MemberRow, MemberState } from '../../tka/types.ts';
import { type Answer, escaped, htmlAnswer } from './answer.ts';

const columns = ['Name', 'State', 'Last seen', 'TKA server', 'Kubernetes API', 'Version', 'Labels'];
const states: readonly (MemberState | undefined)[] = ['healthy', 'suspected', 'dead'];

// Runs in the browser. Without it the table is complete, in the order of the names.
const script = `
'use strict';
const table = document.querySelector('table');
const body = table.tBodies[0];
const rows = [...body.rows];
const order = new Intl.Collator(undefined, { numeric: true });
const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();

const input = document.createElement('input');
input.type = 'search';
input.placeholder = 'Filter: name, state, label=value';
input.setAttribute('aria-label', 'Filter');
const count = document.querySelector('.count');
const all = count.textContent;
count.setAttribute('role', 'status');
input.addEventListener('input', () => {
  const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  count.textContent = shown === rows.length ? all : shown + ' of ' + all;
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
    rows.sort((a, b) => {
      const [x, y] = [keyOf(a, column), keyOf(b, column)];
      // What is not known comes last, whichever way the rest is sorted.
      if (x === '' || y === '') return (x === '') - (y === '');
      return (down ? -1 : 1) * order.compare(x, y);
    });
    body.append(...rows);
  });
});
`;

/** The members as a page for a browser; `now` is in milliseconds. */
export function memberlistPage(rows: readonly MemberRow[], now: number): Answer {
  const heads = columns.map((name) => `<th scope="col">${name}</th>`).join('');
  const ways = `The same as JSON: <code>curl</code> this address. To sign in to one: <code>kubectl tka login NAME</code>`;
  const body = `<h1>TKA clusters</h1>
<p class="count">${rows.length} ${rows.length === 1 ? 'member' : 'members'}</p>
<div class="wide"><table>
<thead><tr>${heads}</tr></thead>
<tbody>
${rows.map((row) => rowOf(row, now)).join('\n')}
</tbody>
</table></div>
<p>As of ${new Date(now).toISOString()}. ${ways}</p>`;
  return htmlAnswer('TKA clusters', body, script);
}

function rowOf(row: MemberRow, now: number): string {
  const { name = '', state, lastSeen = '', server = '', apiEndpoint, version = '', labels } = row;
  const rank = states.indexOf(state);
  const items = Object.entries(labels ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `<li>${shown(`${key}=${value}`)}</li>`);
  const cells = [
    `<td>${shown(name)}</td>`,
    rank < 0 ? '<td></td>' : `<td class="${state}" data-key="${rank}">${state}</td>`,
    seenCell(lastSeen, now),
    `<td><code>${shown(server)}</code></td>`,
    `<td><code>${shown(apiEndpoint)}</code></td>`,
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
