// `login`: its message, its context, and its changes of the kubeconfig.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { callers } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { jwt, lines, program } from '../fixtures/program.ts';

// A file as users have it: comments, odd order and spacing, an anchor, an unknown field, a foreign context.
const theirs = `# my clusters
apiVersion: v1
kind: Config
x-mine: &mine { a: 1 }   # an anchor

current-context: work
contexts:
  # the one at work
  - context: {cluster: work, user: me}
    name: work
clusters:
  - name: work
    cluster:
      server: https://work.example.com:6443
users:
  - name: me
    user: {token: "not-ours"}   # keep
preferences: {}
`;

interface Named {
  readonly name: string;
}
interface Kubeconfig {
  readonly 'current-context'?: string;
  readonly contexts: (Named & { readonly context: Record<string, unknown> })[];
  readonly clusters: (Named & { readonly cluster: Record<string, unknown> })[];
  readonly users: (Named & { readonly user: { readonly exec?: Record<string, unknown> } })[];
}
const read = (file: string): Kubeconfig => parse(fs.readFileSync(file, 'utf8'));
const names = (home: Home) => read(home.kubeconfig).contexts.map(({ name }) => name);
const identity = (file: string) => {
  const { ino, mtimeNs, ctimeNs } = fs.statSync(file, { bigint: true });
  return { ino, mtimeNs, ctimeNs, text: fs.readFileSync(file, 'utf8') };
};

