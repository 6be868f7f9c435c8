// A signed-in user, and the doctor's report about the links from here to the cluster.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { parse, stringify } from 'yaml';
import { type CacheEntry, formatEntry, parseEntry } from '../../src/credential/entry.ts';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import type { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { test as base } from '../fixtures/mesh.ts';
import { jwt, type Ran } from '../fixtures/program.ts';

export type Status = 'ok' | 'warning' | 'failed' | 'skipped';
interface Check {
  readonly name: string;
  readonly status: Status;
  readonly detail: string;
  readonly hint: string | null;
}

export const names =
  'configuration tailscaled name tcp tls tka-api grant sign-in token api-server token-accepted rbac kubeconfig kubectl path cache clock';
export const noKubectl: Record<string, Status> = kubectl === undefined ? { kubectl: 'failed' } : {};
/** Signed in, over plain http, with nothing broken. */
export const well: Record<string, Status> = {
  ...Object.fromEntries(names.split(' ').map((name) => [name, 'ok'])),
  tls: 'skipped',
  ...noKubectl,
};

/** Alice, signed in to prod-us, and her calls of the doctor. */
export class Patient {
  readonly home: Home;
  readonly us: SandboxCluster;
  readonly env: Record<string, string | undefined>;

  constructor(home: Home, us: SandboxCluster, env: Record<string, string | undefined>) {
    this.home = home;
    this.us = us;
    this.env = env;
  }

  /** Runs the doctor: HOME must not change, and no token is requested or shown. */
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

  /** Changes the cache entry of the cluster; it stays as fresh as it was. */
  rewrite(change: (entry: CacheEntry) => Partial<CacheEntry>): void {
    const file = this.home.entry(this.us);
    const { mtimeMs } = fs.statSync(file);
    const entry = parseEntry(fs.readFileSync(file, 'latin1'), this.us.server, mtimeMs / 1000);
    if (entry === undefined) throw new Error('no entry');
    const changed = { ...entry, ...change(entry) };
    fs.writeFileSync(file, formatEntry(changed));
    fs.utimesSync(file, changed.freshUntil, changed.freshUntil);
  }

  /** Changes the kubeconfig, and returns a function that undoes it. */
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

/** The doctor's report, whose format is checked. */
export class Diagnosis {
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
    const failed = checks.filter(({ status }) => status === 'failed');
    const hint = failed.find((check) => check.hint !== null)?.hint ?? 'run it again with --debug';
    const failedNames = failed.map(({ name }) => name).join(', ');
    const error =
      failed.length === 0 ? '' : `error: ${failed.length} of 17 checks failed: ${failedNames}\nhint: ${hint}\n`;
    expect(ran).toMatchObject({ status: failed.length === 0 ? 0 : 1, stderr: error });
  }

  /** Checks that all results are as without a fault, except these; `because` is what skipped checks depend on. */
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

export const test = base.extend<{ tailscaled: Tailscaled; patient: Patient; login: string }>({
  tailscaled: async ({ mesh }, use) => {
    await using tailscaled = await startTailscaled({ peers: mesh.clusters.map((cluster) => peerOf(cluster)) });
    await use(tailscaled);
  },
  patient: async ({ home, us, tailscaled }, use) => {
    const env = { TS_SOCKET: tailscaled.socketPath, LC_ALL: 'C.UTF-8', TERM: 'xterm' };
    expect(await home.run('login', { env })).toMatchObject({ status: 0 });
    await use(new Patient(home, us, env));
  },
  login: 'kubectl tka login prod-us',
});

export const behindSignIn: Record<string, Status> = {
  grant: 'skipped',
  token: 'skipped',
  'token-accepted': 'skipped',
  rbac: 'skipped',
};

/** The reason of checks that are skipped because of another one. */
export const depend = (on: string) => `depends on ${on}`;
export const behindName: Record<string, Status> = { tcp: 'skipped', tls: 'skipped', 'tka-api': 'skipped' };
