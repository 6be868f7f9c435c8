// Flags and names of commands as users of kubectl type them.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { test } from '../fixtures/mesh.ts';
import { lines, type Ran } from '../fixtures/program.ts';

describe.concurrent('short flags with an equals sign', () => {
  test('-o=json, -l=KEY=VALUE, -s=URL, -p=PORT and -c=FILE are what they are without it', async ({ home, us }) => {
    const selected = await home.run(['clusters', '-l=environment=production,region!=us-west-2', '-o=name']);
    expect(selected).toMatchObject({ status: 0, stdout: 'prod-eu\n', stderr: '' });
    const listed = (ran: Ran) => (JSON.parse(ran.stdout) as { name: string }[]).map(({ name }) => name);
    const all = listed(await home.run('clusters -o json'));
    expect(listed(await home.run(`clusters -o=json -s=${us.server}`))).toEqual(all);
    // The flag that takes the value may be the last of several.
    expect(listed(await home.run('clusters -qo=json'))).toEqual(all);
    expect(await home.run('version -o=json')).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('"version"'),
    });
    const port = await home.run(['config', 'tailscale.port', '-p=8443']);
    expect(port).toMatchObject({ status: 0, stdout: '8443\n' });
    home.write(`${home.dir}/other.yaml`, 'debug: false\ntailscale: {port: 4000}\n');
    const file = await home.run(['config', 'tailscale.port', `-c=${home.dir}/other.yaml`]);
    expect(file).toMatchObject({ status: 0, stdout: '4000\n' });
  });

  test('-n=NAMESPACE', async ({ home }) => {
    expect(await home.run('login prod-us -n=web')).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toMatch(/namespace: "?web"?$/m);
  });

  test('credential takes -s=URL', async ({ home, us }) => {
    await home.run('login prod-us');
    const ran = await home.run(['credential', `-s=${us.server}`]);
    expect(ran).toMatchObject({ status: 0, stderr: '', stdout: expect.stringContaining('"ExecCredential"') });
  });

  test('a value that is a word of its own keeps its equals sign', async ({ home }) => {
    const selector = await home.run(['clusters', '-l', '=production']);
    expect(selector).toMatchObject({ status: 2, stderr: expect.stringContaining('"=production"') });
    const long = await home.run(['clusters', '--selector', '-o=json']);
    expect(long).toMatchObject({ status: 2, stderr: expect.stringContaining('"-o=json"') });
    // Without a value there is nothing to take from the next word.
    const empty = await home.run(['clusters', '-o=', 'json']);
    expect(empty).toMatchObject({ status: 2, stdout: '' });
  });

  test('words after -- stay as they are', async ({ home }) => {
    // kubectl itself accepts `-o=name`; `-o==name` shows that nothing was taken away.
    home.write(`${home.dir}/bin/kubectl`, '#!/bin/sh\nfor word; do echo "$word"; done\n', 0o755);
    const env = { PATH: `${home.dir}/bin:${home.env.PATH}` };
    const ran = await home.run('exec prod-us -- version -o=json -l=a=b -h --version', { env });
    expect(ran.status).toBe(0);
    for (const word of ['-o=json', '-l=a=b', '-h', '--version'])
      expect(
        lines(ran.stdout).some((line) => line.endsWith(word)),
        word,
      ).toBe(true);
  });
});

describe.concurrent('--help, --version and --no-headers', () => {
  test('-h is help wherever it is typed', async ({ home }) => {
    const { stdout } = await home.run('login --help');
    for (const args of [
      '-h login',
      'login -h foo',
      'login foo -h',
      'login --bogus -h',
      'login foo --port -h',
      '-q login -h',
    ])
      expect(await home.run(args), args).toMatchObject({ status: 0, stdout, stderr: '' });
    const clusters = await home.run('clusters --help');
    for (const args of ['clusters -o bogus -h', 'clusters more words -h', 'ls -h', 'get clusters -h', 'help ls'])
      expect(await home.run(args), args).toMatchObject({ status: 0, stdout: clusters.stdout, stderr: '' });
    expect(await home.run('logn -h')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('did you mean login?'),
    });
  });

  test('--version is the version command', async ({ home }) => {
    const { stdout } = await home.run('version');
    expect(stdout).toMatch(/^kubectl-tka /);
    for (const args of ['--version', '--version -q', '--debug --version'])
      expect(await home.run(args), args).toMatchObject({ status: 0, stdout, stderr: '' });
    expect(await home.run('--verson')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('did you mean --version?'),
    });
    expect(await home.run('login --version')).toMatchObject({ status: 2, stdout: '' });
  });

  test('--no-headers leaves out the headings of a table, and changes nothing else', async ({ home }) => {
    await home.run('login prod-us');
    for (const command of ['clusters', 'clusters -o wide', 'status', 'config']) {
      const [headings = '', ...rows] = lines((await home.run(command)).stdout);
      expect(headings).toMatch(/^(?:NAME|KEY|CURRENT) /);
      const without = lines((await home.run(`${command} --no-headers`)).stdout);
      const words = (line: string) => line.trim().split(/\s+/).slice(0, 2);
      expect(without.map(words), command).toEqual(rows.map(words));
    }
    for (const format of ['json', 'yaml', 'name']) {
      const { stdout } = await home.run(`config -o ${format}`);
      expect(await home.run(`config -o ${format} --no-headers`)).toMatchObject({ status: 0, stdout });
    }
  });
});

