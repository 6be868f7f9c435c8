// A cluster is confirmed by its own server, else by another trusted server of it.
import { expect, it } from 'vitest';
import type { Cluster, ClusterServer } from '../../src/discovery/clusters.ts';
import { type ConfirmOptions, confirmCluster } from '../../src/discovery/confirm.ts';
import { TrustPolicy } from '../../src/discovery/trust.ts';
import { Unavailable } from '../../src/network/failure.ts';
import { Refused } from '../../src/tka/errors.ts';
import type { TkaError } from '../../src/util/errors.ts';
import { peerOf, standInClient } from './stand-in.ts';

const api = 'https://api.us.example.com';
const [us, us1, us2, laptop] = ['tka-us', 'tka-us-1', 'tka-us-2', 'laptop'].map(
  (host) => `https://${host}.example.ts.net`,
) as [string, string, string, string];
const [through1, through2] = [us1, us2].map((server) => `${server}/clusters/prod-us`) as [string, string];

const answers = {
  confirms: () => ({
    ...{ caData: '', insecureSkipTlsVerify: false, labels: new Map() },
    apiServer: api,
  }),
  'is another cluster’s': () => ({ ...answers.confirms(), apiServer: 'https://api.eu.example.com' }),
  'is away': () => {
    throw new Unavailable('no answer', 0, { away: true });
  },
  'gives a broken answer': () => {
    throw new Unavailable('no cluster-info', 0);
  },
  refuses: () => {
    throw new Refused('no grant', 403);
  },
};
type Behaviour = keyof typeof answers;

const row = (server: string | null, state: ClusterServer['state'] = 'healthy'): ClusterServer => ({
  ...{ name: server ?? 'gone', server, provenance: 'stated', state },
  ...{ reason: null, lastSeen: null, version: null },
});

async function confirmWith(
  behaviour: Readonly<Record<string, Behaviour>>,
  { server = us, state, ...more }: Partial<ConfirmOptions> & Partial<Pick<ClusterServer, 'server' | 'state'>> = {},
) {
  const asked: string[] = [];
  const timeouts: number[] = [];
  const forgotten: string[] = [];
  const { name, ...rest } = row(server, state);
  const others = Object.keys(behaviour).filter((each) => each !== server);
  const servers = [row(server, state), ...others.map((each) => row(each))];
  const cluster: Cluster = { ...rest, name: 'prod-us', apiEndpoint: api, through: null, labels: new Map(), servers };
  const options: ConfirmOptions = {
    trust: new TrustPolicy({
      tag: 'tag:tka',
      tagged: async () => ({ peers: ['tka-us', 'tka-us-1', 'tka-us-2'].map((host) => peerOf(host)) }),
      accepted: () => false,
      used: () => false,
      namedAs: () => undefined,
    }),
    client: (url) =>
      standInClient({
        clusterInfo: async ({ timeout }) => {
          asked.push(url);
          timeouts.push(timeout);
          return { ...answers[behaviour[url] ?? 'is away'](), cluster: null, signInStore: null };
        },
      }),
    timeout: 10_000,
    isAway: () => false,
    failover: true,
    forget: (endpoint, url) => forgotten.push(`${endpoint} ${url}`),
    log: () => {},
    ...more,
  };
  const confirmation = confirmCluster(cluster, options);
  const result = await confirmation.then(
    (info) => info.server,
    (error: Error) => error.message,
  );
  const hints = await confirmation.then(
    () => [],
    (error: TkaError) => error.hints,
  );
  return { result, hints, asked, timeouts, forgotten };
}

const notItsOwn = `${us} is not the TKA server of prod-us: it serves https://api.eu.example.com, not ${api}`;
const untagged = (server: string) => `cannot use the TKA server of prod-us: ${server} is not tagged tag:tka`;

