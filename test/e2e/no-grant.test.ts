// A user without a grant in the tailnet policy: errors name the user, the missing capability, and the grant to ask for.
import { describe, expect } from 'vitest';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { test as base } from '../fixtures/mesh.ts';
import { freePort } from '../fixtures/ports.ts';
import { lines } from '../fixtures/program.ts';
import { TkaServerProcess } from '../server/program.ts';
import { StandInApi } from '../server/stand-in-api.ts';

const capability = 'specht-labs.de/cap/tka';
const docs = 'https://github.com/SpechtLabs/kubectl-tka/blob/main/docs/policy.md';

/** The grant at the end of a hint. */
const grantIn = (stderr: string) =>
  JSON.parse(/^hint: ask a maintainer .* add this grant \(see [^)]*\): (\{.*\})$/m.exec(stderr)?.[1] ?? '');

const test = base.extend<{ tailscaled: Tailscaled; socket: { env: { TS_SOCKET: string } } }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  tailscaled: async ({}, use) => {
    await using tailscaled = await startTailscaled();
    await use(tailscaled);
  },
  socket: async ({ tailscaled }, use) => use({ env: { TS_SOCKET: tailscaled.socketPath } }),
});

describe.concurrent('without a grant at a Go server', () => {
  test('login names the user as tailscaled knows it, the capability, the cluster and a grant', async ({
    home,
    us,
    socket,
  }) => {
    await home.run('clusters');
    us.user = null;
    const ran = await home.run('login prod-us', socket);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    const [error, hint, ...rest] = lines(ran.stderr);
    expect(error).toBe(
      `error: no grant for alice@example.com on prod-us (${us.server}): the tailnet policy does not give the capability ${capability} there (HTTP 403)`,
    );
    expect(hint).toContain(`(see ${docs})`);
    expect(rest).toEqual([]);
    expect(grantIn(ran.stderr)).toEqual({
      src: ['alice@example.com'],
      dst: ['tag:tka'],
      ip: [`tcp:${new URL(us.server).port}`],
      app: { [capability]: [{ role: 'view', period: '8h' }] },
    });
  });

  test('without tailscaled the grant has a placeholder, with a hint', async ({ home, us }) => {
    us.user = null;
    const ran = await home.run(['login', us.server], { env: { TS_SOCKET: '/nonexistent' } });
    expect(ran.stderr).toMatch(/^error: no grant for you on http/m);
    expect(ran.stderr).toMatch(/^hint: replace you@example\.com with your login on the tailnet$/m);
    expect(grantIn(ran.stderr).src).toEqual(['you@example.com']);
  });

  test('the grant has the configured tag of the servers', async ({ home, us, socket }) => {
    us.user = null;
    await home.run('config tailscale.tag tag:k8s');
    expect(grantIn((await home.run(['login', us.server], socket)).stderr).dst).toEqual(['tag:k8s']);
  });

  test('under kubectl there are two lines, and the second one names the doctor', async ({ home, us, socket }) => {
    await home.run('clusters');
    us.user = null;
    const ran = await home.credential(us, socket);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(lines(ran.stderr)).toEqual([
      `error: no grant for you on ${us.server}: the tailnet policy does not give the capability ${capability} there (HTTP 403)`,
      'hint: see which grant is missing: kubectl tka doctor prod-us',
    ]);
  });

  test('exec prints a short form for the cluster', async ({ home, eu }) => {
    await home.run('login --all-contexts');
    eu.user = null;
    const ran = await home.run('exec prod-us prod-eu -- get namespaces');
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(/prod-eu.*error: no grant for you on http/);
    expect(ran.stderr).toMatch(/prod-eu.*hint: see which grant is missing: kubectl tka doctor prod-eu$/m);
  });

  test('doctor shows the grant, even if the list of clusters is refused', async ({ home, us, socket }) => {
    us.user = null;
    const ran = await home.run('doctor prod-us -o json', socket);
    const checks: readonly { name: string; detail: string; hint: string | null }[] = JSON.parse(ran.stdout)[0].checks;
    const { detail, hint } = checks.find(({ name }) => name === 'grant') ?? {};
    expect(detail).toMatch(/^no grant for alice@example\.com on /);
    expect(grantIn(`hint: ${hint}`).src).toEqual(['alice@example.com']);
  });

  test('a tagged device gets the explanation that the Go server accepts users only', async ({ home, us, socket }) => {
    us.faults.routes.login = { answer: { status: 400, body: { message: 'tagged nodes not (yet) supported' } } };
    const ran = await home.run(['login', us.server], socket);
    expect(ran.stderr).toMatch(
      /^error: .*tagged nodes not \(yet\) supported \(HTTP 400\)\nhint: the Go server accepts people only, not tagged devices/m,
    );
  });
});

