// exec with commands that may change something: it asks before it runs them on several clusters.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { startMesh } from '../../../src/sandbox/mesh.ts';
import { Home } from '../../fixtures/home.ts';
import { test } from '../../fixtures/mesh.ts';
import { lines, program } from '../../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../../fixtures/pty.ts';
import { withKubectl } from './kubectl.ts';

const echo = 'echo "$*"';

describe('a changing command without a terminal', () => {
  test.for([
    ['delete pod x', 'kubectl delete pod x'],
    ['-n web exec db -- rm -rf /data', 'kubectl -n web exec db -- rm -rf /data'],
    ['get-all pods', 'kubectl get-all pods'],
  ])('is refused on several clusters: %s', async ([args, shown], { home, mesh }) => {
    const ran = await home.run(`exec -- ${args}`, { env: withKubectl(home, 'echo ran') });
    expect(ran).toMatchObject({
      status: 2,
      stdout: '',
      stderr: `error: "${shown}" may change 3 clusters, and there is no terminal to confirm it\nhint: add --yes before the --\n`,
    });
    for (const cluster of mesh.clusters) expect(cluster.counts.login).toBe(0);
  });

  test('runs with --yes or -y, and on one cluster', async ({ home }) => {
    const env = withKubectl(home, echo);
    for (const flag of ['--yes', '-y']) {
      const ran = await home.run(`exec ${flag} prod-us prod-eu -- delete pod x`, { env });
      expect(ran).toMatchObject({ status: 0, stderr: '' });
      expect(lines(ran.stdout).sort()).toEqual(['prod-eu | delete pod x', 'prod-us | delete pod x']);
    }
    expect(await home.run('exec prod-us -- delete pod x', { env })).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('exec -l environment=staging -- delete pod x', { env })).toMatchObject({ status: 0 });
  });

  test('reading commands run, also after global flags', async ({ home }) => {
    const env = withKubectl(home, echo);
    for (const args of ['-n delete get pods', 'rollout status deployment/web', 'auth can-i delete pods'])
      expect(await home.run(`exec -- ${args}`, { env })).toMatchObject({ status: 0, stderr: '' });
  });
});

describe.skipIf(!hasPty)(`a changing command on a terminal${needsPty}`, () => {
  // The order depends on which server answers.
  const question =
    /^Run "kubectl delete pod x" on 3 clusters \((?:(?:prod-eu|prod-us|staging)(?:, |(?=\)))){3}\)\? \[y\/N\] /;

  async function typed(home: Home, keys: string) {
    const env = { ...home.env, ...withKubectl(home, echo), NO_COLOR: '1' };
    const pty = new Pty(program, ['exec', '--', 'delete', 'pod', 'x'], { env, cwd: home.dir, columns: 200 });
    try {
      await pty.wrote(/\[y\/N\] $/);
      expect(pty.raw).toMatch(question);
      pty.type(keys);
      return { status: await pty.ended, shown: pty.raw.replace(question, ''), stdout: pty.stdout };
    } finally {
      await pty.close();
    }
  }

  test('asks once, and runs after yes', async ({ home }) => {
    const ran = await typed(home, 'y\r');
    expect(ran).toMatchObject({ status: 0, shown: 'y\r\n' });
    expect(lines(ran.stdout).sort()).toEqual(['prod-eu', 'prod-us', 'staging'].map((name) => `${name} | delete pod x`));
  });

  test.for([
    ['Enter', '\r', 130, 'error: cancelled\r\nhint: --yes skips the question\r\n'],
    ['no', 'no\r', 130, 'error: cancelled\r\nhint: --yes skips the question\r\n'],
    ['Ctrl-D', '\x04', 130, 'error: cancelled\r\nhint: --yes skips the question\r\n'],
    // It also ends the shell that waits for the program.
    ['Ctrl-C', '\x03', 'SIGINT', '^C'],
  ] as const)('runs nothing after %s', async ([, keys, status, said], { home, mesh }) => {
    const ran = await typed(home, keys);
    expect(ran).toMatchObject({ status, stdout: '' });
    expect(ran.shown.endsWith(said)).toBe(true);
    for (const cluster of mesh.clusters) expect(cluster.counts.login).toBe(0);
  });

  test('a manifest on stdin: the answer comes from the terminal', async ({ home }) => {
    const manifest = path.join(home.root, 'web.yaml');
    fs.writeFileSync(manifest, 'y\n'.repeat(1000));
    const env = { ...home.env, ...withKubectl(home, 'echo "$*: $(wc -c)"'), MANIFEST: manifest };
    const args = ['-c', '"$0" exec -- apply -f - <"$MANIFEST"', program];
    const pty = new Pty('/bin/sh', args, { env, cwd: home.dir, columns: 200 });
    try {
      await pty.wrote(/^Run "kubectl apply -f -" on 3 clusters .*\[y\/N\] $/);
      pty.type('y\r');
      expect(await pty.ended).toBe(0);
      expect(lines(pty.stdout).sort()).toEqual(
        ['prod-eu', 'prod-us', 'staging'].map((name) => `${name} | apply -f -: 2000`),
      );
    } finally {
      await pty.close();
    }
  });

  test('stdin is redirected, but is not a manifest: refused', async ({ home }) => {
    const env = { ...home.env, ...withKubectl(home, echo) };
    const pty = new Pty('/bin/sh', ['-c', '"$0" exec -- delete pod x </dev/null', program], { env, cwd: home.dir });
    try {
      expect(await pty.ended).toBe(2);
      expect(pty.raw).toContain('there is no terminal to confirm it');
    } finally {
      await pty.close();
    }
  });

  test('names ten clusters and counts the others; quotes words as for a shell', async () => {
    const clusters = Array.from({ length: 12 }, (_, i) => ({ name: `c${String(i).padStart(2, '0')}` }));
    await using mesh = await startMesh({ clusters });
    using home = new Home(mesh.clusters[0]?.server);
    const env = { ...home.env, ...withKubectl(home, echo) };
    const args = ['exec', '--', 'annotate', 'pod/x', "note=it's \x1b[31mred\nhere"];
    const pty = new Pty(program, args, { env, cwd: home.dir, columns: 300 });
    try {
      await pty.wrote(/\[y\/N\] $/);
      const [, command, names] = /^Run "(.*)" on 12 clusters \((.*) and 2 more\)\? \[y\/N\] $/.exec(pty.raw) ?? [];
      expect(command).toBe(`kubectl annotate pod/x 'note=it'\\''s [31mred here'`);
      expect(new Set(names?.split(', ')).size).toBe(10);
    } finally {
      await pty.close();
    }
  });
});

