// exec of the built program: with the real kubectl against the mesh, and with stand-ins that do what a real kubectl
// does rarely.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { startMesh } from '../../../src/sandbox/mesh.ts';
import { Home } from '../../fixtures/home.ts';
import { kubectl, needsKubectl } from '../../fixtures/kubectl.ts';
import { test } from '../../fixtures/mesh.ts';
import { jwt, lines, program, start } from '../../fixtures/program.ts';
import { until } from '../../fixtures/wait.ts';
import { processesOf, withKubectl } from './kubectl.ts';

const temporary = (home: Home): string[] => fs.readdirSync(home.env.TMPDIR as string);

describe.skipIf(kubectl === undefined)(`exec with kubectl${needsKubectl}`, () => {
  test('uses a token that is still valid while the TKA server is down, as kubectl does', async ({ home, us }) => {
    const pods = async (args: string) => {
      const ran = await home.run(`exec ${args} -- get namespaces -o name`);
      expect(ran.stdout).toMatch(/^prod-us \| namespace\/shop-prod-us$/m);
      expect(ran.status).toBe(0);
      return ran.stderr;
    };
    // Without a context the server and the API server come from the session.
    await pods('prod-us');
    await us.stop();
    expect(await pods('prod-us')).not.toMatch(/error|cannot reach/);
    expect(us.counts.login).toBe(1);
    // A server that is down is unlisted after ten seconds.
    us.gossip.listed = false;
    expect(await pods('prod-us')).toMatch(/did not answer; showing the list of /);
    expect((await home.run('clusters')).stdout).toMatch(/^ +prod-us +missing/m);
    // With a context.
    await us.start();
    us.gossip.listed = true;
    await home.run('login prod-us');
    await us.stop();
    await pods('prod-us');
    // Only the context is known: no list was ever fetched, and no server is configured.
    fs.rmSync(home.state, { recursive: true, force: true });
    fs.rmSync(home.config);
    const stderr = await pods('prod-us');
    expect(lines(stderr)).toEqual([
      expect.stringMatching(/^warning: no TKA server is configured, .*; using the contexts in your kubeconfig$/),
    ]);
  });

  test('on all clusters without contexts: signs in, adds prefixes, and changes and leaves nothing', async ({
    home,
    mesh,
  }) => {
    const before = home.files(/^\.(cache|local|kube)/);
    const ran = await home.run('exec -- get namespaces --no-headers');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    for (const line of lines(ran.stdout)) expect(line).toMatch(/^(prod-eu|prod-us|staging) \| \S+ +Active/);
    for (const name of ['prod-us', 'prod-eu', 'staging']) {
      expect(ran.stdout).toMatch(new RegExp(`^${name} \\| shop-${name} +Active`, 'm'));
      expect(mesh.cluster(name).counts.login).toBe(1);
    }
    expect(home.files(/^\.(cache|local|kube)/)).toEqual(before);
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
    expect(temporary(home)).toEqual([]);
  });

  test('uses our contexts with their namespaces, and does not switch', async ({ home, us }) => {
    await home.run('login --all-contexts');
    await home.kubectl('config set-context prod-us --namespace=shop-prod-us');
    await home.kubectl('config use-context staging');
    const before = fs.readFileSync(home.kubeconfig);
    const ran = await home.run(
      'exec prod-us prod-eu -- config view --minify -o jsonpath={.current-context}:{..namespace}',
    );
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(lines(ran.stdout).sort()).toEqual(['prod-eu | prod-eu:', 'prod-us | prod-us:shop-prod-us']);
    expect((await home.run('exec prod-u -- get pods')).status).toBe(0);
    expect(us.requests.some(({ path: p }) => p.includes('/namespaces/shop-prod-us/pods'))).toBe(true);
    expect(fs.readFileSync(home.kubeconfig)).toEqual(before);
    expect(temporary(home)).toEqual([]);
  });

  test('distinguishes two clusters of one name by their contexts or URLs', async ({ home, us, eu, mesh }) => {
    await home.run('login prod-eu --context europe');
    us.faults.routes.memberlist = {
      change: (rows: { name: string }[]) => rows.map((row) => ({ ...row, name: 'twin', cluster: 'twin' })),
    };
    const query = ['-o', 'json', '--', 'get', 'namespaces', '-o', 'name'];
    for (const [name, cluster] of [
      ['europe', eu],
      [mesh.cluster('staging').server, mesh.cluster('staging')],
    ] as const) {
      const ran = await home.run(['exec', name, ...query]);
      expect(ran).toMatchObject({ status: 0, stderr: expect.stringMatching(/^warning: 3 clusters claim .*\n$/) });
      expect(JSON.parse(ran.stdout)[0].stdout).toContain(`namespace/shop-${cluster.name}`);
    }
    expect(await home.run(['exec', 'twin', ...query])).toMatchObject({ status: 2, stdout: '' });
  });

  test('uses --kubeconfig, and a KUBECONFIG of several files', async ({ home }) => {
    const [one, two] = ['one.yaml', 'two.yaml'].map((name) => path.join(home.dir, name)) as [string, string];
    await home.run(['login', 'prod-us', '--context', 'first', '--kubeconfig', one]);
    await home.run(['login', 'prod-eu', '--context', 'second', '--kubeconfig', two]);
    const query = ['exec', '-o', 'json', '--', 'config', 'current-context'];
    const names = (text: string) => JSON.parse(text).map((row: { stdout: string }) => row.stdout.trim());
    const listed = await home.run(query, { env: { KUBECONFIG: `${one}:${two}` } });
    expect(names(listed.stdout)).toEqual(['second', 'first', 'cluster']);
    const named = await home.run(['--kubeconfig', two, ...query]);
    expect(names(named.stdout)).toEqual(['second', 'cluster', 'cluster']);
    // A path that cannot be part of a list of paths.
    const odd = path.join(home.dir, 'a:b.yaml');
    fs.copyFileSync(one, odd);
    const ran = await home.run(['--kubeconfig', odd, ...query]);
    expect(ran).toMatchObject({ status: 0 });
    expect((await home.run(['--kubeconfig', odd, 'exec', '--', 'get', 'ns'])).status).toBe(0);
  });

  test('with one cluster signed out and one down, runs on the third, and reports the others', async ({
    home,
    mesh,
    us,
    eu,
  }) => {
    await home.run('login --all-contexts');
    await home.run('login prod-us');
    await home.run('logout prod-us');
    us.resetCounts();
    await eu.stop();
    const ran = await home.run('exec -- get namespaces -o name');
    expect(ran.status).toBe(1);
    const said = lines(ran.stderr);
    expect(lines(ran.stdout).length).toBeGreaterThan(1);
    for (const line of lines(ran.stdout)) expect(line).toMatch(/^staging \| namespace\//);
    expect(said).toContain(`prod-us | error: signed out of ${us.server}`);
    expect(said).toContain('prod-us | hint: kubectl tka login prod-us');
    expect(said.filter((line) => line.startsWith('prod-eu | error: cannot reach '))).toHaveLength(1);
    expect(said).toHaveLength(6);
    expect(said.slice(-2)).toEqual([
      'error: failed on 2 of 3 clusters: prod-us, prod-eu',
      'hint: kubectl tka doctor prod-us',
    ]);
    expect(us.counts).toMatchObject({ login: 0, kubeconfig: 0 });
    expect(mesh.cluster('staging').counts.login).toBe(1);

    const json = await home.run('exec -o json -- get namespaces -o name');
    expect(json.status).toBe(1);
    const rows = JSON.parse(json.stdout);
    expect(rows).toEqual([
      {
        cluster: 'prod-us',
        exitCode: 1,
        stdout: '',
        stderr: expect.stringContaining(`error: signed out of ${us.server}\nhint: `),
      },
      { cluster: 'staging', exitCode: 0, stdout: expect.stringContaining('namespace/shop-staging\n'), stderr: '' },
      { cluster: 'prod-eu', exitCode: 1, stdout: '', stderr: expect.stringContaining('cannot reach ') },
    ]);
    expect(Object.keys(rows[0])).toEqual(['cluster', 'exitCode', 'stdout', 'stderr']);
    expect(json.stderr).toBe('error: failed on 2 of 3 clusters: prod-us, prod-eu\nhint: kubectl tka doctor prod-us\n');
    // A selector that excludes these succeeds.
    expect(await home.run('exec -l environment=staging -- get ns')).toMatchObject({ status: 0, stderr: '' });
  });

  test('does not trust the address of an unreachable cluster without a context, and runs on the others', async ({
    home,
    us,
    eu,
  }) => {
    await eu.stop();
    us.faults.clusterInfo = { server_url: 'https://127.0.0.1:1' };
    const ran = await home.run('exec -- get namespaces -o name');
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(/^prod-us \| error: \S+ is not the TKA server of prod-us: /m);
    expect(ran.stderr).toMatch(/^prod-eu \| error: cannot reach /m);
    expect(ran.stdout).toMatch(/^staging \| namespace\/shop-staging$/m);
    expect(us.counts.login).toBe(0);
    expect(temporary(home)).toEqual([]);
  });

  test('names an unresolved cluster in the prefix only, not again in the message', async ({ home, us }) => {
    const rows = [{ apiEndpoint: 'https://far.example.com', name: 'far', state: 'healthy', labels: null }];
    us.faults.memberlist = { raw: JSON.stringify(rows) };
    const ran = await home.run('exec far -- get namespaces');
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toMatch(/^far \| error: no known TKA server: (?!.*\bfar\b)/m);
  });

  test('the temporary kubeconfig is private, contains no token, and runs our program as the context of a login does', async ({
    home,
    us,
  }) => {
    const look = `echo "$KUBECONFIG"; stat -c %a "$KUBECONFIG" "$(dirname "$KUBECONFIG")"; cat "$KUBECONFIG"`;
    await home.run('exec prod-us -- get ns');
    const { stdout } = await home.run('exec -o json prod-us -- get ns', { env: withKubectl(home, look) });
    const [file, mode, folderMode, ...text] = JSON.parse(stdout)[0].stdout.split('\n');
    expect(file).toMatch(new RegExp(`^${home.env.TMPDIR}/kubectl-tka-`));
    expect([mode, folderMode]).toEqual(['600', '700']);
    expect(text.join('\n')).not.toMatch(jwt);
    const written = path.join(home.root, 'written.yaml');
    fs.writeFileSync(written, text.join('\n'));
    await home.run('login prod-us');
    const exec = async (kubeconfig: string) =>
      (await home.kubectl(['--kubeconfig', kubeconfig, 'config', 'view', '-o', 'jsonpath={.users[0].user.exec}']))
        .stdout;
    expect(JSON.parse(await exec(written))).toEqual(JSON.parse(await exec(home.kubeconfig)));
    expect(JSON.parse(await exec(written)).args).toEqual([
      'credential',
      '--server',
      us.server,
      '--api-server',
      us.apiServer,
    ]);
    expect(fs.existsSync(file)).toBe(false);
  });

  test('20 clusters all answer', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `cluster-${String(i).padStart(2, '0')}`);
    await using mesh = await startMesh({ clusters: names.map((name) => ({ name })) });
    using home = new Home(mesh.clusters[0]?.server);
    const ran = await home.run('exec -o json -- get namespaces -o name');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    const rows = JSON.parse(ran.stdout) as { cluster: string; exitCode: number; stdout: string }[];
    expect(rows.map(({ cluster }) => cluster)).toEqual(names);
    for (const { cluster, exitCode, stdout } of rows) {
      expect(exitCode).toBe(0);
      expect(stdout).toContain(`namespace/shop-${cluster}\n`);
    }
    for (const cluster of mesh.clusters) expect(cluster.counts.login).toBe(1);
  });

  test.for([
    ['SIGINT', 130, 'error: interrupted'],
    ['SIGTERM', 143, 'error: stopped by SIGTERM'],
    ['SIGHUP', 129, 'error: stopped by SIGHUP'],
  ] as const)(
    '%s ends every kubectl and its children, and leaves no file',
    async ([signal, status, message], { home, mesh }) => {
      await home.run('login prod-us');
      for (const cluster of mesh.clusters) cluster.faults.routes.api = { silent: true };
      const running = home.start('exec -- get namespaces');
      await Promise.all(mesh.clusters.map((cluster) => cluster.seen('api')));
      expect(processesOf(home).filter((line) => /kubectl\S* get namespaces/.test(line)).length).toBeGreaterThanOrEqual(
        3,
      );
      expect(temporary(home)).toHaveLength(1);
      running.child.kill(signal);
      const ran = await running.ran;
      expect(ran).toMatchObject({ status, stdout: '' });
      expect(lines(ran.stderr).slice(-2)).toEqual([message, 'hint: run it again']);
      expect(processesOf(home)).toEqual([]);
      expect(temporary(home)).toEqual([]);
    },
  );

  test('SIGINT during a sign-in ends it at once, and removes the lock', async ({ home, us }) => {
    us.faults.routes.login = { silent: true };
    const running = home.start('exec prod-us -- get namespaces');
    await us.seen('login');
    running.child.kill('SIGINT');
    expect(await running.ran).toMatchObject({
      status: 130,
      stdout: '',
      stderr: 'error: interrupted\nhint: run it again\n',
    });
    expect(processesOf(home)).toEqual([]);
    expect(home.cached().filter((name) => name.endsWith('+lock'))).toEqual([]);
  });

  test('uses a valid old token while the server is down, with a warning that names the cluster', async ({
    home,
    us,
  }) => {
    us.faults.token = { expOffsetMs: 50_000 };
    await home.run('login prod-us');
    await us.stop();
    const ran = await home.run('exec prod-us -- get namespaces -o name', {
      env: { TKA_TAILSCALE_HOSTNAME: '' },
    });
    expect(ran.stdout).toContain('prod-us | namespace/shop-prod-us\n');
    expect(ran.stderr).toMatch(/^prod-us \| warning: cannot reach .*: using the cached token/m);
    expect(ran.status).toBe(0);
  });
});

