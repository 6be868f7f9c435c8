// Where the list of clusters comes from, and how far it is trusted.
import { describe, expect, it } from 'vitest';
import { findClusters } from '../../src/discovery/cluster-list.ts';
import type { FindOptions } from '../../src/discovery/listing.ts';
import { ListMemory, type RememberedList } from '../../src/discovery/memory.ts';
import type { Away } from '../../src/discovery/server-marks.ts';
import { Unavailable } from '../../src/network/failure.ts';
import { NotSignedIn, Refused } from '../../src/tka/errors.ts';
import type { Member } from '../../src/tka/memberlist.ts';
import { memberOf, peerOf, standInClient } from './stand-in.ts';

const seed = 'https://tka.example.ts.net';
const other = 'https://tka-eu.example.ts.net';
const liar = 'https://liar.example.ts.net';
const member = (name: string, server: string | null): Member => ({
  ...memberOf(`https://api.${name}.example.com`),
  name,
  server,
});

/** Keeps lists in memory. */
class Held extends ListMemory {
  readonly lists = new Map<string, RememberedList>();
  constructor(list?: RememberedList) {
    super(undefined);
    if (list !== undefined) this.lists.set(seed, list);
  }
  override read(server: string) {
    return this.lists.get(server);
  }
  override write(server: string, list: RememberedList) {
    this.lists.set(server, list);
  }
}

const remembered = (...servers: [server: string, provenance: 'stated' | 'tailnet'][]): RememberedList => ({
  at: Date.now() - 60_000,
  html: false,
  members: servers.map(([server, provenance], i) => ({
    ...member(`old-${i}`, server),
    ...{ listed: Date.now() - 60_000, tried: 0, provenance, since: 0 },
  })),
});

type Answer = readonly Member[] | Error | undefined;

function setUp(answers: Readonly<Record<string, Answer>>, more: Partial<FindOptions> = {}) {
  const said: string[] = [];
  const asked: string[] = [];
  const say = (line: string) => said.push(line);
  const options: FindOptions = {
    seeds: [seed],
    lists: [seed],
    named: true,
    known: [],
    memory: new Held(),
    away: { has: () => undefined, note: () => {}, clear: () => {} },
    tagged: async () => ({ peers: [] }),
    serverOf: ({ dnsName }) => `https://${dnsName}`,
    client: (server) =>
      standInClient({
        memberlist: async () => {
          asked.push(server);
          const answer = answers[server];
          if (answer instanceof Error) throw answer;
          return answer && { members: answer, cut: 0, unread: 0 };
        },
        memberlistPage: async () => ({ status: 404, headers: {}, body: '' }),
        clusterInfo: async () => ({
          apiServer: `${server}:6443`,
          caData: '',
          insecureSkipTlsVerify: false,
          labels: new Map(),
          cluster: null,
          signInStore: null,
        }),
      }),
    allows: async () => true,
    whyNot: async () => 'it is not trusted',
    log: say,
    warn: say,
    notice: say,
    ...more,
  };
  return { said, asked, found: () => findClusters(options), memory: options.memory as Held };
}

const away = new Unavailable('cannot reach it', 0);

