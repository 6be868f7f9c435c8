// The page of joined clusters: its format, what members make of it, and real members on loopback.
import * as http from 'node:http';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import { joinedPath } from '../../../src/server/mesh/face.ts';
import {
  type JoinedRow,
  memberRows,
  type PageQuestion,
  pageLimit,
  readPageAnswer,
  readPageQuestion,
  writePage,
  writePageAnswer,
} from '../../../src/server/mesh/joined.ts';
import { checkRecord, digestOf, type MemberRecord, readRecord } from '../../../src/server/mesh/member.ts';
import { type Ask, Membership } from '../../../src/server/mesh/membership.ts';
import type { Mesh } from '../../../src/server/mesh/mesh.ts';
import type { MembershipOptions } from '../../../src/server/mesh/options.ts';
import type { PageAsk } from '../../../src/server/mesh/pages.ts';
import { sealHeader } from '../../../src/server/mesh/seal.ts';
import { readAnswer, readQuestion } from '../../../src/server/mesh/wire.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { canonicalServer } from '../../../src/util/url.ts';
import { seeded } from '../../hostile/junk.ts';
import { asking, host, key, logged, member, post, question, sealed } from './fixture.ts';

const row = (cluster: string, more: Partial<JoinedRow> = {}): JoinedRow => ({
  cluster,
  apiEndpoint: `https://api.${cluster}.example.com:6443`,
  labels: { env: 'prod' },
  state: 'healthy',
  version: '1.4.0',
  ...more,
});
const said = { name: 'x', process: 'p1', version: 'v1' };
/** Returns an answer with these rows, as any member might give it, before and after it is compressed. */
const plain = (rows: unknown, more: object = {}): Buffer =>
  Buffer.from(JSON.stringify({ v: 2, ...said, page: 'e1', rows, ...more }));
const answering = (rows: unknown, more: object = {}): Buffer => gzipSync(plain(rows, more));
const manyRows = (count: number, more: Partial<JoinedRow> = {}) =>
  Array.from({ length: count }, (_, i) => row(`site-${String(i).padStart(4, '0')}`, more));

/** Returns this many MiB of spaces, compressed: many gzip members, one after the other. */
const bomb = (mebibytes: number): Buffer => {
  const one = gzipSync(Buffer.alloc(1024 * 1024, ' '));
  return Buffer.concat(Array.from({ length: mebibytes }, () => one));
};

