// Shared by the discovery tests: a tailnet of TKA servers, and a user who has configured only their port.
import { expect } from 'vitest';
import type { Faults } from '../../src/sandbox/faults.ts';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { test as base } from '../fixtures/mesh.ts';
import type { RunOptions } from '../fixtures/program.ts';

/** A row of `clusters -o json`. */
export interface Listed {
  readonly name: string;
  readonly server: string | null;
  readonly apiEndpoint: string;
  readonly state: string;
  readonly reason: string | null;
  readonly context: string | null;
  readonly servers: readonly { readonly name: string; readonly server: string | null; readonly state: string }[];
}

/** Three TKA servers with their own addresses and one port, as in a tailnet, and a tailscaled that knows them. */
export const test = base.extend<{ net: SandboxMesh; tailscaled: Tailscaled; user: Home; env: RunOptions }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  net: async ({}, use) => {
    const hosts = ['127.0.0.11', '127.0.0.12', '127.0.0.13'];
    const labels = [{ environment: 'production' }, { environment: 'production' }, { environment: 'staging' }];
    const clusters = ['tka-prod-us', 'tka-prod-eu', 'tka-staging'].map((name, i) => ({
      name,
      host: hosts[i] ?? '',
      labels: labels[i] ?? {},
    }));
    await using mesh = await startMesh({ samePort: true, clusters });
    await use(mesh);
  },
  tailscaled: async ({ net }, use) => {
    await using tailscaled = await startTailscaled({ peers: net.clusters.map((cluster) => peerOf(cluster)) });
    await use(tailscaled);
  },
  env: async ({ net, tailscaled }, use) => {
    await use({
      env: { TS_SOCKET: tailscaled.socketPath, TKA_TAILSCALE_PORT: new URL(net.clusters[0]?.server ?? '').port },
    });
  },
  user: async ({ net: _ }, use) => {
    using home = new Home();
    await use(home);
  },
});

export const list = async (user: Home, options: RunOptions, args = ''): Promise<{ rows: Listed[]; stderr: string }> => {
  const ran = await user.run(`clusters -o json ${args}`, options);
  expect(ran).toMatchObject({ status: 0 });
  return { rows: JSON.parse(ran.stdout), stderr: ran.stderr };
};
export const all = (net: SandboxMesh, change: (cluster: SandboxCluster) => void) => net.clusters.forEach(change);
/** Makes every server answer its memberlist in this form. */
export const listing = (net: SandboxMesh, memberlist: Faults['memberlist']) =>
  all(net, ({ faults }) => Object.assign(faults, { memberlist }));
export const peerUrl = (cluster: SandboxCluster) =>
  `http://${cluster.name}.example.ts.net:${new URL(cluster.server).port}`;
export const asked = (net: SandboxMesh, what: 'clusterInfo' | 'memberlist' | 'login' | 'kubeconfig') =>
  net.clusters.map((cluster) => cluster.counts[what]);
export const linux = process.platform === 'linux';
