import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unifiedDiff } from '../../../src/cli/sync/diff.ts';
import { type SandboxMesh, startMesh } from '../../../src/sandbox/mesh.ts';
import { random } from '../../kubeconfig/helpers.ts';
import { Fixture } from './fixture.ts';

/** Applies a diff to a text. Every line of a hunk must be where the hunk says. */
function applied(before: string, diff: string): string {
  const lines = before.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const out: string[] = [];
  let at = 0;
  const [, ...hunks] = diff.split(/^(?=@@ )/m);
  for (const hunk of hunks) {
    const [head = '', ...body] = hunk.replaceAll(/\n\\ No newline at end of file$/gm, '\u0000').split(/(?<=\n)/);
    const [, from, count = '1', newFrom, newCount = '1'] =
      /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(head) ?? [];
    const start = Number(from) - (count === '0' ? 0 : 1);
    out.push(...lines.slice(at, start));
    expect(out.length).toBe(Number(newFrom) - (newCount === '0' ? 0 : 1));
    at = start;
    const [taken, made] = [at, out.length];
    for (const raw of body) {
      const line = raw.endsWith('\u0000\n') ? raw.slice(1, -2) : raw.slice(1).replace(/\u0000$/, '');
      if (raw[0] !== '+') expect(lines[at++]).toBe(line);
      if (raw[0] !== '-') out.push(line);
    }
    expect([at - taken, out.length - made]).toEqual([Number(count), Number(newCount)]);
  }
  return [...out, ...lines.slice(at)].join('');
}

describe('a unified diff', () => {
  it('is the same as diff -u prints', () => {
    const before = Array.from({ length: 30 }, (_, i) => `line ${i + 1}\n`).join('');
    const after = before
      .replace('line 3\n', 'line three\n')
      .replace('line 20\n', '')
      .replace('line 29\n', 'line 29\nnew\n');
    expect(unifiedDiff('/home/a/.kube/config', before, after)).toMatchInlineSnapshot(`
      "--- /home/a/.kube/config
      +++ /home/a/.kube/config
      @@ -1,6 +1,6 @@
       line 1
       line 2
      -line 3
      +line three
       line 4
       line 5
       line 6
      @@ -17,7 +17,6 @@
       line 17
       line 18
       line 19
      -line 20
       line 21
       line 22
       line 23
      @@ -27,4 +26,5 @@
       line 27
       line 28
       line 29
      +new
       line 30
      "
    `);
    expect(unifiedDiff('/a', before, before)).toBe('');
    expect(unifiedDiff('/a b', '', 'x')).toBe(
      '--- /a b\t\n+++ /a b\t\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n',
    );
    expect(unifiedDiff('/a', undefined, 'x\n')).toBe('--- /dev/null\n+++ /a\n@@ -0,0 +1 @@\n+x\n');
    expect(unifiedDiff('/a', 'x\n', '')).toBe('--- /a\n+++ /a\n@@ -1 +0,0 @@\n-x\n');
  });

  it('applies, by our own code and by patch', () => {
    const fixture = new Fixture('http://127.0.0.1');
    const patch = spawnSync('patch', ['--version']).status === 0;
    const next = random(4);
    const pick = (count: number) => Math.floor(next() * count);
    try {
      for (let round = 0; round < 300; round++) {
        const words = 2 + pick(40);
        const text = () => `${['', '  ', '- '][pick(3)]}${pick(8) === 0 ? 'token: ' : ''}w${pick(words)}`;
        const before = Array.from({ length: pick(60) }, text);
        const after = before.flatMap(
          (line) => [[line], [line], [line], [line], [], [text()], [line, text(), text()]][pick(7)] as string[],
        );
        const end = () => ['\n', '\n', ''][pick(3)];
        const [a, b] = [before, after].map((lines) => (lines.length === 0 ? '' : lines.join('\n') + end())) as [
          string,
          string,
        ];
        const secret = round % 2 === 0 ? (line: string) => /token/.test(line) : () => false;
        const diff = unifiedDiff('/config', a, b, { secret });
        expect(applied(a, diff)).toBe(b);
        if (round % 2 === 0) expect(diff).not.toMatch(/^ .*token/m);
        if (!patch || round % 10 !== 0 || diff === '') continue;
        const file = path.join(fixture.dir, 'config');
        fs.writeFileSync(file, a);
        execFileSync('patch', ['-s', '-E', file], { input: diff });
        expect(fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '').toBe(b);
      }
    } finally {
      fixture.remove();
    }
  });

  it('is fast for long files with similar entries', () => {
    const entry = (i: number) =>
      `- context:\n    cluster: "c${i}"\n    extensions:\n    - extension:\n        server: "https://s${i}"\n      name: tka\n    user: "c${i}"\n  name: "c${i}"\n`;
    const section = (name: string, from: number, to: number) =>
      `${name}:\n${Array.from({ length: to - from }, (_, i) => entry(from + i)).join('')}`;
    const file = (from: number, to: number) =>
      ['clusters', 'contexts', 'users'].map((name) => section(name, from, to)).join('');
    const [a, b] = [file(0, 300), file(100, 1300)];
    const started = performance.now();
    const diff = unifiedDiff('/config', a, b);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(applied(a, diff)).toBe(b);
    // Only the lines that really change, and not the whole file replaced.
    expect(diff.split('\n').length).toBeLessThan(3 * 8 * 1100 + 60);
  });
});

