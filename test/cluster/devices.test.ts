// Tagged devices, such as CI machines, at a real API server: the built server, the built plugin and kubectl.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { namesOf, paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort } from '../fixtures/ports.ts';
import { TkaServerProcess } from '../server/program.ts';
import { kubeconfigFile } from './api-server.ts';
import { absent, Fixture, statusFor, test } from './support.ts';

const hour = 3_600_000;
const device = 'nBLYviWLGB11DEVEL';
const node = 'ci-7.example.ts.net';

describe.skipIf(absent !== undefined || kubectl === undefined)('a tagged device', () => {
  let tailscaled: Tailscaled;
  let fixture: Fixture;
  let server: TkaServerProcess;
  let home: Home;
  let role = '';
  let port = 0;
  let ci: StandInCaller;

  async function startServer(allowTagged: readonly string[]): Promise<void> {
    const { access, namespace, token } = fixture;
    const config = {
      tailscale: { hostname: 'tka-prod-us', port },
      identity: { allowTagged },
      server: { host: '127.0.0.1' },
      health: { port: await freePort('127.0.0.1') },
      operator: { namespace },
      clusterInfo: { apiEndpoint: access.server, caData: Buffer.from(access.ca).toString('base64') },
    };
    const env = { KUBECONFIG: kubeconfigFile(access, token), TS_SOCKET: tailscaled.socketPath };
    server = new TkaServerProcess(config, env);
    await server.said(/listening for the API/);
  }

  const url = () => `http://127.0.0.1:${port}`;
  const name = () => namesOf({ username: device, login: `node:${device}`, role, periodMs: 0 })[0] as string;
  const tokenNow = (): string => home.token({ server: url() });
  const ask = (method: string, path: string) => fetch(`${url()}/api/v1alpha1/${path}`, { method });
  const auditLines = () => server.stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line)]));
  async function signInNames(): Promise<string[]> {
    const names: string[] = [];
    for await (const { metadata } of fixture.kube.list<TkaSignin>(paths.signIns(fixture.namespace)))
      names.push(metadata.name);
    return names;
  }
  /** Signs in and returns the token. */
  async function login(): Promise<string> {
    const ran = await home.run(['login', url()]);
    expect(ran.status, ran.stderr).toBe(0);
    return tokenNow();
  }
  const isRefused = async (token: string) => expect([401, 403]).toContain(await statusFor(fixture.access, token));

  beforeAll(async () => {
    const [access] = inject('clusters');
    if (access === undefined) throw new Error(absent);
    fixture = await Fixture.make(access);
    role = await fixture.role();
    tailscaled = await startTailscaled();
    port = await freePort('127.0.0.1');
    await startServer(['tag:ci']);
  });

  beforeEach(() => {
    const rules = [{ role, period: '8h', priority: 1 }];
    const capabilities = { 'specht-labs.de/cap/tka': rules };
    ci = { login: 'x', device, dnsName: node, tags: ['tag:arm', 'tag:ci'], capabilities };
    tailscaled.whois = () => ci;
    home = new Home(url());
  });

  afterEach(() => home.remove());

  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await tailscaled?.close();
    fixture?.kube.close();
  });

  test('signs in by its ID for an hour, and the plugin, kubectl and the audit log name it', async () => {
    const began = Date.now();
    const ran = await home.run(['login', url()]);
    expect(ran.status, ran.stderr).toBe(0);
    expect(ran.stdout).toContain(` as ${node}, role ${role}; `);
    const [row] = JSON.parse((await home.run('status -o json')).stdout);
    expect(row).toMatchObject({ username: node, role, state: 'active' });
    expect(Date.parse(row.until)).toBeLessThanOrEqual(Date.now() + hour);
    expect(Date.parse(row.until)).toBeGreaterThan(began + hour - 5_000);
    const who = await home.kubectl('auth whoami -o jsonpath={.status.userInfo.username}');
    expect(who.stdout).toBe(`system:serviceaccount:${fixture.namespace}:${name()}`);
    const claims = JSON.parse(Buffer.from(tokenNow().split('.')[1] ?? '', 'base64url').toString());
    expect(claims.exp * 1000).toBeLessThanOrEqual(Date.now() + hour);
    const annotations = {
      'tka.specht-labs.de/login': `node:${device}`,
      'tka.specht-labs.de/node': node,
      'tka.specht-labs.de/tags': 'tag:arm,tag:ci',
    };
    expect((await fixture.signIn(name()))?.metadata.annotations).toMatchObject(annotations);
    expect((await fixture.account(name()))?.metadata.annotations).toMatchObject(annotations);
    expect((await fixture.signIn(name()))?.spec).toEqual({ username: device, role, validity_period: '1h0m0s' });
    expect(auditLines().find(({ event }) => event === 'sign-in')).toMatchObject({
      outcome: 'success',
      login: `node:${device}`,
      node,
      tags: ['tag:arm', 'tag:ci'],
      role,
      account: name(),
    });
    const table = await server.exec('sign-ins');
    expect(table.stdout).toMatch(new RegExp(`^${node} +${role} `, 'm'));
    expect(await home.run('logout')).toMatchObject({ status: 0 });
    expect(await signInNames()).toEqual([]);
  });

  test.for<[name: string, change: () => Partial<StandInCaller>, status: number]>([
    ['loses its tag', () => ({ tags: ['tag:arm'] }), 400],
    ['gets the tag of the servers', () => ({ tags: ['tag:ci', 'tag:tka'] }), 400],
    ['loses its grant', () => ({ capabilities: {} }), 403],
  ])('that %s loses its access at its next request', async ([, change, status]) => {
    const token = await login();
    expect(await statusFor(fixture.access, token)).toBe(200);
    ci = { ...ci, ...change() };
    expect((await ask('GET', 'kubeconfig')).status).toBe(401);
    await isRefused(token);
    expect(await signInNames()).toEqual([]);
    expect((await ask('GET', 'kubeconfig')).status).toBe(status);
    expect((await ask('POST', 'login')).status).toBe(status);
    expect((await home.run(['login', url()])).status).toBe(1);
    expect(auditLines().findLast(({ event }) => event === 'revocation')).toMatchObject({
      login: `node:${device}`,
      node,
      account: name(),
    });
  });

  test('that gets a user as its owner loses its access at that user’s next request', async () => {
    const token = await login();
    const { tags: _, ...person } = ci;
    tailscaled.whois = () => ({ ...person, login: 'dora@example.com' });
    expect((await ask('POST', 'login')).status).toBe(202);
    await isRefused(token);
    expect(await signInNames()).toEqual(['tka-user-dora']);
    expect((await ask('POST', 'logout')).status).toBe(200);
  });

  test('loses its access at its next request when its tag is not listed any more', async () => {
    const token = await login();
    server.child.kill('SIGTERM');
    await server.ended;
    await startServer([]);
    try {
      const refused = await home.run(['login', url()]);
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(
        /^error: .*unless identity\.allowTagged lists one of their tags \(tag:arm, tag:ci\) \(HTTP 400\)$/m,
      );
      expect(refused.stderr).toMatch(/^hint: sign in from a device of a person, or ask the operator/m);
      await isRefused(token);
      expect(await signInNames()).toEqual([]);
    } finally {
      await server[Symbol.asyncDispose]();
      await startServer(['tag:ci']);
    }
  });
});
