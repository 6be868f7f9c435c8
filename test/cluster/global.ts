// One etcd and three API servers for all test files; each test file uses its own namespace.
import type { TestProject } from 'vitest/node';
import { type Access, startApiServer, startEtcd } from './api-server.ts';
import { type Assets, findAssets } from './assets.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The programs; or why there are none. */
    assets: Assets | string;
    clusters: readonly Access[];
    etcd: string;
  }
}

export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const assets = await findAssets(say);
  project.provide('assets', assets);
  if (typeof assets === 'string') {
    say(`\nTHE CLUSTER TESTS ARE SKIPPED: ${assets}\n`);
    project.provide('clusters', []);
    project.provide('etcd', '');
    return undefined;
  }
  const etcd = await startEtcd(assets);
  const servers = await Promise.all(
    ['127.0.0.11', '127.0.0.12', '127.0.0.13'].map((host) => startApiServer(assets, etcd, host)),
  );
  project.provide('etcd', etcd.url);
  project.provide(
    'clusters',
    servers.map(({ server, ca, token }) => ({ server, ca, token })),
  );
  return async () => {
    await Promise.all(servers.map((server) => server.stop()));
    await etcd.stop();
  };
}