describe.concurrent('login', () => {
  test('-n sets the namespace of the context, which later logins keep', async ({ home, us, eu }) => {
    const inNamespace = (name: string) =>
      read(home.kubeconfig).contexts.find((each) => each.name === name)?.context.namespace;
    await home.transcript(`
      $ kubectl tka login prod-us -n web
      Signed in to prod-us (${us.server}) …
      Switched to context "prod-us", namespace "web".
      $ kubectl tka login prod-us
      Signed in to prod-us (${us.server}) …
      Context "prod-us" is already the current context.
      $ kubectl tka login prod-us -n shop
      Signed in to prod-us (${us.server}) …
      Context "prod-us", namespace "shop" is already the current context.
      $ kubectl tka login prod-eu --no-switch --namespace shop
      Signed in to prod-eu (${eu.server}) …
      Context "prod-eu", namespace "shop" is ready; the current context is still "prod-us".
    `);
    expect(['prod-us', 'prod-eu'].map(inNamespace)).toEqual(['shop', 'shop']);
    expect(await home.run('login prod-us prod-eu -n web')).toMatchObject({ status: 0 });
    expect(['prod-us', 'prod-eu'].map(inNamespace)).toEqual(['web', 'web']);
    us.resetCounts();
    for (const args of ['login prod-us -n Web', 'login prod-us -n a.b', 'login --all-contexts -n web'])
      expect(await home.run(args)).toMatchObject({ status: 2, stdout: '' });
    expect(us.counts.login).toBe(0);
  });

  test('prints the user, the role, the expiry, the context, and the previous context', async ({ home, us, eu }) => {
    const first = await home.transcript(`
      $ kubectl tka login prod-us
      Signed in to prod-us (${us.server}) as alice, role viewer; expires in …m (…).
      Switched to context "prod-us".
    `);
    expect(first.stdout).toMatch(/; expires in \d+m \((?:\d{4}-\d\d-\d\d )?\d\d:\d\d\)\.\n/);
    await home.transcript(`
      $ kubectl tka login prod-eu
      Signed in to prod-eu (${eu.server}) …
      Switched to context "prod-eu" (was "prod-us").
      $ kubectl tka login prod-eu
      Signed in to prod-eu (${eu.server}) …
      Context "prod-eu" is already the current context.
    `);
  });

  test('writes the exec user of the contract, and no token', async ({ home, us }) => {
    await home.run('login prod-us');
    const config = read(home.kubeconfig);
    const mark = [{ name: 'tka.specht-labs.de', extension: { server: us.server } }];
    expect(config['current-context']).toBe('prod-us');
    const listed = [{ name: 'tka.specht-labs.de', extension: { namedBy: us.server, server: us.server } }];
    expect(config.contexts).toEqual([
      { name: 'prod-us', context: { cluster: 'prod-us', user: 'prod-us', extensions: listed } },
    ]);
    expect(config.clusters).toEqual([
      {
        name: 'prod-us',
        cluster: { server: us.apiServer, 'certificate-authority-data': us.caData, extensions: mark },
      },
    ]);
    expect(config.users).toEqual([
      {
        name: 'prod-us',
        user: {
          extensions: mark,
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            command: program,
            args: ['credential', '--server', us.server, '--api-server', us.apiServer],
            interactiveMode: 'Never',
            provideClusterInfo: false,
            installHint: expect.stringContaining('kubectl krew install tka/tka'),
          },
        },
      },
    ]);
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).not.toMatch(jwt);
    expect(fs.statSync(home.kubeconfig).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(path.dirname(home.kubeconfig))).toEqual(['config']);
  });

  test('twice: does not change or even write the kubeconfig', async ({ home, us }) => {
    await home.run('login prod-us');
    const before = identity(home.kubeconfig);
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run(['login', us.server])).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('login')).toMatchObject({ status: 0, stderr: '' });
    expect(identity(home.kubeconfig)).toEqual(before);
    // But each is a new sign-in, without a logout first.
    expect(us.counts).toMatchObject({ login: 4, logout: 0 });
  });

  test('keeps the lines of others byte for byte', async ({ home }) => {
    home.write(home.kubeconfig, theirs, 0o640);
    fs.chmodSync(home.kubeconfig, 0o640);
    expect((await home.run('login prod-us')).stdout).toMatch(/ \(was "work"\)\.\n$/);
    const after = lines(fs.readFileSync(home.kubeconfig, 'utf8'));
    for (const line of lines(theirs).filter((text) => text !== 'current-context: work')) expect(after).toContain(line);
    expect(fs.statSync(home.kubeconfig).mode & 0o777).toBe(0o640);
    const present = callers.filter(({ absent }) => !absent);
    expect(present.length).toBeGreaterThan(0);
    for (const { call } of present) {
      expect(await call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
    }
  });

  test('--no-switch: the current context stays', async ({ home }) => {
    home.write(home.kubeconfig, theirs);
    const login = await home.run('login prod-us --no-switch');
    expect(lines(login.stdout)[1]).toBe('Context "prod-us" is ready; the current context is still "work".');
    expect(read(home.kubeconfig)['current-context']).toBe('work');
    expect(names(home)).toEqual(['work', 'prod-us']);
  });

  test('--context NAME: the context gets that name, and keeps it', async ({ home }) => {
    await home.run(['login', 'prod-us', '--context', 'my own: #1']);
    expect(names(home)).toEqual(['my own: #1']);
    const before = identity(home.kubeconfig);
    expect(lines((await home.run('login prod-us')).stdout)[1]).toBe(
      'Context "my own: #1" is already the current context.',
    );
    expect(identity(home.kubeconfig)).toEqual(before);
    for (const { call } of callers.filter(({ absent }) => !absent))
      expect(await call(home, ['--context', 'my own: #1', 'get', 'namespaces'])).toMatchObject({ status: 0 });
  });

  test('--context with the name of another managed server: exit 1, nothing changed', async ({ home, eu }) => {
    await home.run('login prod-us');
    const before = home.files();
    const refused = await home.run('login prod-eu --context prod-us');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: context "prod-us" belongs to .*\nhint: .*--context NAME\n/);
    expect(home.files()).toEqual(before);
    expect(eu.counts.login).toBe(0);
  });

  test('a changed role is reported, with a note that some servers apply it only after a logout', async ({
    home,
    us,
  }) => {
    await home.run('login prod-us');
    us.user = { username: 'alice', role: 'cluster-admin', periodMs: 30 * 60_000 };
    const second = await home.run('login prod-us');
    expect(second.status).toBe(0);
    expect(second.stdout).toMatch(/as alice, role cluster-admin/);
    expect(second.stderr).toBe(
      'warning: your role is now cluster-admin (was viewer). some servers apply a new role only after a logout\n' +
        'hint: kubectl tka logout prod-us && kubectl tka login prod-us\n',
    );
    // As long as it applies, and no longer.
    expect((await home.run('login prod-us')).stderr).toBe(second.stderr);
    await home.run('logout');
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    // A server that applies it says so.
    us.user = { username: 'alice', role: 'viewer', periodMs: 30 * 60_000 };
    us.faults.routes.login = { headers: { 'Tka-Role': 'applied' } };
    expect((await home.run('login prod-us')).stderr).toBe('your role is now viewer (was cluster-admin)\n');
  });

  test('another user is reported', async ({ home, us }) => {
    await home.run('login prod-us');
    us.user = { username: 'bob', role: 'viewer', periodMs: 30 * 60_000 };
    expect((await home.run('login prod-us')).stderr).toBe('warning: you are now bob (was alice)\n');
    // The comparison outlives a logout.
    await home.run('logout');
    us.user = { username: 'alice', role: 'viewer', periodMs: 30 * 60_000 };
    expect((await home.run('login prod-us')).stderr).toBe('warning: you are now alice (was bob)\n');
  });

  test('a refusal: the server’s message, exit 1, nothing written', async ({ home, us }) => {
    us.user = null;
    const before = home.files();
    const refused = await home.run(['login', us.server]);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: .*no grant for /m);
    expect(home.files(/^\.cache/)).toEqual(before);
    expect(home.cached()).toEqual([]);
  });

  test('--quiet: prints errors only', async ({ home }) => {
    expect(await home.run('login prod-us --quiet')).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(await home.run('login nowhere.invalid -q')).toMatchObject({ status: 1, stdout: '' });
  });

  test('NAME is a member, a host, a URL, or a managed context', async ({ home, us, eu }) => {
    for (const name of ['prod-eu', eu.server, eu.server.replace('http://', ''), `${eu.server}/`])
      expect((await home.run(['login', name])).stdout).toMatch(new RegExp(`^Signed in to \\S+ \\(${eu.server}\\)`));
    expect(names(home)).toEqual(['prod-eu']);
    // The entry server is down: the kubeconfig's knowledge is enough.
    await us.stop();
    const named = await home.run('login prod-eu');
    expect(named.status).toBe(0);
    expect(named.stdout).toContain(eu.server);
  });

  test('an unknown name: exit 1, and where the names are', async ({ home }) => {
    const unknown = await home.run('login nowhere', { env: { TKA_TIMEOUT: '5s' } });
    expect(unknown).toMatchObject({ status: 1, stdout: '' });
    expect(unknown.stderr).toMatch(/^error: no cluster named "nowhere"$/m);
    expect(unknown.stderr).toMatch(/^hint: kubectl tka clusters$/m);
  });

  test('no server configured: exit 1, with a hint', async ({ home }) => {
    fs.rmSync(home.config);
    const refused = await home.run('login');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(
      /^error: no TKA server is configured.*\n(?:hint: .*\n)*hint: .*kubectl tka config tailscale\.hostname/,
    );
  });

  test('servers named by their URLs get the names of their clusters, and keep them', async ({ home, us, eu, mesh }) => {
    const staging = mesh.cluster('staging');
    const expected = ['prod-us', 'prod-eu', 'staging'];
    for (const { server } of [us, eu, staging]) await home.run(['login', server]);
    expect(names(home)).toEqual(expected);
    for (const { server } of [staging, eu, us]) await home.run(['login', server]);
    expect(names(home)).toEqual(expected);
  });

  test('a stanza with a missing command is repaired, one that works with another program is kept', async ({
    home,
    us,
  }) => {
    await home.run('login prod-us');
    const text = fs.readFileSync(home.kubeconfig, 'utf8');
    home.write(home.kubeconfig, text.replace(JSON.stringify(program), '"/gone/kubectl-tka"'));
    expect(await home.run('login prod-us')).toMatchObject({ status: 0 });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(text);
    const other = path.join(home.root, 'kubectl-tka');
    fs.symlinkSync(program, other);
    home.write(home.kubeconfig, text.replace(JSON.stringify(program), JSON.stringify(other)));
    await home.run('login prod-us');
    expect(read(home.kubeconfig).users[0]?.user.exec?.command).toBe(other);
    expect(us.counts.login).toBe(3);
  });

  test('a kubeconfig that cannot be edited safely: exit 1, line and column, no sign-in', async ({ home, us }) => {
    home.write(home.kubeconfig, 'apiVersion: v1\nkind: Config\nmine: &them []\nusers: *them\n');
    const before = home.files();
    for (const args of ['login prod-us', 'login prod-us --no-switch']) {
      const refused = await home.run(args);
      expect(refused).toMatchObject({ status: 1, stdout: '' });
      expect(refused.stderr).toMatch(/^error: .*config:\d+:\d+: cannot edit this safely: .*\n(?:hint: .*\n)+$/);
    }
    expect(home.files()).toEqual(before);
    expect(us.counts.login).toBe(0);
  });

  test.skipIf(process.getuid?.() === 0)('a read-only kubeconfig: exit 1, no sign-in', async ({ home, us }) => {
    home.write(home.kubeconfig, 'kind: Config\n', 0o444);
    const ran = await home.run('login');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^error: cannot write \S+: permission denied\nhint: /);
    expect(us.counts.login).toBe(0);
  });

  test('a damaged kubeconfig: exit 1, line and column, nothing changed, no sign-in', async ({ home, us }) => {
    home.write(home.kubeconfig, 'apiVersion: v1\nkind: Config\nclusters:\n- name: [\n');
    const before = home.files();
    const refused = await home.run('login prod-us');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: .*config:\d+:\d+: /);
    expect(home.files()).toEqual(before);
    expect(us.counts.login).toBe(0);
  });
});

