// Which managed contexts belong to which cluster, and which cluster a name means.
import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { clusterByName } from '../../../src/cli/target/by-name.ts';
import { contextsByCluster } from '../../../src/cli/target/contexts.ts';
import type { Cluster, ClusterServer } from '../../../src/discovery/clusters.ts';
import type { OurContext } from '../../../src/kubeconfig/index.ts';
import { UsageError } from '../../../src/util/errors.ts';

const api = 'https://api.site.example.com';
const at = (host: string, name = 'site') => `https://${host}.example.ts.net/clusters/${name}`;

function cluster(name: string, through: string | null, servers: readonly [string, ...string[]], apiEndpoint = api) {
  const state = { state: 'healthy', reason: null, lastSeen: null, version: null, provenance: 'stated' } as const;
  const all = servers.map((server): ClusterServer => ({ ...state, name, server }));
  return {
    ...state,
    name,
    server: servers[0],
    apiEndpoint,
    through,
    labels: new Map(),
    servers: all,
  } satisfies Cluster;
}

function contextFor(server: string, apiServer = api, signInStore?: string): OurContext {
  const rest = { file: 'config', command: undefined, caData: undefined, insecureSkipTlsVerify: false };
  const siblings = signInStore === undefined ? undefined : { cluster: 'site', signInStore, servers: [at('old-1')] };
  return { ...rest, name: 'site', cluster: 'site', user: 'site', server, apiServer, siblings };
}

it.each<[string, string | undefined, readonly Cluster[]]>([
  ['the only joined cluster with its name and API server', 'site', [cluster('site', 'hub', [at('new')])]],
  ['none if two have both', undefined, [cluster('site', 'hub', [at('new')]), cluster('site-2', 'b', [at('b')])]],
  ['none with another name', undefined, [cluster('other', 'hub', [at('new', 'other')])]],
  ['none with another API server', undefined, [cluster('site', 'hub', [at('new')], 'https://api.other.example.com')]],
  ['none of the tailnet', undefined, [cluster('site', null, ['https://site.example.ts.net'])]],
  [
    'none of the tailnet with a further way',
    undefined,
    [cluster('site', null, ['https://site.example.ts.net', at('new')])],
  ],
])('a context at a login server that is not listed belongs to %s', (_, expected, clusters) => {
  const found = contextsByCluster({ ours: [contextFor(at('old'))] }, clusters);
  expect([...found.keys()].map(({ name }) => name)).toEqual(expected === undefined ? [] : [expected]);
});

const long = 'hub-'.repeat(20);
const hash = createHash('sha256').update(long).digest('base64url');
it.each<[string, string, boolean]>([
  ['hub', '0b5a/tka-system/through/hub', true],
  ['hub', '0b5a/tka-system/through/hub-b', false],
  ['Zürich Süd', '0b5a/tka-system/through/Z%C3%BCrich%20S%C3%BCd', true],
  [long, `0b5a/tka-system/through/${hash}`, true],
  [long, '0b5a/tka-system/through/hub', false],
  ['hub', 'a store that names no login server', true],
])('a context follows to login server %s if its sign-ins are in %s: %s', (through, store, follows) => {
  const moved = cluster('site', through, [at('new')]);
  const ours = [contextFor(at('old'), api, store)];
  expect([...contextsByCluster({ ours }, [moved]).keys()]).toEqual(follows ? [moved] : []);
  if (follows) expect(clusterByName([moved], 'site', { ours })).toBe(moved);
  else expect(() => clusterByName([moved], 'site', { ours })).toThrow(UsageError);
});

it('a name is ambiguous if another cluster took it from a joined one that has a context', () => {
  const own = 'https://site.example.ts.net';
  const elsewhere = 'https://api.new.example.com';
  const ours = [contextFor(at('hub'))];
  const newcomer = cluster('site', null, [own], elsewhere);
  const before = cluster('site-through-hub', 'hub', [at('hub')]);
  for (const clusters of [[newcomer, before], [newcomer]]) {
    const hints = [`kubectl tka login ${own} (site)`, `kubectl tka login ${at('hub')} (context site)`];
    expect(() => clusterByName(clusters, 'site', { ours })).toThrow(
      expect.objectContaining({ message: '"site" is a cluster, and the context of another cluster', hints }),
    );
    const onlyListed = clusters.includes(before)
      ? `kubectl tka exec ${at('hub')} -- COMMAND (context site)`
      : 'if you no longer need the context: kubectl tka forget site';
    expect(() => clusterByName(clusters, 'site', { ours }, 'exec')).toThrow(
      expect.objectContaining({ exitCode: 2, hints: [`kubectl tka exec ${own} -- COMMAND (site)`, onlyListed] }),
    );
    expect(clusterByName(clusters, 'site', { ours: [] })).toBe(newcomer);
    expect(clusterByName(clusters, 'site', { ours: [contextFor(own, elsewhere)] })).toBe(newcomer);
  }
  // The login server has moved: its old URL is in no list.
  const moved = cluster('site-through-hub', 'hub', [at('new')]);
  expect(() => clusterByName([newcomer, moved], 'site', { ours }, 'exec')).toThrow(
    expect.objectContaining({
      hints: [`kubectl tka exec ${own} -- COMMAND (site)`, `kubectl tka exec ${at('new')} -- COMMAND (context site)`],
    }),
  );
  // Its own server, and a further way to it.
  const both = cluster('site', null, [own, at('hub')]);
  expect(clusterByName([both], 'site', { ours })).toBe(both);
});
