// What the login server lets strangers ask of its API server, with a stand-in for that on loopback.
import { KubeConfig } from '@kubernetes/client-node';
import { expect, onTestFinished, test } from 'vitest';
import { KubeAdmission } from '../../../src/server/federation/admission.ts';
import type { Clusters } from '../../../src/server/federation/clusters.ts';
import type { JoinTokens } from '../../../src/server/federation/join-tokens.ts';
import { newKey } from '../../../src/server/federation/keys.ts';
import { connectKube } from '../../../src/server/kubernetes/kube.ts';
import { ObjectEvents } from '../../../src/server/provisioner/events.ts';
import { StandInApi } from '../stand-in-api.ts';

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const { publicKey } = newKey();
const statement = { version: '', apiEndpoint: 'https://a.example.com', labels: {} };

test('dials of strangers from one network do not keep away those from another one', async () => {
  const api = new StandInApi('tkaclusters');
  await api.start();
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser({ name: 'x', server: api.url, skipTLSVerify: true }, { name: 'x', token: 'x' });
  const kube = connectKube(kubeConfig);
  onTestFinished(() => {
    kube.close();
    api.stop();
  });
  const admission = new KubeAdmission({
    kube,
    log,
    events: new ObjectEvents(kube, 'tka-federation', log),
    // Its watch has reported nothing.
    clusters: { known: () => undefined, put: () => {} } as unknown as Clusters,
    tokens: {} as JoinTokens,
    primary: 'login',
    keys: () => [],
  });
  /** Dials from each address at once. Returns what the login server answers. */
  const dialed = async (addresses: readonly string[]): Promise<readonly string[]> => {
    const before = api.asked.length;
    const dial = { cluster: 'a', replica: 'a-0', publicKey, statement, tunnel: 't' };
    const answers = await Promise.all(addresses.map((address) => admission.dial({ ...dial, address })));
    const codes = answers.map((answer) => (answer.ok ? 'ok' : answer.code));
    // On a slow machine, an answer can be too late.
    expect(codes.filter((code) => code === 'evicted').length).toBeLessThanOrEqual(api.asked.length - before);
    return codes;
  };
  const isRead = (code: string): boolean => code === 'evicted';
  // One network of IPv6, with an address for each dial.
  const crowd = Array.from({ length: 90 }, (_, i) => `2001:db8::${i.toString(16)}`);
  const codes = await dialed([...crowd, '192.0.2.7']);
  expect(codes.filter(isRead).length).toBeLessThan(80);
  expect(codes.at(-1)).toBe('evicted');
  // All networks together.
  const many = await dialed(Array.from({ length: 500 }, (_, i) => `198.51.100.${i % 250}`));
  expect(many.filter(isRead).length).toBeGreaterThan(100);
  expect(many).toContain('unavailable');
});