describe.concurrent('login with a special kubeconfig', () => {
  test('KUBECONFIG with two files: an entry is updated in its file, a new one goes to the first', async ({ home }) => {
    const [one, two] = [path.join(home.dir, 'one.yaml'), path.join(home.dir, 'two.yaml')];
    home.write(one, theirs);
    await home.run(['login', 'prod-eu', '--kubeconfig', two]);
    const second = identity(two);
    const env = { KUBECONFIG: `${one}${path.delimiter}${two}` };
    expect(await home.run('login prod-us', { env })).toMatchObject({ status: 0, stderr: '' });
    expect(read(one).contexts.map(({ name }) => name)).toEqual(['work', 'prod-us']);
    expect(identity(two)).toEqual(second);
    expect(await home.run('login prod-eu', { env })).toMatchObject({ status: 0, stderr: '' });
    expect(read(one).contexts.map(({ name }) => name)).toEqual(['work', 'prod-us']);
    expect(read(two).contexts.map(({ name }) => name)).toEqual(['prod-eu']);
    expect(read(one)['current-context']).toBe('prod-eu');
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
    for (const { call } of callers.filter(({ absent }) => !absent))
      for (const name of ['prod-us', 'prod-eu'])
        expect(await call(home, `--context ${name} get namespaces`, { env })).toMatchObject({ status: 0 });
  });

  test('KUBECONFIG with a file that does not exist yet', async ({ home }) => {
    const file = path.join(home.dir, 'new folder', 'new.yaml');
    expect(await home.run('login prod-us', { env: { KUBECONFIG: file } })).toMatchObject({ status: 0, stderr: '' });
    expect(read(file).contexts.map(({ name }) => name)).toEqual(['prod-us']);
  });

  test('a symlink: its target is written, the link stays', async ({ home }) => {
    const real = path.join(home.dir, 'dotfiles', 'kubeconfig');
    home.write(real, theirs);
    fs.mkdirSync(path.dirname(home.kubeconfig), { recursive: true });
    fs.symlinkSync('../dotfiles/kubeconfig', home.kubeconfig);
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readlinkSync(home.kubeconfig)).toBe('../dotfiles/kubeconfig');
    expect(read(real).contexts.map(({ name }) => name)).toEqual(['work', 'prod-us']);
    expect(fs.readdirSync(path.dirname(real))).toEqual(['kubeconfig']);
  });

  test('CRLF stays CRLF', async ({ home }) => {
    home.write(home.kubeconfig, theirs.replaceAll('\n', '\r\n'));
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
    const after = fs.readFileSync(home.kubeconfig, 'utf8');
    expect(after.replaceAll('\r\n', '')).not.toMatch(/[\r\n]/);
    expect(names(home)).toEqual(['work', 'prod-us']);
  });
});