describe.concurrent('aliases', () => {
  test.for<[string, string]>([
    ['ls', 'clusters'],
    ['list -o name', 'clusters -o name'],
    ['get clusters', 'clusters'],
    ['get cluster -o name', 'clusters -o name'],
    ['-q get -o name clusters', 'clusters -o name'],
    ['get -l region=us-west-2 clusters', 'clusters -l region=us-west-2'],
    ['whoami', 'status'],
    ['whoami -o json', 'status -o json'],
  ])('%s is %s', async ([alias, command], { home }) => {
    await home.run('login prod-us');
    const ran = await home.run(command);
    // Ages increase.
    const steady = (text: string) => text.replace(/\d+[smh]\d*m?|"lastSeen".*/g, 'N');
    const other = await home.run(alias);
    expect(other).toMatchObject({ status: 0, stderr: ran.stderr });
    expect(steady(other.stdout)).toBe(steady(ran.stdout));
  });

  test('ctx and switch are use', async ({ home }) => {
    await home.run('sync');
    for (const [alias, name] of [
      ['ctx', 'prod-us'],
      ['switch', 'staging'],
    ] as const) {
      expect(await home.run([alias, name])).toMatchObject({ status: 0 });
      expect(fs.readFileSync(home.kubeconfig, 'utf8'), alias).toContain(`current-context: ${JSON.stringify(name)}`);
    }
    expect(await home.run('switch prod-us --what')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('kubectl tka use --help'),
    });
  });

  test('help names the aliases of a command, and lists each command once', async ({ home }) => {
    expect((await home.run('clusters -h')).stdout).toMatch(/^Aliases:\n {2}ls, list, get clusters, get cluster$/m);
    expect((await home.run('use -h')).stdout).toMatch(/^Aliases:\n {2}ctx, switch$/m);
    expect((await home.run('status -h')).stdout).toMatch(/^Aliases:\n {2}whoami$/m);
    const { stdout } = await home.run('--help');
    expect(stdout).not.toMatch(/^ {2}(?:ls|list|get|ctx|switch|whoami) /m);
  });

  test.for<[string, string]>([
    ['lst', 'ls or list'],
    ['whoam', 'whoami'],
    ['swich prod-us', 'switch'],
    ['get pods', 'get clusters or get cluster'],
  ])('a mistyped alias is suggested: %s', async ([args, meant], { home }) => {
    const wrong = await home.run(args);
    expect(wrong).toMatchObject({ status: 2, stdout: '' });
    expect(lines(wrong.stderr)[1]).toBe(`hint: did you mean ${meant}?`);
  });

  test('a name that is also an alias is still a name', async ({ home }) => {
    const wrong = await home.run('login ls');
    expect(wrong).toMatchObject({ status: 1, stderr: expect.stringContaining('no cluster named "ls"') });
  });

  test('TAB after an alias completes as after the command, and offers no alias itself', async ({ home }) => {
    await home.run('clusters');
    const complete = async (...words: string[]) => (await home.run(['__complete', ...words])).stdout;
    expect(await complete('ls', '--pr')).toBe(await complete('clusters', '--pr'));
    expect(await complete('get', 'clusters', '--')).toBe(await complete('clusters', '--'));
    expect(await complete('ctx', 'prod')).toBe(await complete('use', 'prod'));
    expect(await complete('ctx', 'prod')).toContain('prod-eu');
    expect(await complete('get', '')).toBe('clusters\n:4\n');
    expect(await complete('l')).not.toMatch(/^(?:ls|list)\b/m);
    expect(await complete('clusters', '-o=js')).toBe(await complete('clusters', '--output=js'));
    expect(await complete('--ver')).toContain('--version');
    expect(await complete('login', '--ver')).toBe(':4\n');
  });
});