test('a tagged device that signs in is shown by its name', async ({ home, us, socket }) => {
  const node = 'ci-7.example.ts.net';
  us.user = { username: 'nBLYviWLGB11DEVEL', node, role: 'viewer', periodMs: 30 * 60_000 };
  const ran = await home.run('login prod-us');
  expect(ran).toMatchObject({ status: 0, stdout: expect.stringContaining(` as ${node}, role viewer`) });
  expect(JSON.parse((await home.run('status -o json')).stdout)).toMatchObject([{ username: node, role: 'viewer' }]);
  expect((await home.run('whoami')).stdout).toContain(node);
  const checks: readonly { name: string; detail: string }[] = JSON.parse(
    (await home.run('doctor prod-us -o json', socket)).stdout,
  )[0].checks;
  expect(checks.find(({ name }) => name === 'sign-in')?.detail).toContain(`${node}, role viewer`);
});

describe.concurrent('at our server', () => {
  const ours = test.extend<{ asking: { now: StandInCaller }; server: string; user: Home }>({
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    asking: async ({}, use) => use({ now: { login: 'carol@other.example' } }),
    server: async ({ tailscaled, asking }, use) => {
      const cluster = new StandInApi();
      await cluster.start();
      tailscaled.whois = () => asking.now;
      const port = await freePort('127.0.0.1');
      const config = {
        clusterInfo: { apiEndpoint: 'https://api.example.com:6443' },
        server: { host: '127.0.0.1' },
        tailscale: { port, capName: 'example.com/cap/k8s' },
        identity: { allowTagged: ['tag:ci'] },
        health: { host: '127.0.0.1', port: await freePort('127.0.0.1') },
      };
      const env = { TS_SOCKET: tailscaled.socketPath, KUBECONFIG: cluster.kubeconfig() };
      await using program = new TkaServerProcess(config, env);
      await program.said(/listening for the API/);
      await use(`http://127.0.0.1:${port}`);
      cluster.stop();
    },
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    user: async ({}, use) => {
      using home = new Home();
      await use(home);
    },
  });

  ours('the login and the capability are those that the server states', async ({ user, server, socket }) => {
    const ran = await user.run(['login', server], socket);
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toContain(
      `error: no grant for carol@other.example on ${server}: the tailnet policy does not give the capability example.com/cap/k8s there (HTTP 403)\n`,
    );
    expect(grantIn(ran.stderr)).toMatchObject({
      src: ['carol@other.example'],
      app: { 'example.com/cap/k8s': [{ role: 'view', period: '8h' }] },
    });
    const kubectl = await user.credential({ server }, socket);
    expect(kubectl.stderr).toMatch(
      /^error: no grant for carol@other\.example on .*\nhint: see .*: kubectl tka doctor http\S+\n$/,
    );
  });

  ours(
    'a tagged device without a grant gets one for its tag, for an hour',
    async ({ user, server, asking, socket }) => {
      asking.now = { login: 'x', tags: ['tag:arm', 'tag:ci'] };
      const ran = await user.run(['login', server], socket);
      expect(ran.stderr).toMatch(/^error: no grant for this device \(tag:ci\) on /m);
      expect(grantIn(ran.stderr)).toMatchObject({
        src: ['tag:ci'],
        app: { 'example.com/cap/k8s': [{ role: 'view', period: '1h' }] },
      });
      asking.now = { login: 'x', tags: ['tag:arm'] };
      const unlisted = await user.run(['login', server], socket);
      expect(unlisted.stderr).toMatch(
        /^error: .*unless identity\.allowTagged lists one of their tags \(tag:arm\) \(HTTP 400\)$/m,
      );
      expect(unlisted.stderr).toMatch(
        /^hint: sign in from a device of a person, or ask the operator .*\/policy\.md#ci$/m,
      );
    },
  );

  ours.for<[name: string, rule: object, words: RegExp]>([
    [
      'an empty rule',
      {},
      /invalid rule of the capability "example\.com\/cap\/k8s" for carol@other\.example in the tailnet policy: "role" must be/,
    ],
    [
      'a period that is none',
      { role: 'view', period: '1d' },
      /Error parsing duration: time: unknown unit "d" in duration "1d"/,
    ],
    [
      'a period that is too short',
      { role: 'view', period: '1m' },
      /`period` may not specify a duration less than 10 minutes/,
    ],
    [
      'a role that the cluster does not have',
      { role: 'veiw', period: '1h' },
      /the role "veiw" does not exist in this cluster/,
    ],
  ])(
    '%s is an error of the policy, with what to ask for',
    async ([, rule, words], { user, server, asking, socket }) => {
      asking.now = { login: 'carol@other.example', capabilities: { 'example.com/cap/k8s': [rule] } };
      const ran = await user.run(['login', server], socket);
      expect(ran.stderr).toMatch(words);
      expect(ran.stderr).toMatch(/^hint: .*\b(?:ask|Specify)\b/m);
      expect(ran.stderr).not.toContain('add this grant');
    },
  );
});
