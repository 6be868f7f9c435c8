// Follows deploy/README.md, "Coming from the Go server": every command there runs here, in order, on objects as the Go
// server creates them.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { type Lease, leaseName } from '../../src/server/provisioner/lease.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { deploy } from '../deploy/render.ts';
import { Home } from '../fixtures/home.ts';
import { TkaServerProcess } from '../server/program.ts';
import { apply, as, type Deployed, insideItsPod, listed, ownCluster, startAsItsPod } from './deployed.ts';
import { goNamespace, goOperator, goSignIn } from './go-objects.ts';
import { absent, kubectl, Person, statusFor, tokenOf, until, within } from './support.ts';

const [ours, theirs] = ['tka-system', 'tka-dev'];

/** The commands of the section, one per line. */
const commands = (
  /^## Coming from the Go server$(.*?)^## /ms.exec(fs.readFileSync(path.join(deploy, 'README.md'), 'utf8'))?.[1] ?? ''
)
  .split('\n')
  .map((line) => line.trim())
  .filter((line) => /^kubectl [^`]+$/.test(line));

describe.skipIf(absent !== undefined)('coming from the Go server, in another namespace', () => {
  let cluster: Awaited<ReturnType<typeof ownCluster>>;
  let tailscaled: Tailscaled;
  let deployed: Deployed;
  let operator: Awaited<ReturnType<typeof goOperator>>;
  let running: Awaited<ReturnType<typeof startAsItsPod>>;
  let next = 0;
  // Lines added to config.yaml.
  let more = '';

  beforeAll(async () => {
    cluster = await ownCluster('127.0.0.16');
    tailscaled = await startTailscaled({
      self: { hostName: 'tka', addresses: ['100.64.0.1'], tags: ['tag:tka'] },
      tailnet: 'example.com',
    });
  });
  afterAll(async () => {
    await operator?.stop();
    await running?.server[Symbol.asyncDispose]();
    await tailscaled?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  /** Runs the next command of the section, which must start like this. Returns its output. */
  async function command(start: string): Promise<string> {
    const line = commands[next++] ?? '';
    expect(line.startsWith(start), `the next command is: ${line}`).toBe(true);
    const [, ...args] = line.split(' ');
    const within = args.indexOf('tka-server');
    if (within === -1) {
      const { status, stdout, stderr } = await kubectl(as(cluster.access), ...args);
      expect(status, `${line}\n${stderr}`).toBe(0);
      return stdout;
    }
    const { env, config } = await insideItsPod(deployed);
    const file = path.join(path.dirname(env.KUBECONFIG ?? ''), 'config.yaml');
    fs.writeFileSync(file, `${config}\n${more}`);
    // In the pod this file is in its default place.
    await using program = new TkaServerProcess({}, env, [...args.slice(within + 1), '--config', file]);
    const { status } = await program.ended;
    expect(status, `${line}\n${program.stderr}`).toBe(0);
    return program.stdout;
  }

  /** Returns a user to whom the tailnet's policy grants the role. */
  function somebody(login: string): Person {
    const rules = [{ role: listed, period: '1h', priority: 1 }];
    tailscaled.whois = () => ({ login, capabilities: { 'specht-labs.de/cap/tka': rules } });
    return new Person(running.url, { role: listed, login, username: login.split('@')[0] ?? '' });
  }

  /** Returns the logins of all sign-in requests, in order. */
  const logins = () =>
    running.server.lines.flatMap(({ method, path, login }) =>
      method === 'POST' && `${path}`.endsWith('/login') ? [login] : [],
    );
  const held = (holder: RegExp): Promise<void> =>
    until<Lease>(cluster.access, paths.leases(theirs), leaseName, (found) =>
      holder.test(found?.spec?.holderIdentity ?? ''),
    );
  const list = async (collection: string): Promise<string[]> => {
    const names: string[] = [];
    for await (const { metadata } of cluster.kube.list<{ metadata: { name: string } }>(collection))
      names.push(metadata.name);
    return names;
  };

  test('finds the sign-ins and their operator', async () => {
    const { kube, access } = cluster;
    const crd = await kubectl(as(access), 'create', '-f', path.join(deploy, 'chart/files/crd.yaml'));
    expect(crd.status, crd.stderr).toBe(0);
    await expect
      .poll(() => kube.get(paths.signIns('default')).catch(() => undefined), { timeout: 10_000 })
      .toBeDefined();
    await goNamespace(kube, theirs);
    await kube.create(`/apis/apps/v1/namespaces/${theirs}/deployments`, deployment);
    operator = await goOperator(kube, theirs, [ours, theirs]);
    for (const username of ['alice', 'bob']) await goSignIn(kube, theirs, { username, role: listed });
    expect(await command('kubectl get tkasignins')).toMatch(/tka-dev +tka-user-alice +alice/);
    expect(await command('kubectl get leases')).toContain(operator.identity);
  });

  test('shares the lease and applies deploy/', async () => {
    await command('kubectl create role tka-server-lease');
    await command('kubectl create rolebinding tka-server-lease');
    // The CRD was not created by `kubectl apply`, which warns once.
    deployed = await apply(
      cluster.access,
      cluster.kube,
      ours,
      {},
      /^Warning: resource customresourcedefinitions\/\S+ is missing .*\n$/,
    );
    more = `operator:\n  leaseNamespace: ${theirs}\n`;
    running = await startAsItsPod(deployed, tailscaled, more);
  });

  test('while the Go operator leads, this server provisions sign-ins that it can end, and refuses the others at once', async () => {
    await held(new RegExp(`^${operator.identity}$`));
    const dora = somebody('dora@example.com');
    expect(await statusFor(cluster.access, await dora.token())).toBe(200);

    const alice = somebody('alice@example.com');
    const told = await within(5_000, alice.login());
    expect(told.status).toBe(422);
    expect(told.body).toMatchObject({
      cause: {
        message: 'ClusterRoleBinding "tka-user-alice-binding" belongs to the TKA server in namespace "tka-dev"',
      },
      advice: [expect.stringContaining('tka-server adopt --from-namespace tka-dev'), expect.anything()],
    });
    // And to a user of the plugin.
    somebody('alice@example.com');
    using home = new Home(running.url.replace(/\/api\/.*/, ''));
    const login = await home.run('login');
    expect(login).toMatchObject({ status: 1, stdout: '' });
    expect(login.stderr).toMatch(
      /^error: .*ClusterRoleBinding "tka-user-alice-binding" belongs to the TKA server .*\nhint: /m,
    );
    expect(login.stderr).toContain('tka-server adopt --from-namespace tka-dev');

    const erin = somebody('erin@example.org');
    const other = await within(5_000, erin.login());
    expect(other.status).toBe(422);
    expect(JSON.stringify(other.body)).toMatch(/a Go server \(pod \\"tka-6d5f9-x2x4z\\"\).* cannot distinguish/);
    expect(await list(paths.signIns(ours))).toEqual(['tka-user-dora']);
    // Without retries: one of alice's two requests is from the test, one from the client.
    await expect.poll(() => logins().at(-1), { timeout: 10_000 }).toBe('erin@example.org');
    expect(logins()).toEqual(['dora', 'alice', 'alice', 'erin'].map((name) => expect.stringContaining(`${name}@`)));
  });

  test('the Go server stops, and this one takes over', async () => {
    expect(await command('kubectl scale deployment/tka --replicas=0')).toContain('scaled');
    await operator.stop();
    await held(/^tka-server\//);
    const erin = somebody('erin@example.org');
    expect(await statusFor(cluster.access, await erin.token())).toBe(200);
    expect((await somebody('alice@example.com').login()).status).toBe(422);
  });

  test('moves the sign-ins', async () => {
    await command('kubectl create role tka-adopt');
    await command('kubectl create rolebinding tka-adopt');
    const dry = await command('kubectl exec');
    expect(dry.trim().split('\n')).toHaveLength(6);
    expect(dry).toMatch(/^tkasignin\/tka-user-bob moved to tka-system \(role \S+, until \S+\) \(dry run\)$/m);
    const done = await command('kubectl exec');
    expect(done).toMatch(/^tkasignin\/tka-user-bob moved to tka-system \(role \S+, until \S+\)$/m);
    await command('kubectl delete rolebinding/tka-adopt');
    await until<TkaSignin>(cluster.access, paths.signIns(ours), 'tka-user-bob', (found) => found?.status?.provisioned);
    // Signed in without a login of his own.
    const bob = somebody('bob@example.com');
    expect((await bob.status()).status).toBe(200);
    for (const person of [bob, somebody('alice@example.com')]) {
      somebody(person.caller.login);
      expect(await statusFor(cluster.access, await person.token())).toBe(200);
    }
    expect(await list(paths.signIns(theirs))).toEqual([]);
    expect(await list(paths.accounts(theirs))).toEqual([]);
  });

  test('stops sharing the lease', async () => {
    await stop();
    more = '';
    running = await startAsItsPod(deployed, tailscaled, more);
    await command('kubectl delete rolebinding/tka-server-lease');
    expect(await statusFor(cluster.access, await somebody('dora@example.com').token())).toBe(200);
    await until<Lease>(cluster.access, paths.leases(ours), leaseName, (found) =>
      /^tka-server\//.test(found?.spec?.holderIdentity ?? ''),
    );
  });

  test('going back: all access ends, and nothing of this server blocks the Go server', async () => {
    const { kube, access } = cluster;
    const token = await somebody('dora@example.com').freshToken();
    expect(await statusFor(access, token)).toBe(200);
    const bindings = (await list(paths.bindings())).filter((name) => /^tka-(?:user|login)-/.test(name));
    expect(bindings).toHaveLength(4);
    await command('kubectl delete tkasignins.tka.specht-labs.de --all');
    for (const name of bindings) await until(access, paths.bindings(), name, (found) => found === undefined);
    expect([401, 403]).toContain(await statusFor(access, token));
    expect(await command('kubectl get clusterrolebindings -l')).toBe('');

    await command('kubectl delete statefulset,');
    await stop();
    await command('kubectl delete validatingadmissionpolicybinding,');
    await command('kubectl scale deployment/tka --replicas=1');
    operator = await goOperator(kube, theirs, [theirs]);
    await goSignIn(kube, theirs, { username: 'alice', role: listed });
    expect(await statusFor(access, await tokenOf(kube, theirs, 'tka-user-alice'))).toBe(200);
    expect((await list(paths.bindings())).filter((name) => /tka/.test(name))).toEqual(['tka-user-alice-binding']);
    expect(await list('/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies')).toEqual([]);
    expect(await list(paths.accounts(ours))).toEqual([]);
    expect(commands.slice(next)).toEqual([]);
  });

  async function stop(): Promise<void> {
    running.server.child.kill('SIGTERM');
    expect(await running.server.ended).toEqual({ status: 0, signal: null });
  }
});

const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'tka' },
  spec: {
    selector: { matchLabels: { app: 'tka' } },
    template: {
      metadata: { labels: { app: 'tka' } },
      spec: { containers: [{ name: 'tka', image: 'none.invalid/none' }] },
    },
  },
};
