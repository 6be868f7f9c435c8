import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkRecord, join, type Life, recordText } from '../../../src/server/mesh/member.ts';
import { Membership, type MembershipOptions } from '../../../src/server/mesh/membership.ts';
import { type Message, readMessage, type Told } from '../../../src/server/mesh/wire.ts';
import { seeded } from '../../hostile/junk.ts';

const day = 86_400_000;
const epoch = Date.UTC(2026, 10, 21);

const recordOf = (name: string, more: { labels?: Record<string, string>; left?: boolean } = {}) => ({
  server: `https://${name}.example.ts.net`,
  gossipPort: 7946,
  apiEndpoint: `https://api.${name}.example.com:6443`,
  labels: {},
  version: '1.4.0',
  left: false,
  ...more,
});

const life: fc.Arbitrary<Life> = fc
  .record({
    incarnation: fc.integer({ min: 1, max: 3 }),
    heartbeat: fc.integer({ min: 0, max: 3 }),
    label: fc.constantFrom('a', 'b'),
    left: fc.boolean(),
  })
  .map(({ incarnation, heartbeat, label, left }) => {
    const record = recordOf('x', { labels: { label }, left });
    return { incarnation, heartbeat, record, text: recordText(record) };
  });

describe('two versions of a member', () => {
  test('join in any order, any grouping, and any number of times', () => {
    fc.assert(
      fc.property(life, life, life, (a, b, c) => {
        expect(join(a, b)).toEqual(join(b, a));
        expect(join(join(a, b), c)).toEqual(join(a, join(b, c)));
        expect(join(a, a)).toEqual(a);
        expect(join(join(a, b), b)).toEqual(join(a, b));
      }),
      { numRuns: 2000 },
    );
  });

  test('the last incarnation wins, whatever the heartbeats', () => {
    fc.assert(
      fc.property(life, life, (a, b) => {
        expect(join(a, b).incarnation).toBe(Math.max(a.incarnation, b.incarnation));
        if (a.incarnation > b.incarnation) expect(join(a, b)).toEqual(a);
      }),
    );
  });
});

let time = 0;
function member(name: string, more: Partial<MembershipOptions> = {}): Membership {
  return new Membership({
    name,
    record: recordOf(name),
    clock: { monotonic: () => time, wall: () => epoch + time },
    random: () => 0.5,
    intervalMs: 1000,
    factor: 3,
    stalenessThreshold: 5,
    deadThreshold: 10,
    ...more,
  });
}
const told = (
  name: string,
  incarnation: number,
  heartbeat: number,
  more: { ageMs?: number; left?: boolean; labels?: Record<string, string> } = {},
): Told => {
  const { ageMs = 0, ...rest } = more;
  return { name, incarnation, heartbeat, ageMs, ...checkRecord(name, recordOf(name, rest)) };
};
const message = (teller: string, records: readonly Told[], beats: Message['beats'] = []): Message => ({
  teller,
  beats,
  records,
  want: [],
});
const read = (bytes: Buffer | undefined): Message => {
  const read = readMessage(bytes ?? Buffer.alloc(0));
  if (typeof read === 'string') throw new Error(read);
  return read;
};
/** What all members must come to agree on. */
const agreedOn = (one: Membership) =>
  [...one.entries()]
    .filter(({ name }) => name !== one.name)
    .map(({ name, incarnation, heartbeat, text }) => ({ name, incarnation, heartbeat, text }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));

/** One exchange, as it goes over the network. */
function exchange(a: Membership, b: Membership): void {
  const more = a.settle(read(b.answer(read(a.open()))));
  if (more !== undefined) b.answer(read(more));
}

test('maps that were told the same in different orders are the same', () => {
  const tale = fc.record({
    name: fc.constantFrom('x', 'y', 'z'),
    incarnation: fc.integer({ min: 1, max: 4 }),
    heartbeat: fc.integer({ min: 0, max: 4 }),
    ageMs: fc.integer({ min: 0, max: 60_000 }),
    left: fc.boolean(),
  });
  const tales = fc.array(tale, { minLength: 1, maxLength: 12 });
  const orders = tales.chain((all) =>
    fc.tuple(fc.shuffledSubarray(all, { minLength: all.length }), fc.constant(all), fc.array(fc.constantFrom(...all))),
  );
  fc.assert(
    fc.property(orders, ([shuffled, straight, again]) => {
      const [one, other] = [member('one'), member('other')];
      const tell = (to: Membership, all: typeof straight) => {
        for (const { name, incarnation, heartbeat, ...more } of all) {
          to.answer(message('teller', [told(name, incarnation, heartbeat, more)]));
        }
      };
      tell(one, straight);
      tell(other, [...shuffled, ...again]);
      expect(agreedOn(one)).toEqual(agreedOn(other));
    }),
    { numRuns: 500 },
  );
});

