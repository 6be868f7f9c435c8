import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JoinedRow } from '../../../src/server/mesh/joined.ts';
import { digestOf } from '../../../src/server/mesh/member.ts';
import { death, type Machine, recordOf, Simulation, type SimulationOptions, staleness } from './simulation.ts';

/** Rounds in which each member is read once. */
const cycle = (size: number) => Math.min(60, Math.ceil(size / 3));
/** Rounds until all agree after the last change, as README.md promises. A dead member must be found dead first. */
const bound = (size: number) => death + staleness + 5 + 2 * Math.ceil(Math.log2(size)) + cycle(size);

function started(options: Omit<SimulationOptions, 'seed'> & { seed?: number }): Simulation {
  const simulation = new Simulation({ seed: 1, ...options });
  for (const machine of simulation.machines) simulation.start(machine);
  return simulation;
}
const at = (simulation: Simulation, index: number): Machine => {
  const { machines } = simulation;
  return machines[index % machines.length] as Machine;
};
/** Splits the network in two; the last machines of all can reach only each other. */
const split = (simulation: Simulation, from: number) => {
  for (const machine of simulation.machines) machine.part = machine.index < from ? 0 : 1;
};
const heal = (simulation: Simulation) => split(simulation, Number.POSITIVE_INFINITY);
const why = (simulation: Simulation) =>
  simulation.machines.flatMap(({ core }) => (core && simulation.disagreement(core)) ?? []).slice(0, 3);

test.each([3, 10, 60])('%i members on a good network find each other, and none is ever suspected', (size) => {
  const simulation = started({ size, delayMs: 300, drift: 0.02, skewMs: 60_000 });
  expect(
    simulation.rounds(3 + Math.ceil(Math.log2(size)), () => simulation.agreed()),
    `${why(simulation)}`,
  ).toBeDefined();
  simulation.rounds(15);
  expect(simulation.doubts).toEqual({ suspected: 0, dead: 0 });
});

test.each([50, 300])(
  '%i members of a bad network cost at most 1 kB a second each, and learn of changes quickly',
  {
    timeout: 240_000,
  },
  (size) => {
    const simulation = new Simulation({ seed: 1, size, loss: 0.05 });
    simulation.startKnown();
    // What was just read is still news.
    simulation.rounds(15);
    const { bytes } = simulation;
    simulation.rounds(30);
    expect((simulation.bytes - bytes) / 30 / size).toBeLessThan(1000);
    const one = at(simulation, size >> 1);
    simulation.kill(one);
    expect(
      simulation.rounds(30, () => simulation.agreed()),
      `${why(simulation)}`,
    ).toBeDefined();
    simulation.start(one);
    expect(
      simulation.rounds(10, () => simulation.agreed()),
      `${why(simulation)}`,
    ).toBeDefined();
    expect(simulation.doubts.dead).toBe(0);
  },
);

describe('joined clusters', () => {
  const rows = (change: number): JoinedRow[] =>
    Array.from({ length: 200 }, (_, i) => ({
      cluster: `site-${i}`,
      apiEndpoint: `https://api.site-${i}.example.com:6443`,
      labels: { env: 'prod' },
      state: i < change ? 'dead' : 'healthy',
    }));
  /** Returns how many clusters of a login server are dead as each member has it; -1 if it has no page. */
  const seen = ({ machines }: Simulation, login: Machine) =>
    new Set(
      machines
        .filter((machine) => machine !== login)
        .map(({ core }) => core?.joined().find(({ owner }) => owner.name === login.name))
        .map((page) => page?.rows.filter(({ state }) => state === 'dead').length ?? -1),
    );

  test('reach all members of a bad network within a cycle, and cost nothing while they stay the same', () => {
    const [size, loss] = [40, 0.05];
    const idle = (simulation: Simulation) => {
      simulation.rounds(25);
      const bytes = simulation.bytes - simulation.pages.bytes;
      simulation.rounds(40);
      return simulation.bytes - simulation.pages.bytes - bytes;
    };
    const without = started({ size, loss, named: true });
    const usual = idle(without);
    expect(without.pages).toEqual({ count: 0, bytes: 0 });
    const simulation = started({ size, loss, named: true });
    const [login, replica] = [at(simulation, 0), at(simulation, 1)];
    for (const one of [login, replica]) one.core?.publishJoined(rows(0));
    expect(
      simulation.rounds(bound(size), () => seen(simulation, login).has(0) && seen(simulation, login).size === 1),
    ).toBeDefined();
    // Only the records of two members have become longer.
    expect(idle(simulation)).toBeLessThan(1.05 * usual);
    const { count } = simulation.pages;
    expect(count).toBeLessThan(1.2 * 2 * (size - 1));
    simulation.rounds(40);
    expect(simulation.pages.count).toBe(count);
    login.core?.publishJoined(rows(7));
    const all = (dead: number) => seen(simulation, login).size === 1 && seen(simulation, login).has(dead);
    expect(
      simulation.rounds(bound(size), () => all(7)),
      `${[...seen(simulation, login)]}`,
    ).toBeDefined();
    expect(simulation.violations).toEqual([]);
  });

  test('follow their login server: restarted, split off, dead and back', () => {
    const size = 20;
    const simulation = started({ size, loss: 0.05, delayMs: 300, named: true });
    const login = at(simulation, 0);
    const others = simulation.machines.filter((machine) => machine !== login);
    const states = () =>
      new Set(
        others.map(({ core }) =>
          core
            ?.joined()
            .map(({ owner, rows: { length } }) => `${owner.state} ${length}`)
            .join(),
        ),
      );
    const everywhere = (text: string) =>
      simulation.rounds(2 * bound(size), () => states().size === 1 && states().has(text));
    login.core?.publishJoined(rows(1));
    expect(everywhere('healthy 200'), [...states()].join()).toBeDefined();
    for (const machine of others) machine.part = 1;
    expect(everywhere('dead 200'), [...states()].join()).toBeDefined();
    heal(simulation);
    expect(everywhere('healthy 200'), [...states()].join()).toBeDefined();
    simulation.kill(login);
    simulation.start(login);
    login.core?.publishJoined(rows(2).slice(0, 100));
    expect(everywhere('healthy 100'), [...states()].join()).toBeDefined();
    expect(simulation.violations).toEqual([]);
  });
});

