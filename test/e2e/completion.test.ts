// The answers to TAB, as kubectl and the shells' scripts request them; and where kubectl's completion file is
// installed.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { ListMemory } from '../../src/discovery/memory.ts';
import type { Home } from '../fixtures/home.ts';
import { kubectl, kubectls, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { bin, lines, program, start } from '../fixtures/program.ts';

const front = process.platform === 'win32' ? 'kubectl_complete-tka.cmd' : 'kubectl_complete-tka';

interface Answer {
  readonly texts: readonly string[];
  readonly rows: ReadonlyMap<string, string>;
  readonly directive: string | undefined;
}

function parse(stdout: string): Answer {
  const all = lines(stdout);
  const rows = all.slice(0, -1).map((line): [string, string] => {
    const [text = '', about = ''] = line.split('\t');
    return [text, about];
  });
  return { texts: rows.map(([text]) => text), rows: new Map(rows), directive: all.at(-1) };
}

async function complete(home: Home, words: readonly string[]): Promise<Answer> {
  const ran = await home.run(['__complete', ...words]);
  expect(ran).toMatchObject({ status: 0, stderr: '' });
  return parse(ran.stdout);
}

const names = async (home: Home, ...words: string[]) => (await complete(home, words)).texts;

describe.concurrent('candidates', () => {
  test('lists all commands of --help, with their descriptions', async ({ home }) => {
    const help = (await home.run('--help')).stdout.split('Available Commands:\n')[1]?.split('\n\n')[0] ?? '';
    const commands = help.split('\n').map((line): [string, string] => {
      const [, name = '', about = ''] = /^ {2}(\S+) +(.*)$/.exec(line) ?? [];
      return [name, about];
    });
    expect(commands.length).toBeGreaterThan(12);
    const answer = await complete(home, ['']);
    expect([...answer.rows]).toEqual(commands);
    expect(answer.directive).toBe(':4');
    expect(await names(home, 'help', '')).toEqual(commands.map(([name]) => name));
  });

  test('lists all flags of each command’s --help', async ({ home }) => {
    for (const command of await names(home, '')) {
      const help = (await home.run([command, '--help'])).stdout.replace(/\nUsage:[\s\S]*/, '');
      const flags = [...help.matchAll(/^ {2}(?: {4}|-\w, )(--[a-z-]+)/gm)].map((match) => match[1] ?? '');
      expect(flags.length).toBeGreaterThan(7);
      expect(new Set(await names(home, command, '--')), command).toEqual(new Set(flags));
    }
  });

  test('lists short flags too after a single dash, but no flag that was already given', async ({ home }) => {
    const { rows } = await complete(home, ['clusters', '-']);
    expect(rows.get('-l')).toBe(rows.get('--selector'));
    expect(rows.get('-w')).not.toBe('');
    expect(await names(home, 'clusters', '-wl', 'a=b', '--output=json', '--')).not.toContain('--watch');
    expect(await names(home, 'clusters', '-wl', 'a=b', '--')).not.toContain('--selector');
    expect(await names(home, '--debug', 'clusters', '--d')).toEqual([]);
    expect(await names(home, '--d')).toEqual(['--debug']);
  });

  test('lists contexts that are not managed for use only', async ({ home }) => {
    await home.run('login prod-us');
    const text = fs.readFileSync(home.kubeconfig, 'utf8');
    home.write(
      home.kubeconfig,
      text.replace('contexts:\n', 'contexts:\n- context:\n    cluster: mini\n  name: minikube\n'),
    );
    const { rows } = await complete(home, ['use', '']);
    expect([...rows.keys()].sort()).toEqual(['minikube', 'prod-eu', 'prod-us', 'staging']);
    expect(rows.get('minikube')).toBe('context');
    expect(await names(home, 'use', 'mi')).toEqual(['minikube']);
    for (const command of ['login', 'logout', 'exec', 'doctor'])
      expect(await names(home, command, 'mi'), command).toEqual([]);
  });

  test('lists the formats of each command', async ({ home }) => {
    expect(await names(home, 'clusters', '-o', '')).toEqual(['wide', 'json', 'yaml', 'name']);
    expect(await names(home, 'exec', '-o', '')).toEqual(['json']);
    expect(await names(home, 'version', '--output=')).toEqual(['json', 'yaml']);
    expect(await names(home, 'login', '--output=')).toEqual([]);
  });

  test('lists settings, and true and false for a boolean setting', async ({ home }) => {
    const { rows } = await complete(home, ['config', 'tail']);
    expect(rows.get('tailscale.hostname')).toBe('TKA_TAILSCALE_HOSTNAME');
    expect(await names(home, 'config', 'debug', '')).toEqual(['true', 'false']);
    expect(await names(home, 'config', 'tailscale.port', '')).toEqual([]);
  });

  test.for<[string[], string]>([
    [['login', '--kubeconfig', ''], ':0'],
    [['login', '-c', 'x'], ':0'],
    [['exec', 'a', '--', 'apply', '-f', ''], ':0'],
    [['exec', '--', '--output', ''], ':0'],
    [['login', '--port', ''], ':4'],
    [['login', '--nothing=', ''], ':4'],
    [['status', ''], ':4'],
    [['nothing', ''], ':4'],
    [['use', 'a', ''], ':4'],
    [['--kubeconfig'], ':4'],
    [[''].slice(1), ':4'],
  ])('%j: lists no names, and files only if one is expected', async ([words, directive], { home }) => {
    const answer = await complete(home, words);
    expect(answer.directive).toBe(directive);
    expect(answer.texts.filter((text) => !/^--|^[a-z]+$/.test(text) || words.length > 1)).toEqual([]);
  });
});

describe.skipIf(kubectl === undefined)(`after exec --, kubectl completes${needsKubectl}`, () => {
  test('commands and flags, without a cluster', async ({ home }) => {
    expect((await complete(home, ['exec', '--', 'descr'])).rows.get('describe')).toMatch(/^Show details/);
    expect(await names(home, 'exec', 'prod-us', '--', 'kubectl', 'rollout', 'sta')).toEqual(['status']);
    expect(await names(home, 'exec', '--', '-n', 'web', 'get', '--all-n')).toEqual(['--all-namespaces']);
    expect(await names(home, 'exec', '--', 'get', '--output=jso')).toContain('json');
    expect(await complete(home, ['exec', '--', 'apply', '-f', ''])).toMatchObject({ texts: [], directive: ':0' });
    expect(await complete(home, ['exec', '--', 'nothing', 'x'])).toMatchObject({ texts: [] });
  });

  test('names of objects in the first chosen cluster, never in the current one', async ({ home, mesh }) => {
    await home.run('login --all-contexts');
    await home.run('login prod-us');
    await home.run(['login', mesh.cluster('prod-eu').server, '--context', 'europe', '--no-switch']);
    const pods = async (...words: string[]) => names(home, 'exec', ...words, '--', 'get', 'namespaces', 'shop');
    expect(await pods('staging')).toEqual(['shop-staging']);
    expect(await pods('sta')).toEqual(['shop-staging']);
    expect(await pods('prod-eu', 'prod-us')).toEqual(['shop-prod-eu']);
    expect(await pods('europe,prod-us')).toEqual(['shop-prod-eu']);
    expect(await pods('*-us')).toEqual(['shop-prod-us']);
    expect(await pods('-l', 'environment=staging')).toEqual(['shop-staging']);
    expect(await names(home, 'exec', 'staging', '--', 'get', 'namespaces', '--namespace', 'shop')).toEqual([
      'shop-staging',
    ]);
    expect((await pods()).length).toBe(1);
    await home.run('forget staging');
    for (const cluster of mesh.clusters) cluster.resetCounts();
    expect(await pods('staging')).toEqual([]);
    expect(await pods('nowhere')).toEqual([]);
    // kubectl does not get the current context either while the command is missing.
    expect(await names(home, 'exec', 'staging', '--', '--namespace', 'shop')).toEqual([]);
    for (const cluster of mesh.clusters) expect(cluster.requests).toEqual([]);
  });

  test('without a kubectl: names of files', async ({ home }) => {
    const bare = path.join(home.root, 'bare');
    fs.mkdirSync(bare);
    for (const tool of ['sh', 'readlink']) fs.symlinkSync(`/bin/${tool}`, path.join(bare, tool));
    const ran = await home.run(['__complete', 'exec', '--', 'get', ''], { env: { PATH: bare } });
    expect(ran).toMatchObject({ status: 0, stdout: ':0\n', stderr: '' });
  });
});

describe.concurrent('names come from the last known list', () => {
  test('clusters, labels and servers; without the network and without writes', async ({ home, mesh }) => {
    expect(await names(home, 'login', '')).toEqual([]);
    await home.run('clusters');
    const servers = mesh.clusters.map(({ server }) => server);
    for (const cluster of mesh.clusters) cluster.resetCounts();
    const state = path.join(home.state, 'clusters');
    const kept = () => fs.readdirSync(state).map((name) => [name, fs.statSync(path.join(state, name)).mtimeMs]);
    const before = [home.files(), kept()];
    const { rows } = await complete(home, ['login', '']);
    expect([...rows]).toEqual([
      ['prod-eu', 'environment=production,region=eu-central-1'],
      ['prod-us', 'environment=production,region=us-west-2'],
      ['staging', 'environment=staging,region=us-west-2'],
    ]);
    for (const command of ['use', 'doctor', 'exec']) expect(await names(home, command, 's')).toEqual(['staging']);
    expect(await names(home, 'exec', 'staging', '')).toEqual(['prod-eu', 'prod-us']);
    expect(await names(home, 'use', 'staging', '')).toEqual([]);
    expect((await names(home, 'login', '-s', '')).toSorted()).toEqual(servers.toSorted());
    expect(await complete(home, ['sync', '-l', ''])).toMatchObject({
      texts: ['environment=', 'region='],
      directive: ':6',
    });
    expect([...(await complete(home, ['sync', '-l', 'env'])).rows]).toEqual([
      ['environment=production', '2 clusters'],
      ['environment=staging', '1 cluster'],
    ]);
    expect(await names(home, 'sync', '-l', 'environment!=production,region==us')).toEqual([
      'environment!=production,region==us-west-2',
    ]);
    expect([home.files(), kept()]).toEqual(before);
    for (const cluster of mesh.clusters) expect(cluster.requests).toEqual([]);
  });

  test('logout and forget: managed contexts, and clusters with a local token', async ({ home, us }) => {
    await home.run('clusters');
    expect(await names(home, 'logout', '')).toEqual([]);
    await home.run('login prod-us --context mine');
    expect(await names(home, 'logout', '')).toEqual(['prod-us', 'mine']);
    expect(await names(home, 'use', '')).toEqual(['prod-eu', 'prod-us', 'staging', 'mine']);
    expect(await names(home, 'login', '--context', '')).toEqual(['mine']);
    fs.rmSync(home.entry(us));
    expect(await names(home, 'forget', '')).toEqual(['mine']);
    expect(await names(home, 'forget', '--kubeconfig', '/nowhere', '')).toEqual([]);
  });

  test('leaves out labels that a selector cannot express, and names that a shell would evaluate', async ({ home }) => {
    const now = Date.now();
    const labels = new Map([
      ['$(touch x)', 'a'],
      ['tier', '`touch x`'],
      ['zone', 'b'],
    ]);
    const rest = {
      server: null,
      cluster: null,
      state: null,
      lastSeen: null,
      listed: now,
      tried: 0,
      since: now,
      version: null,
      provenance: 'stated' as const,
    };
    const members = [{ ...rest, name: 'one', apiEndpoint: 'https://one.example.com', labels }];
    new ListMemory(home.state).write('http://127.0.0.1:1', { at: now, html: false, members });
    expect(await complete(home, ['exec', '-l', ''])).toMatchObject({ texts: ['zone=b'] });
    expect([...(await complete(home, ['exec', ''])).rows]).toEqual([['one', 'zone=b']]);
  });
});

describe.concurrent('a stored list', () => {
  const listFile = (home: Home) => {
    const folder = path.join(home.state, 'clusters');
    return path.join(folder, fs.readdirSync(folder)[0] ?? '');
  };

  test('is read up to its first line', async ({ home }) => {
    await home.run('clusters');
    const before = await complete(home, ['login', '']);
    expect(before.texts).toEqual(['prod-eu', 'prod-us', 'staging']);
    const [first] = fs.readFileSync(listFile(home), 'utf8').split('\n');
    fs.writeFileSync(listFile(home), `${first}\n, what is not read}`);
    expect(await complete(home, ['login', ''])).toEqual(before);
    expect(await names(home, 'login', 'prod-u')).toEqual(['prod-us']);
    expect(await names(home, 'clusters', '-l', 'region=')).toEqual(['region=eu-central-1', 'region=us-west-2']);
  });

  test('of version 0.1.0, which has no such line, is read as a whole, with the same answers', async ({ home, us }) => {
    await home.run('login prod-us --no-switch');
    const asked = [
      ['login', ''],
      ['logout', ''],
      ['login', '-s', ''],
      ['clusters', '-l', ''],
      ['clusters', '-l', 'region='],
    ];
    const answers = async () => {
      const all: Answer[] = [];
      for (const words of asked) all.push(await complete(home, words));
      return all;
    };
    const before = await answers();
    expect(before[1]?.texts).toContain('prod-us');
    expect(before[2]?.rows.get(us.server)).toBe('prod-us');
    const { names: _, ...rest } = JSON.parse(fs.readFileSync(listFile(home), 'utf8'));
    fs.writeFileSync(listFile(home), JSON.stringify(rest));
    expect(await answers()).toEqual(before);
  });
});

describe.concurrent('a TAB never prints an error', () => {
  test('ignores damaged settings, a damaged kubeconfig and a damaged list', async ({ home }) => {
    await home.run('clusters');
    home.write(home.config, 'tailscale: [\n');
    home.write(home.kubeconfig, '{');
    expect(await names(home, 'login', 'st')).toEqual(['staging']);
    const state = path.join(home.state, 'clusters');
    for (const name of fs.readdirSync(state)) fs.writeFileSync(path.join(state, name), '{"members":[');
    expect(await complete(home, ['login', ''])).toMatchObject({ texts: [], directive: ':4' });
  });

  test('prints errors with TKA_DEBUG=1 only', async ({ home }) => {
    home.write(path.join(home.state, 'clusters'), 'a file where a folder should be');
    expect(await complete(home, ['login', ''])).toMatchObject({ texts: [], directive: ':4' });
    const told = await home.run(['__complete', 'login', ''], { env: { TKA_DEBUG: '1' } });
    expect(told).toMatchObject({ status: 0, stdout: ':4\n' });
    expect(told.stderr).toMatch(/^debug: .*no completion: .*ENOTDIR/);
  });
});

describe.concurrent('kubectl_complete-tka', () => {
  test.skipIf(kubectl === undefined)(`is called by kubectl, in every version${needsKubectl}`, async ({ home }) => {
    await home.run('clusters');
    for (const each of [undefined, ...kubectls]) {
      const ran = await home.kubectl(
        ['__complete', 'tka', 'login', 'pro'],
        each === undefined ? {} : { kubectl: each },
      );
      expect(ran.status).toBe(0);
      expect(parse(ran.stdout)).toMatchObject({ texts: ['prod-eu', 'prod-us'], directive: ':4' });
      // Old versions add their own --help: there must not be two with a description.
      const flags = lines((await home.kubectl(['__complete', 'tka', 'login', '--he'])).stdout);
      expect(flags.filter((line) => line.startsWith('--help\t')).length).toBeLessThan(2);
    }
  });

  test('calls the program beside it, from any folder, or the one on PATH if it is a link', async ({ home }) => {
    const folder = path.join(home.root, `it's "my" $HOME; folder`);
    fs.mkdirSync(folder);
    fs.copyFileSync(path.join(bin, front), path.join(folder, front));
    const file = path.join(folder, front);
    const run = (env: Record<string, string | undefined> = {}) =>
      start(file, ['ver'], { ...home.env, ...env }, { cwd: '/' }).ran;
    expect(await run()).toMatchObject({ status: 0, stdout: 'version\tshow the version\n:4\n', stderr: '' });
    // Not installed: kubectl must not print junk.
    expect(await run({ PATH: '/bin:/usr/bin' })).toMatchObject({ status: 0, stdout: '', stderr: '' });
    fs.symlinkSync(program, path.join(folder, 'kubectl-tka'));
    expect(await run({ PATH: '/bin:/usr/bin' })).toMatchObject({
      status: 0,
      stdout: 'version\tshow the version\n:4\n',
    });
  });
});

describe.concurrent('completion install', () => {
  /** The program as a link in its own folder, and nothing else of it on PATH. */
  function linked(home: Home, name = 'tools') {
    const folder = path.join(home.dir, name, 'bin');
    const link = path.join(folder, 'kubectl-tka');
    fs.mkdirSync(folder, { recursive: true });
    fs.symlinkSync(program, link);
    const [, ...rest] = (home.env.PATH ?? '').split(path.delimiter);
    const env = { PATH: [folder, ...rest].join(path.delimiter), SHELL: '/bin/zsh' };
    return {
      file: path.join(folder, front),
      link,
      env,
      install: (path = env.PATH) => home.run('completion install', { program: link, env: { ...env, PATH: path } }),
    };
  }

  test('writes it beside the program, reports it, and does nothing the second time', async ({ home }) => {
    const { file, env, install } = linked(home);
    const first = await install();
    expect(first).toMatchObject({ status: 0, stdout: `Wrote ${file}.\n` });
    expect(first.stderr).toMatch(/^hint: .*~\/\.zshrc.*source <\(kubectl completion zsh\)$/m);
    expect(fs.readFileSync(file, 'utf8')).toBe(fs.readFileSync(path.join(bin, front), 'utf8'));
    expect(fs.statSync(file).mode & 0o777).toBe(0o755);
    const { mtimeMs } = fs.statSync(file);
    expect(await install()).toMatchObject({ status: 0, stdout: `${file} is up to date.\n` });
    expect(fs.statSync(file).mtimeMs).toBe(mtimeMs);
    if (kubectl === undefined) return;
    expect(parse((await home.kubectl(['__complete', 'tka', 'logi'], { env })).stdout).texts).toEqual(['login']);
  });

  test.for([
    ['.local/bin', '.local/bin'],
    ['bin', 'bin'],
    ['', '.local/bin'],
  ] as const)(
    'does not write into krew’s folder: with "%s" on PATH it writes to %s',
    async ([onPath, to], { home }) => {
      const { file, env, install } = linked(home, '.krew');
      // As versions before 0.2.0 left it.
      home.write(file, '#!/bin/sh\n# kubectl-tka: what it once was\n', 0o755);
      const searched = onPath === '' ? env.PATH : `${env.PATH}${path.delimiter}${path.join(home.dir, onPath)}`;
      const ran = await install(searched);
      expect(ran).toMatchObject({ status: 0, stdout: `Wrote ${path.join(home.dir, to, front)}.\n` });
      expect(ran.stderr.includes('is not on PATH')).toBe(onPath === '');
      expect(fs.readdirSync(path.dirname(file))).toEqual(['kubectl-tka']);
      if (kubectl === undefined || onPath === '') return;
      const asked = await home.kubectl(['__complete', 'tka', 'logi'], { env: { ...env, PATH: searched } });
      expect(parse(asked.stdout).texts).toEqual(['login']);
      // Uninstalled: the remaining file answers nothing, and does not fail.
      fs.rmSync(path.join(path.dirname(file), 'kubectl-tka'));
      const gone = await start(path.join(home.dir, to, front), ['login', ''], { ...env, PATH: '/usr/bin:/bin' }).ran;
      expect(gone).toMatchObject({ status: 0, stdout: '', stderr: '' });
    },
  );

  test('recognises krew’s folder by KREW_ROOT, and by the receipts beside it', async ({ home }) => {
    const { file, link, env, install } = linked(home);
    const to = path.join(home.dir, '.local/bin', front);
    const named = { ...env, KREW_ROOT: path.dirname(path.dirname(link)) };
    const ran = await home.run('completion install', { program: link, env: named });
    expect(ran).toMatchObject({ status: 0, stdout: `Wrote ${to}.\n` });
    fs.mkdirSync(path.join(home.dir, 'tools', 'receipts'));
    expect(await install()).toMatchObject({ status: 0, stdout: `${to} is up to date.\n` });
    expect(fs.existsSync(file)).toBe(false);
  });

  test('replaces an older one of this program', async ({ home }) => {
    const { file, install } = linked(home);
    home.write(file, '#!/bin/sh\n# kubectl-tka: what it once was\n', 0o755);
    expect(await install()).toMatchObject({ status: 0, stdout: `Wrote ${file}.\n` });
    expect(fs.readFileSync(file, 'utf8')).toContain('__complete');
  });

  test.for<[string, (file: string) => void]>([
    ['a file of another program', (file) => fs.writeFileSync(file, '#!/bin/sh\necho mine\n')],
    ['an empty file', (file) => fs.writeFileSync(file, '')],
    ['a folder', (file) => fs.mkdirSync(file)],
    ['a link to nowhere', (file) => fs.symlinkSync('/nowhere', file)],
  ])('leaves %s unchanged', async ([, make], { home }) => {
    const { file, install } = linked(home);
    make(file);
    const before = home.files();
    const refused = await install();
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toBe(
      `error: ${file} already exists and was not written by kubectl-tka\nhint: move it away, then run this again\n`,
    );
    expect(home.files()).toEqual(before);
  });

  test('reports a folder that is not on PATH, and another one that comes first', async ({ home }) => {
    const { file, link, env } = linked(home);
    const away = await home.run('completion install', { program: link, env: { ...env, PATH: '/usr/bin:/bin' } });
    expect(away).toMatchObject({ status: 0, stdout: `Wrote ${file}.\n` });
    expect(away.stderr).toContain(`warning: ${path.dirname(file)} is not on PATH`);
    const second = await home.run('-q completion install', {
      program: link,
      env: { ...env, PATH: `${bin}:${env.PATH}` },
    });
    expect(second).toMatchObject({
      status: 0,
      stdout: '',
      stderr: `warning: another file comes first on PATH: ${path.join(bin, front)}\n`,
    });
  });

  test('usage errors', async ({ home }) => {
    for (const args of ['completion', 'completion tcsh', 'completion bash zsh'])
      expect(await home.run(args)).toMatchObject({ status: 2, stdout: '' });
    expect((await home.run('completion --help')).stdout).toContain(
      'Usage:\n  kubectl tka completion install|bash|zsh|fish|powershell [options]',
    );
    expect((await home.run('completion tcsh')).stderr).toMatch(/hint: kubectl tka completion --help/);
  });
});
