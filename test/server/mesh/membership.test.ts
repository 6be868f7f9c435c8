import { describe, expect, test } from 'vitest';
import { checkRecord, digestOf, readRecord } from '../../../src/server/mesh/member.ts';
import { type Ask, Membership } from '../../../src/server/mesh/membership.ts';
import type { MembershipOptions } from '../../../src/server/mesh/options.ts';
import { type GossipAnswer, type GossipQuestion, readAnswer, readQuestion } from '../../../src/server/mesh/wire.ts';
import { seeded } from '../../hostile/junk.ts';

const epoch = Date.UTC(2026, 10, 21);

const recordOf = (
  name: string,
  more: { labels?: Record<string, string>; left?: boolean; server?: string; cluster?: string } = {},
) => ({
  server: `https://${name}.example.ts.net`,
  gossipPort: 7946,
  apiEndpoint: `https://api.${name}.example.com:6443`,
  labels: {},
  version: '1.4.0',
  left: false,
  ...more,
});
const addressOf = (name: string) => `${name}.example.ts.net:7946`;

let time = 0;
const random = seeded(11);
function member(name: string, more: Partial<MembershipOptions> = {}): Membership {
  return new Membership({
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
}

/** Returns a member's answer. */
function answerOf(name: string, more: Partial<GossipAnswer> = {}): GossipAnswer {
  const record = checkRecord(name, recordOf(name));
  const lists = { others: [], silent: [] };
  const whole = { name, process: `p-${name}`, record, ...lists, ...more };
  return { version: whole.record?.version ?? '', ...whole };
}
const told = (name: string, more: Parameters<typeof recordOf>[1] = {}) => checkRecord(name, recordOf(name, more));
const asked = (ask: Ask): GossipQuestion => {
  const read = readQuestion(ask.body);
  if (typeof read === 'string') throw new Error(read);
  return read;
};
const read = (bytes: Buffer): GossipAnswer => {
  const read = readAnswer(bytes);
  if (typeof read === 'string') throw new Error(read);
  return read;
};
const questionOf = (name: string, more: Partial<GossipQuestion> = {}): GossipQuestion => ({
  name,
  process: `p-${name}`,
  version: 'v',
  count: 1,
  digest: 'd',
  at: addressOf(name),
  leaving: false,
  ...more,
});
/** Returns the pending request to an address after a round. */
function ask(from: Membership, address: string): Ask {
  from.tick();
  let found: Ask | undefined;
  for (const one of from.asks()) {
    const name = one.address.split('.')[0] ?? '';
    if (one.address === address) found = one;
    else if (from.get(name) === undefined) from.failed(one);
    else from.settle(one, answerOf(name));
  }
  if (found === undefined) throw new Error(`${address} is not asked`);
  return found;
}
/** Returns a member that knows these, each as it states itself. */
function knowing(...names: string[]): Membership {
  time += 1000;
  const one = member('one', { seeds: names.map(addressOf), factor: names.length });
  one.tick();
  for (const asking of one.asks()) one.settle(asking, answerOf(asking.address.split('.')[0] ?? ''));
  expect(one.members().map(({ name }) => name)).toEqual([...names, 'one'].sort());
  return one;
}
const states = (one: Membership) => Object.fromEntries(one.members().map(({ name, state }) => [name, state]));
/** Runs this many rounds in which requests get no answer. */
function silence(one: Membership, rounds: number): void {
  for (let i = 0; i < rounds; i++) {
    time += 1000;
    one.tick();
    for (const asking of one.asks()) one.failed(asking);
  }
}

describe('a record counts only if read from its owner', () => {
  test.each<[why: string, answer: GossipAnswer, node?: string]>([
    ['the node has another name', answerOf('x'), 'evil'],
    ['it is at another address', answerOf('x', { record: told('x', { server: 'https://evil.example.ts.net' }) })],
    ['it says nothing new, and nothing is known', { ...answerOf('x'), record: undefined }],
    ['it has another version than it states', { ...answerOf('x'), version: 'v' }],
    ['it has our own name', answerOf('one', { record: told('one', { server: 'https://x.example.ts.net' }) })],
  ])('%s: nothing changes', (_, answer, node) => {
    const one = member('one', { seeds: [addressOf('x')] });
    one.settle(ask(one, addressOf('x')), answer, node);
    expect(one.members().map(({ name }) => name)).toEqual(['one']);
  });

  test('the same from the node of its name is accepted', () => {
    const one = member('one', { seeds: [addressOf('x')] });
    one.settle(ask(one, addressOf('x')), answerOf('x'), 'x');
    expect(states(one)).toEqual({ one: 'healthy', x: 'healthy' });
  });

  test('a member that states another server’s address loses only its own row', () => {
    const one = knowing('x', 'y');
    time += 1000;
    one.settle(ask(one, addressOf('x')), answerOf('y', { record: told('y', { labels: { a: 'b' }, left: true }) }));
    expect(one.get('y')).toMatchObject({ state: 'healthy', record: { labels: {}, left: false } });
  });

  test('an answer older than the last one is ignored', () => {
    const one = knowing('x');
    time += 1000;
    const early = ask(one, addressOf('x'));
    time += 1000;
    const late = ask(one, addressOf('x'));
    one.settle(late, answerOf('x', { record: told('x', { labels: { a: 'new' } }) }));
    one.settle(early, answerOf('x', { record: told('x', { labels: { a: 'old' } }) }));
    expect(one.get('x')?.record.labels).toEqual({ a: 'new' });
  });

  test('a request does not change its sender’s record, but makes us read it', () => {
    const one = knowing('x');
    one.asks();
    one.answer(questionOf('x', { version: 'other', process: 'other', leaving: true }));
    expect(states(one)).toEqual({ one: 'healthy', x: 'healthy' });
    const [look] = one.asks();
    expect(look?.address).toBe(addressOf('x'));
    one.settle(look as Ask, answerOf('x', { record: told('x', { left: true }) }));
    expect(states(one)).toEqual({ one: 'healthy', x: 'dead' });
  });
});

describe('silence', () => {
  test('makes a member suspected, then dead; an answer makes it healthy again', () => {
    const one = knowing('x');
    silence(one, 4);
    expect(states(one).x).toBe('healthy');
    silence(one, 2);
    expect(states(one).x).toBe('suspected');
    silence(one, 5);
    expect(states(one).x).toBe('dead');
    one.answer(questionOf('x'));
    one.settle(one.asks()[0] as Ask, answerOf('x'));
    expect(states(one).x).toBe('healthy');
  });

  test('does not count while we were stopped ourselves', () => {
    const one = knowing('x', 'y');
    time += 1000;
    one.tick();
    const asks = one.asks();
    expect(asks).toHaveLength(2);
    time += 60_000;
    for (const asking of asks) one.failed(asking);
    one.tick();
    expect(states(one)).toEqual({ one: 'healthy', x: 'healthy', y: 'healthy' });
  });
});

describe('reports of others', () => {
  /** Nothing is news any more. Returns what a member that knows the same ones says about them. */
  function settled(one: Membership, name: string): Pick<GossipQuestion, 'count' | 'digest'> {
    for (let i = 0; i < 12; i++) {
      time += 1000;
      one.tick();
      for (const asking of one.asks()) one.settle(asking, answerOf(asking.address.split('.')[0] ?? ''));
    }
    const asking = ask(one, addressOf(name));
    one.settle(asking, answerOf(name));
    const { digest, count } = asked(asking);
    return { digest, count };
  }
  const reports = (one: Membership, more: object = {}) => read(one.answer(questionOf('new', more)));

  test('are sent after three requests without an answer, before the member is dead', () => {
    const one = knowing('x', 'y');
    const agreeing = settled(one, 'x');
    const silent: number[] = [];
    for (let i = 0; i < 4; i++) {
      silence(one, 1);
      silent.push(reports(one, agreeing).silent.length);
    }
    expect(silent).toEqual([0, 0, 2, 2]);
    expect(states(one)).toEqual({ one: 'healthy', x: 'healthy', y: 'healthy' });
    expect(reports(one, agreeing).others).toEqual([]);
  });

  test('make us ask a member that is silent elsewhere; only silence towards us counts', () => {
    const one = knowing('x', 'y', 'z');
    time += 5000;
    const asking = ask(one, addressOf('x'));
    time += 4000;
    const silent = [addressOf('y'), 'nobody.example.ts.net:7946', addressOf('one')];
    one.settle(asking, answerOf('x', { silent }));
    expect(one.asks().map(({ address }) => address)).toEqual([addressOf('y')]);
    expect(states(one)).toEqual({ one: 'healthy', x: 'healthy', y: 'healthy', z: 'healthy' });
    // It was just asked.
    one.settle(ask(one, addressOf('x')), answerOf('x', { silent }));
    expect(one.asks().map(({ address }) => address)).not.toContain(addressOf('y'));
  });

  test('name random members to a member that knows other ones, and none to one that agrees', () => {
    const names = Array.from({ length: 30 }, (_, i) => `m-${i}`);
    const one = knowing(...names);
    const { digest, count } = settled(one, 'm-0');
    expect(reports(one, { digest, count })).toMatchObject({ others: [], silent: [] });
    // One of the eight may be the member itself.
    expect(reports(one, { digest: 'other', count }).others.length).toBeGreaterThanOrEqual(7);
    expect(reports(one, { digest: 'other', count: 1 }).others).toHaveLength(30);
  });
});

test('asks dead members and silent seeds more and more rarely, and a new seed soon', () => {
  time += 1000;
  const one = member('one', { seeds: [addressOf('x')], factor: 1 });
  const asks = (rounds: number) => {
    let count = 0;
    for (let i = 0; i < rounds; i++) {
      time += 1000;
      one.tick();
      for (const asking of one.asks()) {
        count++;
        one.failed(asking);
      }
    }
    return count;
  };
  expect(asks(10)).toBeGreaterThanOrEqual(9);
  asks(300);
  expect(asks(300)).toBe(10);
  one.setSeeds([addressOf('x'), addressOf('y')]);
  expect(asks(10)).toBeGreaterThanOrEqual(9);
  one.answer(questionOf('x'));
  one.settle(one.asks()[0] as Ask, answerOf('x'));
  expect(states(one)).toEqual({ one: 'healthy', x: 'healthy' });
  silence(one, 12);
  expect(states(one)).toEqual({ one: 'healthy', x: 'dead' });
  asks(300);
  expect(asks(300)).toBe(10);
});

describe('two processes with one name', () => {
  test('keep the known one while it runs, then the other', () => {
    const skipped: string[] = [];
    time += 1000;
    const one = member('one', {
      seeds: [addressOf('x'), addressOf('y')],
      onSkip: (name, why) => skipped.push(`${name}: ${why}`),
    });
    const other = () => answerOf('x', { process: 'other', record: told('x', { server: 'https://y.example.ts.net' }) });
    one.settle(ask(one, addressOf('x')), answerOf('x'));
    time += 1000;
    one.settle(ask(one, addressOf('y')), other());
    expect(one.get('x')?.place.address).toBe(addressOf('x'));
    expect(skipped).toEqual([`x: two processes have this name: ${addressOf('x')} and ${addressOf('y')}`]);
    silence(one, 13);
    expect(states(one).x).toBe('dead');
    one.answer(questionOf('x', { process: 'other', at: addressOf('y') }));
    const look = one.asks().find(({ address }) => address === addressOf('y')) as Ask;
    one.settle(look, other());
    expect(one.get('x')).toMatchObject({ state: 'healthy', process: 'other', place: { address: addressOf('y') } });
  });

  test('both notice it', () => {
    let heard = 0;
    const twins = [0, 1].map(() => member('us', { seeds: [addressOf('peer')], onTwin: () => heard++ }));
    const [us, twin] = twins as [Membership, Membership];
    const asking = ask(us, addressOf('peer'));
    us.settle(asking, read(twin.answer(asked(asking))));
    expect(heard).toBe(2);
  });

  test('an answer of our own process under another address is recognised', () => {
    let heard = 0;
    const us = member('us', { seeds: [addressOf('alias')], onTwin: () => heard++ });
    const asking = ask(us, addressOf('alias'));
    us.settle(asking, read(us.answer(asked(asking))));
    expect(heard).toBe(0);
    us.tick();
    expect(us.asks()).toEqual([]);
    expect(states(us)).toEqual({ us: 'healthy' });
  });
});

test('a member with another name and by chance our process number is another member', () => {
  const us = member('us', { seeds: [addressOf('x')] });
  const { process } = us.self;
  us.settle(ask(us, addressOf('x')), answerOf('x', { process }));
  expect(states(us)).toEqual({ us: 'healthy', x: 'healthy' });
  us.answer(questionOf('y', { process }));
  expect(us.asks().map(({ address }) => address)).toContain(addressOf('y'));
});

test('a changed record makes the others read it, an unchanged one does not', () => {
  const us = knowing('x', 'y');
  us.update(recordOf('one'));
  expect(us.asks()).toEqual([]);
  us.update(recordOf('one', { labels: { a: 'b' } }));
  expect(us.asks().map((one) => asked(one).version)).toEqual([us.self.version, us.self.version]);
  const { record } = read(us.answer(questionOf('x', { have: 'an earlier one' })));
  expect(record?.record.labels).toEqual({ a: 'b' });
  expect(read(us.answer(questionOf('x', { have: us.self.version }))).record).toBeUndefined();
});

test('a new member learns of 10,000 members in messages of 64 KiB', { timeout: 120_000 }, () => {
  time += 1000;
  const all = Array.from({ length: 9998 }, (_, i) => `a-member-with-a-long-name-as-some-have-them-${i}`);
  const old = member('old');
  for (const name of all) {
    old.answer(questionOf(name, { count: 10_000 }));
    for (const asking of old.asks()) old.settle(asking, answerOf(name));
  }
  expect(old.living).toBe(9999);
  const young = member('young', { seeds: [addressOf('old')] });
  let rounds = 0;
  for (; young.living < 10_000; rounds++) {
    expect(rounds).toBeLessThan(60);
    young.tick();
    for (let asks = young.asks(); asks.length > 0; asks = young.asks()) {
      for (const asking of asks) {
        // All others know what this one knows.
        const bytes = old.answer(asked(asking));
        expect(bytes.length).toBeLessThanOrEqual(65_536);
        const { others } = read(bytes);
        const name = asking.address.split('.')[0] ?? '';
        young.settle(asking, name === 'old' ? read(bytes) : answerOf(name, { others }));
      }
    }
    time += 1000;
  }
});

test('addresses from others are tried a few at a time, and delay no member', () => {
  const one = knowing('x', 'y');
  const flood = (from: number) => Array.from({ length: 3000 }, (_, i) => `host-${from + i}.example.com:1`);
  for (let i = 0; i < 20; i++) {
    time += 1000;
    const asking = ask(one, addressOf('x'));
    one.settle(asking, answerOf('x', { others: flood(3000 * i) }));
  }
  time += 1000;
  one.tick();
  const asks = one.asks();
  expect(asks.filter(({ address }) => address.startsWith('host-')).length).toBeLessThanOrEqual(32);
  expect(asks.map(({ address }) => address)).toContain(addressOf('y'));
  expect(states(one).x).toBe('healthy');
});

test('is limited in size: the longest dead member makes room for a running one', () => {
  time += 1000;
  const skipped: string[] = [];
  const names = ['x', 'y', 'z'];
  const one = member('one', { maxMembers: 4, onSkip: (name) => skipped.push(name) });
  const meet = (name: string) => {
    time += 1;
    one.answer(questionOf(name));
    for (const asking of one.asks()) one.settle(asking, answerOf(asking.address.split('.')[0] ?? ''));
  };
  for (const name of names) meet(name);
  meet('new');
  expect(one.members().map(({ name }) => name)).toEqual(['one', 'x', 'y', 'z']);
  expect(skipped).toEqual(['new']);
  silence(one, 15);
  expect(states(one)).toEqual({ one: 'healthy', x: 'dead', y: 'dead', z: 'dead' });
  meet('new');
  expect(one.members().map(({ name }) => name)).toEqual(['new', 'one', 'y', 'z']);
});

test.each([
  ['a name in capitals', 'Tka', {}],
  ['an http API endpoint', 'tka', { apiEndpoint: 'http://api.example.com' }],
  ['a label with a line break', 'tka', { labels: { a: 'b\nc' } }],
  ['a label with an escape', 'tka', { labels: { 'a\u001b[2J': 'b' } }],
  ['too many labels', 'tka', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) }],
  [
    'a record that is too large',
    'tka',
    { labels: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`l${i}`, 'x'.repeat(200)])) },
  ],
  ['an invalid port', 'tka', { gossipPort: 0 }],
  ['a server with a path', 'tka', { server: 'https://tka.example.ts.net/x' }],
])('a member does not start with %s', (_, name, more) => {
  expect(() => member('tka', { name, record: { ...recordOf('tka'), ...more } })).toThrow(/invalid mesh record/);
});