describe('--dry-run and --diff', () => {
  let mesh: SandboxMesh;
  let fixture: Fixture;
  beforeEach(async () => {
    mesh = await startMesh();
    fixture = new Fixture(mesh.cluster('prod-us').server);
  });
  afterEach(async () => {
    fixture.remove();
    await mesh.close();
  });

  it('--dry-run lists what the sync then does, and writes nothing', async () => {
    const [us, eu] = [mesh.cluster('prod-us'), mesh.cluster('prod-eu')];
    const first = await fixture.sync({ dryRun: true });
    const [a, b, c] = [eu, us, mesh.cluster('staging')].map(({ name, apiServer }) => `+ add ${name} (${apiServer})\n`);
    expect(first).toEqual({
      stdout: `${a}${b}${c}Plan: 3 to add.\n`,
      stderr: 'dry run: nothing is written\n',
      error: undefined,
    });
    expect(fs.existsSync(fixture.kubeconfig)).toBe(false);
    await fixture.sync();
    expect((await fixture.sync({ dryRun: true })).stdout).toBe('Plan: 3 unchanged.\n');

    const old = eu.apiServer;
    eu.gossip.apiEndpoint = 'https://new.example.com';
    eu.faults.clusterInfo = { server_url: 'https://new.example.com', ca_data: '' };
    mesh.cluster('staging').gossip.listed = false;
    fixture.forgetMissing();
    const before = fixture.stamp();
    const refused = await fixture.sync({ dryRun: true, prune: true });
    expect(refused.stdout).toBe(
      '- remove staging\nPlan: 1 to remove, 1 unchanged, 1 kept unchanged; 1 of 2 clusters failed.\n',
    );
    expect(refused.error?.message).toBe('1 of 2 clusters could not be synced: prod-eu');
    const flags = { acceptChanges: true, prune: true, contextTemplate: '{name}-{labels.region}' };
    const { stdout } = await fixture.sync({ ...flags, dryRun: true });
    expect(stdout.replace(/sha256 [0-9a-f]{64}/, 'sha256 OLD').split('\n')).toEqual([
      '~ rename prod-eu → prod-eu-eu-central-1',
      `~ endpoint prod-eu-eu-central-1: ${old} → https://new.example.com`,
      "~ CA prod-eu-eu-central-1: sha256 OLD → the system's CAs",
      '~ rename prod-us → prod-us-us-west-2',
      '- remove staging',
      'Plan: 2 to rename, 1 to remove.',
      '',
    ]);
    expect(fixture.stamp()).toBe(before);
    const done = await fixture.sync(flags);
    expect(done.stdout).toBe(
      '2 renamed: prod-eu to prod-eu-eu-central-1, prod-us to prod-us-us-west-2. 1 removed: staging.\n',
    );
    expect(await fixture.names()).toEqual(['prod-eu-eu-central-1', 'prod-us-us-west-2']);
  });

  it('of a first sync shows a new file, and writes none', async () => {
    const said = await fixture.sync({ diff: true });
    expect(said.stdout).toMatch(
      new RegExp(`^--- /dev/null\n\\+\\+\\+ ${fixture.kubeconfig}\t\n@@ -0,0 \\+1,\\d+ @@\n\\+`),
    );
    expect(said.stderr).toBe('dry run: nothing is written\n');
    expect(fs.existsSync(fixture.kubeconfig)).toBe(false);
    expect(fs.existsSync(path.join(fixture.state, 'synced'))).toBe(false);
    await fixture.sync();
    expect(applied('', said.stdout)).toBe(fixture.read());
    expect(await fixture.sync({ diff: true })).toEqual({
      stdout: '',
      stderr: 'dry run: nothing is written\n',
      error: undefined,
    });
  });

  it('shows what the sync then does, with the same exit status', async () => {
    await fixture.sync({ selector: 'environment=production' });
    fixture.write(`# mine\n${fixture.read()}# the end\n`);
    const eu = mesh.cluster('prod-eu');
    eu.gossip.apiEndpoint = 'https://new.example.com';
    eu.faults.clusterInfo = { server_url: 'https://new.example.com' };
    const before = fixture.stamp();
    const text = fixture.read();
    const refused = await fixture.sync({ diff: true });
    expect(refused.error?.exitCode).toBe(1);
    expect(refused.stdout).not.toContain('new.example.com');
    const said = await fixture.sync({ diff: true, acceptChanges: true });
    expect(fixture.stamp()).toBe(before);
    await fixture.sync({ acceptChanges: true });
    expect(applied(text, said.stdout)).toBe(fixture.read());
    if (spawnSync('patch', ['--version']).status === 0) {
      const copy = path.join(fixture.dir, 'copy');
      fs.writeFileSync(copy, text);
      execFileSync('patch', ['-s', copy], { input: said.stdout });
      expect(fs.readFileSync(copy, 'utf8')).toBe(fixture.read());
    }
  });

  it('shows no secret in context lines', async () => {
    const token = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl';
    const foreign = `apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers:\n- name: mine\n  user:\n    token: ${token}\n    password: "hunter2"\n`;
    fixture.write(foreign);
    const said = await fixture.sync({ diff: true });
    expect(said.stdout).toContain('+users:'.slice(0, 1));
    for (const secret of ['eyJ', 'hunter2']) expect(said.stdout).not.toContain(secret);
    await fixture.sync();
    expect(applied(foreign, said.stdout)).toBe(fixture.read());
  });

  const json = '{"users":[{"name":"mine","user":{"token":"hunter2","client-key-data":"hunter2"}}]}';
  it.each([
    ['JSON on one line, which is reformatted', json],
    ['JSON in another layout', json.replaceAll(',', ' ,\n')],
    ['a last line without a line end', 'kind: Config\nusers:\n- name: mine\n  user:\n    token: hunter2'],
  ])('shows no secret of %s', async (_, text) => {
    fixture.write(text);
    const said = await fixture.sync({ diff: true });
    expect(said.error).toBeUndefined();
    expect(said.stdout).toMatch(/token.*\[redacted\]/);
    expect(said.stdout).not.toContain('hunter2');
  });

  it('shows no secret of a removed line', async () => {
    await fixture.sync();
    fixture.write(fixture.read().replace(/ {4}exec:\n/, (line) => `    token: "hunter2"\n${line}`));
    mesh.cluster('prod-eu').gossip.listed = false;
    fixture.forgetMissing();
    const said = await fixture.sync({ diff: true, prune: true });
    expect(said.stdout).toContain('-    token: [redacted]');
    expect(said.stdout).not.toContain('hunter2');
  });
});