it.each<{
  name: string;
  servers: Readonly<Record<string, Behaviour>>;
  options?: Parameters<typeof confirmWith>[1];
  result: string;
  asked: readonly string[];
  forgotten?: readonly string[];
}>([
  {
    name: 'its own server confirms it: no other is asked',
    servers: { [us]: 'confirms', [us1]: 'confirms' },
    result: us,
    asked: [us],
  },
  {
    name: 'forgets a server of another cluster, and asks the next one',
    servers: { [us]: 'is another cluster’s', [us1]: 'confirms' },
    options: { failover: false },
    result: us1,
    asked: [us, us1],
    forgotten: [us],
  },
  {
    name: 'forgets each server of another cluster, and reports the error of the first',
    servers: { [us]: 'is another cluster’s', [us1]: 'is another cluster’s' },
    result: notItsOwn,
    asked: [us, us1],
    forgotten: [us, us1],
  },
  {
    name: 'replaces an unreachable server for a sign-in',
    servers: { [us]: 'is away', [us1]: 'refuses', [us2]: 'confirms' },
    result: us2,
    asked: [us, us1, us2],
  },
  {
    name: 'does not replace an unreachable server otherwise',
    servers: { [us]: 'is away', [us1]: 'confirms' },
    options: { failover: false },
    result: 'no answer',
    asked: [us],
  },
  {
    name: 'does not replace a server that refuses',
    servers: { [us]: 'refuses', [us1]: 'confirms' },
    result: 'no grant',
    asked: [us],
  },
  {
    name: 'does not replace a server with a broken answer',
    servers: { [us]: 'gives a broken answer', [us1]: 'confirms' },
    result: 'no cluster-info',
    asked: [us],
  },
  {
    name: 'reports the error of the first server if all are unreachable',
    servers: { [us]: 'is away', [us1]: 'is away' },
    result: 'no answer',
    asked: [us, us1],
  },
  {
    name: 'does not ask a server without the tag',
    servers: { [laptop]: 'confirms', [us1]: 'confirms' },
    options: { server: laptop },
    result: untagged(laptop),
    asked: [],
  },
  {
    name: 'does not ask another server without the tag',
    servers: { [us]: 'is away', [laptop]: 'confirms', [us1]: 'confirms' },
    result: us1,
    asked: [us, us1],
  },
  {
    name: 'does not replace an unreachable server by the way through a login server',
    servers: { [us]: 'is away', [through1]: 'confirms', [us2]: 'confirms' },
    result: us2,
    asked: [us, us2],
  },
  {
    name: 'does not replace the way through a login server by a server of the cluster',
    servers: { [through1]: 'is another cluster’s', [us]: 'confirms', [through2]: 'confirms' },
    options: { server: through1 },
    result: through2,
    asked: [through1, through2],
    forgotten: [through1],
  },
  {
    name: 'a cluster without a known server',
    servers: { [us1]: 'confirms' },
    options: { server: null },
    result: 'prod-us has no known TKA server: unresolved',
    asked: [],
  },
])('$name', async ({ servers, options, result, asked, forgotten = [] }) => {
  expect(await confirmWith(servers, options)).toMatchObject({
    result,
    asked,
    forgotten: forgotten.map((server) => `${api} ${server}`),
  });
});

it('names the way through a login server if the cluster’s own server is away', async () => {
  const servers = { [us]: 'is away', [through1]: 'confirms' } as const;
  const { result, hints, asked } = await confirmWith(servers);
  expect({ result, asked }).toEqual({ result: 'no answer', asked: [us] });
  expect(hints).toEqual([`through its login server, with another account: kubectl tka login ${through1}`]);
  expect((await confirmWith(servers, { failover: false })).hints).toEqual([]);
  expect((await confirmWith({ [through1]: 'is away', [us]: 'confirms' }, { server: through1 })).hints).toEqual([]);
  // A replica of the same login server is not a way with another account.
  const replicas = { [through1]: 'is away', [through2]: 'is away' } as const;
  expect((await confirmWith(replicas, { server: through1, state: 'dead' })).hints).toEqual([]);
});

it('asks at most eight other servers', async () => {
  const hosts = Array.from({ length: 20 }, (_, i) => `https://tka-us-${i}.example.ts.net`);
  const servers = Object.fromEntries(hosts.map((server) => [server, 'is away'] as const));
  const trust = { allows: async () => true, require: async () => {} };
  const { result, asked } = await confirmWith({ [us]: 'is away', ...servers }, { trust });
  expect(result).toBe('no answer');
  expect(asked).toEqual([us, ...hosts.slice(0, 8)]);
});

it('gives a server that just did not answer less time, if the cluster has another', async () => {
  const isAway = (server: string) => server === us;
  const two = await confirmWith({ [us]: 'is away', [us1]: 'confirms' }, { isAway });
  expect(two.timeouts).toEqual([2000, 10_000]);
  const one = await confirmWith({ [us]: 'confirms' }, { isAway });
  expect(one.timeouts).toEqual([10_000]);
});
