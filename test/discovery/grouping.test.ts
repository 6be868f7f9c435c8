// Which servers form a cluster, the cluster's name, and which servers decide it.
import { describe, expect, it } from 'vitest';
import { type GroupOptions, groupServers, type ServerRow } from '../../src/discovery/grouping.ts';

const us = 'https://api.us.example.com';
const eu = 'https://api.eu.example.com';
const tka = (host: string) => `https://${host}.example.ts.net`;

/** Returns a server on a device of its name: `HOST`, or `HOST of CLUSTER`. */
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
/** As the Go server lists it: on a known device, but without a name. */
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

describe('servers of one cluster', () => {
  cases([
    [
      'state the same endpoint and the same name',
      { rows: [row('us of us'), row('us-1 of us')], expected: ['us at us: healthy, by us; us us-1'] },
    ],
    [
      'do not state different names for the same endpoint',
      {
        rows: [row('a of one'), row('b of two')],
        expected: ['one at us: healthy, by a; a', 'two at us: healthy, by b; b'],
      },
    ],
    [
      'do not state different endpoints for the same name',
      {
        rows: [row('a of one'), row('b of one', { apiEndpoint: eu })],
        expected: ['one at eu: healthy, by b; b', 'one at us: healthy, by a; a'],
      },
    ],
    [
      'share the endpoint, if they state no name',
      {
        rows: [row('us-0'), row('us-1'), row('eu-0', { apiEndpoint: eu })],
        expected: ['eu-0 at eu: healthy, by eu-0; eu-0', 'us-0 at us: healthy, by us-0; us-0 us-1'],
      },
    ],
    [
      'include a server without a name if its endpoint has one cluster only',
      { rows: [row('a'), row('us of us')], expected: ['us at us: healthy, by us; a us'] },
    ],
    [
      'do not include a server without a name if its endpoint has two clusters',
      {
        rows: [row('c'), row('a of one'), row('b of two')],
        expected: ['c at us: healthy, by c; c', 'one at us: healthy, by a; a', 'two at us: healthy, by b; b'],
      },
    ],
    [
      'include a server that is listed twice once',
      { rows: [row('us of us'), row('us of us')], expected: ['us at us: healthy, by us; us'] },
    ],
    ['none', { rows: [], expected: [] }],
  ]);
});

