// A real tailnet with a login server, and a cluster outside of it: no tailscaled, and from its host only two ports of other
// hosts can be reached, that of its own API server and the login server's port for tunnels.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { parse } from 'yaml';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { federationPaths, type TkaCluster } from '../../src/server/federation/objects.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { kubeconfigFile } from '../cluster/api-server.ts';
import { applyManifests, established, Fixture } from '../cluster/fixture.ts';
import { statusFor } from '../cluster/people.ts';
import { makeFolder } from '../cluster/processes.ts';
import { start } from '../fixtures/program.ts';
import { program, TkaServerProcess } from '../server/program.ts';
import { address, eventually, Host } from './network.ts';
import { ok, reader, Stage, url } from './stage.ts';

const login = 'tka-prod-us';
const name = 'edge';
const namespace = 'tka-system';
const stage = await Stage.set({
  apiServers: 2,
  servers: { [login]: login },
  others: ['laptop'],
  userspace: [],
  namespace,
});
const { home, tailnet, at, clusters, fixture, kubectl, run, serve } = stage;

// The address of the first device.
const listen = `${address(10)}:7947`;
const endpoint = `https://${listen}`;
const folder = makeFolder();
const file = (of: string): string => path.join(folder, of);
const mounted = makeFolder();
const edgeAccess = stage.apiServer(1);
const edge = await Fixture.make(edgeAccess, namespace);
const host = await Host.makeBehind(name, [listen, new URL(edgeAccess.server).host]);
let joined: TkaServerProcess;

const cluster = (): Promise<TkaCluster | undefined> => fixture(login).kube.get(federationPaths.clusters(name));
const signIns = async (): Promise<readonly TkaSignin[]> =>
  (await edge.kube.get<{ items: TkaSignin[] }>(paths.signIns(namespace)))?.items ?? [];
const reachableFrom = async (target: string): Promise<boolean> => {
  const [to, port] = target.split(':');
  const script = `require('node:net').connect({ host: '${to}', port: ${port}, timeout: 2000 })
    .on('connect', () => process.exit(0)).on('error', () => process.exit(1)).on('timeout', () => process.exit(1))`;
  return (await start(process.execPath, ['-e', script], home.env, { within: host.within() }).ran).status === 0;
};

beforeAll(async () => {
  await Promise.all([fixture(login), edge].map((each) => each.role(undefined, undefined, reader)));
  const files = ['federation/namespace.yaml', 'federation/login-server/crd.yaml', 'federation/login-server/rbac.yaml'];
  await applyManifests(fixture(login).kube, ...files);
  await established(fixture(login).access, 'tkaclusters.tka.specht-labs.de');
  await applyManifests(edge.kube, 'federation/namespace.yaml', 'federation/joined-cluster/rbac.yaml');
  const { ca, cert, key } = await makeCertificates(address(10));
  for (const [of, text] of Object.entries({ 'ca.crt': ca, 'tls.crt': cert, 'tls.key': key })) {
    fs.writeFileSync(file(of), text, { mode: 0o600 });
  }
  await tailnet.tag({ [login]: ['tag:tka'] });
  const rule = { role: reader, period: '1h', priority: 1 };
  await tailnet.grantAll({ 'specht-labs.de/cap/tka-federation': [{ ...rule, clusters: [name] }] });
  const federation = { listen: ':7947', endpoint, certFile: file('tls.crt'), keyFile: file('tls.key') };
  await (await serve(login, { federation })).said(/listening for tunnels/);

  const env = { PATH: process.env.PATH ?? '', HOME: folder, KUBECONFIG: kubeconfigFile(fixture(login).access) };
  const { stdout } = await ok(start(program, ['join-token', 'create', name], env).ran);
  const { stringData } = parse(stdout) as { readonly stringData: Readonly<Record<string, string>> };
  for (const [key, text] of Object.entries(stringData)) fs.writeFileSync(path.join(mounted, key), text);
  const { access, token } = edge;
  joined = new TkaServerProcess(
    {
      tailscale: { hostname: name },
      operator: { namespace },
      clusterInfo: {
        apiEndpoint: access.server,
        caData: Buffer.from(access.ca).toString('base64'),
        labels: { site: 'paris' },
      },
      federation: { joinFolder: mounted, caFile: file('ca.crt') },
    },
    { KUBECONFIG: kubeconfigFile(access, token) },
    undefined,
    host.within(),
  );
  await eventually('the cluster to be connected', cluster, (found) => found?.status?.connected === true);
});

