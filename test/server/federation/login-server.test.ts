import { KubeConfig } from '@kubernetes/client-node';
import { expect, it } from 'vitest';
import { examineConfig } from '../../../src/server/config/config.ts';
import { startLoginServer } from '../../../src/server/federation/login-server.ts';
import { replicaName } from '../../../src/server/federation/replicas.ts';

it('without federation.listen there is no login server, and nothing is asked of the cluster', async () => {
  const { config } = await examineConfig('config.yaml', undefined, {});
  const fail = (): never => {
    throw new Error('nothing must be asked');
  };
  const log = { debug: fail, info: fail, warn: fail, error: fail };
  // It has no cluster: every use of it would fail.
  const kubeConfig = new KubeConfig();
  expect(startLoginServer({ config, kubeConfig, log, clusterInfo: fail, claims: fail })).toBeUndefined();
});

it.each([
  ['tka-0', /^tka-0-[0-9a-f]{6}$/],
  ['Node.Example.COM', /^node-example-com-[0-9a-f]{6}$/],
  ['東京', /^tka-[0-9a-f]{6}$/],
  ['a'.repeat(300), /^a{50}-[0-9a-f]{6}$/],
])('names a replica on host %s so that no other one has the name', (host, name) => {
  expect(replicaName(host)).toMatch(name);
  expect(replicaName(host)).not.toBe(replicaName(host));
});