describe.concurrent('login --all-contexts', () => {
  test('writes a context for every cluster, and signs in to none', async ({ home, mesh }) => {
    home.write(home.kubeconfig, theirs);
    const all = await home.run('login --all-contexts');
    expect(all).toMatchObject({ status: 0, stderr: '' });
    expect(all.stdout).toMatch(/^3 .*: prod-eu, prod-us, staging\.\nThe current context is still "work"\. /);
    expect(names(home)).toEqual(['work', 'prod-eu', 'prod-us', 'staging']);
    for (const cluster of mesh.clusters) expect(cluster.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    const before = identity(home.kubeconfig);
    expect(await home.run('login --all-contexts')).toMatchObject({ status: 0, stderr: '' });
    expect(identity(home.kubeconfig)).toEqual(before);
  });

  test('a cluster that is down is reported; the others get their contexts', async ({ home, mesh }) => {
    await mesh.cluster('staging').stop();
    const some = await home.run('login --all-contexts', { env: { TKA_TIMEOUT: '3s' } });
    expect(some.stderr).toMatch(/^warning: staging: cannot reach /);
    expect(names(home)).toEqual(['prod-eu', 'prod-us']);
  });

  test('a server that serves another cluster than listed gets no context', async ({ home, mesh, eu }) => {
    eu.faults.clusterInfo = { server_url: mesh.cluster('staging').apiServer };
    const some = await home.run('login --all-contexts');
    expect(some.status).toBe(1);
    expect(some.stderr).toMatch(/^warning: prod-eu: .* is not the TKA server of prod-eu/);
    expect(names(home)).toEqual(['prod-us', 'staging']);
    expect(await home.run('login prod-eu')).toMatchObject({ status: 1, stdout: '' });
    expect(eu.counts.login).toBe(0);
  });
});

describe.concurrent('a server that skips verification of the API server’s certificate', () => {
  const insecure = ({ us }: { us: import('../../src/sandbox/mesh.ts').SandboxCluster }) => {
    us.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: us.apiServer, 'insecure-skip-tls-verify': true } },
    });
    us.faults.clusterInfo = { insecure_skip_tls_verify: true, ca_data: '' };
  };

  test('is refused without consent; the consent is stored for kubectl', async ({ home, us }) => {
    insecure({ us });
    const refused = await home.run('login prod-us');
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^error: .*skip TLS verification of \S+\nhint: .*--insecure-skip-tls-verify\n$/);
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
    expect((await home.credential(us)).status).toBe(1);
    expect(fs.existsSync(home.entry(us))).toBe(false);

    expect(await home.run('login prod-us --insecure-skip-tls-verify')).toMatchObject({ status: 0, stderr: '' });
    expect(read(home.kubeconfig).clusters[0]?.cluster).toMatchObject({ 'insecure-skip-tls-verify': true });
    for (const { call } of callers.filter(({ absent }) => !absent)) {
      fs.rmSync(home.cache, { recursive: true, force: true });
      expect(await call(home, 'get namespaces')).toMatchObject({ status: 0, stderr: '' });
    }
    // Once given, it is not needed again.
    expect(await home.run('login prod-us')).toMatchObject({ status: 0, stderr: '' });
  });

  test('the consent applies to this pair of servers only', async ({ home, us, eu }) => {
    insecure({ us });
    await home.run('login prod-us --insecure-skip-tls-verify');
    us.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: { 'tka-cluster': { server: eu.apiServer, 'insecure-skip-tls-verify': true } },
    });
    fs.rmSync(home.cache, { recursive: true });
    expect((await home.credential({ server: us.server })).status).toBe(1);
    expect(await home.run(['login', us.server])).toMatchObject({ status: 1, stdout: '' });
  });

  test('forget removes the consent', async ({ home, us }) => {
    insecure({ us });
    await home.run('login prod-us --insecure-skip-tls-verify');
    expect((await home.run('forget prod-us')).status).toBe(0);
    expect(await home.run('login prod-us')).toMatchObject({ status: 1, stdout: '' });
  });

  test('consent is given for one cluster at a time', async ({ home, us }) => {
    insecure({ us });
    for (const args of [
      'login --all-contexts --insecure-skip-tls-verify',
      'login prod-us prod-eu --insecure-skip-tls-verify',
      'login -l environment=production --insecure-skip-tls-verify',
      'sync --insecure-skip-tls-verify',
    ]) {
      const ran = await home.run(args);
      expect(ran).toMatchObject({ status: 2, stdout: '' });
      expect(ran.stderr).toMatch(/--insecure-skip-tls-verify.*\n(?:hint: .*\n)+$/);
    }
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
  });

  test('login --all-contexts requires it too', async ({ home, us }) => {
    insecure({ us });
    const some = await home.run('login --all-contexts');
    expect(some.status).toBe(1);
    expect(some.stderr).toMatch(/^warning: prod-us: .*TLS verification(?:.|\n)*^hint: .*--insecure-skip-tls-verify$/m);
    expect(await home.run('login prod-us --insecure-skip-tls-verify')).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('login --all-contexts')).toMatchObject({ status: 0, stderr: '' });
    expect(await home.credential(us)).toMatchObject({ status: 0, stderr: '' });
  });
});

describe.concurrent('login with the server’s clock an hour off', () => {
  test('prints how long the sign-in lasts', async ({ home, us }) => {
    for (const skew of [-3_600_000, 3_600_000]) {
      us.faults.dateSkewMs = skew;
      us.faults.until = skew;
      us.faults.token = { expOffsetMs: skew + 30 * 60_000 };
      expect((await home.run('login prod-us')).stdout).toMatch(/; expires in (?:29|30)m \(.*\d\d:\d\d\)\.$/m);
      expect((await home.run('status')).stdout).toMatch(/ active +in (?:29|30)m \(.*\d\d:\d\d\) /);
    }
  });
});
