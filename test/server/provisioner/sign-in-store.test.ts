import { KubeConfig } from '@kubernetes/client-node';
import { afterEach, expect, test, vi } from 'vitest';
import { connectKube } from '../../../src/server/kubernetes/kube.ts';
import { signInStore } from '../../../src/server/provisioner/cluster-info.ts';
import { kubeSystem, kubeSystemUid, StandInApi } from '../stand-in-api.ts';

// On a slow machine, everything takes longer than the usual second.
const patience = { timeout: 30_000 };

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

async function storeIn(cluster: StandInApi) {
  await cluster.start();
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser({ name: 'x', server: cluster.url, skipTLSVerify: true }, { name: 'x', token: 'x' });
  const kube = connectKube(kubeConfig);
  const stopping = new AbortController();
  const warnings: string[] = [];
  const note = (_: object, message: string) => warnings.push(message);
  const log = { debug: note, info: note, warn: note, error: note };
  const storeOf = signInStore({ kube, namespace: 'tka-system', log, signal: stopping.signal });
  ends.push(() => {
    stopping.abort();
    kube.close();
    cluster.stop();
  });
  return { storeOf, warnings };
}

test('names the cluster by the UID of kube-system, and the namespace of the sign-ins', async () => {
  const { storeOf, warnings } = await storeIn(new StandInApi());
  await vi.waitFor(() => expect(storeOf()).toBe(`${kubeSystemUid}/tka-system`), patience);
  expect(warnings).toEqual([]);
});

test.each([
  ['it does not exist', undefined],
  ['it has no UID', { metadata: {} }],
  ['its UID is not text', { metadata: { uid: 7 } }],
  ['its UID is not plain text', { metadata: { uid: 'a b' } }],
])('states nothing while the namespace cannot be read (%s), and asks again', async (_, namespace) => {
  const cluster = new StandInApi();
  if (namespace === undefined) cluster.objects.delete(kubeSystem);
  else cluster.objects.set(kubeSystem, namespace);
  const { storeOf, warnings } = await storeIn(cluster);
  await vi.waitFor(
    () => expect(warnings).toEqual(['cannot read namespace kube-system: clients will not fail over to this server']),
    patience,
  );
  expect(storeOf()).toBeUndefined();
  cluster.objects.set(kubeSystem, { metadata: { uid: kubeSystemUid } });
  await vi.waitFor(() => expect(storeOf()).toBe(`${kubeSystemUid}/tka-system`), patience);
});

test('asks once: the name is kept while the API server is unreachable', async () => {
  const cluster = new StandInApi();
  const { storeOf } = await storeIn(cluster);
  await vi.waitFor(() => expect(storeOf()).toBeDefined(), patience);
  cluster.objects.delete(kubeSystem);
  expect(storeOf()).toBe(`${kubeSystemUid}/tka-system`);
  expect(cluster.missed).toBe(0);
});
