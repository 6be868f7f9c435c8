// The steps from a member to its TKA server.
import { expect, it } from 'vitest';
import type { ListedMember } from '../../src/discovery/listing.ts';
import { memberId, memberResolver, type ResolveOptions, resolveServers } from '../../src/discovery/resolution.ts';
import { Unavailable } from '../../src/network/failure.ts';
import { memberOf, peerOf, standInClient } from './stand-in.ts';

const api = 'https://api.us.example.com';
const tka = (name: string) => `https://${name}.example.ts.net`;
const listed = (more: Partial<ListedMember> = {}): ListedMember => ({
  ...memberOf(api),
  ...{ id: null, address: null, gossipPort: null, isLocal: false },
  ...more,
});

interface Row {
  readonly member?: Partial<ListedMember>;
  readonly options?: Partial<ResolveOptions>;
  /** API endpoints by server, for the servers that answer. */
  readonly answers?: Readonly<Record<string, string>>;
  readonly expected: string;
}

const remembered = (server: string, provenance: 'stated' | 'tailnet'): ResolveOptions['remembered'] =>
  new Map([[api, [{ server, provenance }]]]);
const configured = new Map([[api, tka('mine')]]);
const none = async () => ({ peers: [] });
const away = async () => ({ peers: [], problem: 'no tailscaled' });
const id = memberId('tka-us', 7946);

it.each<[name: string, row: Row]>([
  ['stated by the list', { member: { server: tka('a') }, expected: `${tka('a')} stated` }],
  [
    'the server that was asked, marked as it was asked',
    { member: { isLocal: true }, expected: `${tka('entry')} known` },
  ],
  ['a tagged peer with the hashed name', { member: { id }, expected: `${tka('tka-us')} tailnet` }],
  [
    'an inferred server from memory stays inferred',
    { options: { remembered: remembered(tka('tka-us'), 'tailnet') }, expected: `${tka('tka-us')} tailnet` },
  ],
  [
    'an inferred server without its tag is not taken from memory',
    { options: { remembered: remembered(tka('gone'), 'tailnet') }, expected: 'nowhere' },
  ],
  [
    'an inferred server from memory is used while tailscaled is unavailable, and stays inferred',
    { options: { remembered: remembered(tka('gone'), 'tailnet'), tagged: away }, expected: `${tka('gone')} tailnet` },
  ],
  [
    'a stated server from memory stays stated',
    { options: { remembered: remembered(tka('b'), 'stated') }, expected: `${tka('b')} stated` },
  ],
  [
    'the user’s own context makes a server known',
    { options: { remembered: remembered(tka('mine'), 'stated'), configured }, expected: `${tka('mine')} known` },
  ],
  [
    'a context does not make an inferred server known',
    {
      options: { remembered: remembered(tka('mine'), 'tailnet'), configured, tagged: away },
      expected: `${tka('mine')} tailnet`,
    },
  ],
  [
    'a tagged peer that serves this cluster',
    { answers: { [tka('tka-us')]: api }, expected: `${tka('tka-us')} tailnet` },
  ],
  [
    'a tagged peer that serves another cluster',
    { answers: { [tka('tka-us')]: 'https://api.eu.example.com' }, expected: 'nowhere' },
  ],
  [
    'a peer that is asked only after a while',
    { answers: { [tka('tka-us')]: api }, options: { mayAsk: () => false }, expected: 'nowhere' },
  ],
  [
    'the server that was asked serves this cluster',
    { answers: { [tka('entry')]: api }, options: { tagged: none }, expected: `${tka('entry')} known` },
  ],
  ['a tagged peer at the address', { member: { address: '100.64.0.7' }, expected: `${tka('tka-eu')} tailnet` }],
  [
    'an offline tagged peer, by its hashed name',
    { member: { id: memberId('tka-off', 7946) }, expected: `${tka('tka-off')} tailnet` },
  ],
  ['the kubeconfig', { options: { configured }, expected: `${tka('mine')} known` }],
  ['no step finds a server', { expected: 'nowhere' }],
])('%s', async (_, { member, options, answers = {}, expected }) => {
  const it = listed(member);
  const { placed } = await resolveServers([it], {
    from: { server: tka('entry'), provenance: 'known' },
    remembered: new Map(),
    configured: new Map(),
    tagged: async () => ({
      peers: [peerOf('tka-us'), peerOf('tka-eu', { addresses: ['100.64.0.7'] }), peerOf('tka-off', { online: false })],
    }),
    serverOf: ({ dnsName }) => `https://${dnsName}`,
    mayAsk: () => true,
    client: (server) =>
      standInClient({
        clusterInfo: async () => {
          const apiServer = answers[server];
          if (apiServer === undefined) throw new Unavailable(`cannot reach ${server}`, 0);
          return {
            apiServer,
            caData: '',
            insecureSkipTlsVerify: false,
            labels: new Map(),
            cluster: null,
            signInStore: null,
          };
        },
      }),
    ...options,
  });
  const place = placed.get(it);
  expect(place === undefined ? 'nowhere' : `${place.server} ${place.provenance}`).toBe(expected);
});

it('never takes a joined cluster for the server of a member without one, from memory or from a context', async () => {
  const server = `${tka('hub')}/clusters/us`;
  const now = Date.now();
  const remembered = { ...memberOf(api), server, cluster: 'us', listed: now, tried: now, since: now };
  const resolve = memberResolver(
    { at: now, html: false, members: [{ ...remembered, provenance: 'stated' }] },
    {
      ...{ seeds: [tka('hub')], lists: [], named: true, known: [{ server, apiServer: api }], tagged: none },
      ...({
        serverOf: () => tka('none'),
        client: () => standInClient({}),
        log: () => {},
        warn: () => {},
      } as never as object),
    } as never,
    now,
  );
  const about = {
    server: tka('hub'),
    html: false,
    cut: 0,
    unread: 0,
    alone: false,
    provenanceOf: () => 'stated' as const,
  };
  const [member] = await resolve({ ...about, members: [listed({ name: 'go' })] });
  expect(member).toMatchObject({ server: null });
  const [own] = await resolve({ ...about, members: [listed({ server, cluster: 'us', through: 'hub', direct: true })] });
  expect(own).toMatchObject({ server, through: 'hub', direct: true, provenance: 'stated' });
});
