// Which servers are one cluster, what it is called, and who has a say in that.
import { describe, expect, it } from 'vitest';
import { type GroupOptions, groupServers, type ServerRow } from '../../src/discovery/grouping.ts';

const us = 'https://api.us.example.com';
const eu = 'https://api.eu.example.com';
const tka = (host: string) => `https://${host}.example.ts.net`;

/** A server on a device of its name: `HOST`, or `HOST of CLUSTER`. */
function row(text: string, more: Partial<ServerRow> = {}): ServerRow {
  const [host = '', cluster = null] = text.split(' of ');
  return {
    ...{
      name: host,
      cluster,
      server: tka(host),
      provenance: 'stated',
      apiEndpoint: us,
      state: 'healthy',
      reason: null,
    },
    ...{ lastSeen: null, version: null, labels: new Map(), usable: true, since: 0 },
    ...more,
  };
}
const untrusted = { usable: false, reason: 'it is not tagged tag:tka' };
/** As the Go server lists it: placed on a device, but without a name. */
const nameless = { name: null, provenance: 'tailnet' } as const;

const group = (rows: readonly ServerRow[], options?: GroupOptions) =>
  groupServers(rows, options).clusters.map(({ name, apiEndpoint, state, server, servers }) => {
    const where = apiEndpoint === us ? 'us' : apiEndpoint === eu ? 'eu' : apiEndpoint;
    const host = server === null ? 'nowhere' : (/\/\/([^.]+)/.exec(server)?.[1] ?? '');
    return `${name} at ${where}: ${state}, by ${host}; ${servers.map((each) => each.name).join(' ')}`;
  });

interface Case {
  readonly rows: readonly ServerRow[];
  readonly known?: GroupOptions['known'];
  readonly expected: readonly string[];
}

const cases = (table: readonly [name: string, row: Case][]) =>
  it.each(table)('%s', (_, { rows, known = [], expected }) => expect(group(rows, { known })).toEqual(expected));

describe('which servers are one cluster', () => {
  cases([
    [
      'those that state the same endpoint and the same name',
      { rows: [row('us of us'), row('us-1 of us')], expected: ['us at us: healthy, by us; us us-1'] },
    ],
    [
      'not those that state the same endpoint and different names',
      {
        rows: [row('a of one'), row('b of two')],
        expected: ['one at us: healthy, by a; a', 'two at us: healthy, by b; b'],
      },
    ],
    [
      'not those that state the same name and different endpoints',
      {
        rows: [row('a of one'), row('b of one', { apiEndpoint: eu })],
        expected: ['one at eu: healthy, by b; b', 'one at us: healthy, by a; a'],
      },
    ],
    [
      'servers that state no name: those of one endpoint',
      {
        rows: [row('us-0'), row('us-1'), row('eu-0', { apiEndpoint: eu })],
        expected: ['eu-0 at eu: healthy, by eu-0; eu-0', 'us-0 at us: healthy, by us-0; us-0 us-1'],
      },
    ],
    [
      'a server that states no name is of the only cluster that its endpoint has',
      { rows: [row('a'), row('us of us')], expected: ['us at us: healthy, by us; a us'] },
    ],
    [
      'a server that states no name is of none of two clusters',
      {
        rows: [row('c'), row('a of one'), row('b of two')],
        expected: ['c at us: healthy, by c; c', 'one at us: healthy, by a; a', 'two at us: healthy, by b; b'],
      },
    ],
    [
      'a server that is listed twice counts once',
      { rows: [row('us of us'), row('us of us')], expected: ['us at us: healthy, by us; us'] },
    ],
    ['none', { rows: [], expected: [] }],
  ]);
});

describe('what a cluster is called', () => {
  cases([
    [
      'as its servers say, even if one of them says nothing',
      { rows: [row('a of prod', nameless), row('b')], expected: ['prod at us: healthy, by a; a b'] },
    ],
    [
      'a Go server’s: as the device that it was placed at',
      { rows: [row('tka-us', nameless)], expected: ['tka-us at us: healthy, by tka-us; tka-us'] },
    ],
    [
      'a Go server’s that was placed nowhere: as its API endpoint’s host',
      {
        rows: [row('', { ...nameless, server: null, state: 'unresolved', usable: false })],
        expected: ['api.us.example.com at us: unresolved, by nowhere; api.us.example.com'],
      },
    ],
    [
      'a new server of a cluster without a name does not rename it',
      {
        rows: [row('aaa', { ...nameless, since: 2 }), row('tka-us', { ...nameless, since: 1 })],
        expected: ['tka-us at us: healthy, by tka-us; aaa tka-us'],
      },
    ],
    [
      'two ports of one host are told apart',
      {
        rows: [1, 2].map((n) =>
          row('', {
            ...{ name: null, server: null, state: 'unresolved', usable: false },
            apiEndpoint: `https://lb.example.com:644${n}`,
          }),
        ),
        expected: [1, 2].map(
          (n) =>
            `lb.example.com:644${n} at https://lb.example.com:644${n}: unresolved, by nowhere; lb.example.com:644${n}`,
        ),
      },
    ],
  ]);

  it('a Go server at an address is called as the tailnet calls that address', () => {
    const rows = [row('', { ...nameless, server: 'http://100.64.0.7:8123' })];
    expect(group(rows, { nameOf: () => 'tka-us' })).toEqual(['tka-us at us: healthy, by 100; tka-us']);
    expect(group(rows)).toEqual(['api.us.example.com at us: healthy, by 100; api.us.example.com']);
  });
});