describe('the page', () => {
  const sent = (rows: readonly JoinedRow[]) => {
    const page = writePage(rows);
    const read = readPageAnswer(writePageAnswer(said, page, ''));
    if (typeof read === 'string') throw new Error(read);
    expect(read).toMatchObject({ ...said, etag: page?.etag ?? '', skipped: 0 });
    return read.rows;
  };

  test('is read as it was written, sorted by name', () => {
    const away = row('b', { state: 'dead', lastSeen: '2026-08-02T10:00:00.000Z', direct: true });
    const { version: _, ...never } = row('c', { state: 'dead' });
    expect(sent([never, away, row('a')])).toEqual([row('a'), away, never]);
    expect(sent([])).toBeUndefined();
  });

  test('has an ETag that changes with everything except the time of a cluster that is away', () => {
    const etag = (more: Partial<JoinedRow>) => writePage([row('a', more)])?.etag;
    const away = etag({ state: 'dead', lastSeen: '2026-08-02T10:00:00.000Z' });
    expect(etag({ state: 'dead', lastSeen: '2026-08-02T11:00:00.000Z' })).toBe(away);
    const others = [{}, { state: 'dead' as const, version: '2' }, { state: 'dead' as const, labels: {} }].map(etag);
    expect(new Set([away, ...others]).size).toBe(4);
  });

  test('is not sent again to a member that has it', () => {
    const page = writePage([row('a')]);
    const answer = writePageAnswer(said, page, page?.etag ?? '');
    expect(JSON.parse(gunzipSync(answer).toString())).toEqual({ v: 2, ...said, page: page?.etag });
    expect(readPageAnswer(answer)).toMatchObject({ etag: page?.etag, rows: undefined });
  });

  test('has at most 1,000 rows of at most 1 MiB, if need be without labels', () => {
    expect(sent(manyRows(1_200))).toEqual(manyRows(1_000));
    const long = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`example.com/label-${i}`, 'x'.repeat(150)]));
    const rows = manyRows(1_000, { labels: long });
    expect(JSON.stringify(rows).length).toBeGreaterThan(pageLimit);
    expect(sent(rows)).toEqual(manyRows(1_000, { labels: {} }));
    // One cluster with too many labels does not take those of the others.
    const much = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`l${i}`, 'x'.repeat(200)]));
    expect(sent([row('a', { labels: much }), row('b')])).toEqual([row('a', { labels: {} }), row('b')]);
  });

  test('leaves out what the others would refuse', () => {
    const bad = [row('A'), row('a/b'), row('x', { apiEndpoint: 'http://x' }), row('y', { version: '1\n2' })];
    expect(sent([...bad, row('good')])).toEqual([row('good')]);
  });

  test.each<[name: string, value: unknown]>([
    ['is not an object', []],
    ['has no name', { ...row('a'), cluster: undefined }],
    ['has a path as its name', row('a/../b')],
    ['has a name in upper case', row('Prod')],
    ['has a name of 64 characters', row('x'.repeat(64))],
    ['has an endpoint over http', row('a', { apiEndpoint: 'http://api.a.example.com' })],
    ['has an endpoint in another spelling', row('a', { apiEndpoint: 'https://API.a.example.com/' })],
    ['has an endpoint with credentials', row('a', { apiEndpoint: 'https://a:b@api.a.example.com' })],
    ['has a label that colours a terminal', row('a', { labels: { a: '\u001b[31m' } })],
    ['has a label that reverses text', row('a', { labels: { '\u202ea': 'x' } })],
    ['has labels that are null', { ...row('a'), labels: null }],
    ['has 65 labels', row('a', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) })],
    ['has a version of two lines', row('a', { version: '1\n2' })],
    ['has another state', { ...row('a'), state: 'suspected' }],
    ['has an invalid time', row('a', { lastSeen: 'yesterday' })],
    ['has a time that does not exist', row('a', { lastSeen: '2026-13-45T99:00:00Z' })],
    ['is direct as text', { ...row('a'), direct: 'yes' }],
    [
      'is longer than 4 KiB',
      row('a', { labels: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`l${i}`, 'x'.repeat(200)])) }),
    ],
    ['has a name a second time', row('good', { version: 'other' })],
  ])('a row that %s is left out, and the others count', (_, value) => {
    expect(readPageAnswer(answering([row('good'), value]))).toMatchObject({ rows: [row('good')], skipped: 1 });
  });

  test.each<[name: string, body: Buffer]>([
    ['empty', Buffer.alloc(0)],
    ['not compressed', plain([])],
    ['cut', answering([row('a')]).subarray(0, -20)],
    ['not JSON', gzipSync('hello')],
    ['arrays in arrays', gzipSync('['.repeat(60_000))],
    ['longer than 1 MiB', gzipSync(Buffer.concat([plain([]), Buffer.alloc(pageLimit, ' ')]))],
    ['1 GiB of spaces', bomb(1024)],
    ['of 1,001 rows', answering(manyRows(1_001))],
    ['rows as an object', answering({})],
    ['rows as a text', answering('rows')],
    ['without an ETag', answering([], { page: undefined })],
    ['with an ETag of two lines', answering([], { page: 'a\nb' })],
    ['without a sender', answering([], { name: '../x' })],
    ['of another version', answering([], { v: 1 })],
  ])('an answer that is %s is refused whole', (_, body) => {
    expect(readPageAnswer(body)).toBeTypeOf('string');
  });

  test('mutated answers are read in linear time, and never have unclean texts', () => {
    const random = seeded(5);
    const bytes = plain(manyRows(20, { labels: { a: 'b' }, lastSeen: '2026-08-02T10:00:00Z' }));
    for (let i = 0; i < 3_000; i++) {
      const changed = Buffer.from(bytes);
      for (let n = 0; n < 1 + random() * 6; n++) changed[Math.floor(random() * changed.length)] = random() * 256;
      const read = readPageAnswer(gzipSync(changed));
      if (typeof read === 'string') continue;
      for (const { server } of memberRows(read.rows ?? [], owner)) expect(canonicalServer(server ?? '')).toBe(server);
      expect(JSON.stringify(read.rows ?? [])).not.toMatch(/[\u0080-\u009f\u202e]|\\u00[01]/);
    }
  });

  const owner = { server: 'https://tka.example.ts.net', cluster: 'home', state: 'healthy', lastSeen: 'now' } as const;

  test('becomes rows below the URL of its owner, in no better state than it', () => {
    const rows = [row('a'), row('b', { state: 'dead', lastSeen: '2026-08-02T10:00:00Z', direct: true })];
    const stated = { apiPort: 443, labels: { env: 'prod' }, version: '1.4.0', through: 'home' };
    const [a, b] = [
      { apiEndpoint: 'https://api.a.example.com:6443', cluster: 'a', server: `${owner.server}/clusters/a` },
      { apiEndpoint: 'https://api.b.example.com:6443', cluster: 'b', server: `${owner.server}/clusters/b` },
    ].map((each) => ({ ...stated, ...each }));
    const away = { ...b, state: 'dead', lastSeen: '2026-08-02T10:00:00Z', direct: true };
    expect(memberRows(rows, owner)).toEqual([{ ...a, state: 'healthy', lastSeen: 'now' }, away]);
    const states = (state: 'suspected' | 'dead') => memberRows(rows, { ...owner, state }).map((each) => each.state);
    expect(states('suspected')).toEqual(['suspected', 'dead']);
    expect(states('dead')).toEqual(['dead', 'dead']);
    expect(memberRows(rows, { ...owner, server: 'http://10.0.0.1:8123' })[0]).toMatchObject({ apiPort: 8123 });
  });
});

