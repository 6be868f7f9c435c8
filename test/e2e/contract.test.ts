// The exec plugin contract: the requested apiVersion is answered, stdout has one document or nothing, and never a token
// for another API server.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { callers, kubectl, kubectls, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { type Env, jwt, lines } from '../fixtures/program.ts';

const info = (apiVersion: unknown) => ({
  KUBERNETES_EXEC_INFO: JSON.stringify({ kind: 'ExecCredential', apiVersion, spec: { interactive: false } }),
});
const v1 = 'client.authentication.k8s.io/v1';
const v1beta1 = 'client.authentication.k8s.io/v1beta1';

describe.concurrent('the answer', () => {
  test.for<[string, Env, string]>([
    ['v1', info(v1), v1],
    ['v1beta1', info(v1beta1), v1beta1],
    ['nothing', {}, v1],
    ['an empty variable', { KUBERNETES_EXEC_INFO: '' }, v1],
  ])('is in the requested apiVersion: %s', async ([, env, apiVersion], { home, us }) => {
    // First from the server, then from the cache.
    for (let i = 0; i < 2; i++) {
      const answer = await home.credential(us, { env });
      expect(answer).toMatchObject({ status: 0, stderr: '' });
      expect(lines(answer.stdout)).toHaveLength(1);
      const { expirationTimestamp, token } = JSON.parse(answer.stdout).status;
      expect(JSON.parse(answer.stdout)).toEqual({
        kind: 'ExecCredential',
        apiVersion,
        status: { token: home.token(us), expirationTimestamp },
      });
      const { exp } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
      expect(expirationTimestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      expect(Date.parse(expirationTimestamp)).toBe(Math.min(exp * 1000, us.signIn()?.until.getTime() ?? 0));
    }
    expect(us.counts.login).toBe(1);
  });

  test.for<[string, string]>([
    ['v1alpha1', info('client.authentication.k8s.io/v1alpha1').KUBERNETES_EXEC_INFO],
    ['null', 'null'],
    ['an object without one', '{"spec":{}}'],
    ['an apiVersion that is a number', info(1).KUBERNETES_EXEC_INFO],
    ['no apiVersion', '{}'],
    ['not JSON', 'apiVersion: v1'],
    ['half a document', '{"apiVersion":"client.authentication.k8s.io/v1"'],
    ['null', 'null'],
  ])('is refused: %s, from the cache too', async ([, text], { home, us }) => {
    for (let i = 0; i < 2; i++) {
      const refused = await home.credential(us, { env: { KUBERNETES_EXEC_INFO: text } });
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/^error: KUBERNETES_EXEC_INFO .*\nhint: .*\n$/);
      expect(refused.stderr).not.toMatch(/undefined|null/);
      if (i === 0) await home.run('login prod-us');
    }
  });
});

describe.skipIf(kubectl === undefined).concurrent(`a stanza with v1beta1${needsKubectl}`, () => {
  test.for([kubectl ?? '', ...kubectls].map((file) => [path.basename(file), file] as const))(
    '%s gets its token',
    async ([, program], { home, us }) => {
      await home.run('login --all-contexts');
      const text = fs.readFileSync(home.kubeconfig, 'utf8');
      home.write(home.kubeconfig, text.replaceAll('client.authentication.k8s.io/v1"', `${v1beta1}"`));
      for (let i = 0; i < 2; i++) {
        const got = await home.kubectl('--context prod-us get namespaces', { kubectl: program });
        expect(got).toMatchObject({ status: 0, stderr: '' });
      }
      expect(us.counts.login).toBe(1);
    },
  );
});

for (const caller of callers) {
  describe.skipIf(caller.absent).concurrent(`${caller.name}`, () => {
    test('shows errors on stderr, and nothing on stdout', async ({ home, us }) => {
      await home.run('login --all-contexts');
      us.user = null;
      const refused = await caller.call(home, '--context prod-us get namespaces');
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/^error: .*no grant for /);
    });

    test('is the user that the server created', async ({ home }) => {
      await home.run('login prod-us');
      expect((await caller.call(home, 'auth whoami')).stdout).toMatch(
        /Username +system:serviceaccount:tka-dev:tka-user-alice/,
      );
    });
  });
}

