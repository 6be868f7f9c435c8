import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { Home } from '../fixtures/home.ts';
import { program } from '../fixtures/program.ts';
import { behindSignIn, names, noKubectl, Patient, type Status, test } from './doctor-patient.ts';

describe.concurrent('nothing is broken', () => {
  test('every check is ok or skipped, and gives its reason', async ({ patient, us }) => {
    const found = await patient.look();
    found.differs({});
    expect(found.cluster).toBe('prod-us');
    const { checks } = found;
    for (const [name, detail] of [
      ['configuration', `config.yaml: the server is ${us.server}`],
      ['tailscaled', '3 with tag:tka'],
      ['name', '127.0.0.1 is an address'],
      ['tls', 'plain http'],
      ['tka-api', `it serves ${us.apiServer}`],
      ['grant', 'alice has the role viewer'],
      ['sign-in', 'alice, role viewer; expires in '],
      ['token', 'valid for 29m'],
      ['api-server', 'TLS verified with its CA'],
      ['rbac', 'system:serviceaccount:tka-dev:tka-user-alice may get, list, watch'],
      ['kubeconfig', 'context "prod-us" in '],
      ['path', program],
      ['cache', 'mode 0700'],
    ] as const) {
      expect(checks.get(name)?.detail).toContain(detail);
    }
  });

  test('before the first sign-in: later checks are skipped', async ({ us, tailscaled }) => {
    using home = new Home(us.server);
    const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
    const found = await patient.look();
    found.differs({ ...behindSignIn, 'sign-in': 'skipped', kubeconfig: 'skipped', cache: 'skipped' });
    for (const name of ['grant', 'sign-in', 'kubeconfig'])
      expect(found.of(name).hint).toBe(`kubectl tka login ${us.server}`);
  });

  test('accepts a cluster, a prefix, a context, a URL and a host', async ({ patient, us, eu, home }) => {
    expect((await patient.look(['prod-us'])).cluster).toBe('prod-us');
    const found = await patient.look(['prod-e']);
    expect(found.cluster).toBe('prod-eu');
    found.differs({ ...behindSignIn, 'sign-in': 'skipped', kubeconfig: 'skipped' });
    expect(found.of('tka-api').detail).toContain(eu.apiServer);
    expect(eu.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    expect((await patient.look([us.server])).of('tka-api').detail).toContain(us.apiServer);
    expect((await patient.look([eu.server])).of('tka-api').detail).toContain(eu.apiServer);
    // Ambiguous: a usage error, as in other commands.
    const ran = await home.run('doctor prod', { env: patient.env });
    expect(ran).toMatchObject({ status: 2, stdout: '' });
  });

  test('reports one cause once: skipped checks are one line, and a mistyped name is the only failure', async ({
    patient,
    home,
  }) => {
    const { stdout, stderr, status } = await patient.run(['prod-uss']);
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /^✗ name +no cluster named "prod-uss"; did you mean "prod-us"\?\n +hint: kubectl tka clusters$/m,
    );
    expect(stdout).toMatch(
      /^- skipped +because of name: tcp, tls, tka-api, grant, sign-in, token, api-server, token-accepted, rbac, kubeconfig, clock$/m,
    );
    expect(stdout.split('\n').length).toBeLessThan(12);
    expect(stderr).toBe('error: 1 of 17 checks failed: name\nhint: kubectl tka clusters\n');
    // Without tailscaled the list of the configured server is still there.
    const away = await patient.look(['prod-uss'], { TS_SOCKET: path.join(home.root, 'nothing') });
    expect(away.of('tailscaled').status).toBe('warning');
  });

  test('checks the context that is named or current where a cluster has two', async ({ patient, us, home }) => {
    await home.run(['login', us.server, '--context', 'second', '--no-switch']);
    const broken = 'https://127.0.0.1:1';
    patient.edit((kubeconfig) => {
      const second = kubeconfig.clusters.find((cluster: { name: string }) => cluster.name === 'second');
      second.cluster.server = broken;
    });
    (await patient.look()).differs({});
    (await patient.look(['prod-us'])).differs({});
    const named = await patient.look(['second']);
    named.differs({ kubeconfig: 'failed' });
    expect(named.of('kubeconfig').detail).toContain(`context "second": its API server is ${broken}`);
    expect(named.of('kubeconfig').hint).toBe('kubectl tka login prod-us --context second');
    expect((await home.run('login prod-us --context second')).status).toBe(0);
    (await patient.look(['second'])).differs({});
  });

  test('prints a line for each check, hints below, and plain marks on a limited terminal', async ({ patient, us }) => {
    await us.stop();
    const pretty = await patient.run([]);
    expect(pretty.status).toBe(1);
    const lines = pretty.stdout.split('\n');
    expect(lines[0]).toBe('cluster: prod-us');
    expect(lines[1]).toMatch(/^✓ configuration {4}\S/);
    expect(pretty.stdout).toMatch(
      /^✗ tcp {14}.*connection refused\n {19}hint: check that the TKA server is up.*\n- skipped {10}because of tcp: tls, tka-api$/m,
    );
    for (const env of [{ TERM: 'dumb' }, { LC_ALL: 'C' }, { LC_ALL: undefined, LANG: undefined }]) {
      if (process.platform !== 'linux' && env.TERM === undefined) continue;
      const plain = await patient.run([], env);
      expect(plain.stdout).toMatch(/^\+ configuration/m);
      expect(plain.stdout).toMatch(/^x tcp/m);
      expect(plain.stdout).not.toMatch(/[✓✗]/);
    }
  });

  test('prints one line for all checks that are skipped for the same reason', async ({ us, tailscaled }) => {
    using home = new Home();
    await us.stop();
    const ran = await home.run(['doctor', us.server], { env: { TS_SOCKET: tailscaled.socketPath } });
    expect(ran.stdout).toMatch(/^- skipped +its address is not known yet: api-server, token-accepted, rbac$/m);
  });
});

describe('without a server to check', () => {
  const unchosen = {
    ...Object.fromEntries(names.split(' ').map((name) => [name, 'skipped'])),
    configuration: 'ok',
    tailscaled: 'ok',
    path: 'ok',
    kubectl: 'ok',
    ...noKubectl,
  } as Record<string, Status>;

  test('several servers and no name, or no server: the other checks are skipped with the reason', async ({
    us,
    tailscaled,
  }) => {
    using home = new Home();
    const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
    const several = await patient.look();
    several.differs(unchosen);
    expect(several.cluster).toBeNull();
    expect(several.of('name')).toMatchObject({
      detail: 'the tailnet has 3 clusters: choose one',
      hint: 'kubectl tka doctor NAME',
    });
    expect(several.of('clock').detail).toBe(several.of('name').detail);

    tailscaled.peers = [];
    const none = await patient.look();
    none.differs(unchosen);
    expect(none.of('name').detail).toMatch(/no device of example\.ts\.net carries tag:tka/);

    tailscaled.backendState = 'NeedsLogin';
    const lost = await patient.look();
    lost.differs({ ...unchosen, tailscaled: 'failed' });
    expect(lost.of('tailscaled').hint).toBe('log in: tailscale login');
  });
});