test('a bad network makes no member dead', { timeout: 240_000 }, () => {
  const simulation = started({ size: 20, loss: 0.1, delayMs: 900, duplicate: 0.2, drift: 0.05, skewMs: 3_600_000 });
  expect(simulation.rounds(bound(20), () => simulation.agreed())).toBeDefined();
  simulation.rounds(100);
  expect(simulation.doubts.dead).toBe(0);
});

const happening = fc.record({
  wait: fc.integer({ min: 0, max: 14 }),
  what: fc.constantFrom('kill', 'leave', 'restart', 'pause', 'resume', 'split', 'heal'),
  who: fc.nat(1000),
  // The clock of a machine that restarts may have been set back or ahead.
  clockMs: fc.integer({ min: -12 * 3_600_000, max: 3_600_000 }),
});

function happens(
  simulation: Simulation,
  { wait, what, who, clockMs }: typeof happening extends fc.Arbitrary<infer T> ? T : never,
) {
  simulation.rounds(wait);
  const machine = at(simulation, who);
  if (what === 'kill') simulation.kill(machine);
  else if (what === 'leave' && !machine.paused) simulation.leave(machine);
  else if (what === 'restart') {
    simulation.kill(machine);
    machine.wallOffset += clockMs;
    simulation.start(machine);
  } else if (what === 'pause') machine.paused = true;
  else if (what === 'resume') machine.paused = false;
  else if (what === 'split') split(simulation, 1 + (who % (simulation.machines.length - 1)));
  else if (what === 'heal') heal(simulation);
}

test('in any scenario no member comes back by rumour, and all agree once the network is whole', {
  timeout: 240_000,
}, () => {
  fc.assert(
    fc.property(
      fc.record({
        seed: fc.integer(),
        size: fc.integer({ min: 3, max: 24 }),
        loss: fc.double({ min: 0, max: 0.1, noNaN: true }),
        duplicate: fc.double({ min: 0, max: 0.3, noNaN: true }),
        delayMs: fc.integer({ min: 1, max: 900 }),
        skewMs: fc.constantFrom(0, 5_000, 3_600_000),
        drift: fc.constantFrom(0, 0.01, 0.05),
        // The small one holds one or two records, or the heartbeats of some twenty members.
        maxMessage: fc.constantFrom(1200, 64 * 1024),
      }),
      fc.array(happening, { maxLength: 14 }),
      (options, happenings) => {
        const simulation = started(options);
        for (const one of happenings) happens(simulation, one);
        heal(simulation);
        for (const machine of simulation.machines) machine.paused = false;
        const size = options.size * (options.maxMessage > 5000 ? 1 : 4);
        const rounds = simulation.rounds(bound(size), () => simulation.agreed());
        expect(rounds, `${why(simulation)}`).toBeDefined();
        expect(simulation.violations).toEqual([]);
        expect(simulation.longest).toBeLessThanOrEqual(options.maxMessage);
      },
    ),
    { seed: 20261121, numRuns: 60 },
  );
});

