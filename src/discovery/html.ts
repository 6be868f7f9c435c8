// The Go server's memberlist as a page: it tells more than its JSON. Read only if it has the shape of that page to the
// letter, cell by cell; a page that differs is no page at all. Every member writes into it, so nothing in it is believed.

import { isIP } from 'node:net';
import { Parser } from 'htmlparser2';
import type { MemberState } from '../tka/types.ts';
import { plainIp } from '../util/address.ts';
import { cleanText } from '../util/text.ts';
import { canonicalApiServer } from '../util/url.ts';

/** One row of the page. */
export interface HtmlRow {
  /** Base64 of the hash of its host name and gossip port. */
  readonly id: string;
  /** The IP address that the member claims, where it claims one. */
  readonly address: string | undefined;
  /** The port of its gossip, part of what the ID is a hash of. */
  readonly gossipPort: number | undefined;
  /** Canonical URL. */
  readonly apiEndpoint: string;
  readonly labels: ReadonlyMap<string, string>;
  /** null: the server has not made up its mind. */
  readonly state: MemberState | null;
  readonly lastSeenSeconds: number | undefined;
  /** It is the server that was asked. */
  readonly isLocal: boolean;
}

/** The rows; `cut` counts those beyond the 10,000 that are read, `unread` those without a usable API endpoint. */
export interface HtmlMemberlist {
  readonly rows: readonly HtmlRow[];
  readonly cut: number;
  readonly unread: number;
}

const rowLimit = 10_000;

const labelLimit = 64;

const pageLimit = 64 * 1024 * 1024;

const columns = ['ID', 'Address', 'State', 'Peer State', 'Last Seen', 'Is Local'];

/** Reads the Go server's memberlist page; undefined where it is not exactly that page. Never throws. */
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

// What stands around the table may change without the table meaning anything else.
const ignored = (name: string): Shape => ({ name, loose: true, text: () => true });

/** A row of the texts in it, its API endpoint as it stands there; undefined where one of them is not what it must be. */
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

// A member that was never seen shows Go's longest duration, 292 years.
const longAgo = 10 * 365 * 86_400;

/** Seconds of a Go duration with ` ago` behind it; undefined for anything else. */
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

/** The IP of `IP:port`; a node that listens through tsnet says `:7946`, another may say `[::]:7946` or a name. */
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

/** Labels of keys and values in turn. */
function labelsOf(texts: readonly string[]): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  for (let i = 0; i < Math.min(texts.length, 2 * labelLimit); i += 2) {
    const key = cleanText(texts[i] ?? '', 317);
    if (key !== '') labels.set(key, cleanText(texts[i + 1] ?? ''));
  }
  return labels;
}

/** What an element must be. Text is allowed only where `text` takes it, and no attribute but `class`. */
export interface Shape {
  readonly name: string;
  /** It has no end tag. */
  readonly empty?: boolean;
  /** Any attribute will do. */
  readonly loose?: boolean;
  /** Exactly these children, in this order. */
  readonly all?: readonly Shape[];
  /** Any number of these, in any order. */
  readonly any?: readonly Shape[];
  /** Takes the element's own text, trimmed, at its end; false: it does not fit. */
  readonly text?: (text: string) => boolean;
  /** Called at its end, after `text`; false: it does not fit. */
  readonly done?: () => boolean;
}

interface Open {
  readonly shape: Shape;
  /** How many children it had. */
  children: number;
  text: string;
}

/**
 * True if a document is one element of that shape, each element in it closed by its own end tag. Reading ends at the
 * first thing that does not fit, so that neither depth nor disorder costs anything.
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
    // Not one step further: the parser's own work grows with the depth.
    parser.pause();
  }
  parser.write(html);
  if (fits) parser.end();
  return fits && open.length === 1 && document.children === 1;
}