afterAll(async () => {
  await joined[Symbol.asyncDispose]();
  await host.stop();
  edge.kube.close();
  await stage.strike();
});

beforeEach(() => home.forget());

test('the joined server reaches the federation port and its own API server, and nothing else', async () => {
  expect(await reachableFrom(listen)).toBe(true);
  for (const target of [`${address(10)}:8123`, `${address(1)}:9000`, `${address(10)}:41641`, '100.64.0.1:8123']) {
    expect([target, await reachableFrom(target)]).toEqual([target, false]);
  }
  expect(joined.stderr).toContain('people sign in through the login server only');
});

test('it is in the list, and kubectl works with it after one login', async () => {
  const rows = await eventually(
    'the joined cluster in the list',
    () => clusters(),
    (found) => found.some((row) => row.name === name && row.state === 'healthy'),
  );
  expect(rows.find((row) => row.name === name)).toMatchObject({
    server: `${url(login)}/clusters/${name}`,
    apiEndpoint: edge.access.server,
    labels: { site: 'paris' },
  });
  const ran = await ok(run(`login ${name}`));
  expect(ran.stdout).toContain(`Signed in to ${name} (${url(login)}/clusters/${name})`);
  const who = await ok(kubectl('auth whoami -o jsonpath={.status.userInfo.username}'));
  const [own] = await signIns();
  expect(who.stdout).toBe(`system:serviceaccount:${namespace}:${own?.metadata.name}`);
  await ok(kubectl('get namespaces'));
  // A grant for joined clusters does not count for the login server's own.
  expect(await run(`login ${login}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('no grant') });
});

test('a grant that is gone ends the sign-in at the next request, and a new one works', async () => {
  await ok(run(`login ${name}`));
  const token = home.token({ server: `${url(login)}/clusters/${name}` });
  const rule = { role: reader, period: '1h', priority: 1 };
  await tailnet.grantAll({ 'specht-labs.de/cap/tka-federation': [{ ...rule, clusters: ['other'] }] });
  try {
    expect(await run(`login ${name}`)).toMatchObject({ status: 1, stderr: expect.stringContaining('no grant') });
    await eventually(
      'the old token to be refused',
      () => statusFor(edge.access, token),
      (status) => status === 401,
    );
    expect(await signIns()).toEqual([]);
  } finally {
    await tailnet.grantAll({ 'specht-labs.de/cap/tka-federation': [{ ...rule, clusters: [name] }] });
  }
  await ok(run(`login ${name}`));
});

test('a login server that restarts is dialed again, and evicting the cluster ends its sign-ins', async () => {
  await ok(run(`login ${name}`));
  const federation = { listen: ':7947', endpoint, certFile: file('tls.crt'), keyFile: file('tls.key') };
  stage.server(login).child.kill('SIGKILL');
  await stage.server(login).ended;
  // Tokens stay valid without it.
  await ok(kubectl('get namespaces', at('laptop')));
  await (await serve(login, { federation })).said(/listening for tunnels/);
  await eventually(
    'a login',
    () => run(`login ${name}`),
    ({ status }) => status === 0,
    60_000,
  );
  const found = await cluster();
  await fixture(login).kube.remove(federationPaths.clusters(name), { uid: found?.metadata.uid ?? '' });
  await eventually('the sign-ins to end', signIns, (left) => left.length === 0);
  await eventually(
    'the list without the cluster',
    () => clusters(),
    (rows) => rows.find((row) => row.name === name)?.state === 'missing',
  );
});