describe('findClusters', () => {
  it('uses the seed’s list, and stores the stated servers as stated', async () => {
    const { found, memory } = setUp({ [seed]: [member('us', seed), member('eu', other)] });
    const { clusters, current } = await found();
    expect(current).toBe(true);
    expect(clusters.map(({ name, server, provenance, reason }) => [name, server, provenance, reason])).toEqual([
      ['eu', other, 'stated', null],
      ['us', seed, 'stated', null],
    ]);
    expect(memory.read(seed)?.members.map(({ provenance }) => provenance)).toEqual(['stated', 'stated']);
  });

  it.each([
    ['403', new Refused('no grant', 403)],
    ['401', new NotSignedIn('not signed in')],
  ])('a refusal of a named server is final: %s', async (_, refusal) => {
    const list = remembered([other, 'stated']);
    const { found, asked } = setUp({ [seed]: refusal, [other]: [member('eu', other)] }, { memory: new Held(list) });
    await expect(found()).rejects.toBe(refusal);
    expect(asked).toEqual([seed]);
  });

  describe('with two meshes in a tailnet and the configured server unreachable', () => {
    const second = 'https://tka-1.example.ts.net';
    const peers = [peerOf('liar'), peerOf('tka-1'), peerOf('tka', { addresses: ['100.64.0.7'] })];
    const tagged = async () => ({ peers });
    const elsewhere = [member('dev', liar)];

    it.each([
      ['has the configured server', [member('us', seed), member('us-1', second)], seed],
      ['has its node by another of its addresses', [member('us', seed)], 'https://100.64.0.7'],
      ['has the cluster that it is named after', [{ ...member('us-1', second), cluster: 'tka' }], seed],
      ['names no servers, as the Go server’s list', [member('us-1', null)], seed],
    ])('prefers the list that %s, even if another one arrives first', async (_, list, server) => {
      const { found } = setUp(
        { [server]: away, [liar]: elsewhere, [second]: list },
        { tagged, seeds: [server], lists: [server] },
      );
      const { clusters } = await found();
      expect(clusters.flatMap(({ servers }) => servers.map(({ name }) => name)).sort()).toEqual(
        list.map(({ name }) => name),
      );
    });

    it('shows the first list if none has it', async () => {
      const { found, said } = setUp({ [seed]: away, [liar]: elsewhere, [second]: away }, { tagged });
      expect((await found()).clusters.map(({ name }) => name)).toEqual(['dev']);
      expect(said).toContain(`${seed} did not answer; showing the list of ${liar}`);
    });
  });

  it('shows the last list with the reason if all discovered servers refuse', async () => {
    const no = new Refused(`${seed} refused the question: no grant (HTTP 403)`, 403);
    const memory = new Held(remembered([other, 'stated']));
    const { found, said } = setUp({ [seed]: no, [other]: no }, { named: false, seeds: [seed, other], memory });
    expect(await found()).toMatchObject({ current: false });
    expect(said).toEqual([
      expect.stringMatching(/ refused the question: no grant \(HTTP 403\); showing the list from /),
    ]);
  });

  it('asks another server if a discovered one refuses', async () => {
    const { found, said } = setUp(
      { [seed]: new Refused('no grant', 403), [other]: [member('eu', other)] },
      { named: false, seeds: [seed, other] },
    );
    expect((await found()).clusters.map(({ name }) => name)).toEqual(['eu']);
    expect(said).toEqual([`${seed} refused the list; showing the list of ${other}`]);
  });

  it('does not ask a remembered server that is not trusted while the seed is unreachable', async () => {
    const list = remembered([liar, 'stated'], [other, 'stated']);
    const { found, asked } = setUp(
      { [seed]: away, [other]: [member('eu', other)], [liar]: [member('eu', liar)] },
      { memory: new Held(list), allows: async (server) => server !== liar },
    );
    expect((await found()).clusters[0]).toMatchObject({ name: 'eu', server: other });
    expect(asked).toEqual([seed, other]);
  });

  it('asks an inferred server only if it is a tagged peer', async () => {
    const list = remembered([other, 'tailnet']);
    const answers = { [seed]: away, [other]: [member('eu', other)] };
    const without = setUp(answers, { memory: new Held(list) });
    expect((await without.found()).current).toBe(false);
    expect(without.asked).toEqual([seed]);
    const tagged = async () => ({ peers: [peerOf('tka-eu')] });
    const withTag = setUp(answers, { memory: new Held(list), tagged });
    expect((await withTag.found()).current).toBe(true);
  });

  it('lists a stated server that may not be used, with the reason', async () => {
    const { found } = setUp(
      { [seed]: [member('us', seed), member('eu', liar)] },
      { allows: async (server) => server !== liar },
    );
    expect((await found()).clusters.map(({ name, server, reason }) => [name, server, reason])).toEqual([
      ['eu', liar, 'it is not trusted'],
      ['us', seed, null],
    ]);
  });

  it('shows the last list with its age if no server answers', async () => {
    const { found, said } = setUp({ [seed]: away, [other]: away }, { memory: new Held(remembered([other, 'stated'])) });
    const { clusters, current } = await found();
    expect(current).toBe(false);
    expect(clusters.map(({ name, server, provenance }) => [name, server, provenance])).toEqual([
      ['old-0', other, 'stated'],
    ]);
    expect(said).toEqual([
      expect.stringMatching(/^no TKA server answered; showing the list from \d+s ago \(.*\d\d:\d\d\)$/),
    ]);
  });

  it('reports the seed’s error if no server answers and there is no list', async () => {
    await expect(setUp({ [seed]: away }).found()).rejects.toBe(away);
  });

  it('asks a server without a memberlist about its own cluster, marked as it was asked', async () => {
    const { found } = setUp({ [seed]: undefined });
    expect((await found()).clusters).toMatchObject([
      { server: seed, provenance: 'known', apiEndpoint: `${seed}:6443` },
    ]);
    const inferred = setUp({ [seed]: undefined }, { named: false });
    expect((await inferred.found()).clusters).toMatchObject([{ server: seed, provenance: 'tailnet' }]);
  });

  it('shows the servers of one cluster as one row, and an unlisted one for another day', async () => {
    const of = (name: string, server: string): Member => ({ ...member('us', server), name, cluster: 'us' });
    const hours = (n: number) => Date.now() - n * 3_600_000;
    const members = [
      { ...of('us', seed), listed: hours(1), tried: 0, provenance: 'stated', since: hours(9) } as const,
      { ...of('us-1', other), listed: hours(23), tried: 0, provenance: 'stated', since: hours(9) } as const,
      { ...of('us-2', liar), listed: hours(25), tried: 0, provenance: 'stated', since: hours(99) } as const,
    ];
    const memory = new Held({ at: hours(1), html: false, members });
    const { found } = setUp({ [seed]: [of('us', seed)] }, { memory });
    const { clusters } = await found();
    expect(clusters).toMatchObject([{ name: 'us', server: seed, state: 'unknown' }]);
    expect(clusters[0]?.servers.map(({ name, state }) => [name, state])).toEqual([
      ['us', 'unknown'],
      ['us-1', 'missing'],
    ]);
    expect(memory.read(seed)?.members.map(({ name, since }) => [name, since])).toEqual([
      ['us', members[0]?.since],
      ['us-1', members[1]?.since],
    ]);
  });

  it('does not report a renamed server as missing', async () => {
    const memory = new Held(remembered([other, 'stated']));
    const { found } = setUp({ [seed]: [{ ...member('old-0', other), name: 'new' }] }, { memory });
    expect((await found()).clusters).toMatchObject([{ name: 'new', servers: [{ name: 'new', state: 'unknown' }] }]);
  });

  it('keeps a joined cluster that is no longer listed, even if another one states its endpoint', async () => {
    const at = (host: string, name: string): Member => ({
      ...member('site', `https://${host}.example.ts.net/clusters/${name}`),
      ...{ name: null, cluster: name },
    });
    const times = { listed: Date.now() - 60_000, tried: 0, provenance: 'stated', since: 0 } as const;
    const members = [at('tka', 'a'), at('tka', 'b'), at('old', 'c')].map((each) => ({ ...each, ...times }));
    const memory = new Held({ at: times.listed, html: false, members });
    const { found } = setUp({ [seed]: [at('tka', 'b'), at('new', 'c')] }, { memory });
    const { clusters } = await found();
    expect(clusters.map(({ name, server, state }) => [name, server, state])).toEqual([
      ['b', at('tka', 'b').server, 'unknown'],
      ['c', at('new', 'c').server, 'unknown'],
      ['a', at('tka', 'a').server, 'missing'],
    ]);
  });

  it('uses the server that a context names', async () => {
    const of = (name: string, server: string): Member => ({ ...member('us', server), name, cluster: 'us' });
    const known = [{ server: other, apiServer: of('us', seed).apiEndpoint }];
    const { found } = setUp({ [seed]: [of('us', seed), of('us-1', other)] }, { known });
    expect((await found()).clusters).toMatchObject([{ name: 'us', server: other, servers: { length: 2 } }]);
  });

  it('warns of a name that two clusters claim', async () => {
    const { found, said } = setUp({ [seed]: [member('us', seed), { ...member('eu', other), name: 'us' }] });
    expect((await found()).clusters).toHaveLength(2);
    expect(said).toEqual([expect.stringMatching(/^2 clusters claim the name "us": .*api\.us\..* and .*api\.eu\./)]);
  });

  it('marks a server that did not answer, and asks it last from then on', async () => {
    const noted = new Map<string, Away>();
    const away = {
      has: (server: string) => noted.get(server),
      note: (server: string, how: Away) => void noted.set(server, how),
      clear: (server: string) => void noted.delete(server),
    };
    const gone = new Unavailable('cannot reach it', 0, { away: true });
    const list = remembered([seed, 'stated'], [other, 'stated']);
    const answers = { [seed]: gone, [other]: [member('eu', other)] };
    const before = setUp(answers, { memory: new Held(list), away });
    await before.found();
    expect(before.asked).toEqual([seed, other]);
    expect([...noted]).toEqual([[seed, 'failed']]);
    const after = setUp(answers, { memory: new Held(list), away });
    expect((await after.found()).current).toBe(true);
    expect(after.asked).toEqual([other]);
    expect(after.said).toEqual([`${seed} did not answer; showing the list of ${other}`]);
    const back = setUp({ [seed]: [member('us', seed)], [other]: gone }, { memory: new Held(list), away });
    await back.found();
    expect(back.asked).toEqual([other, seed]);
    expect([...noted]).toEqual([[other, 'failed']]);
  });

  it('does not mark a server that refuses or returns an invalid list', async () => {
    const noted: string[] = [];
    const away = { has: () => undefined, note: (server: string) => void noted.push(server), clear: () => {} };
    const { found } = setUp(
      { [seed]: new Refused('no', 403), [other]: [member('eu', other)] },
      { named: false, seeds: [seed, other], away },
    );
    await found();
    expect(noted).toEqual([]);
  });

  it('does not prefer tagged servers, which may be of another mesh, over the named server', async () => {
    const { found, asked } = setUp(
      { [seed]: [member('us', seed)] },
      { tagged: async () => ({ peers: [peerOf('tka-eu')] }) },
    );
    await found();
    expect(asked).toEqual([seed]);
  });

  describe('several meshes', () => {
    const [us, us1, lab, lab1] = ['tka-us', 'tka-us-1', 'tka-lab', 'tka-lab-1'].map(
      (host) => `https://${host}.example.ts.net`,
    ) as [string, string, string, string];
    const peers = ['tka-us', 'tka-us-1', 'tka-lab', 'tka-lab-1'].map((host) => peerOf(host));
    const tagged = async () => ({ peers });
    const mine = [member('us', us), { ...member('us', us1), name: 'us-1' }];
    const theirs = [member('lab', lab), member('lab-1', lab1)];
    const unnamed = { named: false, seeds: [us, us1, lab, lab1], tagged };

    it('lists all meshes of a tailnet, and asks a server only while no list has it', async () => {
      const { found, asked, said, memory } = setUp({ [us]: mine, [lab]: theirs, [lab1]: theirs }, unnamed);
      const { clusters, unlisted } = await found();
      expect(clusters.map(({ name }) => name)).toEqual(['lab', 'lab-1', 'us']);
      expect(unlisted).toEqual([]);
      expect(asked[0]).toBe(us);
      expect(asked).not.toContain(us1);
      expect(said).toEqual([]);
      expect(memory.read(us)?.members).toHaveLength(4);
    });

    it('asks a server about its cluster if it keeps no list or is not in its own', async () => {
      const { found } = setUp({ [us]: mine, [lab]: undefined, [lab1]: [] }, unnamed);
      const { clusters, unlisted } = await found();
      expect(clusters.map(({ server, apiEndpoint }) => [server, apiEndpoint]).sort()).toEqual(
        [
          [us, 'https://api.us.example.com'],
          [lab, `${lab}:6443`],
          [lab1, `${lab1}:6443`],
        ].sort(),
      );
      expect(unlisted).toEqual([]);
    });

    it('reports a server that does not answer, and loses nothing else', async () => {
      const { found } = setUp({ [us]: mine, [lab]: away, [lab1]: [theirs[1] as Member] }, unnamed);
      const { clusters, unlisted } = await found();
      expect(clusters.map(({ name }) => name)).toEqual(['lab-1', 'us']);
      expect(unlisted).toEqual([lab]);
    });

    it('uses the list of a named server, and reports the servers that are not in it', async () => {
      const { found, asked } = setUp({ [us]: mine, [lab]: theirs }, { ...unnamed, named: true, seeds: [us] });
      const { clusters, unlisted } = await found();
      expect(clusters.map(({ name }) => name)).toEqual(['us']);
      expect(unlisted).toEqual([lab, lab1]);
      expect(asked).toEqual([us]);
    });

    it('does not ask a peer that is offline or listed by its address', async () => {
      const there = [
        peerOf('tka-us'),
        peerOf('tka-off', { online: false }),
        peerOf('tka-at', { addresses: ['100.64.0.9'] }),
      ];
      const list = [member('us', us), member('at', 'http://100.64.0.9')];
      const { found, asked } = setUp({ [us]: list }, { ...unnamed, tagged: async () => ({ peers: there }) });
      expect((await found()).unlisted).toEqual([]);
      expect(asked).toEqual([us]);
    });

    it('does not ask each of a thousand servers of another mesh', async () => {
      const hosts = Array.from({ length: 1000 }, (_, i) => `tka-${i}`);
      const url = (host: string) => `https://${host}.example.ts.net`;
      const list = hosts.map((host) => member(host, url(host)));
      const answers = Object.fromEntries(hosts.map((host) => [url(host), list]));
      const { found, asked } = setUp(
        { [us]: mine, ...answers },
        { ...unnamed, tagged: async () => ({ peers: [...peers.slice(0, 2), ...hosts.map((host) => peerOf(host))] }) },
      );
      expect((await found()).clusters).toHaveLength(1001);
      expect(asked.length).toBeLessThan(20);
    });
  });
});
