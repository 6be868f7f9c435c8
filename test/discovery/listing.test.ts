// Reads one server's memberlist, as JSON and as the Go server's page, and reads from several servers at once.
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { askInTurn, askListing, type Batch, isAnswer } from '../../src/discovery/listing.ts';
import { memberId } from '../../src/discovery/resolution.ts';
import { Unavailable } from '../../src/network/failure.ts';
import { NotSignedIn, Refused } from '../../src/tka/errors.ts';
import type { Member } from '../../src/tka/memberlist.ts';
import { TkaError } from '../../src/util/errors.ts';
import { memberOf, samplePage, standInClient } from './stand-in.ts';

const server = 'https://tka-us.example.ts.net';
const bare = memberOf('https://api.us.example.com');
const page = samplePage('memberlist-html.http');
const away = new Unavailable('cannot reach it', 0);
const refused = new Refused('no grant', 403);

interface Row {
  /** The last list of this server came from its page. */
  readonly html?: boolean;
  /** undefined: it keeps no list. */
  readonly json?: readonly Member[] | Error | undefined;
  readonly page?: { readonly status: number; readonly body: string } | Error;
  /** The requests, in order. */
  readonly asked: readonly string[];
  readonly expected: 'page' | 'json' | 'none' | Error;
}

const named = { ...bare, name: 'us' };
const good = { status: 200, body: page };

describe('one server', () => {
  it.each<[name: string, row: Row]>([
    ['with a name: its JSON', { json: [named], asked: ['json'], expected: 'json' }],
    ['with a server: its JSON', { json: [{ ...bare, server }], asked: ['json'], expected: 'json' }],
    ['with a state: its JSON', { json: [{ ...bare, state: 'healthy' }], asked: ['json'], expected: 'json' }],
    ['with a name for one of its members: its JSON', { json: [bare, named], asked: ['json'], expected: 'json' }],
    ['with an empty list: its JSON', { json: [], asked: ['json'], expected: 'json' }],
    ['without any of these: its page', { json: [bare], page: good, asked: ['json', 'page'], expected: 'page' }],
    [
      'without any of these and without a page: its JSON',
      { json: [bare], page: { status: 404, body: '' }, asked: ['json', 'page'], expected: 'json' },
    ],
    ['whose page is unavailable: its JSON', { json: [bare], page: away, asked: ['json', 'page'], expected: 'json' }],
    [
      'whose page has another format: its JSON',
      { json: [bare], page: { status: 200, body: '<html>' }, asked: ['json', 'page'], expected: 'json' },
    ],
    [
      'whose page has an error status: its JSON',
      { json: [bare], page: { status: 500, body: page }, asked: ['json', 'page'], expected: 'json' },
    ],
    ['that had a page before: its page first', { html: true, page: good, asked: ['page'], expected: 'page' }],
    [
      'that has no page any more: its JSON, without a second request for the page',
      { html: true, page: { status: 404, body: '' }, json: [bare], asked: ['page', 'json'], expected: 'json' },
    ],
    ['that had a page before, and is unreachable', { html: true, page: away, asked: ['page'], expected: away }],
    ['that keeps no list', { json: undefined, asked: ['json'], expected: 'none' }],
    ['that refuses', { json: refused, asked: ['json'], expected: refused }],
  ])('%s', async (_, row) => {
    const asked: string[] = [];
    const answer = async <T>(what: string, value: T | Error | undefined) => {
      asked.push(what);
      if (value instanceof Error) throw value;
      return value;
    };
    const client = standInClient({
      memberlist: async () => {
        const members = await answer('json', row.json);
        return members && { members, cut: 2, unread: 1 };
      },
      memberlistPage: async () => ({ headers: {}, ...((await answer('page', row.page)) ?? { status: 404, body: '' }) }),
      close: async () => void asked.push('closed'),
    });
    const options = { client: () => client, timeout: 3000, html: () => row.html === true };
    const outcome = await askListing(server, options).catch((error: unknown) => error);
    expect(asked).toEqual([...row.asked, 'closed']);
    if (row.expected instanceof Error) expect(outcome).toBe(row.expected);
    else if (row.expected === 'none') expect(outcome).toMatchObject({ server, members: undefined });
    else if (row.expected === 'json')
      expect(outcome).toMatchObject({ server, html: false, members: row.json, cut: 2, unread: 1 });
    else expect(outcome).toMatchObject({ server, html: true, members: { length: 3 }, cut: 0, unread: 0 });
  });

  const listingOf = (answers: Parameters<typeof standInClient>[0]) =>
    askListing(server, { client: () => standInClient(answers), timeout: 3000, html: () => false });

  it('finds itself in its JSON by its URL', async () => {
    const members = [
      { ...bare, server: 'https://tka-eu.example.ts.net' },
      { ...bare, server },
    ];
    const listing = await listingOf({ memberlist: async () => ({ members, cut: 0, unread: 0 }) });
    expect(listing.members?.map(({ isLocal }) => isLocal)).toEqual([false, true]);
  });

  it('shows on its page which member it is, the hashed names, and when each was last seen', async () => {
    const body = samplePage('memberlist-html-suspected.http');
    const before = Date.now();
    const listing = await listingOf({
      memberlist: async () => ({ members: [bare], cut: 0, unread: 0 }),
      memberlistPage: async () => ({ status: 200, headers: {}, body }),
    });
    const [eu, us] = listing.members ?? [];
    expect(us).toMatchObject({ isLocal: true, id: memberId('tka-prod-us', 7946), address: '127.0.0.11' });
    expect(eu).toMatchObject({ isLocal: false, gossipPort: 7946, state: 'suspected', name: null, server: null });
    const seen = Date.parse(eu?.lastSeen ?? '');
    expect(seen).toBeGreaterThanOrEqual(before - 9000);
    expect(seen).toBeLessThanOrEqual(Date.now() - 9000);
  });
});

