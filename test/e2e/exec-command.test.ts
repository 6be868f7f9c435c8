// `--exec-command`: contexts with a bare command, for a kubeconfig that several machines use.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { kubectl, kubectls, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { bin, program } from '../fixtures/program.ts';

/** The command of each context's user, by name. */
function commands({ kubeconfig }: Home): Record<string, unknown> {
  const { users } = parse(fs.readFileSync(kubeconfig, 'utf8'));
  return Object.fromEntries(users.map((entry: Entry) => [entry.name, entry.user.exec.command]));
}

interface Entry {
  readonly name: string;
  readonly user: { readonly exec: { readonly command: string; readonly installHint: string } };
}

const bare = '--exec-command kubectl-tka';

describe('a bare command', () => {
  test('is written by login, and kubectl finds it on PATH', async ({ home }) => {
    expect(await home.run(`login prod-us ${bare}`)).toMatchObject({ status: 0, stderr: '' });
    expect(commands(home)).toEqual({ 'prod-us': 'kubectl-tka' });
    if (kubectl === undefined) return;
    expect(await home.kubectl('get namespaces')).toMatchObject({ status: 0, stderr: '' });
  });

  test('stays when login and sync write the context again, even if it is not on PATH', async ({ home, us }) => {
    await home.run(`login prod-us ${bare}`);
    const elsewhere = { env: { PATH: '/usr/bin:/bin' } };
    await home.run('login prod-us');
    await home.run(['login', us.server], elsewhere);
    await home.run('sync', elsewhere);
    expect(commands(home)).toMatchObject({ 'prod-us': 'kubectl-tka', 'prod-eu': program });
    const renamed = await home.run(['sync', '--context-template', 'x-{name}'], elsewhere);
    expect(renamed.stderr).not.toMatch(/^error/m);
    expect(commands(home)).toMatchObject({ 'x-prod-us': 'kubectl-tka', 'x-prod-eu': program });
  });

  test('replaces a path, and a path replaces it', async ({ home }) => {
    await home.run('login prod-us');
    expect(commands(home)).toEqual({ 'prod-us': program });
    const told = await home.run(`sync ${bare}`);
    expect(told).toMatchObject({ status: 0, stderr: '' });
    expect(new Set(Object.values(commands(home)))).toEqual(new Set(['kubectl-tka']));
    await home.run(['login', 'prod-us', '--exec-command', program]);
    expect(commands(home)).toMatchObject({ 'prod-us': program, 'prod-eu': 'kubectl-tka' });
  });

  test('is written by login --all-contexts and for several names', async ({ home }) => {
    await home.run(`login prod-us prod-eu ${bare}`);
    expect(commands(home)).toEqual({ 'prod-us': 'kubectl-tka', 'prod-eu': 'kubectl-tka' });
    await home.run(`login --all-contexts ${bare}`);
    expect(new Set(Object.values(commands(home)))).toEqual(new Set(['kubectl-tka']));
  });

  test('is written with a warning if it is not on PATH here', async ({ home }) => {
    const { status, stderr } = await home.run('login prod-us --exec-command tka-elsewhere');
    expect(status).toBe(0);
    expect(stderr).toBe('warning: tka-elsewhere is not on PATH here: kubectl cannot run it before it is\n');
    expect(commands(home)).toEqual({ 'prod-us': 'tka-elsewhere' });
  });

  test.for([
    ['kubectl-tka credential', /must be a program's name or absolute path, without arguments/],
    ['kubectl-tka\u001b[2J', /must be a program's name or absolute path, without arguments/],
    ['-kubectl-tka', /must be a program's name or absolute path, without arguments/],
    ['bin/kubectl-tka', /must be a program's name or absolute path, without arguments/],
    ['', /must be a program's name or absolute path, without arguments/],
    ['/nowhere/kubectl-tka', /cannot be executed/],
    [`${program} credential`, /cannot be executed/],
    [`${program}\n`, /cannot be executed/],
  ] as const)('%j is refused, and nothing is written', async ([command, problem], { home, us }) => {
    for (const args of [['login', 'prod-us'], ['sync']]) {
      const { status, stdout, stderr } = await home.run([...args, `--exec-command=${command}`]);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toMatch(problem);
      expect(stderr).toMatch(/\nhint: kubectl tka login --exec-command kubectl-tka\n$/);
      expect(stderr).not.toContain('\u001b');
    }
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
    expect(us.counts.login).toBe(0);
  });
});

describe('doctor', () => {
  const checkOf = async (home: Home, env: Record<string, string> = {}) => {
    const { stdout } = await home.run('doctor prod-us -o json', { env });
    return JSON.parse(stdout)[0].checks.find(({ name }: { name: string }) => name === 'kubeconfig');
  };

  test('finds a bare command on PATH, or reports that it is missing', async ({ home }) => {
    await home.run(`login prod-us ${bare}`);
    expect(await checkOf(home)).toMatchObject({ status: 'ok' });
    const folders = (home.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== bin);
    expect(await checkOf(home, { PATH: folders.join(path.delimiter) })).toMatchObject({
      status: 'failed',
      detail: 'context "prod-us": its command kubectl-tka is not on PATH',
      hint: `export PATH="${bin}:$PATH"`,
    });
    await home.run('login prod-us --exec-command tka-elsewhere');
    expect(await checkOf(home)).toMatchObject({
      status: 'failed',
      detail: 'context "prod-us": its command tka-elsewhere is not on PATH',
      hint: expect.stringMatching(/^kubectl tka login \S+ --exec-command kubectl-tka$/),
    });
  });
});

const versions = [...new Set([kubectls[0], kubectls.at(-1), kubectl])].filter((file) => file !== undefined);

describe(`kubectl without the plugin on PATH${needsKubectl}`, () => {
  test.for(versions.map((file) => [path.basename(file), fs.realpathSync(file)] as const))(
    '%s prints how to install it',
    async ([, file], { home }) => {
      await home.run(`login prod-us ${bare}`);
      // A dispatcher looks for its versions beside itself.
      const { status, stderr } = await home.kubectl('get namespaces', { kubectl: file, env: { PATH: home.dir } });
      expect(status).not.toBe(0);
      expect(stderr).toContain('executable kubectl-tka not found');
      for (const line of installCommands()) expect(stderr).toContain(line);
    },
  );

  test('the hint has the commands of the README', async ({ home }) => {
    await home.run(`login prod-us ${bare}`);
    const [user] = parse(fs.readFileSync(home.kubeconfig, 'utf8')).users as Entry[];
    for (const line of installCommands()) expect(user?.user.exec.installHint).toContain(line);
  });
});

/** Returns the README's commands that install the plugin. */
function installCommands(): string[] {
  const readme = fs.readFileSync(path.join(import.meta.dirname, '../../README.md'), 'utf8');
  const found = readme.match(/^kubectl krew (?:index add|install tka\/).*$/gm) ?? [];
  expect(found).toHaveLength(2);
  return found;
}
