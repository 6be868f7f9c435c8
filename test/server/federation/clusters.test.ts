// The joined clusters of a login server, with an API server on loopback that answers lists and watches as the test says.
import { KubeConfig } from '@kubernetes/client-node';
import { expect, onTestFinished, test } from 'vitest';
import { Clusters } from '../../../src/server/federation/clusters.ts';
import type { MeshClaims } from '../../../src/server/federation/conflicts.ts';
import type { Tunnel } from '../../../src/server/federation/contract.ts';
import { newKey } from '../../../src/server/federation/keys.ts';
import type { TkaCluster } from '../../../src/server/federation/objects.ts';
import { connectKube } from '../../../src/server/kubernetes/kube.ts';
import { ObjectEvents } from '../../../src/server/provisioner/events.ts';
import { StandInApi } from '../stand-in-api.ts';

const patience = { timeout: 20_000 };
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const { publicKey } = newKey();

const object = (version: number, key = publicKey, uid = 'first'): TkaCluster => ({
  metadata: { name: 'prod-eu', uid, resourceVersion: String(version) },
  spec: { publicKey: key, apiEndpoint: 'https://prod-eu.example.com' },
});

/** Starts with these TkaClusters. Resolves when they are listed and watched. */
async function watching(items: TkaCluster[] = [], claims: MeshClaims = () => []) {
  const api = new StandInApi('tkaclusters');
  api.items = items;
  await api.start();
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser({ name: 'x', server: api.url, skipTLSVerify: true }, { name: 'x', token: 'x' });
  const kube = connectKube(kubeConfig);
  const events = new ObjectEvents(kube, 'tka-federation', log);
  const told: string[] = [];
  const clusters = new Clusters({
    kube,
    log,
    events,
    replica: 'tka-0',
    isAlive: () => true,
    own: () => ({ name: 'login', apiEndpoint: undefined }),
    claims,
    tellEvicted: async ({ id }) => void told.push(id),
    onEvicted: () => {},
    onListed: () => {},
  });
  onTestFinished(async () => {
    await clusters.stop();
    events.stop();
    kube.close();
    api.stop();
  });
  await api.watched();
  return { api, clusters, told };
}

/** Returns a tunnel, and why it was closed. */
function tunnelOf(id: string) {
  const closed: string[] = [];
  const tunnel: Tunnel = {
    id,
    cluster: 'prod-eu',
    replica: 'prod-eu-0',
    statement: { version: '1.0.0', apiEndpoint: 'https://prod-eu.example.com', labels: {} },
    keys: [],
    since: Date.now(),
    lastSeen: () => Date.now(),
    request: () => Promise.reject(new Error('it is only there')),
    close: (reason) => void closed.push(reason),
  };
  return { tunnel, closed };
}

test('a cluster whose TkaCluster the watch has not reported is not told that it is evicted', async () => {
  const { api, clusters, told } = await watching();
  api.items = [object(2)];
  const { tunnel, closed } = tunnelOf('early');
  clusters.opened(tunnel, publicKey);
  await expect.poll(() => closed, patience).toEqual(['the TkaCluster may have changed']);
  expect(told).toEqual([]);
});

test('a cluster that has joined again is not told that it is evicted when a late watch reports its eviction', async () => {
  const { api, clusters, told } = await watching([object(1)]);
  const { tunnel, closed } = tunnelOf('again');
  clusters.opened(tunnel, publicKey);
  api.items = [object(3, publicKey, 'second')];
  api.tell('DELETED', object(2));
  await expect.poll(() => closed, patience).toEqual(['the TkaCluster may have changed']);
  expect(clusters.get('prod-eu')).toBeUndefined();
  expect(told).toEqual([]);
});

test.each([
  ['refuses to answer', 503, {}],
  ['does not serve TkaClusters', 404, {}],
])('nobody is told of an eviction while the API server %s', async (_, ...answer) => {
  const { api, clusters, told } = await watching([object(1)]);
  const { tunnel, closed } = tunnelOf('unsure');
  clusters.opened(tunnel, publicKey);
  api.items = [];
  api.lists.push(answer);
  api.tell('DELETED', object(2));
  await expect.poll(() => closed, patience).toEqual(['the TkaCluster may have changed']);
  expect(told).toEqual([]);
});

test.each([
  ['is deleted', 'DELETED', undefined],
  ['is being deleted', 'MODIFIED', { ...object(2), metadata: { ...object(2).metadata, deletionTimestamp: 'now' } }],
  ['has another key', 'MODIFIED', object(2, newKey().publicKey)],
])('a cluster is told that it is evicted when its TkaCluster %s', async (_, type, next) => {
  const { api, clusters, told } = await watching([object(1)]);
  const { tunnel, closed } = tunnelOf('gone');
  clusters.opened(tunnel, publicKey);
  api.items = next === undefined ? [] : [next];
  api.tell(type, next ?? object(2));
  await expect.poll(() => closed, patience).toEqual(['evicted']);
  expect(told).toEqual(['gone']);
});

test('no request goes through the tunnels of the old key from the moment that a cluster has another one', async () => {
  const { api, clusters } = await watching([object(1)]);
  const { tunnel, closed } = tunnelOf('old');
  clusters.opened(tunnel, publicKey);
  expect(clusters.get('prod-eu')?.tunnels).toEqual([tunnel]);
  const { publicKey: other } = newKey();
  api.items = [object(2, other)];
  api.tell('MODIFIED', object(2, other));
  await expect.poll(() => clusters.known('prod-eu')?.publicKey, patience).toBe(other);
  expect(clusters.get('prod-eu')?.tunnels).toEqual([]);
  await expect.poll(() => closed, patience).toEqual(['evicted']);
  // This stand-in for a tunnel stays open.
  expect(clusters.get('prod-eu')?.tunnels).toEqual([]);
});

test('a conflict that is in the status stays while the members of the mesh are not known', async () => {
  const message = '"prod-eu" is the name of a cluster in the mesh';
  const conflict = { type: 'Conflict', status: 'True', reason: 'NameTaken', message, lastTransitionTime: '' } as const;
  let claims: [] | undefined;
  const { clusters } = await watching([{ ...object(1), status: { conditions: [conflict] } }], () => claims);
  expect(clusters.get('prod-eu')?.conflict).toBe(message);
  claims = [];
  expect(clusters.get('prod-eu')?.conflict).toBeUndefined();
});