describe('the record', () => {
  const record = {
    server: 'https://x.example.ts.net',
    gossipPort: 7946,
    apiEndpoint: 'https://api.x.example.com',
    labels: {},
    cluster: 'home',
    version: '1.4.0',
    left: false,
  };
  const hash = 'n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg';

  test('has the same version for members of 0.1.0, which drop the new keys', () => {
    const old = checkRecord('x', { ...record, cluster: undefined });
    const now = checkRecord('x', { ...record, joined: 'e1', federationKey: hash });
    expect(now.version).toBe(old.version);
    expect(digestOf(old.text)).toBe(now.version);
    expect(readRecord(JSON.parse(now.text))).toEqual(now);
    expect(new Set([old, now, checkRecord('x', record)].map(({ etag }) => etag)).size).toBe(3);
  });

  test.each([
    ['an invalid ETag', { joined: 'a b' }],
    ['an ETag that is empty', { joined: '' }],
    ['a key that is no SHA-256', { federationKey: hash.slice(1) }],
    ['a server below another one', { server: 'https://x.example.ts.net/clusters/a' }],
  ])('with %s is refused', (_, more) => {
    expect(readRecord({ ...record, ...more })).toBeTypeOf('string');
  });
});

describe('a member', () => {
  let time = 0;
  const random = seeded(11);
  const epoch = Date.UTC(2026, 10, 21);
  const addressOf = (name: string) => `${name}.example.ts.net:7946`;
  const recordOf = (name: string, more: Partial<MemberRecord> = {}) => ({
    server: `https://${name}.example.ts.net`,
    gossipPort: 7946,
    apiEndpoint: `https://api.${name}.example.com:6443`,
    labels: {},
    cluster: 'home',
    version: '1.4.0',
    ...more,
  });
  const start = (name: string, more: Partial<MembershipOptions> = {}): Membership =>
    new Membership({
      name,
      record: recordOf(name),
      clock: { monotonic: () => time, wall: () => epoch + time },
      random,
      intervalMs: 1000,
      factor: 3,
      stalenessThreshold: 5,
      deadThreshold: 10,
      ...more,
    });
  const read = <T>(value: T | string): T => (typeof value === 'string' ? expect.fail(value) : value);
  const known = (ask: Ask, among: readonly Membership[]) => among.find(({ name }) => addressOf(name) === ask.address);
  /** Runs a round of a member among others, without fetching pages. Questions to all others fail. */
  function round(one: Membership, ...among: Membership[]): void {
    time += 1000;
    one.tick();
    for (const ask of one.asks()) {
      const other = known(ask, among);
      if (other === undefined) one.failed(ask);
      else one.settle(ask, read(readAnswer(other.answer(read(readQuestion(ask.body))))), other.name);
    }
  }
  /** Fetches the pages that are due. Returns whose, and how many bytes these are. */
  function fetched(one: Membership, ...among: Membership[]): [name: string, bytes: number][] {
    return one.pageAsks().map((ask) => {
      const other = among.find(({ name }) => addressOf(name) === ask.address) ?? expect.fail(ask.address);
      const bytes = other.answerPage(read(readPageQuestion(ask.body)));
      one.settlePage(ask, read(readPageAnswer(bytes)), other.name);
      return [other.name, bytes.length];
    });
  }
  const joined = (one: Membership) =>
    one.joined().map(({ owner, rows }) => [owner.name, owner.state, rows.map(({ cluster }) => cluster).join(' ')]);
  const one = (...names: string[]) => start('one', { seeds: names.map(addressOf), factor: 20 });

  test('without joined clusters has the record and the questions that it had before', () => {
    const x = start('x');
    const me = one('x');
    x.publishJoined([]);
    round(me, x);
    expect(x.self.record.joined).toBeUndefined();
    expect(fetched(me, x)).toEqual([]);
    x.setSeeds([addressOf('y')]);
    x.tick();
    const [ask] = x.asks();
    expect(ask?.body.toString()).toMatch(/^\{"v":2/);
    expect(ask?.body.toString()).not.toMatch(/etag|joined|federation/);
  });

  test('fetches a page once, and again after it has changed, but not more often than every ten rounds', () => {
    const x = start('x');
    const me = one('x');
    x.publishJoined([row('a')]);
    round(me, x);
    const first = fetched(me, x);
    expect(first).toEqual([['x', expect.any(Number)]]);
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
    for (let i = 0; i < 20; i++) {
      round(me, x);
      expect(fetched(me, x)).toEqual([]);
    }
    x.publishJoined([row('a'), row('b')]);
    const at: number[] = [];
    for (let i = 0; i < 25; i++) {
      round(me, x);
      if (fetched(me, x).length > 0) at.push(i);
      // A page that changes all the time does not cost more.
      x.publishJoined([row('a'), row(`b-${i}`)]);
    }
    expect(at).toEqual([0, 10, 20]);
    expect(joined(me)).toEqual([['x', 'healthy', 'a b-19']]);
  });

  test('gets no rows again if the owner has the same page as before', () => {
    const x = start('x');
    const me = one('x');
    x.publishJoined([row('a')]);
    round(me, x);
    fetched(me, x);
    const question = read(readPageQuestion(Buffer.from(JSON.stringify({ v: 2, ...said, page: x.self.record.joined }))));
    expect(gunzipSync(x.answerPage(question)).length).toBeLessThan(120);
    expect(gunzipSync(x.answerPage({ ...question, have: '' })).length).toBeGreaterThan(120);
  });

  test('drops a page whose owner has no joined clusters any more', () => {
    const x = start('x');
    const me = one('x');
    x.publishJoined([row('a')]);
    round(me, x);
    fetched(me, x);
    x.publishJoined([]);
    round(me, x);
    expect(joined(me)).toEqual([]);
  });

  test('keeps the page of a dead member as long as the member, and fetches nothing from it', () => {
    const x = start('x');
    const me = one('x');
    x.publishJoined([row('a')]);
    round(me, x);
    fetched(me, x);
    for (let i = 0; i < 12; i++) round(me);
    expect(joined(me)).toEqual([['x', 'dead', 'a']]);
    expect(me.pageAsks()).toEqual([]);
    // It returns, and its page is the same.
    x.publishJoined([row('a')]);
    for (let i = 0; i < 40 && me.get('x')?.state !== 'healthy'; i++) round(me, x);
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
    expect(fetched(me, x)).toEqual([]);
    x.leave();
    round(me, x);
    expect(joined(me)).toEqual([['x', 'dead', 'a']]);
    expect(me.drop('x')).toBe('dead');
    expect(joined(me)).toEqual([]);
  });

  test('keeps the page that it has while a new one cannot be fetched; its owner stays healthy', () => {
    const skipped: string[] = [];
    const x = start('x');
    const me = start('one', { seeds: [addressOf('x')], onSkip: (name, why) => skipped.push(`${name} ${why}`) });
    x.publishJoined([row('a')]);
    round(me, x);
    fetched(me, x);
    x.publishJoined([row('b')]);
    for (let i = 0; i < 11; i++) round(me, x);
    const [failing] = me.pageAsks() as [PageAsk];
    me.failedPage(failing);
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
    expect(me.pageAsks()).toEqual([]);
    for (let i = 0; i < 10; i++) round(me, x);
    const [lying] = me.pageAsks() as [PageAsk];
    const from = { ...said, name: 'y', etag: x.self.record.joined ?? '', rows: [row('evil')], skipped: 0 };
    me.settlePage(lying, from, 'y');
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
    for (let i = 0; i < 10; i++) round(me, x);
    const [other] = me.pageAsks() as [PageAsk];
    me.settlePage(other, { ...from, name: 'x' }, 'y');
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
    expect(skipped).toEqual(['y', 'x'].map(() => 'x its page is answered by another member'));
    for (let i = 0; i < 10; i++) round(me, x);
    expect(fetched(me, x)).toHaveLength(1);
    expect(joined(me)).toEqual([['x', 'healthy', 'b']]);
  });

  test('keeps at most 5,000 rows, and fetches at most four pages at a time', () => {
    const names = Array.from({ length: 7 }, (_, i) => `x-${i}`);
    const all = names.map((name) => start(name));
    for (const x of all) x.publishJoined(manyRows(1_000));
    const skipped: string[] = [];
    const seeds = names.map(addressOf);
    const me = start('one', { seeds, factor: 20, onSkip: (name, why) => skipped.push(`${name} ${why}`) });
    round(me, ...all);
    expect(fetched(me, ...all)).toHaveLength(4);
    expect(fetched(me, ...all)).toHaveLength(3);
    const count = () => me.joined().reduce((sum, { rows }) => sum + rows.length, 0);
    expect(count()).toBe(5_000);
    expect(skipped).toEqual(
      ['x-5', 'x-6'].map(() => expect.stringMatching(/^x-\d the limit of 5000 joined clusters in all is reached$/)),
    );
    // What does not fit is not fetched again and again.
    for (let i = 0; i < 30; i++) {
      round(me, ...all);
      expect(fetched(me, ...all)).toEqual([]);
    }
    expect(me.members()).toHaveLength(8);
  });

  test('learns of a change when the owner asks it, before its own turn', () => {
    const x = start('x');
    const me = one('x');
    round(me, x);
    expect(me.asks()).toEqual([]);
    x.publishJoined([row('a')]);
    x.setSeeds([addressOf('one')]);
    x.tick();
    const [told] = x.asks() as [Ask];
    me.answer(read(readQuestion(told.body)));
    const [ask] = me.asks() as [Ask];
    expect(ask.address).toBe(addressOf('x'));
    me.settle(ask, read(readAnswer(x.answer(read(readQuestion(ask.body))))));
    expect(fetched(me, x)).toHaveLength(1);
    expect(joined(me)).toEqual([['x', 'healthy', 'a']]);
  });

  test('of 0.1.0 states a record without the new keys, and is a member as before', () => {
    const me = one('x');
    time += 1000;
    me.publishJoined([row('a')]);
    me.tick();
    const [ask] = me.asks() as [Ask];
    const { left: _, cluster: __, ...old } = { ...recordOf('x'), left: false };
    const frame = { v: 2, name: 'x', process: 'p', others: [] };
    const answer = { ...frame, record: old, version: digestOf(JSON.stringify(old)) };
    me.settle(ask, read(readAnswer(Buffer.from(JSON.stringify(answer)))));
    expect(me.get('x')).toMatchObject({ state: 'healthy' });
    expect(me.pageAsks()).toEqual([]);
    // It reads our record, drops the new keys, and finds the stated version.
    const { version, record } = JSON.parse(me.answer({ ...said, at: addressOf('x'), ...quiet }).toString());
    const { server, gossipPort, apiEndpoint, labels, version: program } = record;
    expect(digestOf(JSON.stringify({ server, gossipPort, apiEndpoint, labels, version: program }))).toBe(version);
    expect(record.joined).toBe(me.self.record.joined);
  });
  const quiet = { count: 1, digest: 'd', leaving: false };

  test('a change of joined clusters alone is not logged as a change of the member', () => {
    const changes: (string | undefined)[] = [];
    const x = start('x');
    const me = start('one', { seeds: [addressOf('x')], onChange: (_, before) => changes.push(before) });
    round(me, x);
    x.publishJoined([row('a')]);
    round(me, x);
    expect(me.get('x')?.record.joined).toBe(x.self.record.joined);
    expect(changes).toEqual([undefined]);
    x.update(recordOf('x', { labels: { a: 'b' } }));
    round(me, x);
    expect(changes).toEqual([undefined, 'healthy']);
    expect(x.self.record.joined).toBeDefined();
  });
});

describe('members on loopback', () => {
  const tag = 'tag:tka';
  const whois = async () => ({ name: 'x', tags: [tag] });
  const named = (cluster: string) => ({
    server: 'http://127.0.0.1:8123',
    apiEndpoint: `https://api.${cluster}.example.com`,
    labels: {},
    cluster,
    version: '1',
  });
  const below = (mesh: Mesh) => mesh.members().filter(({ through }) => through !== undefined);
  const brief = ({ server, cluster, state, through }: MemberRow) => [server, cluster, state, through];

  test('list the joined clusters of each other, with a key', async () => {
    let rows: JoinedRow[] | undefined;
    const login = await member('login', { key, record: named('home'), joined: () => rows });
    const other = await member('other', { key, record: named('away'), bootstrapPeers: [`${host}:${login.port}`] });
    await expect.poll(() => other.members().length, { timeout: 30_000 }).toBe(2);
    expect(below(login)).toEqual([]);
    rows = manyRows(1_000);
    expect(below(login)).toHaveLength(1_000);
    await expect.poll(() => below(other).length, { timeout: 30_000 }).toBe(1_000);
    expect(brief(below(other)[7] as MemberRow)).toEqual([
      'http://127.0.0.1:8123/clusters/site-0007',
      'site-0007',
      'healthy',
      'home',
    ]);
    expect(other.members().map(({ name }) => name)).toEqual(['login', 'other', ...Array(1_000).fill(undefined)]);
    rows = [row('last', { direct: true, state: 'dead' })];
    await expect
      .poll(() => below(other).map(brief), { timeout: 30_000 })
      .toEqual([['http://127.0.0.1:8123/clusters/last', 'last', 'dead', 'home']]);
    await login.stop();
    await expect.poll(() => other.counts().dead, { timeout: 30_000 }).toBe(1);
    expect(below(other).map(brief)).toEqual([['http://127.0.0.1:8123/clusters/last', 'last', 'dead', 'home']]);
    expect(other.drop('login')).toBe('dead');
    expect(below(other)).toEqual([]);
  });

  test('count a joined cluster neither as a member nor in the overview', async () => {
    const login = await member('login', { key, record: named('home'), joined: () => [row('a')] });
    expect(login.counts()).toEqual({ healthy: 1, suspected: 0, dead: 0, left: 0 });
    expect(login.overview().map(({ name }) => name)).toEqual(['login']);
    expect(login.members()).toHaveLength(2);
  });

  test('say who has a cluster name or an endpoint, and with which key it has joined', async () => {
    const hash = 'n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg';
    let own: string | undefined;
    const login = await member('login', { key, record: named('home') });
    expect(login.isSettled()).toBe(false);
    const bootstrapPeers = [`${host}:${login.port}`];
    const both = await member('both', { key, record: named('both'), bootstrapPeers, federationKey: () => own });
    const claims = (name: string, endpoint = 'https://elsewhere.example.com') =>
      login
        .claims(name, endpoint)
        .map(({ member, state, self, federationKey }) => [member, state, self, federationKey]);
    await expect.poll(() => claims('both'), { timeout: 30_000 }).toEqual([['both', 'healthy', false, undefined]]);
    expect(claims('home')).toEqual([['login', 'healthy', true, undefined]]);
    expect(claims('new', 'https://api.both.example.com')).toEqual(claims('both'));
    expect(claims('both', 'https://api.both.example.com')).toHaveLength(1);
    expect(claims('new')).toEqual([]);
    await expect.poll(() => login.isSettled(), { timeout: 30_000 }).toBe(true);
    expect(both.hasAnnounced(hash)).toBe(false);
    own = hash;
    await expect.poll(() => both.hasAnnounced(hash), { timeout: 30_000 }).toBe(true);
    await expect.poll(() => claims('both'), { timeout: 30_000 }).toEqual([['both', 'healthy', false, hash]]);
  });

  const pageQuestion = (have = ''): Buffer => Buffer.from(JSON.stringify({ v: 2, ...said, page: have }));

  test('answer the question for a page to members only', async () => {
    const locked = await member('a', { key, record: named('home'), joined: () => [row('a')] });
    expect(await post(locked, pageQuestion(), {}, joinedPath)).toMatchObject({ status: 401, body: Buffer.alloc(0) });
    const headers = await sealed(locked, pageQuestion());
    const answer = await post(locked, pageQuestion(), headers, joinedPath);
    expect(answer.status).toBe(200);
    expect(answer.headers[sealHeader]).toMatch(/^v2 /);
    expect(readPageAnswer(answer.body)).toMatchObject({ name: 'a', rows: [row('a')] });
    expect((await post(locked, pageQuestion(), headers, joinedPath)).status).toBe(401);
    const strange = await member('b', { tag, whois: async () => undefined, record: named('home') });
    expect(await post(strange, pageQuestion(), {}, joinedPath)).toMatchObject({ status: 403, body: Buffer.alloc(0) });
  });

  test('refuse a sealed question at the other path', async () => {
    const mesh = await member('a', { key, record: named('home'), joined: () => [row('a')] });
    expect((await post(mesh, asking, await sealed(mesh, asking), joinedPath)).status).toBe(400);
    expect((await post(mesh, pageQuestion(), await sealed(mesh, pageQuestion()))).status).toBe(400);
  });

  test.each([
    ['longer than 1 KiB', Buffer.concat([pageQuestion(), Buffer.alloc(1024, ' ')])],
    ['without an ETag', question()],
    ['not JSON', Buffer.from('{')],
  ])('refuse a question for a page that is %s', async (_, body) => {
    const mesh = await member('a', { tag, whois });
    expect(await post(mesh, body, {}, joinedPath)).toMatchObject({ status: 400, body: Buffer.alloc(0) });
  });

  /** Starts a peer with one joined cluster that answers the question for its page in its own way. */
  async function liar(page: (question: PageQuestion, response: http.ServerResponse) => void) {
    const asked: number[] = [];
    const server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request
        .on('data', (chunk) => chunks.push(chunk))
        .on('end', () => {
          const body = Buffer.concat(chunks);
          if (request.url === joinedPath) {
            asked.push(performance.now());
            page(readPageQuestion(body) as PageQuestion, response);
            return;
          }
          const { port } = server.address() as { port: number };
          const record = { ...named('evil'), gossipPort: port, left: false, joined: 'e1' };
          const { text, version } = checkRecord('x', record);
          const frame = { v: 2, name: 'x', process: 'p1', version, others: [] };
          response.end(`${JSON.stringify(frame).slice(0, -1)},"record":${text}}`);
        });
    });
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    onTestFinished(() => void server.close().closeAllConnections());
    return { asked, address: `${host}:${(server.address() as { port: number }).port}` };
  }
  const endless = (response: http.ServerResponse) => {
    const timer = setInterval(() => response.write(' '.repeat(0x4000)), 1);
    response.once('close', () => clearInterval(timer));
  };

  test.each<[name: string, page: (question: PageQuestion, response: http.ServerResponse) => void, line: RegExp]>([
    ['sends a page that is not compressed', (_, response) => response.end(plain([row('a')])), /not gzip/],
    ['sends 64 MiB in 64 kB', (_, response) => response.end(bomb(64)), /longer than 1 MiB when/],
    ['sends a page without an end', (_, response) => endless(response), /too long/],
    ['sends 1,001 rows', (_, response) => response.end(answering(manyRows(1_001))), /more than 1000/],
    ['redirects', (_, response) => response.writeHead(307, { Location: '/gossip/v2' }).end(), /answered HTTP 307/],
    ['hangs up', (_, response) => response.destroy(), /other side closed|ECONNRESET|UND_ERR_SOCKET/],
    [
      'sends the page of another member',
      (_, response) => response.end(answering([row('a')], { name: 'y' })),
      /another/,
    ],
    ['sends rows that are invalid', (_, response) => response.end(answering([row('a/b'), 1])), /2 invalid rows/],
    ['sends no rows', (_, response) => response.end(answering(undefined)), /does not return its page/],
  ])('a member that %s stays a member, without joined clusters', async (_, page, line) => {
    const { address } = await liar(page);
    const mesh = await member('a', { tag, whois, bootstrapPeers: [address] });
    await expect.poll(() => logged.find((each) => line.test(each)), { timeout: 30_000 }).toBeDefined();
    expect(mesh.members().map(({ name, state }) => [name, state])).toEqual([
      ['a', 'healthy'],
      ['x', 'healthy'],
    ]);
  });

  test('a member that lies can state only clusters below its own server', async () => {
    const claimed = row('prod', { apiEndpoint: 'https://api.prod.example.com' });
    const evil = { server: 'https://victim.example.ts.net', name: 'victim', through: 'home', apiPort: 1 };
    const { address } = await liar((_, response) => response.end(answering([{ ...claimed, ...evil }])));
    const mesh = await member('a', { tag, whois, bootstrapPeers: [address] });
    await expect.poll(() => below(mesh).length, { timeout: 30_000 }).toBe(1);
    expect(below(mesh)).toEqual([
      {
        ...{ apiEndpoint: 'https://api.prod.example.com', apiPort: 8123, labels: { env: 'prod' }, cluster: 'prod' },
        ...{ server: 'http://127.0.0.1:8123/clusters/prod', state: 'healthy', lastSeen: expect.any(String) },
        ...{ version: '1.4.0', through: 'evil' },
      },
    ]);
  });
});