describe('what is said of us', () => {
  test.each([
    ['that we left', told('us', epoch + 5, 0, { left: true })],
    ['a later incarnation', told('us', epoch + 5, 7)],
    ['a heartbeat that we never had', told('us', epoch, 900_000)],
    ['the highest number that is let in', told('us', epoch + day, 0)],
  ])('%s: is contradicted at once, and the contradiction wins', (_, rumour) => {
    time = 0;
    const [us, peer] = [member('us'), member('peer')];
    peer.answer(message('teller', [rumour]));
    exchange(us, peer);
    expect(us.self.incarnation).toBe(rumour.incarnation + 1);
    time = 1;
    exchange(us, peer);
    expect(peer.get('us')).toMatchObject({ incarnation: rumour.incarnation + 1, state: 'healthy' });
    expect(peer.get('us')?.record.left).toBe(false);
  });

  test('a number that could never be passed by is taken by nobody', () => {
    time = 0;
    const skipped: string[] = [];
    const [us, peer] = [member('us'), member('peer', { onSkip: (name, why) => skipped.push(`${name}: ${why}`) })];
    for (const one of [us, peer]) {
      one.answer(message('teller', [told('us', Number.MAX_SAFE_INTEGER, 0), told('x', epoch + day + 1, 0)]));
    }
    expect(us.self.incarnation).toBe(epoch);
    expect(peer.get('us')).toBeUndefined();
    expect(skipped).toEqual([
      'us: its clock is more than a day ahead of ours',
      'x: its clock is more than a day ahead of ours',
    ]);
  });
});

test('two of one name notice each other, though they count in step', () => {
  time = 0;
  let heard = [0, 0];
  const peer = member('peer');
  const chances = seeded(3);
  const twins = [0, 1].map((i) => {
    const onRumour = () => {
      heard = heard.map((count, at) => count + (at === i ? 1 : 0));
    };
    return member('us', { random: chances, onRumour });
  });
  for (time = 1000; time < 31_000; time += 1000) {
    for (const twin of twins) {
      twin.tick();
      exchange(twin, peer);
    }
  }
  expect(Math.min(...heard)).toBeGreaterThan(9);
});

test('a changed record reaches the others, and the same one is no change', () => {
  time = 0;
  const [us, peer] = [member('us'), member('peer')];
  exchange(us, peer);
  us.update(recordOf('us'));
  expect(us.self.incarnation).toBe(epoch);
  us.update(recordOf('us', { labels: { a: 'b' } }));
  exchange(us, peer);
  expect(peer.get('us')?.record.labels).toEqual({ a: 'b' });
});

test('2,000 members reach one who joins, in messages of 64 KiB, and beats go round in slices', () => {
  time = 0;
  const [old, young] = [member('old', { maxMembers: 3000 }), member('young', { maxMembers: 3000 })];
  const all = Array.from({ length: 2000 }, (_, i) =>
    told(`a-member-with-a-long-name-as-some-have-them-${i}`, epoch, 1, { labels: { environment: 'production' } }),
  );
  old.answer(message('teller', all));
  let exchanges = 0;
  for (; [...young.entries()].length < 2002; exchanges++) {
    expect(exchanges).toBeLessThan(20);
    const opened = young.open();
    const answer = old.answer(read(opened));
    expect(Math.max(opened.length, answer.length)).toBeLessThanOrEqual(65_536);
    young.settle(read(answer));
  }
  expect(exchanges).toBeGreaterThan(5);
  old.answer(
    message(
      'teller',
      [],
      all.map((beat) => ({ ...beat, heartbeat: 2 })),
    ),
  );
  for (let i = 0; i < 8; i++) exchange(young, old);
  expect([...young.entries()].filter(({ heartbeat, name }) => name.length > 5 && heartbeat !== 2)).toEqual([]);
});

test('there is room for so many, and the longest dead goes for one who lives', () => {
  time = 20_000;
  const skipped: string[] = [];
  const one = member('one', { maxMembers: 4, onSkip: (name) => skipped.push(name) });
  one.answer(message('t', [told('x', 1, 1, { ageMs: 18_000 }), told('y', 1, 1, { ageMs: 19_000 }), told('z', 1, 1)]));
  one.answer(message('t', [told('dead', 1, 1, { ageMs: 17_000 })]));
  expect(one.names()).toEqual(['one', 'x', 'y', 'z']);
  one.answer(message('t', [told('new', 1, 1), told('newer', 1, 1), told('newest', 1, 1)]));
  expect(one.names()).toEqual(['new', 'newer', 'one', 'z']);
  expect(skipped).toEqual(['dead', 'newest']);
});

test.each([
  ['a name in capitals', 'Tka', {}],
  ['an http API endpoint', 'tka', { apiEndpoint: 'http://api.example.com' }],
  ['a label with a line break', 'tka', { labels: { a: 'b\nc' } }],
  ['a label with an escape', 'tka', { labels: { 'a\u001b[2J': 'b' } }],
  ['too many labels', 'tka', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, ''])) }],
  ['too much', 'tka', { labels: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`l${i}`, 'x'.repeat(200)])) }],
  ['a port that is none', 'tka', { gossipPort: 0 }],
  ['a server with a path', 'tka', { server: 'https://tka.example.ts.net/x' }],
])('nobody starts with %s', (_, name, more) => {
  expect(() => member('tka', { name, record: { ...recordOf('tka'), ...more } })).toThrow(/cannot be told to the mesh/);
});