describe('exec', () => {
  test('SIGINT kills a kubectl that ignores it after a while, with its children', async ({ home }) => {
    const env = withKubectl(home, `trap '' INT TERM; echo up; sleep 1000 & while :; do wait $!; done`);
    const running = home.start('exec -- get ns', { env });
    running.child.on('said', (text: string) => lines(text).length === 3 && running.child.kill('SIGINT'));
    const ran = await running.ran;
    expect(ran).toMatchObject({ status: 130, stderr: 'error: interrupted\nhint: run it again\n' });
    expect(processesOf(home)).toEqual([]);
    expect(ran.took).toBeLessThan(20_000);
  });

  test('a second SIGINT kills at once', async ({ home }) => {
    const env = withKubectl(home, `trap 'echo heard' INT; sleep 1000 & echo up; while :; do wait $!; done`);
    const running = home.start('exec prod-us -- get ns', { env });
    const told = new Set<string>();
    running.child.on('said', (text: string) => {
      for (const word of ['up', 'heard'])
        if (text.includes(word) && !told.has(word)) {
          told.add(word);
          running.child.kill('SIGINT');
        }
    });
    expect(await running.ran).toMatchObject({ status: 130, stdout: 'prod-us | up\nprod-us | heard\n' });
    expect(processesOf(home)).toEqual([]);
  });

  test('SIGINT with -o json prints no partial document', async ({ home }) => {
    const env = withKubectl(home, `echo up; : > "$HOME/up-$$"; sleep 1000`);
    const running = home.start('exec -o json -- get ns', { env });
    await until('three of them', () => fs.readdirSync(home.dir).filter((name) => name.startsWith('up-')).length === 3);
    running.child.kill('SIGINT');
    expect(await running.ran).toMatchObject({
      status: 130,
      stdout: '',
      stderr: 'error: interrupted\nhint: run it again\n',
    });
    expect(processesOf(home)).toEqual([]);
  });

  test('runs --parallel at once, by default 8', async () => {
    const clusters = Array.from({ length: 12 }, (_, i) => ({ name: `c${i}` }));
    await using mesh = await startMesh({ clusters });
    using home = new Home(mesh.clusters[0]?.server);
    // Each waits until the maximum number has run at once, and then checks whether one more starts.
    const script = `mkdir "$RUN/$$"; i=0
while [ ! -e "$RUN.full" ] && [ $i -lt 500 ]; do
  [ "$(ls "$RUN" | wc -l)" -lt "$WANTED" ] || : > "$RUN.full"
  sleep 0.02; i=$((i+1))
done
sleep 0.1; ls "$RUN" | wc -l; sleep 0.05; rmdir "$RUN/$$"`;
    const env = withKubectl(home, script);
    for (const [args, wanted] of [
      ['exec', 8],
      ['exec --parallel 3', 3],
      ['exec --parallel 1', 1],
    ] as const) {
      const run = path.join(home.dir, `run ${wanted}`);
      fs.mkdirSync(run);
      const ran = await home.run(`${args} -- get ns`, { env: { ...env, WANTED: String(wanted), RUN: run } });
      expect(ran.status).toBe(0);
      const seen = lines(ran.stdout).map((line) => Number(line.split('|')[1]));
      expect(seen).toHaveLength(12);
      expect(Math.max(...seen)).toBe(wanted);
    }
  });

  test('passes lines on whole: two streams, no newline at the end, bytes that are not text', async ({ home }) => {
    const env = withKubectl(home, `printf 'a\\nb' ; printf 'e\\n\\n' >&2; printf 'c\\n\\033[1mbold\\nlast \\377'`);
    const folder = path.join(home.root, 'out');
    const ran = await home.byShell(`"$0" "$@" >"${folder}"`, 'exec prod-us staging -- get ns', { env });
    expect(ran).toMatchObject({ status: 0 });
    expect(lines(ran.stderr).sort()).toEqual(['prod-us | ', 'prod-us | e', 'staging | ', 'staging | e']);
    const out = lines(fs.readFileSync(folder, 'latin1'));
    for (const name of ['prod-us', 'staging'])
      expect(out.filter((line) => line.startsWith(name))).toEqual(
        ['a', 'bc', '\x1b[1mbold', 'last \xff'].map((line) => `${name} | ${line}`),
      );
    expect(out).toHaveLength(8);
  });

  test('does not mix lines, however many arrive at once', async ({ home }) => {
    const script = `i=0; while [ $i -lt 3000 ]; do printf '%s %d ' "$KUBECONFIG" $i; echo "${'x'.repeat(200)}"; i=$((i+1)); done`;
    const ran = await home.run('exec -- get ns', { env: withKubectl(home, script) });
    expect(ran.status).toBe(0);
    const counts = new Map<string, number>();
    for (const line of lines(ran.stdout)) {
      const [, name = '', number] = /^(prod-us|prod-eu|staging) \| \S+ (\d+) x{200}$/.exec(line) ?? [];
      expect(Number(number)).toBe(counts.get(name) ?? 0);
      counts.set(name, Number(number) + 1);
    }
    expect([...counts.values()]).toEqual([3000, 3000, 3000]);
  });

  test('prints a line over 1 MiB in pieces, with one warning', async ({ home }) => {
    const script = `head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end`;
    const ran = await home.run('exec prod-us -- get ns', { env: withKubectl(home, script) });
    expect(ran).toMatchObject({
      status: 0,
      stderr: 'warning: prod-us: a line longer than 1 MiB is printed in pieces\n',
    });
    expect(lines(ran.stdout).map((line) => line.length)).toEqual([1048586, 1048586, 902858, 13]);
  });

  test('-o json has exit codes, signals and output', async ({ home }) => {
    const script = `grep -q "$MARK" "$KUBECONFIG" && kill -TERM $$; printf 'out\\033[1m\\342\\202'; echo err >&2; exit 3`;
    const [us] = JSON.parse((await home.run('clusters -o json')).stdout).filter(
      (row: { name: string }) => row.name === 'prod-us',
    );
    const env = { ...withKubectl(home, script), MARK: us.apiEndpoint };
    const ran = await home.run('exec -o json -- get ns', { env });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toBe(
      'error: failed on 3 of 3 clusters: prod-eu, prod-us, staging\nhint: kubectl tka doctor prod-eu\n',
    );
    expect(JSON.parse(ran.stdout)).toEqual([
      { cluster: 'prod-eu', exitCode: 3, stdout: 'out\x1b[1m\ufffd', stderr: 'err\n' },
      { cluster: 'prod-us', exitCode: 143, stdout: '', stderr: '' },
      { cluster: 'staging', exitCode: 3, stdout: 'out\x1b[1m\ufffd', stderr: 'err\n' },
    ]);
    expect(ran.stdout).not.toContain('\x1b');
  });

  test('-o json keeps 16 MiB of a stream; a cut is reported and fails', async ({ home }) => {
    const script = `head -c 20000000 /dev/zero | tr '\\0' x; exit 0`;
    const ran = await home.run('exec -o json prod-us -- get ns', { env: withKubectl(home, script) });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toBe(
      'warning: prod-us: output truncated\nerror: failed on 1 of 1 clusters: prod-us\nhint: kubectl tka doctor prod-us\n',
    );
    const [row] = JSON.parse(ran.stdout);
    expect([row.exitCode, row.stdout.length]).toEqual([0, 16 * 1024 * 1024]);
  });

  test('stops everything when its reader closes the pipe', async ({ home }) => {
    const env = withKubectl(home, 'while :; do echo more; done');
    const ran = await home.byShell(`{ "$0" "$@"; echo "status $?" >&2; } | head -n 2`, 'exec -- get ns', { env });
    expect(lines(ran.stdout)).toHaveLength(2);
    expect(ran.stderr).toBe('status 141\n');
    expect(processesOf(home)).toEqual([]);
    expect(temporary(home)).toEqual([]);
  });

  test('--timeout ends the command of a slow cluster, also if it ignores SIGTERM, and no other', async ({ home }) => {
    const slow = `trap '' TERM; echo up; sleep 1000 & while :; do wait $!; done`;
    // Sign-ins and the start of the others take longer on a busy machine.
    await home.run('exec -- get ns', { env: withKubectl(home, 'true') });
    const env = withKubectl(home, `case $KUBECONFIG in *0.yaml) ;; *) echo up; exit;; esac; ${slow}`);
    const ran = await home.run('exec --timeout=8s -- get ns', { env });
    expect(ran.status).toBe(1);
    expect(lines(ran.stdout).map((line) => line.replace(/^\S+/, ''))).toEqual([' | up', ' | up', ' | up']);
    const [error, hint, ...rest] = lines(ran.stderr);
    const [name = ''] = (error ?? '').split(' ');
    expect(error).toBe(`${name} | error: timed out after 8s`);
    expect(hint).toBe(`${name} | hint: allow more time with --timeout`);
    expect(rest).toEqual([`error: failed on 1 of 3 clusters: ${name}`, `hint: kubectl tka doctor ${name}`]);
    expect(processesOf(home)).toEqual([]);
  });

  test('--timeout includes the sign-in; -o json has exit code 124', async ({ home, eu }) => {
    eu.faults.routes.login = { silent: true };
    const ran = await home.run('exec --timeout 300ms -o json prod-eu -- get ns', { env: withKubectl(home, 'echo up') });
    expect(ran.status).toBe(1);
    const stderr = 'error: timed out after 0.3s\nhint: allow more time with --timeout\n';
    expect(JSON.parse(ran.stdout)).toEqual([{ cluster: 'prod-eu', exitCode: 124, stdout: '', stderr }]);
  });

  test('--timeout ends although a process that left its group holds the output', async ({ home }) => {
    const env = withKubectl(home, `setsid sh -c 'echo "$$" > "$HOME/left"; exec sleep 1000' & sleep 1000`);
    const ran = await home.run('exec --timeout 5s prod-us -- get ns', { env });
    expect(ran.stderr).toMatch(/^prod-us \| error: timed out after 5s$/m);
    process.kill(Number(fs.readFileSync(path.join(home.dir, 'left'), 'utf8')), 'SIGKILL');
  });

  test('passes its stdin to each kubectl that reads it, and to no other', async ({ home }) => {
    const env = withKubectl(home, 'echo "$*: $(wc -c)"');
    const input = 'x'.repeat(200_000);
    const read = await home.run('exec --yes prod-us prod-eu -- apply -f -', { env, input });
    expect(lines(read.stdout).sort()).toEqual(['prod-eu | apply -f -: 200000', 'prod-us | apply -f -: 200000']);
    const unread = await home.run('exec prod-us -- get pods', { env, input });
    expect(unread.stdout).toBe('prod-us | get pods: 0\n');
  });

  test('passes the arguments after -- on unchanged', async ({ home }) => {
    const env = withKubectl(home, 'for a; do echo "<$a>"; done');
    const args = ['get', 'pods', '-o', 'wide', '-l', 'a b', '', '--help', '--', '-s', '--context'];
    const ran = await home.run(['exec', 'prod-us', '--', ...args], { env });
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(lines(ran.stdout)).toEqual(args.map((arg) => `prod-us | <${arg}>`));
  });

  test.for<[string, number, RegExp]>([
    ['exec', 2, /^error: exec requires -- followed by a kubectl command\nhint: kubectl tka exec /],
    ['exec prod-us get pods', 2, /^error: exec requires -- /],
    ['exec prod-us --', 2, /^error: no kubectl command after --\n/],
    ['exec -- get pods --context x', 2, /^error: --context cannot be used/],
    ['exec -- -s http://x get pods', 2, /^error: -s cannot be used/],
    ['exec --parallel 0 -- get pods', 2, /^error: --parallel must be a number from 1 to 100\n/],
    ['exec --timeout 0s -- get pods', 2, /^error: invalid --timeout "0s"\nhint: a duration: 30s, 5m, 1h30m\n/],
    ['exec --timeout 30 -- get pods', 2, /^error: invalid --timeout "30"\n/],
    ['exec --timeout 1000h -- get pods', 2, /^error: invalid --timeout "1000h"\n/],
    ['exec --group -o json -- get pods', 2, /^error: option '--group' cannot be used with option '-o, --output/],
    ['exec -o yaml -- get pods', 2, /^error: option '-o, --output <format>' argument 'yaml' is invalid/],
    ['exec prod-us -l environment=production -- get pods', 2, /^error: names and a selector cannot be combined\n/],
    [
      'exec prod -- get pods',
      2,
      /^error: 2 clusters have names that start with "prod"\nhint: kubectl tka exec prod-eu -- COMMAND \(/,
    ],
    ['exec nowhere -- get pods', 1, /^error: no cluster named "nowhere"\n/],
    ['exec -l environment=none -- get pods', 1, /^error: no cluster matches the selector\n/],
    ['exec -l = -- get pods', 2, /^error: invalid label selector "="\n/],
  ])('%s: exit %d', async ([args, status, stderr], { home }) => {
    const ran = await home.run(args, { env: withKubectl(home, 'echo ran') });
    expect(ran).toMatchObject({ status, stdout: '' });
    expect(ran.stderr).toMatch(stderr);
    expect(temporary(home)).toEqual([]);
  });

  test('without kubectl reports it', async ({ home, us }) => {
    const bare = path.join(home.root, 'bare');
    fs.mkdirSync(bare);
    for (const tool of ['sh', 'readlink']) fs.symlinkSync(`/bin/${tool}`, path.join(bare, tool));
    const ran = await start(program, ['exec', '--', 'get', 'ns'], { ...home.env, PATH: bare }, { cwd: home.dir }).ran;
    expect(ran).toMatchObject({ status: 1, stdout: '' });
    expect(ran.stderr).toBe(
      'error: kubectl is not on PATH\nhint: install it: https://kubernetes.io/docs/tasks/tools/\n',
    );
    expect(us.requests).toEqual([]);
  });

  test('distinguishes two members of one name, cleans their names, and fails for one without a server', async ({
    home,
    us,
    eu,
  }) => {
    const row = (name: string, server: string | undefined, apiEndpoint: string) => {
      return { name, server, apiEndpoint, apiPort: 1, labels: { a: 'b' }, state: 'healthy' };
    };
    const rows = [
      row('twin', us.server, us.apiServer),
      row('twin', eu.server, eu.apiServer),
      row('x\x1b[31m\r\nred', undefined, 'https://127.0.0.1:9'),
    ];
    us.faults.memberlist = { raw: JSON.stringify(rows) };
    const ran = await home.run('exec -l a=b -- get ns', { env: withKubectl(home, 'echo here') });
    expect(ran.status).toBe(1);
    const hosts = [us, eu].map(({ server }) => new URL(server).host);
    const out = lines(ran.stdout).map((line) => line.replace(/ +\|/, ' |'));
    expect(out.sort()).toEqual(hosts.map((host) => `twin (${host}) | here`).sort());
    expect(`${ran.stdout}${ran.stderr}`).not.toMatch(/[\x1b\r]/);
    expect(ran.stderr).toMatch(/^127\.0\.0\.1 +\| error: /m);
    expect(lines(ran.stderr).at(-2)).toMatch(/^error: failed on 1 of 3 clusters: 127\.0\.0\.1/);
  });
});