// A request that is not aborted would wait forever.
describe('several servers at once', { timeout: 20_000 }, () => {
  type Answer = readonly Member[] | Error | undefined | 'never';

  /** Asks one server per answer: `https://0` and so on. */
  async function first(...answers: Answer[]) {
    const closed = answers.map(() => Promise.withResolvers<void>());
    const letGo: string[] = [];
    const servers = answers.map((_, i) => `https://${i}`);
    const options = {
      client: (url: string) =>
        standInClient({
          memberlist: async ({ signal }) => {
            const answer = answers[servers.indexOf(url)];
            if (answer === 'never') {
              await new Promise((done) => signal?.addEventListener('abort', done, { once: true }));
              letGo.push(url);
              throw signal?.reason;
            }
            if (answer instanceof Error) throw answer;
            return answer && { members: answer, cut: 0, unread: 0 };
          },
          close: async () => closed[servers.indexOf(url)]?.resolve(),
        }),
      timeout: 3000,
      html: () => false,
    };
    const outcome = await askInTurn([{ servers: async () => servers }], options);
    // The aborted servers learn of it in the next ticks.
    await Promise.all(closed.map(({ promise }) => promise));
    return { ...outcome, letGo };
  }

  it.each<[name: string, answers: Answer[], expected: { server?: string; without: string[]; failed: string[] }]>([
    [
      'the first with a list wins',
      [away, undefined, [named]],
      { server: 'https://2', without: ['https://1'], failed: ['https://0'] },
    ],
    ['none has a list', [undefined, refused], { without: ['https://0'], failed: ['https://1'] }],
    ['none is asked', [], { without: [], failed: [] }],
    ['an empty list counts', [[]], { server: 'https://0', without: [], failed: [] }],
  ])('%s', async (_, answers, { server, without, failed }) => {
    const outcome = await first(...answers);
    expect(outcome.listing?.server).toBe(server);
    expect(outcome.without).toEqual(without);
    expect([...outcome.failed.keys()]).toEqual(failed);
  });

  it('keeps the answer of each server', async () => {
    expect((await first(refused, away)).failed).toEqual(
      new Map<string, TkaError>([
        ['https://0', refused],
        ['https://1', away],
      ]),
    );
  });

  it('aborts the other requests after the first list, and ignores them', async () => {
    const { listing, letGo, failed, without } = await first('never', [named], 'never');
    expect(listing?.server).toBe('https://1');
    expect(letGo).toEqual(['https://0', 'https://2']);
    expect([...failed]).toEqual([]);
    expect(without).toEqual([]);
  });
});