describe.concurrent('another API server than the token’s', () => {
  test('gets no cached token, which stays', async ({ home, us, eu }) => {
    await home.run('login prod-us');
    const before = home.files(/\+failed$/);
    const refused = await home.credential({ server: us.server, apiServer: eu.apiServer });
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toBe(
      `error: ${us.server} gives tokens for ${us.apiServer}, not ${eu.apiServer}\nhint: if the cluster has moved, update the context: kubectl tka login prod-us\n`,
    );
    expect(home.files(/\+failed$/)).toEqual(before);
  });

  test('gets no new token either, which is not stored', async ({ home, us, eu }) => {
    const refused = await home.credential({ server: us.server, apiServer: eu.apiServer });
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(fs.existsSync(home.entry(us))).toBe(false);
    expect(Object.values(home.files()).join()).not.toMatch(jwt);
  });

  test('after the server moved to another API server, the old one is refused until a login repairs the entry', async ({
    home,
    us,
    eu,
  }) => {
    await home.run('login prod-us');
    fs.rmSync(home.cache, { recursive: true });
    us.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: eu.apiServer, 'certificate-authority-data': eu.caData } },
    });
    us.faults.clusterInfo = { server_url: eu.apiServer };
    const refused = await home.credential(us);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    const moved = await home.run(['login', us.server]);
    expect(moved.status).toBe(0);
    expect(moved.stderr).toContain(us.apiServer);
    expect(await home.credential({ server: us.server, apiServer: eu.apiServer })).toMatchObject({ status: 0 });
  });

  test.for<[string, (url: string) => string]>([
    ['a trailing slash', (url) => `${url}/`],
    ['capitals', (url) => url.replace('https', 'HTTPS')],
  ])('but another spelling of it is the same one: %s', async ([, spelt], { home, us }) => {
    await home.run('login prod-us');
    expect(await home.credential({ server: us.server, apiServer: spelt(us.apiServer) })).toMatchObject({ status: 0 });
    expect(us.counts.login).toBe(1);
  });

  test.for<[string, (url: string) => string]>([
    ['a trailing slash', (url) => `${url}/`],
    ['the API’s path', (url) => `${url}/api/v1alpha1`],
    ['capitals', (url) => url.replace('http', 'HTTP')],
    ['host:port', (url) => url.replace('http://', '')],
  ])('another spelling of the TKA server finds its entry: %s', async ([, spelt], { home, us }) => {
    await home.run('login prod-us');
    expect(await home.credential({ server: spelt(us.server), apiServer: us.apiServer })).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(us.counts.login).toBe(1);
  });
});

describe.concurrent('usage error: exit 2, a hint, nothing on stdout, nothing changed', () => {
  test.for([
    'credential',
    'credential --server',
    'credential --server=',
    'credential --server ftp://x',
    'credential --server https://x/path',
    'credential --server https://user:pw@x',
    'credential --server http://127.0.0.1:1 --api-server http://127.0.0.1:2',
    'credential --server http://127.0.0.1:1 --api-server',
    'credential --server http://127.0.0.1:1 --api-server https://x?y',
    'credential --server http://127.0.0.1:1 --what',
    'credential --server http://127.0.0.1:1 more',
    'credential --server h --port 0',
    'credential --server h --port many',
  ])('%s', async (args, { home }) => {
    const before = home.files();
    const wrong = await home.run(args);
    expect(wrong).toMatchObject({ status: 2, stdout: '' });
    expect(lines(wrong.stderr)[0]).toMatch(/^error: (?:API |[^A-Z])/);
    expect(home.files()).toEqual(before);
  });

  test('plain http to a host outside this machine and the tailnet: exit 1', async ({ home }) => {
    const refused = await home.run('credential --server http://192.0.2.1:8123');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: .*plain http is not allowed\nhint: use https: https/);
  });
});
