/**
 * The script of the status page. It filters while the user types, sorts, copies the login command, and refreshes the
 * page. The page is complete without it: the filter is a form, and a `<meta>` tag reloads the page.
 *
 * A refresh leaves everything unchanged in place: selected text, the focus, the position in the list.
 */
export const statusScript = String.raw`
'use strict';
const everyMs = 10_000;
const find = (selector) => document.querySelector(selector);
const table = find('table');
const form = find('form');
const input = find('input');
const live = find('.live');
const count = find('.count');
const stale = find('.stale');
const make = (name, properties) => Object.assign(document.createElement(name), properties);
const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

// Clusters as the server sends them: the worst first.
let order = [];
const texts = new WeakMap();
const textOf = (cluster) => {
  const found = [];
  const walker = document.createTreeWalker(cluster, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement.matches('time, button')) found.push(walker.currentNode.data.trim());
  }
  return found.filter(Boolean).join('\n').toLowerCase();
};
const keyOf = (cluster) => [...cluster.rows[0].cells[0].querySelectorAll('b, code')].map((part) => part.textContent).join('\n');

function prepare(cluster) {
  texts.set(cluster, textOf(cluster));
  const { login } = cluster.dataset;
  if (login === undefined) return;
  const button = make('button', { type: 'button', className: 'copy', textContent: 'Copy login', title: 'kubectl tka login ' + login });
  button.setAttribute('aria-label', 'Copy login: ' + button.title);
  cluster.rows[0].cells[0].querySelector('b').after(button);
}

function filter() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const cluster of order) {
    cluster.hidden = !words.every((word) => texts.get(cluster).includes(word));
  }
  const shown = order.filter((cluster) => !cluster.hidden).length;
  setText(count, words.length === 0 ? count.dataset.all : shown + ' of ' + count.dataset.of);
}

// The address contains the filter. Text typed without a pause is one entry of the history.
let recording;
const search = () => {
  const q = input.value.trim();
  return q === '' ? location.pathname : '?' + new URLSearchParams({ q });
};
function record() {
  clearTimeout(recording);
  if (search() !== (location.search || location.pathname)) history.pushState(null, '', search());
}
input.addEventListener('input', () => {
  filter();
  clearTimeout(recording);
  recording = setTimeout(record, 400);
});
form.addEventListener('submit', (event) => {
  event.preventDefault();
  record();
});
addEventListener('popstate', () => {
  clearTimeout(recording);
  input.value = new URLSearchParams(location.search).get('q') ?? '';
  filter();
});

// Sorting: up, down, and back to the worst first.
let sorted;
const collator = new Intl.Collator(undefined, { numeric: true });
const states = ['dead', 'suspected', 'unknown', 'healthy'];
const valueOf = (cluster, column) => {
  const cell = cluster.rows[0].cells[column];
  const text = cell.querySelector('time')?.dateTime ?? cell.querySelector('b')?.textContent ?? cell.textContent;
  return cell.classList.contains('state') ? String(states.indexOf(text)) : text;
};
function arranged() {
  if (sorted === undefined) return order;
  const { column, down } = sorted;
  const values = new Map(order.map((cluster) => [cluster, valueOf(cluster, column)]));
  return [...order].sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    // Unknown values come last in both directions.
    if (x === '' || y === '') return (x === '') - (y === '');
    return (down ? -1 : 1) * collator.compare(x, y);
  });
}
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => {
  const button = make('button', { type: 'button', textContent: head.textContent });
  head.replaceChildren(button);
  button.addEventListener('click', () => {
    sorted = sorted?.column !== column ? { column, down: false } : sorted.down ? undefined : { column, down: true };
    for (const other of heads) other.removeAttribute('aria-sort');
    if (sorted !== undefined) head.setAttribute('aria-sort', sorted.down ? 'descending' : 'ascending');
    place(arranged());
  });
});

/** Returns the largest set of clusters that can stay in place while the others move around them. */
function staying(clusters) {
  const places = new Map([...table.tBodies].map((cluster, i) => [cluster, i]));
  // The longest increasing subsequence: for each length, the last element of the best one.
  const ends = [];
  for (const cluster of clusters) {
    const place = places.get(cluster);
    if (place === undefined) continue;
    let length = ends.length;
    while (length > 0 && ends[length - 1].place > place) length--;
    ends[length] = { place, cluster, before: ends[length - 1] };
  }
  const found = new Set();
  for (let end = ends.at(-1); end !== undefined; end = end.before) found.add(end.cluster);
  return found;
}

/** Shows these clusters in the table. Moves as few as possible: a moved cluster loses its text selection. */
function place(clusters) {
  const stay = staying(clusters);
  for (const cluster of [...table.tBodies]) if (!stay.has(cluster)) cluster.remove();
  let at = table.tBodies[0] ?? null;
  for (const cluster of clusters) {
    if (cluster === at) at = at.nextElementSibling;
    else table.insertBefore(cluster, at);
  }
}

/** Changes the table. Keeps the cluster at the top of the window in place, and keeps the focus. */
function keepingPlace(change) {
  const edge = table.tHead.offsetHeight;
  const first = scrollY > 0 ? order.find((cluster) => !cluster.hidden && cluster.getBoundingClientRect().bottom > edge) : undefined;
  const top = first?.getBoundingClientRect().top;
  const focused = document.activeElement;
  const around = focused?.closest('tbody');
  const [firstKey, focusKey] = [first, around].map((cluster) => cluster && keyOf(cluster));
  change();
  const now = (key) => order.find((cluster) => keyOf(cluster) === key);
  const same = first && (first.isConnected ? first : now(firstKey));
  if (same) scrollBy(0, same.getBoundingClientRect().top - top);
  if (around && document.activeElement !== focused) {
    (focused.isConnected ? focused : now(focusKey)?.querySelector('button'))?.focus({ preventScroll: true });
  }
}

function update(fresh) {
  const known = new Map(order.map((cluster) => [keyOf(cluster), cluster]));
  order = [...fresh.querySelectorAll('tbody')].map((next) => {
    const key = keyOf(next);
    const old = known.get(key);
    known.delete(key);
    const isSame = old !== undefined && textOf(next) === texts.get(old) && next.dataset.login === old.dataset.login;
    const times = isSame ? [next, old].map((cluster) => [...cluster.querySelectorAll('time')]) : [[], []];
    if (!isSame || times[0].length !== times[1].length) {
      prepare(next);
      return next;
    }
    times[0].forEach(({ dateTime, title, textContent }, i) => Object.assign(times[1][i], { dateTime, title, textContent }));
    return old;
  });
  place(arranged());
  const title = fresh.querySelector('h1');
  if (find('h1').textContent !== title.textContent) {
    find('h1').replaceWith(title);
    live.textContent = title.textContent;
  }
  Object.assign(count.dataset, fresh.querySelector('.count').dataset);
  document.title = fresh.title;
  find('link[rel=icon]').href = fresh.querySelector('link[rel=icon]').href;
  filter();
}

const updated = make('time');
const on = make('input', { type: 'checkbox', checked: true });
const label = make('label');
label.append(on, 'Refresh every ' + everyMs / 1000 + ' s');
const aside = make('span', { className: 'updated' });
aside.append(label, updated);
form.querySelector('button').replaceWith(aside);
function isFresh() {
  const now = new Date();
  updated.dateTime = now.toISOString();
  setText(updated, 'Updated ' + now.toLocaleTimeString());
}
isFresh();

let tag;
let busy = false;
async function refresh() {
  if (busy || !on.checked || document.hidden) return;
  busy = true;
  try {
    const signal = AbortSignal.timeout(everyMs);
    const headers = { Accept: 'text/html' };
    const answer = await fetch(location.pathname, { headers, cache: 'no-cache', redirect: 'error', signal }).catch(() => {
      throw new Error('the server does not answer');
    });
    if (!answer.ok) throw new Error('the server answers with status ' + answer.status);
    const etag = answer.headers.get('etag');
    if (etag === null || etag !== tag) {
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (fresh.querySelector('.count') === null) throw new Error('the server answers with another page');
      keepingPlace(() => update(fresh));
      tag = etag;
    }
    stale.hidden = true;
    setText(stale, '');
    isFresh();
  } catch ({ message }) {
    setText(stale, 'Not refreshed: ' + message + '. The list may be outdated.');
    stale.hidden = false;
  } finally {
    busy = false;
  }
}
setInterval(refresh, everyMs);
on.addEventListener('change', refresh);
addEventListener('online', refresh);
document.addEventListener('visibilitychange', refresh);
addEventListener('pageshow', ({ persisted }) => persisted && refresh());

/** Browsers allow the clipboard API only over TLS; the older method also works over plain http. */
async function copy(text) {
  if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text);
  const area = make('textarea', { value: text, className: 'away', readOnly: true });
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand('copy');
  area.remove();
  if (!isCopied) throw new Error('not copied');
}
table.addEventListener('click', async ({ target }) => {
  const button = target.closest('.copy');
  if (button === null) return;
  const command = button.title;
  try {
    await copy(command);
    button.textContent = 'Copied';
    live.textContent = 'Copied: ' + command;
    setTimeout(() => setText(button, 'Copy login'), 2_000);
  } catch {
    live.textContent = 'Not copied. The command is: ' + command;
    button.textContent = command;
  }
  button.focus({ preventScroll: true });
});

order = [...table.tBodies];
order.forEach(prepare);
filter();
`;