describe('the name of the cluster', () => {
  test('is sent to the others, and read from them', () => {
    const one = member('one', { seeds: [addressOf('x')] });
    one.settle(ask(one, addressOf('x')), answerOf('x', { record: told('x', { cluster: 'prod-us' }) }));
    expect(one.get('x')?.record.cluster).toBe('prod-us');
    const x = member('x', { record: recordOf('x', { cluster: 'prod-us' }) });
    expect(read(x.answer(questionOf('one'))).record?.record.cluster).toBe('prod-us');
  });

  test.each([1, '', 'prod us', 'a\u202eb', '-x', 'x'.repeat(254)])('cannot be %j', (cluster) => {
    expect(readRecord({ ...recordOf('x'), cluster })).toBe('cluster is not a DNS-like name');
  });

  test('is missing from the record of a member of 0.1.0, which is accepted', () => {
    const { left: _, ...record } = recordOf('x');
    const frame = { v: 2, name: 'x', process: 'p', others: [] };
    const answer = { ...frame, record, version: digestOf(JSON.stringify(record)) };
    const one = member('one', { seeds: [addressOf('x')] });
    const asking = ask(one, addressOf('x'));
    one.settle(asking, read(Buffer.from(JSON.stringify(answer))));
    expect(one.get('x')).toMatchObject({ state: 'healthy', record });
    expect(one.get('x')?.record.cluster).toBeUndefined();
    // It gets back the version that it has stated, and says nothing twice.
    expect(asked(ask(one, addressOf('x'))).have).toBe(answer.version);
  });

  test('is dropped by a member of 0.1.0, for which the rest has the stated version', () => {
    const x = member('x', { record: recordOf('x', { cluster: 'prod-us' }) });
    const { version, record } = JSON.parse(x.answer(questionOf('one')).toString());
    const { server, gossipPort, apiEndpoint, labels, version: program } = record;
    expect(digestOf(JSON.stringify({ server, gossipPort, apiEndpoint, labels, version: program }))).toBe(version);
  });

  test('is read again if nothing else has changed', () => {
    const one = knowing('x');
    const x = member('x', { record: recordOf('x', { cluster: 'prod-us' }) });
    time += 1000;
    for (const cluster of ['prod-us', 'prod-us', 'prod-eu']) {
      if (cluster === 'prod-eu') x.update(recordOf('x', { cluster }));
      const asking = ask(one, addressOf('x'));
      const answer = read(x.answer(asked(asking)));
      expect(answer.record?.record.cluster).toBe(one.get('x')?.record.cluster === cluster ? undefined : cluster);
      one.settle(asking, answer);
      expect(one.get('x')?.record.cluster).toBe(cluster);
      time += 1000;
    }
  });
});