test('60 members: join, a split network, deaths, and whole again', { timeout: 240_000 }, () => {
  const simulation = started({ size: 60, loss: 0.05, delayMs: 200, drift: 0.01, skewMs: 5_000 });
  expect(
    simulation.rounds(bound(60), () => simulation.agreed()),
    `${why(simulation)}`,
  ).toBeDefined();
  expect(simulation.doubts.dead).toBe(0);
  split(simulation, 30);
  for (const index of [0, 37, 55]) simulation.kill(at(simulation, index));
  simulation.rounds(death + 4 + cycle(60));
  // Most members of each half had considered most of the other dead.
  expect(simulation.doubts.dead).toBeGreaterThan(30 * 30);
  heal(simulation);
  expect(
    simulation.rounds(bound(60), () => simulation.agreed()),
    `${why(simulation)}`,
  ).toBeDefined();
  expect(simulation.violations).toEqual([]);
  expect(simulation.longest).toBeLessThanOrEqual(64 * 1024);
});

describe('a liar among the members', () => {
  const liar = 5;
  const victim = 'tka-cluster-0002';
  /**
   * Its messages: its own address under another's name, another's record, that another leaves, and unused addresses.
   */
  const lies: Record<string, (message: Record<string, unknown>, own: string) => object> = {
    'another’s name': (message) => ({ ...message, name: victim }),
    'another’s name and address': (message, own) => ({
      ...message,
      name: victim,
      ...(message.at !== undefined && { at: `${victim}.example.ts.net:7946`, leaving: true }),
      ...recordLike(message, { ...recordOf(victim), apiEndpoint: `https://api.${own}.example.com` }),
    }),
    'another’s record, which has left': (message) => ({
      ...message,
      name: victim,
      ...recordLike(message, { ...recordOf(victim), left: true }),
    }),
    'unused addresses, and another’s under a wrong port': (message) => ({
      ...message,
      ...(message.others !== undefined && {
        others: Array.from({ length: 500 }, (_, i) => `${i % 2 ? victim : `x-${i}`}.example.ts.net:${1 + i}`),
      }),
    }),
  };
  const recordLike = (message: Record<string, unknown>, record: object) =>
    message.others === undefined ? {} : { record, version: digestOf(JSON.stringify(record)) };

  test.each(Object.keys(lies))('%s: in a tailnet every other member is shown only as it states itself', (what) => {
    const simulation = new Simulation({ seed: 4, size: 12, tailnet: true });
    const lying = at(simulation, liar);
    lying.lie = (bytes) => Buffer.from(JSON.stringify(lies[what]?.(JSON.parse(bytes.toString()), lying.name)));
    for (const machine of simulation.machines) simulation.start(machine);
    const honest = simulation.machines.filter((machine) => machine !== lying);
    expect(simulation.rounds(bound(12), () => simulation.agreed(honest))).toBeDefined();
    simulation.rounds(60);
    expect(simulation.doubts).toEqual({ suspected: 0, dead: 0 });
    // A dead member stays dead, whatever the liar says.
    simulation.kill(at(simulation, 2));
    expect(simulation.rounds(bound(12), () => simulation.agreed(honest))).toBeDefined();
    simulation.rounds(60);
    expect(simulation.agreed(honest)).toBe(true);
    expect(simulation.violations).toEqual([]);
  });

  test.each(Object.keys(lies))('%s: with a key, no running member is displaced where it is known', (what) => {
    const simulation = started({ size: 12 });
    expect(simulation.rounds(bound(12), () => simulation.agreed())).toBeDefined();
    const lying = at(simulation, liar);
    lying.lie = (bytes) => Buffer.from(JSON.stringify(lies[what]?.(JSON.parse(bytes.toString()), lying.name)));
    const honest = simulation.machines.filter((machine) => machine !== lying);
    simulation.rounds(100);
    expect(simulation.agreed(honest)).toBe(true);
    expect(simulation.violations).toEqual([]);
  });
});

