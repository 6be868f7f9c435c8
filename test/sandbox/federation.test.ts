// A cluster of the sandbox that has joined a login server: it is reached through a real tunnel.
import { expect, test } from 'vitest';
import { joinedCluster, startMesh } from '../../src/sandbox/mesh.ts';
import { apiPath, type KubeconfigAnswer, type MemberRow } from '../../src/tka/types.ts';

const options = { clusters: [{ name: 'prod-eu' }, joinedCluster] };
const edge = joinedCluster.name;

/** Sends a request to the TKA API at a server. */
async function call<T>(server: string, method: string, route: string): Promise<{ status: number; body: T }> {
  const answer = await fetch(`${server}${apiPath}${route}`, { method });
  const text = await answer.text();
  return { status: answer.status, body: (text === '' ? undefined : JSON.parse(text)) as T };
}

test('a joined cluster is listed under its login server, and signs people in to its own API server', async () => {
  await using mesh = await startMesh(options);
  const login = mesh.cluster('prod-eu');
  const joined = mesh.cluster(edge);
  expect(joined.server).toBe(`${login.server}/clusters/${edge}`);
  const { body: rows } = await call<MemberRow[]>(login.server, 'GET', '/memberlist');
  expect(rows.find(({ cluster }) => cluster === edge)).toMatchObject({
    server: joined.server,
    apiEndpoint: joined.apiServer,
    labels: joinedCluster.labels,
    state: 'healthy',
    through: 'prod-eu',
  });
  joined.readyAfterMs = 0;
  expect(await call(joined.server, 'POST', '/login')).toMatchObject({ status: 202, body: { username: 'alice' } });
  const { status, body } = await call<KubeconfigAnswer>(joined.server, 'GET', '/kubeconfig');
  expect(status).toBe(200);
  expect(Object.values(body.clusters)).toMatchObject([{ server: joined.apiServer }]);
  expect(joined.signIn('alice')).toMatchObject({ username: 'alice', role: 'viewer' });
  expect(login.signIn('alice')).toBeUndefined();
  expect((await call(joined.server, 'POST', '/logout')).status).toBe(200);
  expect(joined.signIn('alice')).toBeUndefined();
});

test('a joined cluster that has stopped is dead in the list, and comes back', async () => {
  await using mesh = await startMesh(options);
  const login = mesh.cluster('prod-eu');
  const joined = mesh.cluster(edge);
  const state = async () =>
    (await call<MemberRow[]>(login.server, 'GET', '/memberlist')).body.find(({ cluster }) => cluster === edge)?.state;
  await joined.stop();
  expect(await state()).toBe('dead');
  expect(await call(joined.server, 'POST', '/login')).toMatchObject({ status: 503 });
  await joined.start();
  expect(await state()).toBe('healthy');
  expect(await call(joined.server, 'POST', '/login')).toMatchObject({ status: 202 });
});

test('only a login server has paths of joined clusters', async () => {
  await using mesh = await startMesh({ clusters: [...options.clusters, { name: 'staging' }] });
  const at = (server: string) => fetch(`${server}/clusters/${edge}${apiPath}/login`, { method: 'POST' });
  expect((await at(mesh.cluster('prod-eu').server)).status).toBe(202);
  expect((await at(mesh.cluster('staging').server)).status).toBe(404);
});
