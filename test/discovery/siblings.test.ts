import { describe, expect, it } from 'vitest';
import type { RememberedList, RememberedMember } from '../../src/discovery/memory.ts';
import { knownClusters, type SiblingSources, siblingCandidates } from '../../src/discovery/siblings.ts';
import { memberOf } from './stand-in.ts';

const apiServer = 'https://api.us.example.com';
const seed = 'https://tka.example.ts.net';
const [us, us1, us2] = ['', '-1', '-2'].map((n) => `https://prod-us${n}.example.ts.net`) as [string, string, string];
const at = Date.now();

function row(server: string | null, more: Partial<RememberedMember> = {}): RememberedMember {
  const rest = { name: 'x', cluster: 'prod-us', server, listed: at, tried: 0, since: 0 };
  return { ...memberOf(apiServer), ...rest, provenance: 'stated', ...more };
}
const list = (...members: RememberedMember[]): RememberedList => ({ at, html: false, members });
const candidates = (lists: SiblingSources['lists'], more: Partial<SiblingSources> = {}) =>
  siblingCandidates(us, { apiServer, cluster: 'prod-us', kept: [], lists, isNamed: (s) => s === seed, ...more });

describe('siblingCandidates', () => {
  it.each<[string, RememberedMember]>([
    ['of another API server', row(us1, { apiEndpoint: 'https://api.eu.example.com' })],
    ['of another name', row(us1, { cluster: 'prod-eu' })],
    ['without a name (Go)', row(us1, { cluster: null })],
    ['without an address', row(null)],
    ['that is the server itself', row(us)],
  ])('leaves a server out %s', (_, member) => {
    expect(candidates([[seed, list(member)]])).toEqual([]);
  });

  it('marks a server as stated only if a list of a named server states it', () => {
    const provenance = (lists: SiblingSources['lists']) => candidates(lists)[0]?.provenance;
    expect(provenance([[seed, list(row(us1))]])).toBe('stated');
    expect(provenance([['https://found.example.ts.net', list(row(us1))]])).toBe('tailnet');
    expect(provenance([[seed, list(row(us1, { provenance: 'tailnet' }))]])).toBe('tailnet');
    const both: SiblingSources['lists'] = [
      ['https://found.example.ts.net', list(row(us1))],
      [seed, list(row(us1))],
    ];
    expect(provenance(both)).toBe('stated');
  });

  it('puts the servers that were healthy in the newest list first', () => {
    const old = { at: at - 5000, html: false, members: [row(us2, { state: 'dead' }), row(us1, { state: 'healthy' })] };
    const newest = list(row(us1, { state: 'dead' }), row(us2, { state: 'healthy' }));
    expect(candidates([[seed, newest]]).map(({ server }) => server)).toEqual([us2, us1]);
    const lists: SiblingSources['lists'] = [
      [seed, old],
      ['https://found.example.ts.net', newest],
    ];
    expect(candidates(lists).map(({ server }) => server)).toEqual([us2, us1]);
  });

  it('puts a server that is no longer listed last', () => {
    const gone = row(us1, { listed: at - 60_000 });
    expect(candidates([[seed, list(gone, row(us2))]]).map(({ server }) => server)).toEqual([us2, us1]);
  });

  describe('for a joined cluster', () => {
    const at = (n: number) => `https://hub-${n}.example.ts.net/clusters/prod-us`;
    const hub = (n: number, cluster = 'hub') =>
      row(`https://hub-${n}.example.ts.net`, { cluster, apiEndpoint: 'https://api.hub.example.com' });
    const joined = (n: number, through = 'hub') => row(at(n), { name: null, through });
    const rows = [hub(1), hub(2), hub(3, 'other'), joined(1), joined(2), joined(3), row(us1)];
    const servers = (server: string, members: RememberedMember[]) =>
      siblingCandidates(server, {
        ...{ apiServer, cluster: 'prod-us', kept: [], lists: [[seed, list(...members)]], isNamed: () => true },
      }).map((each) => each.server);

    it('returns only replicas of the same login server, not servers of a cluster with its name and endpoint', () => {
      expect(servers(at(1), rows)).toEqual([at(2)]);
      expect(servers(at(3), rows)).toEqual([]);
      expect(servers(at(1), [...rows, joined(2, 'another')])).toEqual([at(2)]);
    });

    it('is never one of the cluster’s own servers', () => {
      expect(servers(us, rows)).toEqual([us1]);
      const direct = rows.map((each) => (each.through === undefined ? each : { ...each, direct: true }));
      expect(servers(us, direct)).toEqual([us1]);
      expect(servers(at(1), direct)).toEqual([at(2)]);
    });

    it('returns none if no list contains it', () => {
      expect(servers(at(1), [hub(1), hub(2), joined(2)])).toEqual([]);
    });
  });

  it('includes servers that a context remembers, as inferred', () => {
    expect(candidates([], { kept: [us, us1, us1] })).toEqual([{ server: us1, provenance: 'tailnet' }]);
    expect(candidates([[seed, list(row(us1))]], { kept: [us1] })).toEqual([{ server: us1, provenance: 'stated' }]);
  });
});

it('the newest list with a server says which cluster it belongs to', () => {
  const way = `${seed}/clusters/prod-us`;
  const joined = (more: Partial<RememberedMember> = {}) => row(way, { name: null, through: 'hub', ...more });
  const old = { ...list(row(us), joined(), row(us2, { cluster: 'other' })), at: at - 60_000 };
  const newest = list(row(us), joined({ direct: true }));
  const ways = (lists: readonly RememberedList[]) =>
    knownClusters(lists).map(({ server, cluster, way: by }) => [server, cluster, by]);
  const expected = [
    [us, 'prod-us', ''],
    [way, 'prod-us', ''],
    [us2, 'other', ''],
  ];
  expect(ways([old, newest])).toEqual(expected);
  expect(ways([newest, old])).toEqual(expected);
});

it('an older list describes servers at an API endpoint that the newest one no longer states', () => {
  const way = `${seed}/clusters/prod-us`;
  const rows = (more: Partial<RememberedMember> = {}) => [
    row(us, more),
    row(way, { name: null, direct: true, ...more }),
  ];
  const old = { ...list(...rows(), row(us1)), at: at - 60_000 };
  const apiEndpoint = 'https://new.us.example.com';
  const found = knownClusters([old, list(...rows({ apiEndpoint }))]);
  expect(found.map((each) => [each.server, each.apiServer, each.way])).toEqual([
    [us, apiEndpoint, ''],
    [way, apiEndpoint, ''],
    [us, apiServer, ''],
    [way, apiServer, ''],
    [us1, apiServer, ''],
  ]);
});