describe('the name of a cluster', () => {
  cases([
    [
      'is what its servers state, even if one states nothing',
      { rows: [row('a of prod', nameless), row('b')], expected: ['prod at us: healthy, by a; a b'] },
    ],
    [
      'for a Go server is its device',
      { rows: [row('tka-us', nameless)], expected: ['tka-us at us: healthy, by tka-us; tka-us'] },
    ],
    [
      'for a Go server without a device is the host of its API endpoint',
      {
        rows: [row('', { ...nameless, server: null, state: 'unresolved', usable: false })],
        expected: ['api.us.example.com at us: unresolved, by nowhere; api.us.example.com'],
      },
    ],
    [
      'does not change if a new server joins a cluster without a name',
      {
        rows: [row('aaa', { ...nameless, since: 2 }), row('tka-us', { ...nameless, since: 1 })],
        expected: ['tka-us at us: healthy, by tka-us; aaa tka-us'],
      },
    ],
    [
      'contains the port for two ports of one host',
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

  it('for a Go server listed by address is the address’s name in the tailnet', () => {
    const rows = [row('', { ...nameless, server: 'http://100.64.0.7:8123' })];
    expect(group(rows, { nameOf: () => 'tka-us' })).toEqual(['tka-us at us: healthy, by 100; tka-us']);
    expect(group(rows)).toEqual(['api.us.example.com at us: healthy, by 100; api.us.example.com']);
  });
});

describe('the server to use', () => {
  const known = (host: string, apiServer = us) => [{ server: tka(host), apiServer }];
  cases([
    [
      'is the healthiest',
      {
        rows: [row('us of us', { state: 'dead' }), row('us-1 of us', { state: 'suspected' }), row('us-2 of us')],
        expected: ['us at us: healthy, by us-2; us-2 us-1 us'],
      },
    ],
    [
      'is the one with the cluster’s name if two are equally good',
      { rows: [row('a of us'), row('us-1 of us'), row('us of us')], expected: ['us at us: healthy, by us; a us us-1'] },
    ],
    [
      'is the one that a context names while it is listed',
      {
        rows: [row('us of us'), row('us-1 of us', { state: 'suspected' })],
        known: known('us-1'),
        expected: ['us at us: healthy, by us-1; us us-1'],
      },
    ],
    [
      'is not the one that a context for another API server names',
      {
        rows: [row('us of us'), row('us-1 of us')],
        known: known('us-1', eu),
        expected: ['us at us: healthy, by us; us us-1'],
      },
    ],
    [
      'is not one that is no longer listed',
      {
        rows: [row('us of us'), row('us-0 of us', { state: 'missing' })],
        known: known('us-0'),
        expected: ['us at us: healthy, by us; us us-0'],
      },
    ],
  ]);
});

describe('servers without a vote', () => {
  cases([
    [
      'an untagged server cannot become the server, or make a dead cluster healthy',
      {
        rows: [row('us of us', { state: 'dead' }), row('us-1 of us', untrusted)],
        expected: ['us at us: dead, by us; us-1 us'],
      },
    ],
    [
      'an untagged server cannot name a cluster whose servers state no name',
      {
        rows: [row('tka-us', { state: 'dead' }), row('evil of evil', untrusted), row('aaa', untrusted)],
        expected: ['evil at us: healthy, by evil; evil', 'tka-us at us: dead, by tka-us; aaa tka-us'],
      },
    ],
    [
      'an untagged server cannot separate servers without a name from their cluster',
      {
        rows: [row('a'), row('us of us'), row('evil of evil', untrusted)],
        expected: ['evil at us: healthy, by evil; evil', 'us at us: healthy, by us; a us'],
      },
    ],
    [
      'an untagged server cannot take the name of a cluster at another endpoint',
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
      'a tagged server of another cluster cannot do so if the servers have other names and are older',
      {
        rows: [row('aaa of us', { since: 2 }), row('tka-b of us', { since: 1 })],
        expected: ['us at us: healthy, by tka-b; aaa tka-b'],
      },
    ],
    [
      'a tagged server at another endpoint cannot take a device’s name',
      {
        rows: [row('evil of us', { apiEndpoint: eu }), row('us of us')],
        expected: ['evil at eu: healthy, by evil; evil', 'us at us: healthy, by us; us'],
      },
    ],
    [
      'the only remaining server decides for itself',
      {
        rows: [row('us of us', { state: 'missing' }), row('tka-b of us')],
        expected: ['us at us: healthy, by tka-b; tka-b us'],
      },
    ],
  ]);
});

describe('warnings', () => {
  it('name both clusters that claim the same name', () => {
    const { warnings } = groupServers([row('a of us'), row('b of us', { apiEndpoint: eu })]);
    expect(warnings).toEqual([`2 clusters claim the name "us": ${us} (${tka('a')}) and ${eu} (${tka('b')})`]);
  });

  it('leave out a cluster that was recreated with its name', () => {
    expect(groupServers([row('a of us'), row('b of us', { apiEndpoint: eu, state: 'missing' })]).warnings).toEqual([]);
  });

  it('name a joined cluster that is missing and loses its name to another one', () => {
    const site = joined('hub-1/us through hub', { state: 'missing' });
    const { clusters, warnings } = groupServers([...replicas, row('us of us', { apiEndpoint: eu }), site]);
    expect(clusters.map(({ name }) => name)).toEqual(['hub', 'us', 'us-through-hub']);
    expect(warnings).toEqual([`2 clusters claim the name "us": ${eu} (${tka('us')}) and ${us} (${site.server})`]);
    expect(groupServers([...replicas, row('us of us', { state: 'missing' }), site]).warnings).toEqual([]);
  });

  it('are limited in number, however many servers claim a name', () => {
    const rows = Array.from({ length: 1000 }, (_, i) => row(`s${i} of n${i >> 1}`, { apiEndpoint: `${us}:${i + 1}` }));
    expect(groupServers(rows).warnings).toHaveLength(5);
  });
});

it('takes the state, the last-seen time and the labels from the servers that count', () => {
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

/**
 * Returns a row of a joined cluster at a login server: `HOST/NAME`, or `HOST/NAME through CLUSTER`. It states the same
 * endpoint as the clusters of the tailnet in these tables.
 */
function joined(text: string, more: Partial<ServerRow> = {}): ServerRow {
  const [place = '', through] = text.split(' through ');
  const [host = '', name = ''] = place.split('/');
  const server = `${tka(host)}/clusters/${name}`;
  return row('', { name: null, cluster: name, server, ...(through !== undefined && { through }), ...more });
}
/** The two replicas of a login server. */
const replicas = [row('hub-1 of hub', { apiEndpoint: eu }), row('hub-2 of hub', { apiEndpoint: eu })];
const hub = 'hub at eu: healthy, by hub-1; hub-1 hub-2';

describe('joined clusters', () => {
  cases([
    [
      'are one for all replicas of their login server, whatever endpoint each states',
      {
        rows: [
          ...replicas,
          joined('hub-1/site through hub', { state: 'dead' }),
          joined('hub-2/site through hub', { apiEndpoint: 'https://elsewhere' }),
        ],
        expected: [hub, 'site at us: healthy, by hub-2; site-through-hub-2 site-through-hub-1'],
      },
    ],
    [
      'keep their name while they are missing',
      {
        rows: [...replicas, joined('hub-1/site through hub', { state: 'missing' })],
        expected: [hub, 'site at us: missing, by hub-1; site-through-hub-1'],
      },
    ],
    [
      'are several with different names',
      {
        rows: [...replicas, joined('hub-1/a through hub'), joined('hub-1/b through hub')],
        expected: ['a at us: healthy, by hub-1; a-through-hub-1', 'b at us: healthy, by hub-1; b-through-hub-1', hub],
      },
    ],
    [
      'are several at servers that are not replicas of one login server',
      {
        rows: [replicas[0] as ServerRow, row('b of b', { apiEndpoint: 'https://b' })].concat(
          joined('hub-1/site through hub'),
          joined('b/site through hub'),
        ),
        expected: [
          'b at https://b: healthy, by b; b',
          'hub at eu: healthy, by hub-1; hub-1',
          'site-through-hub at us: healthy, by b; site-through-b',
          'site-through-hub at us: healthy, by hub-1; site-through-hub-1',
        ],
      },
    ],
    [
      'are several if the servers say that they are through different clusters',
      {
        rows: [...replicas, joined('hub-1/site through hub'), joined('hub-2/site through other')],
        expected: [
          hub,
          'site-through-hub at us: healthy, by hub-1; site-through-hub-1',
          'site-through-other at us: healthy, by hub-2; site-through-hub-2',
        ],
      },
    ],
    [
      'are never the cluster of the tailnet that they claim to be, and leave it its name',
      {
        rows: [...replicas, row('a of us', { state: 'dead' }), joined('hub-1/us through hub')],
        expected: [hub, 'us-through-hub at us: healthy, by hub-1; us-through-hub-1', 'us at us: dead, by a; a'],
      },
    ],
    [
      'leave the name to a cluster of the tailnet that is missing for the moment',
      {
        rows: [row('us of us', { state: 'missing' }), joined('hub-1/us')],
        expected: ['us-through-hub-1 at us: healthy, by hub-1; us-through-hub-1', 'us at us: missing, by us; us'],
      },
    ],
    [
      'keep their name if only an untagged server claims it',
      {
        rows: [...replicas, joined('hub-1/site through hub'), row('evil of site', untrusted)],
        expected: ['evil at us: healthy, by evil; evil', hub, 'site at us: healthy, by hub-1; site-through-hub-1'],
      },
    ],
    [
      'do not give a name to servers that state none',
      {
        rows: [row('go'), joined('hub-1/site')],
        expected: ['go at us: healthy, by go; go', 'site at us: healthy, by hub-1; site-through-hub-1'],
      },
    ],
    [
      'are a further way to a cluster of the tailnet if their login server says so',
      {
        rows: [...replicas, row('us of us', { state: 'dead' }), joined('hub-1/us through hub', { direct: true })],
        expected: [hub, 'us at us: dead, by us; us-through-hub-1 us'],
      },
    ],
    [
      'are not if their endpoint is another one',
      {
        rows: [row('us of us'), joined('hub-1/us', { direct: true, apiEndpoint: eu })],
        expected: ['us at us: healthy, by us; us', 'us-through-hub-1 at eu: healthy, by hub-1; us-through-hub-1'],
      },
    ],
    [
      'are not if their name is another one',
      {
        rows: [row('us of us'), row('go', nameless), joined('hub-1/site', { direct: true })],
        expected: ['site at us: healthy, by hub-1; site-through-hub-1', 'us at us: healthy, by us; go us'],
      },
    ],
    [
      'are the way to a cluster whose own servers have left the tailnet',
      {
        rows: [row('us of us', { state: 'missing' }), joined('hub-1/us', { direct: true })],
        expected: ['us at us: healthy, by hub-1; us-through-hub-1 us'],
      },
    ],
    [
      'use the replica that a context names',
      {
        rows: [...replicas, joined('hub-1/site through hub'), joined('hub-2/site through hub')],
        known: [{ server: `${tka('hub-2')}/clusters/site`, apiServer: us }],
        expected: [hub, 'site at us: healthy, by hub-2; site-through-hub-1 site-through-hub-2'],
      },
    ],
    [
      'have the name in their URL, whatever name they state',
      {
        rows: [joined('hub-1/site', { cluster: 'prod' }), joined('hub-1/other', { cluster: null })],
        expected: [
          'other at us: healthy, by hub-1; other-through-hub-1',
          'site at us: healthy, by hub-1; site-through-hub-1',
        ],
      },
    ],
    [
      'do not have the name of a login server that the row states',
      {
        rows: [joined('hub-1/site', { name: 'hub-1' })],
        expected: ['site at us: healthy, by hub-1; site-through-hub-1'],
      },
    ],
  ]);

  it('say through whom, and clusters of the tailnet do not', () => {
    const rows = [
      row('us of us'),
      joined('hub-1/us', { direct: true }),
      joined('hub-1/a through x'),
      joined('hub-1/b'),
    ];
    const through = groupServers(rows).clusters.map(({ name, through: whom }) => [name, whom]);
    expect(through).toEqual([
      ['a', 'x'],
      ['b', 'hub-1'],
      ['us', null],
    ]);
  });

  it('say through whom if that way to a cluster of the tailnet is chosen', () => {
    const way = joined('hub-1/us through hub', { direct: true });
    const known = [{ server: way.server ?? '', apiServer: us }];
    const through = groupServers([row('us of us'), way], { known }).clusters.map((each) => [each.server, each.through]);
    expect(through).toEqual([[way.server, 'hub']]);
  });

  it('are grouped the same way in any order', () => {
    const rows = [
      ...[...replicas, row('us of us'), joined('hub-1/us through hub'), joined('hub-2/us through hub')],
      ...[row('hub-1 of fake', { apiEndpoint: us }), joined('b/site through hub'), joined('hub-1/site through hub')],
    ];
    const expected = group(rows);
    for (let i = 1; i < rows.length; i++) expect(group([...rows.slice(i), ...rows.slice(0, i)])).toEqual(expected);
    expect(group([...rows].reverse())).toEqual(expected);
  });

  it('are grouped quickly, a thousand at each of two replicas', () => {
    const rows = [
      ...replicas,
      ...replicas.flatMap((_, r) => Array.from({ length: 1000 }, (_, i) => joined(`hub-${r + 1}/s${i} through hub`))),
    ];
    const began = process.cpuUsage();
    expect(groupServers(rows).clusters).toHaveLength(1001);
    expect(process.cpuUsage(began).user).toBeLessThan(2_000_000);
  });
});

it('groups ten thousand servers of one endpoint quickly', () => {
  const rows = Array.from({ length: 10_000 }, (_, i) =>
    row(`us-${i} of us`, { state: i % 2 === 0 ? 'dead' : 'healthy' }),
  );
  const began = process.cpuUsage();
  expect(groupServers(rows).clusters).toMatchObject([{ servers: { length: 10_000 } }]);
  expect(process.cpuUsage(began).user).toBeLessThan(2_000_000);
});