describe('which server is the one to use', () => {
  const known = (host: string, apiServer = us) => [{ server: tka(host), apiServer }];
  cases([
    [
      'the best',
      {
        rows: [row('us of us', { state: 'dead' }), row('us-1 of us', { state: 'suspected' }), row('us-2 of us')],
        expected: ['us at us: healthy, by us-2; us-2 us-1 us'],
      },
    ],
    [
      'of two that are as good, the one that is called like the cluster',
      { rows: [row('a of us'), row('us-1 of us'), row('us of us')], expected: ['us at us: healthy, by us; a us us-1'] },
    ],
    [
      'the one that a context names, while it is listed',
      {
        rows: [row('us of us'), row('us-1 of us', { state: 'suspected' })],
        known: known('us-1'),
        expected: ['us at us: healthy, by us-1; us us-1'],
      },
    ],
    [
      'not the one that a context for another API server names',
      {
        rows: [row('us of us'), row('us-1 of us')],
        known: known('us-1', eu),
        expected: ['us at us: healthy, by us; us us-1'],
      },
    ],
    [
      'not one that is no longer listed',
      {
        rows: [row('us of us'), row('us-0 of us', { state: 'missing' })],
        known: known('us-0'),
        expected: ['us at us: healthy, by us; us us-0'],
      },
    ],
  ]);
});

describe('who has no say', () => {
  cases([
    [
      'a server without the tag cannot become the server, or make a dead cluster healthy',
      {
        rows: [row('us of us', { state: 'dead' }), row('us-1 of us', untrusted)],
        expected: ['us at us: dead, by us; us-1 us'],
      },
    ],
    [
      'nor name a cluster whose servers state no name',
      {
        rows: [row('tka-us', { state: 'dead' }), row('evil of evil', untrusted), row('aaa', untrusted)],
        expected: ['evil at us: healthy, by evil; evil', 'tka-us at us: dead, by tka-us; aaa tka-us'],
      },
    ],
    [
      'nor keep servers without a name from their cluster',
      {
        rows: [row('a'), row('us of us'), row('evil of evil', untrusted)],
        expected: ['evil at us: healthy, by evil; evil', 'us at us: healthy, by us; a us'],
      },
    ],
    [
      'nor take a name away from a cluster at another endpoint',
      {
        rows: [row('evil of us', { ...untrusted, apiEndpoint: eu }), row('a of us')],
        expected: ['evil at eu: healthy, by evil; evil', 'us at us: healthy, by a; a'],
      },
    ],
    [
      'a tagged server of another cluster that claims this one cannot become the server, or hide that it is dead',
      {
        rows: [row('us of us', { state: 'dead' }), row('us-1 of us', { state: 'suspected' }), row('evil of us')],
        expected: ['us at us: suspected, by us-1; evil us-1 us'],
      },
    ],
    [
      'nor does it where the servers have other names and were there before',
      {
        rows: [row('aaa of us', { since: 2 }), row('tka-b of us', { since: 1 })],
        expected: ['us at us: healthy, by tka-b; aaa tka-b'],
      },
    ],
    [
      'nor can one at another endpoint take a device’s name',
      {
        rows: [row('evil of us', { apiEndpoint: eu }), row('us of us')],
        expected: ['evil at eu: healthy, by evil; evil', 'us at us: healthy, by us; us'],
      },
    ],
    [
      'one that alone is left speaks for itself',
      {
        rows: [row('us of us', { state: 'missing' }), row('tka-b of us')],
        expected: ['us at us: healthy, by tka-b; tka-b us'],
      },
    ],
  ]);
});

describe('warnings', () => {
  it('name both clusters that claim one name', () => {
    const { warnings } = groupServers([row('a of us'), row('b of us', { apiEndpoint: eu })]);
    expect(warnings).toEqual([`2 clusters claim the name "us": ${us} (${tka('a')}) and ${eu} (${tka('b')})`]);
  });

  it('not about a cluster that was made anew under its name', () => {
    expect(groupServers([row('a of us'), row('b of us', { apiEndpoint: eu, state: 'missing' })]).warnings).toEqual([]);
  });

  it('are few, however many claim a name', () => {
    const rows = Array.from({ length: 1000 }, (_, i) => row(`s${i} of n${i >> 1}`, { apiEndpoint: `${us}:${i + 1}` }));
    expect(groupServers(rows).warnings).toHaveLength(5);
  });
});

it('the state, the last sign of life and the labels are those of the servers that count', () => {
  const rows = [
    row('us of us', { lastSeen: '2026-11-21T10:00:00Z', labels: new Map([['env', 'prod']]), version: '1' }),
    row('us-1 of us', { lastSeen: '2026-11-21T11:00:00Z', labels: new Map([['env', 'other']]), state: 'dead' }),
    row('evil of us', { ...untrusted, lastSeen: '2026-11-21T12:00:00Z', labels: new Map([['env', 'evil']]) }),
  ];
  expect(groupServers(rows).clusters).toMatchObject([
    {
      state: 'healthy',
      reason: null,
      lastSeen: '2026-11-21T11:00:00Z',
      labels: new Map([['env', 'prod']]),
      version: '1',
    },
  ]);
});

it('ten thousand servers of one endpoint take no time to speak of', () => {
  const rows = Array.from({ length: 10_000 }, (_, i) =>
    row(`us-${i} of us`, { state: i % 2 === 0 ? 'dead' : 'healthy' }),
  );
  const began = process.cpuUsage();
  expect(groupServers(rows).clusters).toMatchObject([{ servers: { length: 10_000 } }]);
  expect(process.cpuUsage(began).user).toBeLessThan(2_000_000);
});
