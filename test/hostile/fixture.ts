// The fixture of tests with hostile input: a HOME with files that no call may change, a server of the mesh with
// prepared answers, and calls of the built program, each of which must pass every check of checks.ts.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, test as base, beforeAll, vi } from 'vitest';
import { entryName, formatEntry } from '../../src/credential/entry.ts';
import type { Faults } from '../../src/sandbox/faults.ts';
import { type RouteFault, type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { Home } from '../fixtures/home.ts';
import { type Env, launched, type Ran } from '../fixtures/program.ts';
import { escaped } from '../fixtures/transcript.ts';
import {
  checkByKubectl,
  checkCredential,
  checkFailure,
  checkFiles,
  checkKubeconfigText,
  checkPlain,
  checkStderr,
  memoryProbe,
} from './checks.ts';

/** Memory limit of a process in MiB; a bare Node takes 60. */
const memoryLimit = 300;
/** Milliseconds beyond TKA_TIMEOUT that a process may take on a busy machine. */
const patience = 30_000;

/**
 * Returns a token with an invalid signature. `claims` override an expiry in an hour. `payload` replaces the whole
 * payload.
 */
export function makeToken(claims: object = {}, payload?: string): string {
  const encode = (text: string) => Buffer.from(text).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 3600;
  return [
    encode('{"alg":"ES256"}'),
    encode(payload ?? JSON.stringify({ exp, ...claims })),
    encode('nobody signed'),
  ].join('.');
}

/** Returns a cache entry, in six lines, that is fresh for another ten minutes. */
export function makeEntry(server: string, apiServer: string, token: string, details: object = {}): string {
  const expires = Date.now() + 1_800_000;
  const stamp = `${new Date(expires).toISOString().slice(0, 19)}Z`;
  return formatEntry({
    server,
    apiServer,
    token,
    expirationTimestamp: stamp,
    freshUntil: Math.floor(Date.now() / 1000) + 600,
    details: JSON.stringify({
      username: 'alice',
      role: 'viewer',
      until: stamp,
      clockOffset: 0,
      caData: '',
      insecureSkipTlsVerify: false,
      ...details,
    }),
  });
}

/** Writes an entry with the mtime that makes it fresh. */
export function putEntry(
  file: string,
  text: string | Buffer,
  freshUntil = Number(/^tka1 \d+ (\d+)/.exec(String(text))?.[1] ?? 0),
): void {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  fs.writeFileSync(file, text, { mode: 0o600 });
  fs.utimesSync(file, freshUntil, freshUntil);
}

const elsewhere = { server: 'http://127.0.0.99:8123', apiServer: 'https://127.0.0.99:6443' };

/**
 * Entries of other programs and a managed one for another server, with what an editor could lose: comments, order,
 * styles.
 */
export const bystanderKubeconfig = `# mine, do not touch
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: work   # the old one
  cluster: {server: "https://work.example:6443", insecure-skip-tls-verify: true}
- cluster:
    extensions:
    - extension: {server: "${elsewhere.server}"}
      name: tka.specht-labs.de
    server: ${elsewhere.apiServer}
  name: elsewhere
contexts:
- context:
    cluster: work
    user: 'work'
  name: work
- context:
    cluster: elsewhere
    extensions:
    - extension: {server: "${elsewhere.server}"}
      name: tka.specht-labs.de
    user: elsewhere
  name: elsewhere
current-context: work
users:
- name: work
  user: {token: not-a-real-one}
- name: elsewhere
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args: [credential, --server, "${elsewhere.server}", --api-server, "${elsewhere.apiServer}"]
      command: /bin/true
      installHint: kubectl-tka is not on PATH
      interactiveMode: Never
      provideClusterInfo: false
    extensions:
    - extension: {server: "${elsewhere.server}"}
      name: tka.specht-labs.de
`;

// Lines that each of our edits must keep, in this order: all except the current context, which a login changes.
const kept = bystanderKubeconfig.split('\n').filter((line) => line !== '' && !line.startsWith('current-context:'));

function putBystanders(home: Home): void {
  home.write(home.kubeconfig, bystanderKubeconfig);
  fs.appendFileSync(home.config, '# mine too\noutput:\n  theme: "dark"\n');
  const entry = home.entry(elsewhere);
  putEntry(entry, makeEntry(elsewhere.server, elsewhere.apiServer, makeToken({ sub: 'bystander' })));
  home.write(`${entry}+served`, '1 - - -\n');
  const state = (kind: string, server: string, text: string) =>
    home.write(path.join(home.state, kind, entryName(server) ?? ''), text);
  state('signed-out', 'http://127.0.0.98:8123', '{"server":"http://127.0.0.98:8123","username":"bob"}\n');
  state('insecure', 'http://127.0.0.97:8123', '{"apiServer":"https://127.0.0.97:6443"}\n');
  for (const folder of [home.cache, home.state, path.join(home.state, 'signed-out'), path.join(home.state, 'insecure')])
    fs.chmodSync(folder, 0o700);
  home.write(path.join(home.dir, '.ssh', 'id_ed25519'), 'a key\n');
  home.write(path.join(home.dir, 'pwned.not'), '');
}

export interface CallOptions {
  /** TKA_TIMEOUT. A short one is enough if the server's answer is never acceptable. */
  readonly timeout?: string;
  readonly env?: Env;
  /** Paths under HOME that may change. */
  readonly may?: readonly RegExp[];
  /** A `+lock` or similar that the case itself created. */
  readonly leftovers?: readonly string[];
  /** Memory limit in MiB. */
  readonly memory?: number;
  /** Limit of lines on stderr. */
  readonly lines?: number;
}

export interface FailureOptions extends CallOptions {
  readonly reached?: () => boolean;
  readonly told?: RegExp;
}

/** One case: a server of the mesh, and a fresh HOME with files of other programs. */
export class Fixture {
  readonly cluster: SandboxCluster;
  readonly home: Home;
  /** Tokens that the server issued. */
  readonly minted = new Set<string>();

  constructor(cluster: SandboxCluster, home: Home) {
    this.cluster = cluster;
    this.home = home;
    cluster.faults.kubeconfig = (normal) => {
      const [user] = Object.values(normal.users);
      if (user?.token !== undefined) this.minted.add(user.token);
      return normal;
    };
  }

  /** Files that `credential` may change: a server's own entry and the files beside it. */
  cacheOf(server: string): RegExp[] {
    const entry = path.relative(this.home.dir, this.home.entry({ server }));
    return [new RegExp(`^${escaped(entry)}(?:\\+served|\\+checked|\\+failed)?$`)];
  }

  get ownCache(): RegExp[] {
    return this.cacheOf(this.cluster.server);
  }

  /**
   * Files that commands may keep: lists of clusters, those with a context, the previous context, servers without a tag.
   */
  readonly remembered = [/^\.local\/state\/kubectl-tka\/(?:clusters|previous-context|accepted|siblings|away)\//];

  /** Files that a `login` may change. */
  get loginMay(): RegExp[] {
    return [...this.ownCache, ...this.remembered, /^\.kube\/config$/];
  }

  get entry(): string {
    return this.home.entry(this.cluster);
  }

  /** Writes a session to the cache, as an earlier login left it. */
  signedIn(): void {
    putEntry(this.entry, makeEntry(this.cluster.server, this.cluster.apiServer, makeToken({ sub: 'alice' })));
  }

  /** Runs the program, with the checks that apply to every call. */
  async run(
    args: string | readonly string[],
    options: CallOptions = {},
  ): Promise<Ran & { readonly memory: number | undefined }> {
    const { timeout = '10s', may = [] } = options;
    const { home } = this;
    const before = home.files();
    const probe = memoryProbe();
    const env = {
      TKA_TIMEOUT: timeout,
      // So that the machine's tailscaled is not asked.
      TS_SOCKET: path.join(home.root, 'no-tailscaled'),
      ...(launched && probe.env),
      ...options.env,
    };
    const ran = await home.run(args, { env });
    const memory = probe.read();
    const told = `${Array.isArray(args) ? args.join(' ') : args}\nstdout: ${ran.stdout.slice(0, 1500)}\nstderr: ${ran.stderr.slice(0, 1500)}`;
    try {
      assert.equal(ran.signal, null, `ended by ${ran.signal}`);
      assert.ok([0, 1, 2].includes(ran.status ?? -1), `exit ${ran.status}`);
      checkStderr(ran.stderr, options.lines);
      checkPlain(ran.stdout, 'stdout');
      assert.doesNotMatch(ran.stdout, /\[object \w+\]|\bundefined\b|\bNaN\b/, 'stdout tells of the inside');
      if (ran.status === 0) assert.doesNotMatch(ran.stderr, /^error: /m, 'an error, and exit 0');
      else assert.match(ran.stderr, /^error: /m, 'a failure without an error');
      checkFiles(before, home.files(), may, options.leftovers);
      assert.deepEqual(fs.readdirSync(path.join(home.root, 'tmp')), [], 'temporary files');
      const limit = Number.parseFloat(timeout) * (timeout.endsWith('ms') ? 1 : 1000);
      assert.ok(ran.took < limit + patience, `took ${Math.round(ran.took)} ms`);
      assert.ok((memory ?? 0) < (options.memory ?? memoryLimit), `took ${Math.round(memory ?? 0)} MiB of memory`);
    } catch (error) {
      if (error instanceof Error) error.message += `\nof: ${told}`;
      throw error;
    }
    return { ...ran, memory };
  }

  credentialArgs(): string[] {
    return ['credential', '--server', this.cluster.server, '--api-server', this.cluster.apiServer];
  }

  /**
   * Runs `credential`, which must succeed with a token that the server just issued, and that the cache now contains.
   */
  async freshCredential(options: CallOptions = {}): Promise<Ran> {
    const ran = await this.run(this.credentialArgs(), { ...options, may: [...this.ownCache, ...(options.may ?? [])] });
    const token = checkCredential(ran);
    assert.ok(this.minted.has(token), 'a token that the server did not give in this case');
    return ran;
  }

  /**
   * Runs `credential`, which must fail and leave no token behind. A short timeout is enough, unless the machine is so
   * busy that `reached` (what the server saw) returns false or the error is not `told`; then it gets more time.
   */
  async noCredential(options: FailureOptions = {}): Promise<Ran> {
    const { reached = () => true, told = /^error: /m } = options;
    for (const timeout of options.timeout === undefined ? ['600ms', '8s'] : [options.timeout]) {
      const may = [...this.ownCache, ...(options.may ?? [])];
      const ran = await this.run(this.credentialArgs(), { ...options, timeout, may });
      checkFailure(ran);
      assert.ok(!fs.existsSync(this.entry), 'a token is kept all the same');
      if (timeout === '600ms' && !(reached() && told.test(ran.stderr))) continue;
      assert.ok(reached(), `the hostile answer was never asked for: ${ran.stderr}`);
      assert.match(ran.stderr, told);
      return ran;
    }
    throw new Error('unreachable');
  }

  /**
   * Runs a command that may edit the kubeconfig. Its changes must be managed entries in plain text, and all other lines
   * stay.
   */
  async edit(
    args: string | readonly string[],
    options: CallOptions = {},
  ): Promise<Ran & { readonly changed: boolean; readonly memory: number | undefined }> {
    const { home } = this;
    const before = fs.readFileSync(home.kubeconfig, 'utf8');
    const ran = await this.run(args, {
      ...options,
      may: [...this.loginMay, ...(options.may ?? [])],
    });
    const after = fs.readFileSync(home.kubeconfig, 'utf8');
    if (before === after) return { ...ran, changed: false };
    let at = 0;
    for (const line of kept) {
      const found = after.indexOf(line, at);
      assert.ok(found >= 0, `the kubeconfig has lost ${JSON.stringify(line)}:\n${after}`);
      at = found + line.length;
    }
    await checkByKubectl(home, checkKubeconfigText(after));
    return { ...ran, changed: true };
  }
}

/** Makes the server answer a route with the given answer. */
export const answering =
  (route: keyof Faults['routes'], fault: RouteFault) =>
  ({ cluster }: Fixture): void => {
    cluster.faults.routes[route] = fault;
  };

/** Sets faults of the server. */
export const behaving =
  (faults: Partial<Faults>) =>
  ({ cluster }: Fixture): void => {
    Object.assign(cluster.faults, faults);
  };

/**
 * Starts a mesh with as many servers as cases run at once, and returns `test`, which gives each case a server and a
 * HOME of its own. Call it at the top of a test file whose tests are `test.concurrent`.
 */
export function hostileTest(lanes = 8) {
  vi.setConfig({ maxConcurrency: lanes });
  let mesh: SandboxMesh;
  const free: SandboxCluster[] = [];
  beforeAll(async () => {
    const clusters = Array.from({ length: lanes }, (_, i) => ({ name: `c${i}`, labels: { lane: `${i}` } }));
    mesh = await startMesh({ clusters });
    free.push(...mesh.clusters);
  });
  afterAll(() => mesh.close());
  return base.extend<{ fixture: Fixture }>({
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    fixture: async ({}, use) => {
      while (free.length === 0) await delay(5);
      const cluster = free.pop() as SandboxCluster;
      using home = new Home(cluster.server);
      putBystanders(home);
      await use(new Fixture(cluster, home));
      cluster.clearFaults();
      cluster.resetCounts();
      cluster.expireSignIn();
      free.push(cluster);
    },
  });
}
