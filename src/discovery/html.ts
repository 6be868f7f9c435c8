// The Go server's memberlist as an HTML page, which contains more than its JSON. The parser requires exactly the shape
// of that page, cell by cell, and rejects any other page. Every member writes into the page, so its content is
// untrusted.

import { isIP } from 'node:net';
import { Parser } from 'htmlparser2';
import type { MemberState } from '../tka/types.ts';
import { plainIp } from '../util/address.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer } from '../util/url.ts';

/** One row of the page. */
export interface HtmlRow {
  /** Hash of the member's host name and gossip port, in base64. */
  readonly id: string;
  /** The IP address that the member claims, if any. */
  readonly address: string | undefined;
  /** The gossip port, which is part of the hashed ID. */
  readonly gossipPort: number | undefined;
  /** Canonical URL. */
  readonly apiEndpoint: string;
  readonly labels: ReadonlyMap<string, string>;
  /** null for PEER_STATE_UNSPECIFIED: the server has no state for the member yet. */
  readonly state: MemberState | null;
  readonly lastSeenSeconds: number | undefined;
  /** True for the server that returned the page. */
  readonly isLocal: boolean;
}

/** The rows. `cut` counts the rows after the first 10,000, `unread` those without a usable API endpoint. */
export interface HtmlMemberlist {
  readonly rows: readonly HtmlRow[];
  readonly cut: number;
  readonly unread: number;
}

const rowLimit = 10_000;

const labelLimit = 64;

const pageLimit = 64 * 1024 * 1024;

const columns = ['ID', 'Address', 'State', 'Peer State', 'Last Seen', 'Is Local'];

/** Parses the Go server's memberlist page. Returns undefined if it is not exactly that page. Never throws. */
export function parseMemberlistHtml(html: string): HtmlMemberlist | undefined {
  if (html.length > pageLimit) return undefined;
  const rows: HtmlRow[] = [];
  let [count, unread, tables] = [0, 0, 0];
  let cells: string[] = [];
  let labels: string[] = [];

  const cell: Shape = { name: 'td', text: (text) => cells.push(text) > 0 };
  const label: Shape = {
    name: 'li',
    all: [{ name: 'strong', text: (key) => key.endsWith(':') && labels.push(key.slice(0, -1)) > 0 }],
    text: (value) => labels.push(value) > 0,
  };
  const state: Shape = {
    name: 'dl',
    all: [
      { name: 'dt', text: is('API Endpoint') },
      { name: 'dd', text: (text) => cells.push(text) > 0 },
      { name: 'dt', text: is('Labels') },
      { name: 'dd', all: [{ name: 'ul', any: [label] }] },
    ],
  };
  const row: Shape = {
    name: 'tr',
    all: [cell, cell, { name: 'td', all: [state] }, cell, cell, cell],
    done: () => {
      const read = rowOf(cells, labels);
      cells = [];
      labels = [];
      if (read === undefined) return false;
      if (++count > rowLimit) return true;
      const apiEndpoint = endpointOf(read.apiEndpoint);
      if (apiEndpoint === undefined) unread++;
      else rows.push({ ...read, apiEndpoint });
      return true;
    },
  };
  const table: Shape = {
    name: 'table',
    all: [
      { name: 'thead', all: [{ name: 'tr', all: columns.map((name) => ({ name: 'th', text: is(name) })) }] },
      { name: 'tbody', any: [row] },
    ],
    done: () => ++tables === 1,
  };
  const page: Shape = {
    name: 'html',
    loose: true,
    all: [
      { name: 'head', any: [ignored('title'), ignored('style'), { ...ignored('meta'), empty: true }] },
      { name: 'body', any: [ignored('h1'), ignored('p'), table] },
    ],
  };
  if (!matchHtml(html, page) || tables !== 1) return undefined;
  return { rows, cut: Math.max(0, count - rowLimit), unread };
}

const is = (wanted: string) => (text: string) => text === wanted;

// The content around the table may change without changing the meaning of the table.
const ignored = (name: string): Shape => ({ name, loose: true, text: () => true });

/** Returns a row with its API endpoint unchanged, or undefined if a cell has an unexpected text. */
function rowOf(cells: readonly string[], labels: readonly string[]): HtmlRow | undefined {
  const [id = '', address = '', apiEndpoint = '', peerState = '', lastSeen = '', local = ''] = cells;
  const state = states.get(peerState);
  const seconds = secondsAgo(lastSeen);
  if (!isId(id) || state === undefined || seconds === undefined || !/^(?:true|false)$/.test(local)) return undefined;
  const lastSeenSeconds = seconds < 0 || seconds > longAgo ? undefined : seconds;
  return {
    id,
    address: ipOf(address),
    gossipPort: portOf(address),
    apiEndpoint,
    labels: labelsOf(labels),
    state,
    lastSeenSeconds,
    isLocal: local === 'true',
  };
}

