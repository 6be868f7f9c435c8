// Checks that every call of the program must pass, whatever its input: streams, files, time and memory. They throw an
// Error that says what is wrong.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parse } from 'yaml';
import { canonicalApiServer, canonicalServer } from '../../src/util/url.ts';
import type { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { jwt, start } from '../fixtures/program.ts';
import { fileFolder } from '../fixtures/temporary.ts';

/** C0, C1, bidirectional overrides, zero-width and tag characters must not reach a terminal or a file. */
const unsafe =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/u;

/**
 * Checks that a terminal shows the text unchanged: no control characters and no invisible characters except newlines.
 */
export function checkPlain(text: string, what: string): void {
  const at = text.search(unsafe);
  if (at < 0) return;
  const code = text.codePointAt(at)?.toString(16).padStart(4, '0').toUpperCase();
  assert.fail(`${what} holds U+${code}: ${JSON.stringify(text.slice(Math.max(0, at - 60), at + 60))}`);
}

// Our own words after the prefix start in lower case. TKA_TIMEOUT and the like keep their case.
const lineForms = [
  /^error: (?![A-Z][a-z])\S/,
  /^(?:hint|warning): \S/,
  // Our notices are in lower case, or start with a path, a URL or a cluster's name.
  /^(?!error|hint|warning|debug|\w*Error\b|Uncaught)(?:[a-z0-9"/]\S*|[A-Z][\w.-]*:) \S/,
];

/**
 * Checks stderr: lines in our forms, at most one error, no crash, no stack trace, no "undefined" or other internal
 * value.
 */
export function checkStderr(text: string, most = 70): void {
  checkPlain(text, 'stderr');
  if (text === '') return;
  assert.ok(text.endsWith('\n'), `stderr ends in the middle of a line: ${JSON.stringify(text.slice(-80))}`);
  const lines = text.slice(0, -1).split('\n');
  for (const line of lines) {
    assert.ok(
      lineForms.some((form) => form.test(line)),
      `stderr has a line in none of our forms: ${JSON.stringify(line.slice(0, 300))}`,
    );
    assert.ok(line.length < 6000, `stderr has a line of ${line.length} characters`);
  }
  // Only configuration problems are reported together, one error each.
  const errors = lines.filter((line) => line.startsWith('error: '));
  const several = errors.every((line) => line.startsWith('error: bad configuration: '));
  assert.ok(errors.length <= 1 || several, `more than one error:\n${text}`);
  assert.ok(lines.length <= most, `stderr has ${lines.length} lines`);
  for (const bad of [
    /\[object \w+\]/,
    /\bundefined\b/,
    /\bNaN\b/,
    /^\s+at \S/m,
    /\bunexpected: /,
    /not whole/,
    /\(node:/,
  ]) {
    assert.doesNotMatch(text, bad, `stderr tells of the inside:\n${text.slice(0, 2000)}`);
  }
  assert.doesNotMatch(text, jwt, 'stderr holds a token');
}

/** Checks that stderr contains only notices, and the warning that the test's server is not tagged. */
export function checkCalm(stderr: string): void {
  assert.doesNotMatch(
    stderr,
    /^(?:error|hint|warning): (?!cannot check whether http:\S+ is tagged .*\(first sign-in\)$)/m,
  );
}

/** Checks a failure: the exit status, nothing on stdout, one error on stderr. */
export function checkFailure(ran: { status: number | null; stdout: string; stderr: string }, status = 1): void {
  assert.equal(ran.status, status, `exit ${ran.status}\nstdout: ${ran.stdout.slice(0, 500)}\nstderr: ${ran.stderr}`);
  assert.equal(ran.stdout, '', 'stdout of a failure');
  assert.match(ran.stderr, /^error: /m, 'a failure without an error');
  assert.match(ran.stderr, /^error: .*\n(?:error: .*\n)*hint: \S/m, 'an error without a hint');
}

/** Checks that stdout is an ExecCredential on one line; returns its token. */
export function checkCredential(ran: { status: number | null; stdout: string; stderr: string }): string {
  assert.equal(ran.status, 0, `exit ${ran.status}: ${ran.stderr}`);
  assert.match(ran.stdout, /^\{[^\n]+\}\n$/, 'stdout is not one line of JSON');
  checkPlain(ran.stdout, 'stdout');
  const document = JSON.parse(ran.stdout);
  const { token, expirationTimestamp } = document.status;
  assert.deepEqual(document, {
    kind: 'ExecCredential',
    apiVersion: 'client.authentication.k8s.io/v1',
    status: { token, expirationTimestamp },
  });
  assert.match(token, /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/);
  assert.match(expirationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.ok(Date.parse(expirationTimestamp) > Date.now(), `the token has ended: ${expirationTimestamp}`);
  return token;
}

/** A row of `clusters -o json`. */
export interface ClusterRow {
  readonly name: string;
  readonly server: string | null;
  readonly through: string | null;
  readonly apiEndpoint: string;
  readonly state: string;
  readonly reason: string | null;
  readonly lastSeen: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly context: string | null;
  readonly session: { username: string; role: string; until: string } | null;
  readonly servers: readonly { name: string; server: string | null; state: string }[];
}

const time = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/;

/** Checks that each text of a parsed document is plain, keys too. */
export function checkTexts(value: unknown, what: string): void {
  if (typeof value === 'string') {
    checkPlain(value, what);
    assert.ok(value.isWellFormed() && !value.includes('\n'), `${what} holds ${JSON.stringify(value.slice(0, 200))}`);
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      checkTexts(key, what);
      checkTexts(inner, what);
    }
  }
}

const states = ['missing', 'dead', 'suspected', 'unresolved', 'healthy', 'unknown'];

/** The keys of a row of `clusters -o json`, in order. */
export const clusterRowKeys =
  'name server through apiEndpoint state reason lastSeen labels context session servers'.split(' ');

/** Checks the output of `clusters -o json`, as cli.md describes it. */
export function checkClusterRows(stdout: string): ClusterRow[] {
  checkPlain(stdout, 'stdout');
  const rows: ClusterRow[] = JSON.parse(stdout);
  assert.ok(Array.isArray(rows));
  checkTexts(rows, 'clusters -o json');
  for (const row of rows) {
    assert.deepEqual(Object.keys(row), clusterRowKeys);
    assert.match(row.name, /^[A-Za-z0-9][A-Za-z0-9._:-]*$/);
    if (row.server !== null) assert.equal(canonicalServer(row.server), row.server);
    assert.equal(row.through !== null, row.server !== null && new URL(row.server).pathname !== '/');
    if (row.through !== null) assert.match(row.through, /^[A-Za-z0-9][A-Za-z0-9._:-]*$/);
    assert.equal(canonicalApiServer(row.apiEndpoint), row.apiEndpoint);
    assert.ok(states.includes(row.state), row.state);
    assert.ok(row.servers.length > 0);
    for (const { name, server, state, ...rest } of row.servers) {
      assert.match(name, /^[A-Za-z0-9][A-Za-z0-9._:-]*$/);
      if (server !== null) assert.equal(canonicalServer(server), server);
      assert.ok(states.includes(state), state);
      assert.deepEqual(rest, {});
    }
    if (row.lastSeen !== null) assert.ok(time.test(row.lastSeen) && !Number.isNaN(Date.parse(row.lastSeen)));
    assert.ok(row.reason === null || typeof row.reason === 'string');
    assert.ok(typeof row.labels === 'object' && row.labels !== null && !Array.isArray(row.labels));
    for (const label of Object.values(row.labels)) assert.equal(typeof label, 'string');
  }
  return rows;
}

/** Checks a table: a heading, then one line for each row, whose cells are aligned. */
export function checkTable(stdout: string, heading: RegExp, rows: number): void {
  checkPlain(stdout, 'stdout');
  if (rows === 0) {
    assert.equal(stdout, '');
    return;
  }
  const lines = stdout.split('\n');
  assert.equal(lines.pop(), '');
  assert.match(lines[0] ?? '', heading);
  assert.equal(lines.length, rows + 1, `a table of ${lines.length - 1} lines, not ${rows}`);
}

/** Returns the paths under HOME that differ before and after. */
export function changes(before: Record<string, string>, after: Record<string, string>): string[] {
  const all = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...all].filter((file) => before[file] !== after[file]).sort();
}

/** Checks that only `allowed` paths have changed, and that no lock or temporary file is left. */
export function checkFiles(
  before: Record<string, string>,
  after: Record<string, string>,
  allowed: readonly RegExp[],
  except: readonly string[] = [],
): void {
  const foreign = changes(before, after).filter((file) => !allowed.some((pattern) => pattern.test(file)));
  assert.deepEqual(foreign, [], 'files that nobody may touch have changed');
  const leftovers = Object.keys(after).filter(
    (file) => /(?:\+lock|\+tmp|\.lock|~)\/?$/.test(file) && !Object.hasOwn(before, file) && !except.includes(file),
  );
  assert.deepEqual(leftovers, [], 'files that were left behind');
}

const ours = (item: Named, body: string) =>
  (item[body] as { extensions?: { name: string }[] } | undefined)?.extensions?.some(
    (e) => e.name === 'tka.specht-labs.de',
  );
type Named = Record<string, unknown> & { name: string };
type Kubeconfig = Record<'clusters' | 'users' | 'contexts', Named[]> & { 'current-context': string };

/** Checks that each managed entry in a kubeconfig's text has exactly its fields, each of them plain. */
export function checkKubeconfigText(text: string): Kubeconfig {
  const read = parse(text, { version: '1.1' }) as Kubeconfig;
  assert.deepEqual(parse(text), read, 'YAML 1.1 and 1.2 read different things');
  const mark = (server: string) => [{ extension: { server }, name: 'tka.specht-labs.de' }];
  const found = (key: 'clusters' | 'users' | 'contexts', body: string) =>
    (read[key] ?? []).filter((item) => ours(item, body));
  for (const item of found('clusters', 'cluster')) {
    const cluster = item.cluster as Record<string, unknown>;
    const { extensions, server, ...rest } = cluster;
    const ca = rest['certificate-authority-data'];
    const insecure = rest['insecure-skip-tls-verify'];
    const fields = {
      ...(ca !== undefined && { 'certificate-authority-data': ca }),
      ...(insecure !== undefined && { 'insecure-skip-tls-verify': true }),
    };
    assert.deepEqual(rest, fields, `cluster ${item.name} has fields that are not ours`);
    assert.equal(canonicalApiServer(String(server)), server);
    if (ca !== undefined)
      assert.match(Buffer.from(String(ca), 'base64').toString('latin1'), /^-----BEGIN CERTIFICATE-----/m);
    checkTexts(cluster, 'our cluster in the kubeconfig');
    const tka = (extensions as { extension: { server: string } }[])[0]?.extension.server ?? '';
    assert.deepEqual(extensions, mark(canonicalServer(tka)));
  }
  for (const item of found('users', 'user')) {
    const { exec, extensions, ...rest } = item.user as Record<string, Record<string, unknown>>;
    assert.deepEqual(rest, {}, `user ${item.name} has fields that are not ours`);
    const { installHint, command, args, ...fixed } = exec ?? {};
    assert.deepEqual(fixed, {
      apiVersion: 'client.authentication.k8s.io/v1',
      interactiveMode: 'Never',
      provideClusterInfo: false,
    });
    assert.match(String(installHint), /^kubectl-tka is not on PATH/);
    assert.ok(path.isAbsolute(String(command)));
    const [word, serverFlag, server, apiFlag, api, ...more] = args as string[];
    assert.deepEqual([word, serverFlag, apiFlag, more], ['credential', '--server', '--api-server', []]);
    assert.equal(canonicalServer(server ?? ''), server);
    assert.equal(canonicalApiServer(api ?? ''), api);
    assert.deepEqual(extensions, mark(server ?? ''));
  }
  for (const item of found('contexts', 'context')) {
    checkTexts(item, 'our context in the kubeconfig');
    assert.deepEqual(Object.keys(item.context as object).sort(), ['cluster', 'extensions', 'user']);
    assert.match(item.name, /^[A-Za-z0-9][A-Za-z0-9._:-]*$/);
  }
  assert.doesNotMatch(text, jwt, 'the kubeconfig holds a token');
  return read;
}

/** Checks that kubectl, if installed, reads the kubeconfig as we do. */
export async function checkByKubectl(home: Home, read: Kubeconfig): Promise<void> {
  if (kubectl === undefined) return;
  const ran = await start(kubectl, ['config', 'view', '--raw', '-o', 'json'], home.env, { cwd: home.dir }).ran;
  assert.equal(ran.status, 0, `kubectl does not read the kubeconfig: ${ran.stderr}`);
  const theirs = JSON.parse(ran.stdout) as Kubeconfig;
  assert.equal(theirs['current-context'], read['current-context'] ?? '');
  for (const key of ['clusters', 'users', 'contexts'] as const) {
    const body = { clusters: 'cluster', users: 'user', contexts: 'context' }[key];
    const names = (list: Named[] | undefined) => (list ?? []).map(({ name }) => name).sort();
    assert.deepEqual(names(theirs[key]), names(read[key]));
    for (const item of theirs[key] ?? []) {
      if (!ours(item, body)) continue;
      const same = read[key].find(({ name }) => name === item.name);
      const { env, ...exec } = ((item[body] as Record<string, unknown>).exec ?? {}) as Record<string, unknown>;
      assert.ok(env === undefined || env === null);
      const { exec: _, ...rest } = item[body] as Record<string, unknown>;
      const { exec: ourExec = {}, ...ourRest } = (same?.[body] ?? {}) as Record<string, unknown>;
      assert.deepEqual(rest, ourRest);
      assert.deepEqual(exec, ourExec);
    }
  }
}

const folder = fileFolder();
const hook = path.join(folder, 'rss.cjs');
fs.writeFileSync(
  hook,
  `process.on('exit', () => require('node:fs').writeFileSync(process.env.TKA_HOSTILE_RSS, String(process.resourceUsage().maxRSS)));`,
);
let runs = 0;

/** Returns variables that make Node report its peak memory when it exits; `read` returns it in MiB. */
export function memoryProbe(): { env: Record<string, string>; read: () => number | undefined } {
  const file = path.join(folder, String(runs++));
  return {
    env: { TKA_NODE_OPTIONS: `--require="${hook}"`, TKA_HOSTILE_RSS: file },
    read: () => {
      if (!fs.existsSync(file)) return undefined;
      const text = fs.readFileSync(file, 'utf8');
      fs.rmSync(file);
      return Number(text) / 1024;
    },
  };
}
