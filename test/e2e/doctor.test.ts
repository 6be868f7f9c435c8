// Every link of the chain, broken once, alone: that check and no other says so, with what mends it.
import * as fs from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import * as path from 'node:path';
import { generate } from 'selfsigned';
import { describe, expect } from 'vitest';
import { parse, stringify } from 'yaml';
import { examineWithoutSettings } from '../../src/cli/doctor-unread.ts';
import { type Entry, formatEntry, parseEntry } from '../../src/credential/entry.ts';
import { TkaError } from '../../src/errors.ts';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import type { Cluster } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { test as base, bin, Home, jwt, kubectl, program, type Ran } from '../support.ts';

type Status = 'ok' | 'warning' | 'failed' | 'skipped';
interface Check {
  readonly name: string;
  readonly status: Status;
  readonly detail: string;
  readonly hint: string | null;
}

const names =
  'configuration tailscaled name tcp tls tka-api grant sign-in token api-server token-accepted rbac kubeconfig kubectl path cache clock';
const noKubectl: Record<string, Status> = kubectl === undefined ? { kubectl: 'failed' } : {};
/** Signed in, over plain http, with nothing broken. */
const well: Record<string, Status> = {
  ...Object.fromEntries(names.split(' ').map((name) => [name, 'ok'])),
  tls: 'skipped',
  ...noKubectl,
};

/** Alice, signed in to prod-us, and how she asks for the doctor. */
class Patient {
  readonly home: Home;
  readonly us: Cluster;
  readonly env: Record<string, string | undefined>;

  constructor(home: Home, us: Cluster, env: Record<string, string | undefined>) {
    this.home = home;
    this.us = us;
    this.env = env;
  }

  /** Runs the doctor for a person: HOME stays as it is, no token is asked for and none is shown. */
  async run(args: readonly string[], env: Record<string, string | undefined> = {}): Promise<Ran> {
    const { home, us } = this;
    const before = home.files();
    const secret = home.cached().includes(path.basename(home.entry(us))) ? home.token(us) : 'no token';
    us.resetCounts();
    const ran = await home.run(['doctor', ...args], { env: { ...this.env, ...env } });
    expect(home.files()).toEqual(before);
    expect(fs.existsSync(path.join(home.dir, '.kube', 'cache'))).toBe(false);
    expect(ran.stdout + ran.stderr).not.toMatch(jwt);
    if (secret.length > 20) expect(ran.stdout + ran.stderr).not.toContain(secret);
    expect(us.counts).toMatchObject({ login: 0, loginGet: 0, kubeconfig: 0, logout: 0, other: 0 });
    const changing = us.requests.filter(
      ({ method, path }) => method !== 'GET' && !/\/selfsubject\w*reviews$/.test(path),
    );
    expect(changing).toEqual([]);
    return ran;
  }

  async look(args: readonly string[] = [], env: Record<string, string | undefined> = {}): Promise<Diagnosis> {
    const ran = await this.run([...args, '-o', 'json'], env);
    return new Diagnosis(ran);
  }

  /** Changes what the cache holds for the cluster; it stays as fresh as it was. */
  rewrite(change: (entry: Entry) => Partial<Entry>): void {
    const file = this.home.entry(this.us);
    const { mtimeMs } = fs.statSync(file);
    const entry = parseEntry(fs.readFileSync(file, 'latin1'), this.us.server, mtimeMs / 1000);
    if (entry === undefined) throw new Error('no entry');
    const changed = { ...entry, ...change(entry) };
    fs.writeFileSync(file, formatEntry(changed));
    fs.utimesSync(file, changed.freshUntil, changed.freshUntil);
  }

  /** Changes the kubeconfig, and gives back what undoes it. */
  // biome-ignore lint/suspicious/noExplicitAny: a test may make anything of it
  edit(change: (kubeconfig: any) => void): () => void {
    const { kubeconfig } = this.home;
    const text = fs.readFileSync(kubeconfig, 'utf8');
    const value = parse(text);
    change(value);
    fs.writeFileSync(kubeconfig, stringify(value));
    return () => fs.writeFileSync(kubeconfig, text);
  }
}

/** What the doctor says, its form checked. */
class Diagnosis {
  readonly cluster: string | null;
  readonly checks: ReadonlyMap<string, Check>;
  readonly ran: Ran;