describe('--group', () => {
  const twoStreams = 'echo out; echo err >&2; printf end';

  test('prints one block per cluster, in the order in which they end', async ({ home }) => {
    // The first waits until two blocks are printed, the second until one is.
    const script = `case $KUBECONFIG in *0.yaml) wait=2;; *1.yaml) wait=1;; *) wait=0;; esac
echo "begin $wait"; while [ "$(grep -c '^==>' "$OUT")" -lt $wait ]; do sleep 0.02; done; echo end`;
    const out = path.join(home.root, 'out');
    const env = { ...withKubectl(home, script), OUT: out };
    const ran = await home.byShell('"$0" "$@" >"$OUT"', 'exec --group -- get ns', { env });
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    const blocks = fs.readFileSync(out, 'utf8').split(/^==> (.*) <==\n/m);
    expect(blocks.filter((_, i) => i % 2 === 1).sort()).toEqual(['prod-eu', 'prod-us', 'staging']);
    expect(blocks.filter((_, i) => i % 2 === 0)).toEqual(['', ...[0, 1, 2].map((wait) => `begin ${wait}\nend\n`)]);
  });

  test('prints a block on each of two streams, and one block to a single pipe', async ({ home }) => {
    const env = withKubectl(home, twoStreams);
    expect(await home.run('exec --group prod-us -- get ns', { env })).toMatchObject({
      status: 0,
      stdout: '==> prod-us <==\nout\nend\n',
      stderr: '==> prod-us <==\nerr\n',
    });
    const one = await home.byShell('"$0" "$@" 2>&1', 'exec --group prod-us -- get ns', { env });
    expect(one.stderr).toBe('');
    expect(one.stdout).toMatch(/^==> prod-us <==\n/);
    expect(lines(one.stdout).sort()).toEqual(['==> prod-us <==', 'end', 'err', 'out']);
  });

  test('a cluster that fails has its error in its block', async ({ home }) => {
    const ran = await home.run('exec --group prod-us -- get ns', { env: withKubectl(home, 'echo no >&2; exit 3') });
    expect(ran).toMatchObject({ status: 1, stdout: '==> prod-us <==\n' });
    expect(lines(ran.stderr).slice(0, 2)).toEqual(['==> prod-us <==', 'no']);
  });

  test('more than 16 MiB of a stream is cut, and counts as a failure', async ({ home }) => {
    const script = `head -c 20000000 /dev/zero | tr '\\0' x`;
    const ran = await home.run('exec --group prod-us -- get ns', { env: withKubectl(home, script) });
    expect(ran.status).toBe(1);
    expect(lines(ran.stdout)[1]).toHaveLength(16 * 1024 * 1024);
    expect(lines(ran.stderr).slice(0, 2)).toEqual([
      'warning: prod-us: output truncated',
      'error: failed on 1 of 1 clusters: prod-us',
    ]);
  });
});