const states = new Map<string, MemberState | null>([
  ['PEER_STATE_HEALTHY', 'healthy'],
  ['PEER_STATE_SUSPECTED_DEAD', 'suspected'],
  ['PEER_STATE_DEAD', 'dead'],
  ['PEER_STATE_UNSPECIFIED', null],
]);

function isId(text: string): boolean {
  return /^[A-Za-z0-9+/]{21}[AQgw]==$/.test(text);
}

// In seconds. For a member that was never seen, the page shows Go's longest duration, 292 years.
const longAgo = 10 * 365 * 86_400;

/** Parses a Go duration followed by ` ago`, in seconds. Returns undefined for anything else. */
function secondsAgo(text: string): number | undefined {
  const match = /^(-?)(?:(\d{1,9})h)?(?:(\d{1,2})m)?(\d{1,2})(?:\.\d{1,9})?s ago$/.exec(text);
  if (match === null) return undefined;
  const [, sign, hours = '0', minutes = '0', seconds = '0'] = match;
  return (sign === '-' ? -1 : 1) * (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds));
}

function portOf(address: string): number | undefined {
  const port = Number(/:([0-9]{1,5})$/.exec(address)?.[1]);
  return port > 0 && port < 65536 ? port : undefined;
}

/**
 * Returns the IP address of `IP:port`, or undefined. A node that listens through tsnet reports `:7946`; others may
 * report `[::]:7946` or a name.
 */
function ipOf(text: string): string | undefined {
  const [, v6, v4] = /^(?:\[([^\]]+)\]|([0-9.]+)):[0-9]{1,5}$/.exec(text) ?? [];
  if (isIP(v6 ?? '') !== 6 && isIP(v4 ?? '') !== 4) return undefined;
  const ip = plainIp(v6 ?? v4 ?? '');
  return ip === '::' || ip === '0.0.0.0' ? undefined : ip;
}

function endpointOf(text: string): string | undefined {
  try {
    return canonicalApiServer(text);
  } catch {
    return undefined;
  }
}

/** Returns labels from a list of alternating keys and values. */
function labelsOf(texts: readonly string[]): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  for (let i = 0; i < Math.min(texts.length, 2 * labelLimit); i += 2) {
    const key = cleanText(texts[i] ?? '', 317);
    if (key !== '') labels.set(key, cleanText(texts[i + 1] ?? ''));
  }
  return labels;
}

/** The required shape of an element. Text is allowed only if `text` is set. The only allowed attribute is `class`. */
export interface Shape {
  readonly name: string;
  /** The element has no end tag. */
  readonly empty?: boolean;
  /** Any attribute is allowed. */
  readonly loose?: boolean;
  /** Exactly these children, in this order. */
  readonly all?: readonly Shape[];
  /** Any number of these, in any order. */
  readonly any?: readonly Shape[];
  /** Called at the element's end with its own text, trimmed. Returns false to reject the document. */
  readonly text?: (text: string) => boolean;
  /** Called at the element's end, after `text`. Returns false to reject the document. */
  readonly done?: () => boolean;
}

interface Open {
  readonly shape: Shape;
  /** Number of children so far. */
  children: number;
  text: string;
}

/**
 * Returns true if a document is one element of the given shape and every element has its own end tag. Parsing stops at
 * the first mismatch, so a deep or malformed document costs no time.
 */
export function matchHtml(html: string, root: Shape): boolean {
  const document: Open = { shape: { name: '', all: [root] }, children: 0, text: '' };
  const open: Open[] = [document];
  const top = () => open.at(-1) ?? document;
  let fits = true;
  const parser = new Parser({
    onopentagname(name) {
      const parent = top();
      const { all, any } = parent.shape;
      const next = all?.[parent.children] ?? any?.find((child) => child.name === name);
      if (next?.name !== name) return fail();
      parent.children++;
      open.push({ shape: next, children: 0, text: '' });
    },
    onattribute(name) {
      if (name !== 'class' && !top().shape.loose) fail();
    },
    ontext(text) {
      const element = top();
      if (element.shape.text !== undefined) element.text += text;
      else if (/\S/.test(text)) fail();
    },
    onclosetag(name, implied) {
      const { shape, children, text } = open.pop() ?? document;
      const { all = [], empty = false } = shape;
      if (name !== shape.name || implied !== empty || children < all.length) return fail();
      if (shape.text?.(text.trim()) === false || shape.done?.() === false) fail();
    },
  });
  function fail(): void {
    fits = false;
    // Stop at once: the parser's own work grows with the depth of the document.
    parser.pause();
  }
  parser.write(html);
  if (fits) parser.end();
  return fits && open.length === 1 && document.children === 1;
}
