// The whole system with several TKA servers for each cluster: two API servers, the built servers, the built plugin and
// kubectl, while servers are killed and suspended at the worst moments. The user names no server.
import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject } from 'vitest';
import { parse, stringify } from 'yaml';
import { type StandInCaller, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { freePort } from '../fixtures/ports.ts';
import type { Env, Ran } from '../fixtures/program.ts';
import { type Mesh, ReplicaProcess } from './fleet.ts';
import { type Hook, type Hooked, hooked } from './hook.ts';
import { onlyHas } from './replicas.ts';
import { absent, Fixture, statusFor, test } from './support.ts';

const hosts = [61, 62, 63, 64, 65, 66].map((last) => `127.0.0.${last}`);

let us: Fixture;
let eu: Fixture;
let proxy: Hooked;
let hook: Hook = () => undefined;
let gaveUp: (path: string) => void = () => undefined;
/** The user's own tailscaled. */
let tailnet: Tailscaled;
/** The servers of `prod-us` and of `prod-eu`. */
let first: ReplicaProcess;
let second: ReplicaProcess;
let others: readonly ReplicaProcess[];
let mesh: Mesh;
let role = '';

let username = '';
let caller: StandInCaller;
let home: Home;
const env = () => ({ TS_SOCKET: tailnet.socketPath });
const run = (args: string | readonly string[], input?: string): Promise<Ran> =>
  home.run(args, { env: env(), ...(input !== undefined && { input }) });
const get = (context = 'prod-us', more: Env = {}): Promise<Ran> =>
  home.kubectl(`--context ${context} get namespace default -o name --request-timeout=30s`, {
    env: { ...env(), ...more },
  });

type Gate = PromiseWithResolvers<void>;

interface Listed {
  readonly name: string;
  readonly state: string;
  readonly servers: readonly { readonly name: string; readonly server: string; readonly state: string }[];
}

const signIn = (): string => `tka-user-${username}`;
/** Returns how many sign-ins the servers of `prod-us` were asked for. */
const logins = (): number => [first, second].flatMap((replica) => replica.asked('POST', '/login')).length;

function grant(period: string): void {
  const rules = [{ role, period, priority: 1 }];
  caller = { login: `${username}@example.com`, capabilities: { 'specht-labs.de/cap/tka': rules } };
}

/** Runs kubectl in a loop; every second call finds nothing in the cache. */
function startLoop() {
  const told = new EventEmitter();
  const counts = { calls: 0, misses: 0, failed: [] as Ran[] };
  let isOver = false;
  async function loop(): Promise<void> {
    while (!isOver) {
      if (counts.calls % 2 === 0) {
        fs.rmSync(home.entry(first), { force: true });
        counts.misses++;
      }
      const ran = await get();
      counts.calls++;
      if (ran.status !== 0) counts.failed.push(ran);
      told.emit('call');
    }
  }
  const over = loop();
  return {
    counts,
    /** Resolves after `count` more complete calls. */
    async more(count: number): Promise<void> {
      for (const goal = counts.calls + count + 1; counts.calls < goal; ) await once(told, 'call');
    },
    async end() {
      isOver = true;
      await over;
    },
  };
}

/** Returns the cached token of `prod-us`, which must be for the only account there. */
async function rightToken(): Promise<string> {
  const token = home.token(first);
  const uid = (await us.account(signIn()))?.metadata.uid;
  expect(JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())).toMatchObject({
    'kubernetes.io': { namespace: us.namespace, serviceaccount: { name: signIn(), uid } },
  });
  expect(await statusFor(us.access, token)).toBe(200);
  return token;
}