  constructor(ran: Ran) {
    this.ran = ran;
    const reports = JSON.parse(ran.stdout);
    expect(reports).toHaveLength(1);
    expect(Object.keys(reports[0])).toEqual(['cluster', 'checks']);
    const checks: Check[] = reports[0].checks;
    expect(checks.map(({ name }) => name)).toEqual(names.split(' '));
    for (const check of checks) {
      expect(Object.keys(check)).toEqual(['name', 'status', 'detail', 'hint']);
      expect(check.status).toMatch(/^(?:ok|warning|failed|skipped)$/);
      expect(check.detail).toMatch(/\S/);
      if (check.hint !== null) expect(check.hint).toMatch(/\S/);
      if (check.status === 'ok') expect(check.hint).toBeNull();
      expect(check.detail + check.hint).not.toMatch(/\p{Cc}|undefined|\[object/u);
    }
    this.cluster = reports[0].cluster;
    this.checks = new Map(checks.map((check) => [check.name, check]));
    const failed = checks.filter(({ status }) => status === 'failed').map(({ name }) => name);
    const error = failed.length === 0 ? '' : `error: ${failed.length} of 17 checks failed: ${failed.join(', ')}\n`;
    expect(ran).toMatchObject({ status: failed.length === 0 ? 0 : 1, stderr: error });
  }

  /** All are as they are where nothing is broken, but for these; `because` is what skipped ones depend on. */
  differs(from: Record<string, Status>, because?: string): void {
    const found = Object.fromEntries([...this.checks.values()].map(({ name, status }) => [name, status]));
    expect(found).toEqual({ ...well, ...from });
    for (const [name, status] of Object.entries(from)) {
      if (status === 'skipped' && because !== undefined) expect([name, this.of(name).detail]).toEqual([name, because]);
    }
  }

  of(name: string): Check {
    const check = this.checks.get(name);
    if (check === undefined) throw new Error(`no check ${name}`);
    return check;
  }
}

const test = base.extend<{ tailscaled: Tailscaled; patient: Patient; login: string }>({
  tailscaled: async ({ mesh }, use) => {
    await using tailscaled = await startTailscaled({ peers: mesh.clusters.map((cluster) => peerOf(cluster)) });
    await use(tailscaled);
  },
  patient: async ({ home, us, tailscaled }, use) => {
    const env = { TS_SOCKET: tailscaled.socketPath, LC_ALL: 'C.UTF-8', TERM: 'xterm' };
    expect(await home.run('login', { env })).toMatchObject({ status: 0 });
    await use(new Patient(home, us, env));
  },
  login: async ({ us }, use) => use(`kubectl tka login ${us.server}`),
});

const behindSignIn: Record<string, Status> = {
  grant: 'skipped',
  token: 'skipped',
  'token-accepted': 'skipped',
  rbac: 'skipped',
};

describe.concurrent('nothing is broken', () => {
  test('every check is ok or skipped, and says why it thinks so', async ({ patient, us }) => {
    const found = await patient.look();
    found.differs({});
    expect(found.cluster).toBe('127.0.0.1');
    const { checks } = found;
    for (const [name, detail] of [
      ['configuration', `config.yaml: the server is ${us.server}`],
      ['tailscaled', '3 with tag:tka'],
      ['name', '127.0.0.1 is an address'],
      ['tls', 'plain http'],
      ['tka-api', `it speaks for ${us.apiServer}`],
      ['grant', 'alice gets the role viewer'],
      ['sign-in', 'alice, role viewer, until '],
      ['token', 'good for 29m more'],
      ['api-server', 'TLS by its CA'],
      ['rbac', 'system:serviceaccount:tka-dev:tka-user-alice may get, list, watch'],
      ['kubeconfig', 'context "127.0.0.1" in '],
      ['path', program],
      ['cache', 'mode 0700'],
    ] as const) {
      expect(checks.get(name)?.detail).toContain(detail);
    }
  });

  test('before the first sign-in: what only a sign-in tells is skipped', async ({ us, tailscaled }) => {
    const home = await Home.make(us.server);
    try {
      const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
      const found = await patient.look();
      found.differs({ ...behindSignIn, 'sign-in': 'skipped', kubeconfig: 'skipped', cache: 'skipped' });
      for (const name of ['grant', 'sign-in', 'kubeconfig'])
        expect(found.of(name).hint).toBe(`kubectl tka login ${us.server}`);
    } finally {
      home.remove();
    }
  });

  test('a cluster, a prefix, a context, a URL, a host', async ({ patient, us, eu, home }) => {
    expect((await patient.look(['prod-us'])).cluster).toBe('prod-us');
    const found = await patient.look(['prod-e']);
    expect(found.cluster).toBe('prod-eu');
    found.differs({ ...behindSignIn, 'sign-in': 'skipped', kubeconfig: 'skipped' });
    expect(found.of('tka-api').detail).toContain(eu.apiServer);
    expect(eu.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    expect((await patient.look(['127.0.0.1'])).of('tka-api').detail).toContain(us.apiServer);
    expect((await patient.look([eu.server])).of('tka-api').detail).toContain(eu.apiServer);
    // Ambiguous: wrong usage, as everywhere.
    const ran = await home.run('doctor prod', { env: patient.env });
    expect(ran).toMatchObject({ status: 2, stdout: '' });
  });

  test('for people: a line for each, hints below, and plain marks where the terminal has no others', async ({
    patient,
    us,
  }) => {
    await us.stop();
    const pretty = await patient.run([]);
    expect(pretty.status).toBe(1);
    const lines = pretty.stdout.split('\n');
    expect(lines[0]).toBe('cluster: 127.0.0.1');
    expect(lines[1]).toMatch(/^✓ configuration {4}\S/);
    expect(pretty.stdout).toMatch(
      /^✗ tcp {14}.*connection refused\n {19}hint: is the TKA server up.*\n- tls {14}depends on tcp$/m,
    );
    for (const env of [{ TERM: 'dumb' }, { LC_ALL: 'C' }, { LC_ALL: undefined, LANG: undefined }]) {
      if (process.platform !== 'linux' && env.TERM === undefined) continue;
      const plain = await patient.run([], env);
      expect(plain.stdout).toMatch(/^\+ configuration/m);
      expect(plain.stdout).toMatch(/^x tcp/m);
      expect(plain.stdout).not.toMatch(/[✓✗]/);
    }
  });
});

describe('no server to look at', () => {
  const unchosen = {
    ...Object.fromEntries(names.split(' ').map((name) => [name, 'skipped'])),
    configuration: 'ok',
    tailscaled: 'ok',
    path: 'ok',
    kubectl: 'ok',
    ...noKubectl,
  } as Record<string, Status>;

  test('several and none named, or none: the rest is skipped, and says why', async ({ us, tailscaled }) => {
    const home = await Home.make();
    try {
      const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
      const several = await patient.look();
      several.differs(unchosen);
      expect(several.cluster).toBeNull();
      expect(several.of('name')).toMatchObject({
        detail: 'the tailnet has 3 TKA servers: which one is meant?',
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
    } finally {
      home.remove();
    }
  });
});

describe.concurrent('one link is broken', () => {
  test('configuration: its caFile is not there', async ({ patient, home, us }) => {
    home.write(home.config, `tailscale:\n  hostname: "${us.server}"\ntls:\n  caFile: /nowhere/ca.pem\n`);
    const found = await patient.look();
    found.differs({ configuration: 'failed' });
    expect(found.of('configuration')).toMatchObject({
      detail: 'tls.caFile /nowhere/ca.pem does not exist',
      hint: 'kubectl tka config tls.caFile FILE',
    });
  });

  test('configuration: it names no server; the current context still does', async ({ patient, home }) => {
    home.write(home.config, 'tailscale:\n  hostname: "two words"\n');
    const found = await patient.look();
    found.differs({ configuration: 'failed' });
    expect(found.of('configuration').hint).toBe('kubectl tka config tailscale.hostname HOST');
  });

  test('tailscaled: a warning where the server is reached all the same', async ({ patient, us, tailscaled }) => {
    for (const [state, hint] of [
      ['Stopped', 'start it: tailscale up'],
      ['NeedsLogin', 'log in: tailscale login'],
    ] as const) {
      tailscaled.backendState = state;
      const found = await patient.look();
      found.differs({ tailscaled: 'warning' });
      expect(found.of('tailscaled').hint).toBe(hint);
      expect(found.of('tailscaled').detail).toContain(`${us.server} is reached without it`);
    }
    await tailscaled.stop();
    const gone = await patient.look();
    gone.differs({ tailscaled: 'warning' });
    expect(gone.of('tailscaled').detail).toMatch(/^no tailscaled at .*, the socket that TS_SOCKET names/);
  });

  test('TCP: nobody listens; what needs no TKA server is still looked at', async ({ patient, us }) => {
    await us.stop();
    const found = await patient.look();
    found.differs({ tcp: 'failed', 'tka-api': 'skipped', tls: 'skipped' }, 'depends on tcp');
    expect(found.of('tcp').detail).toMatch(/connection refused$/);
    expect(found.of('tcp').hint).toMatch(/kubectl tka config tailscale\.port PORT$/);
  });

  test('TKA API: silent, no TKA server at all, failing', async ({ patient, us }) => {
    us.faults.routes.clusterInfo = { silent: true };
    const silent = await patient.look([], { TKA_TIMEOUT: '2s' });
    silent.differs({ 'tka-api': 'failed', clock: 'ok' });
    expect(silent.of('tka-api').detail).toMatch(/no answer within 2 s/);
    us.faults.routes.clusterInfo = { answer: { status: 200, body: '<html>hello', contentType: 'text/html' } };
    const other = await patient.look();
    other.differs({ 'tka-api': 'failed' });
    expect(other.of('tka-api').hint).toMatch(/^is this address a TKA server/);
    us.faults.routes.clusterInfo = { answer: { status: 500, body: { message: 'etcd is away', advice: ['call Bob'] } } };
    const broken = await patient.look();
    broken.differs({ 'tka-api': 'failed' });
    expect(broken.of('tka-api')).toMatchObject({ hint: 'call Bob' });
    expect(broken.of('tka-api').detail).toMatch(/etcd is away \(HTTP 500\)$/);
  });

  test('TKA API: it refuses, in its own words, and the grant is not said to be there', async ({ patient, us }) => {
    us.user = null;
    const found = await patient.look();
    found.differs({ 'tka-api': 'failed', grant: 'skipped' }, 'depends on tka-api');
    expect(found.of('tka-api').detail).toMatch(/User not authorized \(HTTP 403\)$/);
    expect(found.of('tka-api').hint).toContain('specht-labs.de/cap/tka');
  });

  test('TKA API: it is another cluster’s', async ({ patient, us, eu }) => {
    eu.faults.clusterInfo = { server_url: us.apiServer };
    const found = await patient.look(['prod-eu']);
    expect(found.of('tka-api').status).toBe('failed');
    expect(found.of('tka-api').detail).toMatch(/is not the TKA server of prod-eu: it speaks for/);
    expect(found.of('api-server').status).toBe('skipped');
  });

  test('sign-in: signed out', async ({ patient, home, login }) => {
    expect(await home.run('logout', { env: patient.env })).toMatchObject({ status: 0 });
    const found = await patient.look();
    found.differs({ ...behindSignIn, 'sign-in': 'warning' });
    expect(found.of('sign-in')).toMatchObject({ hint: login });
    expect(found.of('sign-in').detail).toMatch(/^signed out, .* ago: kubectl is refused/);
    for (const name of ['token', 'token-accepted', 'rbac']) expect(found.of(name).detail).toBe('depends on sign-in');
  });

  test('sign-in: expired', async ({ patient, login }) => {
    patient.rewrite(({ details }) => ({
      details: JSON.stringify({ ...JSON.parse(details), until: '2026-01-01T00:00:00Z' }),
    }));
    const found = await patient.look();
    found.differs({ ...behindSignIn, 'sign-in': 'warning' });
    expect(found.of('sign-in')).toMatchObject({ hint: login });
    expect(found.of('sign-in').detail).toMatch(/^alice, role viewer: expired 2026-01-01/);
  });

  test('sign-in: what is kept is damaged', async ({ patient, home, us, login }) => {
    for (const text of ['', '\u0000\u001b[2J']) {
      fs.writeFileSync(home.entry(us), text);
      const found = await patient.look();
      // Nobody can tell whether there was one, so its context is as good as before.
      found.differs({ ...behindSignIn, 'sign-in': 'warning' });
      expect(found.of('sign-in').hint).toBe(login);
    }
  });

  test('token: no JWT, and expired', async ({ patient, login }) => {
    const broken: Record<string, Status> = { 'token-accepted': 'skipped', rbac: 'skipped' };
    const claims = (exp: number) =>
      `eyJhbGciOiJub25lIn0.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.c2ln`;
    patient.rewrite(() => ({ token: 'not.a.token' }));
    const odd = await patient.look();
    odd.differs({ token: 'failed', ...broken }, 'depends on token');
    expect(odd.of('token')).toMatchObject({ hint: login });
    expect(odd.of('token').detail).toMatch(/^the token is no JWT/);
    patient.rewrite(() => ({ token: claims(1_700_000_000) }));
    const served = await patient.look();
    served.differs({ token: 'failed', ...broken }, 'depends on token');
    patient.rewrite(() => ({ freshUntil: 1_700_000_000 }));
    const renewed = await patient.look();
    renewed.differs({ token: 'warning', ...broken }, 'depends on token');
    expect(renewed.of('token').detail).toMatch(/^it has expired: the next call of kubectl gets a new one/);
  });

  test('API server: nobody listens', async ({ patient, us }) => {
    await us.stopApi();
    const found = await patient.look();
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped' }, 'depends on api-server');
    expect(found.of('api-server').detail).toMatch(/connection refused$/);
    expect(found.of('api-server').hint).toBe(`see whether it answers: curl -k ${us.apiServer}/version`);
  });

  test('API server: the proxy on the way to it is down', async ({ patient, us }) => {
    us.faults.clusterInfo = { server_url: 'https://api.example.com:6443' };
    const found = await patient.look([], { HTTPS_PROXY: 'http://alice:sesame@127.0.0.1:1' });
    // The kubeconfig and the token are still for the other one.
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('api-server').detail).toBe('cannot reach the proxy http://127.0.0.1:1: connection refused');
    expect(found.of('api-server').hint).toMatch(/^the proxy is named by HTTPS_PROXY/);
    expect(found.ran.stdout).not.toContain('sesame');
  });

  test('API server: the token is shown to no other than its own', async ({ patient, us, eu, login }) => {
    us.faults.clusterInfo = { server_url: eu.apiServer };
    const found = await patient.look();
    found.differs({ 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('token-accepted').detail).toMatch(/^depends on kubeconfig: the token is for /);
    expect(found.of('kubeconfig').hint).toBe(login);
    expect(eu.counts.tokenChecks).toBe(0);
  });

  test('API server: another CA is named, so the kubeconfig’s is not it either', async ({ patient, us }) => {
    const { ca } = await makeCertificates('127.0.0.1');
    us.faults.clusterInfo = { ca_data: Buffer.from(ca).toString('base64') };
    const found = await patient.look();
    found.differs({ 'api-server': 'failed', 'token-accepted': 'skipped', rbac: 'skipped', kubeconfig: 'failed' });
    expect(found.of('api-server').detail).toMatch(/certificate.*by the CA that the TKA server names/);
    expect(found.of('kubeconfig').detail).toMatch(/its CA is not the one that the TKA server names/);
  });

  test('the token is refused', async ({ patient, us, login }) => {
    us.deleteServiceAccount();
    const found = await patient.look();
    found.differs({ 'token-accepted': 'failed', rbac: 'skipped' }, 'depends on token-accepted');
    expect(found.of('token-accepted')).toMatchObject({
      detail: `${us.apiServer} refuses the token (HTTP 401)`,
      hint: login,
    });
  });

  test('RBAC: the role gives nothing', async ({ patient, us, home }) => {
    us.user = { username: 'alice', role: 'nobody', periodMs: 30 * 60_000 };
    await home.run('logout', { env: patient.env });
    await home.run('login', { env: patient.env });
    const found = await patient.look();
    found.differs({ rbac: 'failed' });
    expect(found.of('rbac').detail).toMatch(/tka-user-alice may do nothing: the role nobody is not bound, or empty/);
    expect(found.of('rbac').hint).toBe(`kubectl tka logout ${us.server} && kubectl tka login ${us.server}`);
  });

  test('kubeconfig: the entry is not as it should be', async ({ patient, login }) => {
    // biome-ignore lint/suspicious/noExplicitAny: a kubeconfig
    const exec = (change: (exec: any) => void) => (value: any) => change(value.users[0].user.exec);
    // biome-ignore lint/suspicious/noExplicitAny: a kubeconfig
    const cases: [(value: any) => void, RegExp][] = [
      [
        exec((e) => Object.assign(e, { command: '/nowhere/kubectl-tka' })),
        /its command \/nowhere\/kubectl-tka is not there/,
      ],
      [exec((e) => e.args.pop()), /its arguments are not credential --server/],
      [exec((e) => delete e.interactiveMode), /it has no interactiveMode/],
      [exec((e) => Object.assign(e, { interactiveMode: 'Always' })), /its interactiveMode needs a terminal/],
      [exec((e) => Object.assign(e, { apiVersion: 'v1' })), /its apiVersion is not client\.authentication/],
      [(value) => delete value.users[0].user.exec, /its user "127\.0\.0\.1" runs no command for a token/],
      [(value) => delete value.clusters[0].cluster['certificate-authority-data'], /its CA is not the one/],
      [
        (value) => Object.assign(value.clusters[0].cluster, { server: 'https://10.0.0.1:6443' }),
        /its API server is https:\/\/10\.0\.0\.1:6443, and the TKA server says/,
      ],
      [
        (value) => Object.assign(value.clusters[0].cluster, { 'insecure-skip-tls-verify': true }),
        /it takes any certificate/,
      ],
    ];
    for (const [change, detail] of cases) {
      const undo = patient.edit(change);
      const found = await patient.look();
      found.differs({ kubeconfig: 'failed' });
      expect(found.of('kubeconfig').detail).toMatch(detail);
      expect(found.of('kubeconfig').hint).toBe(login);
      undo();
    }
    patient.edit(exec((e) => Object.assign(e, { apiVersion: 'client.authentication.k8s.io/v1beta1' })));
    const found = await patient.look();
    found.differs({ kubeconfig: 'warning' });
    expect(found.of('kubeconfig').hint).toBe(login);
  });

  test('kubeconfig: no entry, another’s, damage', async ({ patient, home, login }) => {
    const whole = fs.readFileSync(home.kubeconfig, 'utf8');
    fs.rmSync(home.kubeconfig);
    const none = await patient.look();
    none.differs({ kubeconfig: 'failed' });
    expect(none.of('kubeconfig').hint).toBe(login);
    const foreign = 'contexts: [{name: 127.0.0.1, context: {cluster: a, user: a}}]\n';
    fs.writeFileSync(home.kubeconfig, foreign);
    const other = await patient.look();
    other.differs({ kubeconfig: 'failed' });
    expect(other.of('kubeconfig').hint).toBe(`${login} --context NAME`);
    fs.writeFileSync(home.kubeconfig, `${whole}\n  - [`);
    const damaged = await patient.look();
    damaged.differs({ kubeconfig: 'failed' });
    expect(damaged.of('kubeconfig').hint).toMatch(/^mend the file, then check it with: kubectl config view/);
  });

  test.skipIf(process.platform === 'win32')('kubectl: none, too old, none that answers', async ({ patient, home }) => {
    const folder = path.join(home.root, 'tools');
    const fake = path.join(folder, 'kubectl');
    const PATH = [bin, folder, '/bin', '/usr/bin'].join(path.delimiter);
    const say = (text: string) => home.write(fake, `#!/bin/sh\n${text}\n`, 0o755);
    say(`echo '{"clientVersion":{"gitVersion":"v1.21.14"}}'`);
    const old = await patient.look([], { PATH });
    old.differs({ kubectl: 'failed' });
    expect(old.of('kubectl').detail).toBe(`${fake} is v1.21.14: exec credentials need 1.22`);
    expect(old.of('kubectl').hint).toMatch(/^install a newer one: https:/);
    say(`echo '{"clientVersion":{"gitVersion":"v1.22.0"}}'`);
    (await patient.look([], { PATH })).differs({ kubectl: 'ok' });
    say('exit 3');
    (await patient.look([], { PATH })).differs({ kubectl: 'failed' });
    say('echo hello');
    (await patient.look([], { PATH })).differs({ kubectl: 'warning' });
    fs.rmSync(fake);
    const tools = path.join(home.root, 'sh');
    fs.mkdirSync(tools);
    // The launcher is a shell script, and may need a tool or two.
    for (const name of ['sh', 'readlink', 'dirname', 'uname', 'env'])
      if (fs.existsSync(`/bin/${name}`) || fs.existsSync(`/usr/bin/${name}`))
        fs.symlinkSync(fs.existsSync(`/bin/${name}`) ? `/bin/${name}` : `/usr/bin/${name}`, path.join(tools, name));
    const none = await patient.look([], { PATH: [bin, tools].join(path.delimiter) });
    none.differs({ kubectl: 'failed' });
    expect(none.of('kubectl').detail).toBe('there is no kubectl on PATH');
  });

  test.skipIf(process.platform === 'win32')('PATH: not there, not executable, shadowed', async ({ patient, home }) => {
    const folders = (patient.home.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== bin);
    const PATH = folders.join(path.delimiter);
    const missing = await patient.look([], { PATH });
    missing.differs({ path: 'failed' });
    expect(missing.of('path').hint).toBe(`export PATH="${bin}:$PATH"`);
    const other = path.join(home.root, 'other', 'kubectl-tka');
    home.write(other, '#!/bin/sh\n', 0o644);
    const blunt = await patient.look([], { PATH: [path.dirname(other), PATH].join(path.delimiter) });
    blunt.differs({ path: 'failed' });
    expect(blunt.of('path').hint).toBe(`chmod +x ${other}`);
    fs.chmodSync(other, 0o755);
    const shadowed = await patient.look([], { PATH: [path.dirname(other), bin, PATH].join(path.delimiter) });
    shadowed.differs({ path: 'warning' });
    expect(shadowed.of('path').detail).toMatch(new RegExp(`^${other} comes first on PATH`));
    const harmless = await patient.look([], { PATH: [bin, path.dirname(other), PATH].join(path.delimiter) });
    harmless.differs({});
    expect(harmless.of('path').detail).toBe(`${program}, before ${other}`);
  });

  test.skipIf(process.platform === 'win32')('cache: open to others, closed to us', async ({ patient, home }) => {
    for (const [mode, status] of [
      [0o755, 'warning'],
      [0o500, 'failed'],
    ] as const) {
      fs.chmodSync(home.cache, mode);
      const found = await patient.look();
      found.differs({ cache: status });
      expect(found.of('cache').hint).toBe(`chmod 700 ${`'${home.cache}'`}`);
    }
    fs.chmodSync(home.cache, 0o700);
    fs.chmodSync(home.entry(patient.us), 0o644);
    (await patient.look()).differs({});
  });

  test('cache: a file in its place', async ({ patient, home }) => {
    const file = path.join(home.root, 'file');
    fs.writeFileSync(file, '');
    const found = await patient.look([], { TKA_CACHE_DIR: file });
    expect(found.of('cache')).toMatchObject({
      status: 'failed',
      detail: `${file} is not a folder`,
      hint: `rm ${file}`,
    });
  });

  test('clock: seconds, a minute, ten minutes apart', async ({ patient, us }) => {
    for (const [skew, status] of [
      [20_000, 'ok'],
      [60_000, 'warning'],
      [-60_000, 'warning'],
      [600_000, 'failed'],
      [-600_000, 'failed'],
    ] as const) {
      us.faults.dateSkewMs = skew;
      const found = await patient.look();
      found.differs({ clock: status });
      if (status === 'ok') continue;
      expect(found.of('clock').hint).toMatch(/timedatectl|sntp|w32tm/);
      expect(found.of('clock').detail).toMatch(skew > 0 ? /behind the server's$/ : /ahead of the server's$/);
    }
  });

  test('what a server says is shown clean, and no token in it', async ({ patient, us, home }) => {
    const message = `no\u001b[31m way\n\u202e Bearer ${home.token(us)}`;
    us.faults.routes.clusterInfo = { answer: { status: 403, body: { message, advice: [`type ${home.token(us)}`] } } };
    const found = await patient.look();
    found.differs({ 'tka-api': 'failed', grant: 'skipped' });
    expect(found.of('tka-api').detail).toMatch(/no ?\[31m way Bearer \[redacted token\]/);
    expect(found.of('tka-api').hint).toMatch(/^type \[redacted token\]…?$/);
    expect((await patient.run([])).stdout).not.toMatch(/[\u001b\u202e]/);
  });
});

const depend = (on: string) => `depends on ${on}`;
const behindName: Record<string, Status> = { tcp: 'skipped', tls: 'skipped', 'tka-api': 'skipped' };

describe.concurrent('a name that only the tailnet knows', () => {
  const named = base.extend<{ tailscaled: Tailscaled; patient: Patient }>({
    tailscaled: async ({ us }, use) => {
      await using tailscaled = await startTailscaled({ peers: [peerOf(us)] });
      await use(tailscaled);
    },
    patient: async ({ us, home, tailscaled }, use) => {
      const env = {
        TS_SOCKET: tailscaled.socketPath,
        TKA_TAILSCALE_PORT: new URL(us.server).port,
        TKA_TAILSCALE_HOSTNAME: 'prod-us',
      };
      expect(await home.run('login', { env })).toMatchObject({ status: 0 });
      await use(new Patient(home, us, env));
    },
  });

  named('is taken from tailscaled; where that knows nothing of it, the name fails', async ({ patient, tailscaled }) => {
    const found = await patient.look();
    found.differs({});
    expect(found.cluster).toBe('prod-us');
    expect(found.of('name').detail).toBe(
      'prod-us.example.ts.net does not resolve here; tailscaled knows it as 127.0.0.1',
    );
    tailscaled.peers = [];
    const lost = await patient.look();
    lost.differs({ name: 'failed', ...behindName }, depend('name'));
    expect(lost.of('name')).toMatchObject({
      detail: 'prod-us.example.ts.net: its name does not resolve',
      hint: 'see which devices there are: tailscale status',
    });
  });

  named('tailscaled is stopped: that is what fails, and the rest depends on it', async ({ patient, tailscaled }) => {
    tailscaled.backendState = 'Stopped';
    const found = await patient.look();
    found.differs({ tailscaled: 'failed', name: 'skipped', ...behindName }, depend('tailscaled'));
    expect(found.of('tailscaled')).toMatchObject({ detail: 'tailscale is stopped', hint: 'start it: tailscale up' });
    const address = await patient.look(['http://[fd7a:115c:a1e0::dead]:8123'], { TKA_TIMEOUT: '1s' });
    expect(address.of('name').status).toBe('ok');
    expect(address.of('tcp')).toMatchObject({ status: 'skipped', detail: 'depends on tailscaled' });
  });

  named('a device that is switched off', async ({ patient, us, tailscaled }) => {
    await us.stop();
    tailscaled.peers = [peerOf(us, { online: false })];
    const found = await patient.look();
    found.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(found.of('tcp').detail).toMatch(/connection refused; tailscaled says that it is offline$/);
  });

  named('a proxy on the way is named; one that is down, or none, fails TCP', async ({ patient }) => {
    const sockets: net.Socket[] = [];
    const proxy = http.createServer().on('connect', ({ url = '' }, socket: net.Socket) => {
      const { hostname, port } = new URL(`http://${url}`);
      const way = net.connect(Number(port), hostname, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.pipe(way).pipe(socket);
      });
      for (const one of [way, socket]) sockets.push(one.on('error', () => {}));
    });
    await new Promise<void>((listening) => proxy.listen(0, '127.0.0.1', listening));
    const { port } = proxy.address() as net.AddressInfo;
    const env = { NO_PROXY: '', no_proxy: '', HTTP_PROXY: `http://alice:sesame@127.0.0.1:${port}` };
    try {
      const found = await patient.look([], env);
      found.differs({});
      expect(found.of('name').detail).toBe('tailscaled knows prod-us.example.ts.net as 127.0.0.1');
      expect(found.of('tcp').detail).toContain(`through the proxy http://127.0.0.1:${port} (HTTP_PROXY)`);
      expect(found.ran.stdout).not.toContain('sesame');
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => proxy.close(closed));
    }
    const down = await patient.look([], env);
    down.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(down.of('tcp').detail).toContain(`cannot reach the proxy http://127.0.0.1:${port}: connection refused`);
    expect(down.of('tcp').hint).toMatch(/^the proxy is named by HTTP_PROXY/);
    const wrong = await patient.look([], { ...env, HTTP_PROXY: 'ftp://127.0.0.1' });
    wrong.differs({ tcp: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('tcp'));
    expect(wrong.of('tcp').hint).toMatch(/^HTTP_PROXY may be http:/);
  });

  named('plain http is not for everybody’s network', async ({ patient }) => {
    const found = await patient.look(['http://192.0.2.1:8123']);
    expect(found.of('name')).toMatchObject({ status: 'failed', hint: 'name it by https: https://192.0.2.1:8123' });
    expect(found.of('tcp').detail).toBe('depends on name');
  });
});

describe('TLS', () => {
  const day = 86_400_000;
  /** A certificate for a host, by the authority of the others. */
  async function authority() {
    const about = (from: number, to: number) =>
      ({
        keyType: 'ec',
        algorithm: 'sha256',
        notBeforeDate: new Date(Date.now() + from * day),
        notAfterDate: new Date(Date.now() + to * day),
      }) as const;
    const ca = await generate([{ name: 'commonName', value: 'tka-doctor-ca' }], {
      ...about(-90, 90),
      extensions: [
        { name: 'basicConstraints', cA: true, critical: true },
        { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
      ],
    });
    const issue = async (from: number, to: number, name: { type: 2; value: string } | { type: 7; ip: string }) => {
      const made = await generate([{ name: 'commonName', value: 'tka-doctor' }], {
        ...about(from, to),
        ca: { key: ca.private, cert: ca.cert },
        extensions: [{ name: 'subjectAltName', altNames: [name] }],
      });
      return { key: made.private, cert: made.cert };
    };
    return { ca: ca.cert, issue };
  }

  test('valid, soon over, over, not yet begun, another’s, by nobody’s CA, none at all', async ({
    us,
    home,
    tailscaled,
  }) => {
    const { ca, issue } = await authority();
    const here = { type: 7, ip: '127.0.0.1' } as const;
    const good = await issue(-1, 60.5, here);
    const front = https.createServer(good, (request, response) => {
      const { method, url, headers } = request;
      const back = http.request(new URL(url ?? '/', us.server), { method, headers, agent: false }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      request.pipe(back).on('error', () => response.destroy());
    });
    front.on('tlsClientError', () => {});
    await new Promise<void>((listening) => front.listen(0, '127.0.0.1', listening));
    const { port } = front.address() as net.AddressInfo;
    const server = `https://127.0.0.1:${port}`;
    const file = path.join(home.root, 'ca.pem');
    fs.writeFileSync(file, ca);
    home.write(home.config, `tailscale:\n  hostname: "${server}"\ntls:\n  caFile: "${file}"\n`);
    const patient = new Patient(home, us, { TS_SOCKET: tailscaled.socketPath });
    try {
      expect(await home.run('login', { env: patient.env })).toMatchObject({ status: 0 });
      const found = await patient.look();
      found.differs({ tls: 'ok' });
      expect(found.of('tls').detail).toMatch(/^its certificate is good for 127\.0\.0\.1 until .*, for 60 days more$/);

      front.setSecureContext(await issue(-80, 5.5, here));
      const soon = await patient.look();
      soon.differs({ tls: 'warning' });
      expect(soon.of('tls').detail).toMatch(/for 5 days more$/);
      expect(soon.of('tls').hint).toBe('on the server: tailscale cert 127.0.0.1');

      const other = { type: 2, value: 'tka.example.com' } as const;
      const stranger = (await authority()).issue;
      for (const [certificate, detail, hint] of [
        [await issue(-80, -1, here), /has expired on/, /^on the server: tailscale cert/],
        [await issue(1, 80, here), /is not valid before .*: is the clock right\?/, /timedatectl|sntp|w32tm/],
        [
          await issue(-1, 80, other),
          /is for DNS:tka\.example\.com, not for 127\.0\.0\.1/,
          new RegExp(`kubectl tka login https://tka.example.com:${port}$`),
        ],
        [
          await stranger(-1, 80, here),
          /by nobody that is trusted here \(CN=tka-doctor-ca;/,
          /kubectl tka config tls\.caFile FILE$/,
        ],
      ] as const) {
        front.setSecureContext(certificate);
        const bad = await patient.look();
        bad.differs({ tls: 'failed', 'tka-api': 'skipped' }, depend('tls'));
        expect(bad.of('tls').detail).toMatch(detail);
        expect(bad.of('tls').hint).toMatch(hint);
      }
      const none = await patient.look([us.server.replace('http:', 'https:')]);
      expect(none.of('tls').status).toBe('failed');
      expect(none.of('tls').detail).toMatch(/does not speak TLS there/);
      expect(none.of('tka-api').detail).toBe('depends on tls');
      home.write(home.config, `tailscale:\n  hostname: "${server}"\ntls:\n  caFile: "${file}.gone"\n`);
      const untold = await patient.look();
      untold.differs({ configuration: 'failed', tls: 'skipped', 'tka-api': 'skipped' }, depend('configuration'));
    } finally {
      front.closeAllConnections();
      await new Promise((closed) => front.close(closed));
    }
  });
});

test('settings that cannot be read: what needs none is looked at, and the rest depends on them', async ({
  home,
  tailscaled,
}) => {
  const env = { ...home.env, TS_SOCKET: tailscaled.socketPath } as Record<string, string>;
  const paths = { cache: home.cache, state: home.state, configs: [home.config], home: home.dir };
  const machine = { paths, command: program, env, log: () => {} };
  const before = home.files();
  const status = async (message: string) => {
    const report = await examineWithoutSettings(new TkaError(message), machine);
    expect(report.cluster).toBeNull();
    expect(report.checks.map(({ name }) => name)).toEqual(names.split(' '));
    const found = Object.fromEntries(report.checks.map((check) => [check.name, check.status]));
    const all = Object.fromEntries(names.split(' ').map((name) => [name, 'skipped']));
    expect(found).toEqual({
      ...all,
      configuration: 'failed',
      tailscaled: 'ok',
      kubectl: 'ok',
      path: 'ok',
      ...noKubectl,
    });
    return report.checks[0];
  };
  expect(await status(`bad configuration: ${home.config}:2: tailscale.port must be a port`)).toMatchObject({
    detail: `bad configuration: ${home.config}:2: tailscale.port must be a port`,
    hint: `"$EDITOR" "${home.config}"`,
  });
  expect((await status('bad configuration: TKA_TAILSCALE_PORT="x": must be a port'))?.hint).toBe(
    'unset TKA_TAILSCALE_PORT',
  );
  expect(home.files()).toEqual(before);
});