// No request takes longer than the test says: a silent server is aborted.
describe('several servers, one after the other', { timeout: 20_000 }, () => {
  type Behaviour = readonly Member[] | Error | undefined | 'never' | number;

  async function inTurn(servers: Readonly<Record<string, Behaviour>>, batches: readonly Batch[]) {
    const asked: string[] = [];
    const started = performance.now();
    const outcome = await askInTurn(batches, {
      client: (url) =>
        standInClient({
          memberlist: async ({ signal }) => {
            asked.push(url);
            const answer = servers[url];
            if (answer instanceof Error) throw answer;
            if (answer === 'never' || typeof answer === 'number')
              await delay(answer === 'never' ? 60_000 : answer, undefined, signal && { signal }).catch(() => {
                throw signal?.reason;
              });
            return typeof answer === 'object'
              ? { members: answer, cut: 0, unread: 0 }
              : { members: [], cut: 0, unread: 0 };
          },
        }),
      timeout: 3000,
      html: () => false,
      isFinal: (url, error) => url === 'https://first' && isAnswer(error),
    });
    return { ...outcome, asked, took: performance.now() - started };
  }
  const batch = (servers: readonly string[], headStart?: number): Batch => ({
    servers: async () => servers,
    ...(headStart !== undefined && { headStart }),
  });
  const three = [batch(['https://first'], 300), batch(['https://next'], 300), batch(['https://last', 'https://first'])];

  it('asks no other server if the first answers in time', async () => {
    const { listing, asked, silent } = await inTurn({ 'https://first': 200, 'https://next': [] }, three);
    expect(listing?.server).toBe('https://first');
    expect(asked).toEqual(['https://first']);
    expect(silent).toEqual([]);
  });

  it('asks the next server after 300 ms of silence, and counts the first as silent', async () => {
    const { listing, asked, silent, took } = await inTurn({ 'https://first': 'never', 'https://next': [] }, three);
    expect(listing?.server).toBe('https://next');
    expect(asked).toEqual(['https://first', 'https://next']);
    expect(silent).toEqual(['https://first']);
    expect(took).toBeGreaterThan(295);
    expect(took).toBeLessThan(2500);
  });

  it('uses the list of a slow first server if it answers first', async () => {
    const { listing, silent } = await inTurn({ 'https://first': 450, 'https://next': 5000, 'https://last': [] }, three);
    expect(listing?.server).toBe('https://first');
    expect(silent).toEqual([]);
  });

  it('asks the next server at once if one fails, and asks none twice', async () => {
    const slowly = three.map(({ servers }) => ({ servers, headStart: 20_000 }));
    const { listing, asked, took } = await inTurn(
      { 'https://first': away, 'https://next': away, 'https://last': [] },
      slowly,
    );
    expect(listing?.server).toBe('https://last');
    expect(asked).toEqual(['https://first', 'https://next', 'https://last']);
    expect(took).toBeLessThan(10_000);
  });

  it('stops at a final refusal', async () => {
    await expect(inTurn({ 'https://first': refused, 'https://next': [] }, three)).rejects.toBe(refused);
  });
});

it.each([
  ['a refusal', refused, true],
  ['not being signed in', new NotSignedIn('not signed in'), true],
  ['no connection', away, false],
  ['any other error', new TkaError('broken'), false],
])('isAnswer decides for %s', (_, error, expected) => expect(isAnswer(error)).toBe(expected));