/** Resolves when `clusters -o wide` shows this number of available servers for a cluster, in one row. */
async function shown(name: string, servers: RegExp): Promise<void> {
  for (const deadline = performance.now() + 20_000; ; ) {
    const { status, stdout, stderr } = await run('clusters -o wide');
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const rows = stdout.split('\n').filter((line) => line.replace(/^\*? +/, '').startsWith(`${name} `));
    if (rows.length === 1 && rows[0]?.split(/ {2,}/).some((cell) => servers.test(cell))) return;
    if (performance.now() > deadline) throw new Error(`${name} does not have ${servers}:\n${stdout}${stderr}`);
  }
}

const contexts = async (): Promise<string[]> =>
  (await home.kubectl('config get-contexts -o name')).stdout.trim().split('\n').sort();

describe.skipIf(absent !== undefined || kubectl === undefined)('clusters of two servers each', () => {
  beforeAll(async () => {
    const [access, elsewhere] = inject('clusters');
    if (access === undefined || elsewhere === undefined) throw new Error(absent);
    [us, eu] = await Promise.all([Fixture.make(access), Fixture.make(elsewhere)]);
    role = `editor-${randomBytes(4).toString('hex')}`;
    for (const fixture of [us, eu]) await fixture.role(['*'], ['namespaces', 'configmaps'], role);
    proxy = await hooked(
      us.access,
      (call) => hook(call),
      (path) => gaveUp(path),
    );
    const port = await freePort(...hosts);
    const whois = () => caller;
    const gossipPort = await freePort(...hosts);
    mesh = { port, gossipPort, hosts: hosts.slice(0, 4), peers: [], whois };
    const [a, b, c, d] = hosts as [string, string, string, string];
    first = new ReplicaProcess(mesh, {
      ...{ name: 'prod-us', cluster: 'prod-us', host: a, fixture: us },
      ...{ through: proxy.access },
    });
    second = new ReplicaProcess(mesh, { name: 'prod-us-1', cluster: 'prod-us', host: b, fixture: us });
    others = [c, d].map((host, i) => {
      const name = ['prod-eu', 'prod-eu-1'][i] ?? '';
      return new ReplicaProcess(mesh, { name, cluster: 'prod-eu', host, fixture: eu });
    });
    const all = [first, second, ...others];
    tailnet = await startTailscaled({ peers: mesh.peers });
    await Promise.all(all.map((replica) => replica.start()));
  });

  afterAll(async () => {
    for (const replica of [first, second, ...(others ?? [])]) await replica?.[Symbol.asyncDispose]();
    proxy?.close();
    await tailnet?.close();
    for (const fixture of [us, eu]) fixture?.kube.close();
  });

  beforeEach(async () => {
    hook = () => undefined;
    username = `u${randomBytes(4).toString('hex')}`;
    grant('1h');
    home = new Home();
    home.write(home.config, `tailscale:\n  hostname: prod-us\n  port: ${mesh.port}\n`);
  });

  // The leftovers of a failed test must not fail the next ones.
  afterEach(async () => {
    hook = () => undefined;
    for (const replica of [first, second]) {
      replica.signal('SIGCONT');
      if (!replica.isRunning) await replica.start();
    }
    await run('logout --all');
    home.remove();
  });

  test('a user needs no server names: one row, one context and one exec for each cluster', async () => {
    await shown('prod-us', /^2\/2$/);
    await shown('prod-eu', /^2\/2$/);
    const rows: Listed[] = JSON.parse((await run('clusters -o json')).stdout);
    const all = [others, [first, second]].map((replicas) =>
      replicas.map(({ config, server }) => ({ name: config.name, server, state: 'healthy' })),
    );
    expect(rows.map(({ name, state, servers }) => ({ name, state, servers }))).toEqual([
      { name: 'prod-eu', state: 'healthy', servers: all[0] },
      { name: 'prod-us', state: 'healthy', servers: all[1] },
    ]);

    const login = await run('login');
    expect(login).toMatchObject({ status: 0, stderr: '' });
    expect(login.stdout).toMatch(/^Signed in to prod-us /);
    expect(await get()).toMatchObject({ status: 0, stdout: 'namespace/default\n', stderr: '' });
    expect(await run('sync')).toMatchObject({ status: 0, stderr: '' });
    expect(await contexts()).toEqual(['prod-eu', 'prod-us']);
    expect(await run('use prod-eu')).toMatchObject({ status: 0 });
    expect((await home.kubectl('config current-context')).stdout).toBe('prod-eu\n');
    expect(await get('prod-eu')).toMatchObject({ status: 0, stdout: 'namespace/default\n', stderr: '' });

    const map = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { generateName: `${username}-`, namespace: 'default', labels: { of: username } },
    });
    expect(await run('exec --yes -- create -f -', map)).toMatchObject({ status: 0 });
    const made: string[] = [];
    for (const { kube } of [us, eu]) {
      const path = `/api/v1/namespaces/default/configmaps?labelSelector=of%3D${username}`;
      const found = await kube.get<{ items: { metadata: { name: string } }[] }>(path);
      expect(found?.items).toHaveLength(1);
      made.push(...(found?.items ?? []).map(({ metadata }) => metadata.name));
    }
    // A second deletion would not find it.
    const gone = await run(`exec --yes -o json -- delete configmap -n default -l of=${username}`);
    expect(gone).toMatchObject({ status: 0 });
    expect(JSON.parse(gone.stdout)).toMatchObject(
      made.reverse().map((name) => ({ stdout: `configmap "${name}" deleted\n` })),
    );
    expect(await run('logout --all')).toMatchObject({ status: 0 });
    for (const fixture of [us, eu]) await onlyHas(fixture);
  });

  test('a kubectl loop has no failure and no second sign-in while each server is killed and suspended', async () => {
    await shown('prod-us', /^2\/2$/);
    expect(await run('login')).toMatchObject({ status: 0 });
    const uids = async () => [(await us.signIn(signIn()))?.metadata.uid, (await us.account(signIn()))?.metadata.uid];
    const before = await uids();
    expect(before).toEqual([expect.any(String), expect.any(String)]);
    const loginsBefore = logins();
    const start = performance.now();
    const loop = startLoop();
    let late = 0;
    while (performance.now() - start < 60_000) {
      for (const replica of [first, second]) {
        await replica.kill();
        await Promise.all([loop.more(4), shown('prod-us', /^1\/2$/)]);
        await replica.start();
        await shown('prod-us', /^2\/2$/);
        const { misses } = loop.counts;
        replica.signal('SIGSTOP');
        await Promise.all([loop.more(4), shown('prod-us', /^1\/2$/)]);
        replica.signal('SIGCONT');
        if (replica === first) late += loop.counts.misses - misses + 1;
        await shown('prod-us', /^2\/2$/);
      }
    }
    await loop.end();
    const { misses, failed } = loop.counts;
    expect(failed).toEqual([]);
    expect(await uids()).toEqual(before);
    expect(logins() - loginsBefore).toBeGreaterThanOrEqual(misses);
    // A suspended server may handle its requests when it wakes up, and a busy machine may answer later than the client
    // waits: that extends the same sign-in.
    expect(logins() - loginsBefore).toBeLessThanOrEqual(1.5 * misses + late);
    await onlyHas(us, { name: signIn() });
    expect(await run('logout')).toMatchObject({ status: 0 });
    await onlyHas(us);
  });

  // The first and last calls of a server in each part of a sign-in.
  const moments = [
    ['a first sign-in', 'before the account exists', 'POST', /\/serviceaccounts$/, 'before'],
    ['a first sign-in', 'before it answers', 'PATCH', /\/status$/, 'after'],
    ['a first sign-in', 'before the token exists', 'POST', /\/token$/, 'before'],
    ['a refresh', 'before the sign-in is extended', 'PATCH', /\/tkasignins\/[^/]+$/, 'before'],
    ['a refresh', 'before it answers', 'PATCH', /\/tkasignins\/[^/]+$/, 'after'],
    ['a refresh', 'before the token exists', 'POST', /\/token$/, 'before'],
  ] as const;

  for (const [what, moment, method, at, when] of moments) {
    test.for(['SIGKILL', 'SIGSTOP'] as const)(`${what}, with %s ${moment}, resumes at the sibling`, async (signal) => {
      // A server that was just started lists only itself.
      await shown('prod-us', /^2\/2$/);
      expect(await run('sync')).toMatchObject({ status: 0 });
      if (what === 'a refresh') {
        expect(await get()).toMatchObject({ status: 0 });
        // Longer, so that there is something to extend.
        grant('2h');
        fs.rmSync(home.entry(first));
      }
      const [struck, awake, passed] = [1, 2, 3].map(() => Promise.withResolvers<void>()) as [Gate, Gate, Gate];
      let armed = true;
      hook = async (call) => {
        if (call.method !== method || !at.test(call.path)) return;
        if (armed && (call.status === undefined) === (when === 'before')) {
          armed = false;
          first.signal(signal);
          struck.resolve();
          await awake.promise;
        }
        if (!armed && call.status !== undefined) passed.resolve();
      };
      // A server that was suspended for longer than its own timeout does not wait for this answer.
      gaveUp = (path) => !armed && at.test(path) && passed.resolve();
      const calling = get();
      const notAsked = calling.then(({ stderr }) =>
        Promise.reject(new Error(`${first.server} was not asked: ${stderr}`)),
      );
      await Promise.race([struck.promise, notAsked]);
      notAsked.catch(() => undefined);
      expect(await calling).toMatchObject({
        status: 0,
        stdout: 'namespace/default\n',
        stderr: `warning: ${first.server} is away: signed in through ${second.server}, of the same cluster\n`,
      });
      const token = await rightToken();
      expect(fs.existsSync(home.entry(second))).toBe(false);
      expect(await get()).toMatchObject({ status: 0, stderr: '' });
      await onlyHas(us, { name: signIn() });
      const wake = async () => {
        awake.resolve();
        if (signal === 'SIGKILL') {
          await first.kill();
          await first.start();
        } else {
          first.signal('SIGCONT');
          await passed.promise;
        }
      };
      // A server that wakes up after the logout must not restore anything.
      const isLate = what === 'a first sign-in';
      if (!isLate) await wake();
      expect(await run('logout prod-us')).toMatchObject({ status: 0 });
      expect([401, 403]).toContain(await statusFor(us.access, token));
      if (isLate) await wake();
      await us.gone(signIn());
      await onlyHas(us);
    });
  }

  test('from one server to three: contexts stay unchanged, and kubectl keeps working', async () => {
    await shown('prod-us', /^2\/2$/);
    expect(await run('sync')).toMatchObject({ status: 0 });
    expect(await get()).toMatchObject({ status: 0 });
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    const third = new ReplicaProcess(mesh, {
      name: 'prod-us-2',
      cluster: 'prod-us',
      host: hosts[4] ?? '',
      fixture: us,
    });
    for (const [scale, servers] of [
      [() => second.remove(), /^1\/2$/],
      [() => Promise.all([second.start(), third.start()]), /^3\/3$/],
      [() => third.remove(), /^2\/3$/],
    ] as const) {
      await scale();
      await shown('prod-us', servers);
      expect(await run('sync')).toMatchObject({ status: 0, stdout: '2 unchanged.\n', stderr: '' });
      expect(fs.readFileSync(home.kubeconfig, 'utf8')).toBe(before);
      fs.rmSync(home.entry(first));
      expect(await get()).toMatchObject({ status: 0, stderr: '' });
    }
    expect(await run('logout prod-us')).toMatchObject({ status: 0 });
    await third[Symbol.asyncDispose]();
  });

  test('a logout while the named server is unreachable goes to the sibling, and no context works, not even an old one', async () => {
    // A third server that has left stays in the list.
    await shown('prod-us', /^2\/[23]$/);
    expect(await run('sync')).toMatchObject({ status: 0 });
    expect(await get()).toMatchObject({ status: 0 });
    expect(await run(['login', second.server, '--context', 'old', '--no-switch'])).toMatchObject({
      status: 0,
      stderr: '',
    });
    // As version 0.1.0 wrote it.
    const config = parse(fs.readFileSync(home.kubeconfig, 'utf8'));
    const old = config.contexts.find(({ name }: { name: string }) => name === 'old').context;
    old.extensions[0].extension = { server: second.server };
    fs.writeFileSync(home.kubeconfig, stringify(config));
    fs.rmSync(path.join(home.state, 'siblings'), { recursive: true, force: true });
    expect(await get('old')).toMatchObject({ status: 0, stderr: '' });
    const tokens = [home.token(first), home.token(second)];
    await first.kill();
    const logout = await run('logout prod-us');
    expect(logout).toMatchObject({ status: 0 });
    expect(logout.stdout).toContain(`Signed out of prod-us (${first.server}).\n`);
    // The old context alone does not show that it is the same store.
    expect(logout.stdout).toContain(` (${second.server}).\n`);
    const told = second.asked('POST', '/logout').filter(({ login }) => login === caller.login);
    expect(told.map(({ status }) => status)).toContain(200);
    await onlyHas(us);
    for (const token of tokens) expect([401, 403]).toContain(await statusFor(us.access, token));
    expect(home.cached().filter((name) => !name.includes('+'))).toEqual([]);
    for (const context of ['prod-us', 'old']) {
      const refused = await get(context);
      expect(refused.status).toBe(1);
      expect(refused.stderr).toContain('error: signed out of http://prod-us');
    }
    // The next login goes to the sibling too.
    expect(await run('login prod-us')).toMatchObject({ status: 0 });
    expect(await get()).toMatchObject({ status: 0, stderr: '' });
    await onlyHas(us, { name: signIn() });
    expect(await run('logout prod-us')).toMatchObject({ status: 0 });
    await first.start();
    await onlyHas(us);
  });

  test('a tagged server of another cluster that states this one’s endpoint, name and store is not used', async () => {
    const access = inject('clusters')[2];
    if (access === undefined) throw new Error(absent);
    // Its API server reports the same UID as this one's.
    const witness = '/api/v1/namespaces/kube-system';
    const stated = JSON.stringify(await us.kube.get(witness));
    const liar = await hooked(access, ({ path, status }) => (path === witness && status === 200 ? stated : undefined));
    const elsewhere = await Fixture.make(access, us.namespace);
    await elsewhere.role(['*'], ['namespaces'], role);
    const hostile = new ReplicaProcess(mesh, {
      ...{ name: 'prod-us-7', cluster: 'prod-us', host: hosts[5] ?? '', fixture: elsewhere },
      ...{ through: liar.access, states: us.access },
    });
    await hostile.start();
    await shown('prod-us', /^3\/\d$/);
    expect(await run('sync')).toMatchObject({ status: 0 });
    expect(await get()).toMatchObject({ status: 0, stderr: '' });
    fs.rmSync(home.entry(first));
    await first.kill();
    second.signal('SIGSTOP');
    const none = await get('prod-us', { TKA_TIMEOUT: '10' });
    expect(none).toMatchObject({ status: 1, stdout: '' });
    expect(none.stderr).toContain(`${hostile.server} is not used: the API server refuses its token`);
    expect(hostile.asked('GET', '/kubeconfig').map(({ status }) => status)).toContain(200);
    expect(home.cached().filter((name) => !name.includes('+'))).toEqual([]);
    second.signal('SIGCONT');
    expect(await get()).toMatchObject({ status: 0, stdout: 'namespace/default\n' });
    await rightToken();
    expect(await run('logout prod-us')).toMatchObject({ status: 0 });
    await hostile.remove();
    await hostile[Symbol.asyncDispose]();
    liar.close();
    elsewhere.kube.close();
  });
});