describe('one event after the other', () => {
  test('a killed member is suspected, then dead, and comes back with a new process', () => {
    const simulation = started({ size: 5 });
    simulation.rounds(bound(5), () => simulation.agreed());
    const [one, other] = [at(simulation, 3), at(simulation, 4)];
    const state = () => other.core?.get(one.name)?.state;
    simulation.kill(one);
    expect(simulation.rounds(staleness + 2, () => state() === 'suspected')).toBeGreaterThanOrEqual(staleness - 1);
    expect(simulation.rounds(death, () => state() === 'dead')).toBeGreaterThanOrEqual(death - staleness - 1);
    // Its clock has been set back by an hour.
    const before = other.core?.get(one.name)?.process;
    one.wallOffset -= 3_600_000;
    simulation.start(one);
    expect(
      simulation.rounds(3, () => simulation.agreed()),
      `${why(simulation)}`,
    ).toBeDefined();
    expect(other.core?.get(one.name)?.process).not.toBe(before);
  });

  test('a member that leaves is dead at once, and stays dead', () => {
    const simulation = started({ size: 12 });
    simulation.rounds(bound(12), () => simulation.agreed());
    simulation.leave(at(simulation, 0));
    expect(
      simulation.rounds(3, () => simulation.agreed()),
      `${why(simulation)}`,
    ).toBeDefined();
    simulation.rounds(40);
    expect(simulation.agreed()).toBe(true);
    expect(simulation.violations).toEqual([]);
  });

  test.each(['kill', 'leave'] as const)(
    'a dead member that is dropped (%s) is not brought back by the others, and comes back when it runs again',
    (end) => {
      const simulation = started({ size: 10 });
      simulation.rounds(bound(10), () => simulation.agreed());
      const [gone, dropping, other] = [at(simulation, 7), at(simulation, 4), at(simulation, 5)];
      simulation[end](gone);
      expect(simulation.rounds(bound(10), () => simulation.agreed())).toBeDefined();
      expect(dropping.core?.drop(gone.name)).toBe('dead');
      const knew: number[] = [];
      // A member that joins now learns everything that the others know.
      const late = at(simulation, 9);
      simulation.kill(late);
      simulation.start(late);
      simulation.rounds(200, () => {
        if (dropping.core?.get(gone.name) !== undefined) knew.push(simulation.now);
        return false;
      });
      expect(knew).toEqual([]);
      expect(other.core?.get(gone.name)?.state).toBe('dead');
      expect(dropping.core?.drop(gone.name)).toBeUndefined();
      simulation.start(gone);
      expect(
        simulation.rounds(bound(10), () => simulation.agreed()),
        `${why(simulation)}`,
      ).toBeDefined();
      expect(dropping.core?.get(gone.name)?.state).toBe('healthy');
      expect(simulation.violations).toEqual([]);
    },
  );

  test('a running member is not dropped, nor the member itself', () => {
    const simulation = started({ size: 4 });
    simulation.rounds(bound(4), () => simulation.agreed());
    const [one, other] = [at(simulation, 1), at(simulation, 2)];
    expect(one.core?.drop(other.name)).toBe('healthy');
    expect(one.core?.drop(one.name)).toBe('healthy');
    expect(one.core?.drop('nobody')).toBeUndefined();
    simulation.kill(other);
    expect(simulation.rounds(staleness + 2, () => one.core?.get(other.name)?.state === 'suspected')).toBeDefined();
    expect(one.core?.drop(other.name)).toBe('suspected');
    expect(one.core?.get(other.name)).toBeDefined();
    // A member that leaves is dead to itself.
    simulation.leave(one);
    expect(one.core?.drop(one.name)).toBe('dead');
    expect(one.core?.get(one.name)).toBeDefined();
  });

  test('a member that is stopped and continued considers no other dead', () => {
    const simulation = started({ size: 8 });
    simulation.rounds(bound(8), () => simulation.agreed());
    const sleeper = at(simulation, 5);
    sleeper.paused = true;
    simulation.rounds(60);
    expect(at(simulation, 1).core?.get(sleeper.name)?.state).toBe('dead');
    const { dead } = simulation.doubts;
    sleeper.paused = false;
    expect(
      simulation.rounds(4, () => simulation.agreed()),
      `${why(simulation)}`,
    ).toBeDefined();
    expect(simulation.doubts.dead).toBe(dead);
  });

  test('all forget the dead, and shortly before do not tell new members about them', () => {
    const simulation = started({ size: 6, forgetAfterMs: 70_000 });
    simulation.rounds(bound(6), () => simulation.agreed());
    const [gone, late] = [at(simulation, 2), at(simulation, 5)];
    simulation.kill(gone);
    simulation.rounds(62);
    expect(at(simulation, 1).core?.get(gone.name)?.state).toBe('dead');
    simulation.kill(late);
    simulation.start(late);
    simulation.rounds(4);
    expect(late.core?.get(gone.name)).toBeUndefined();
    simulation.rounds(death + 4);
    const known = () => simulation.machines.filter(({ core }) => core?.get(gone.name) !== undefined);
    expect(known()).toEqual([]);
    simulation.rounds(100);
    expect(known()).toEqual([]);
    expect(simulation.violations).toEqual([]);
  });
});
