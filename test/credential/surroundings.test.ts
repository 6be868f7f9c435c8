// The front in odd environments: exported variables, links and names, closed streams.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { execCredential } from '../../src/credential/entry.ts';
import { api, entry, line, now } from './cases.ts';
import { environment, fixture, front, home, inBin, missing, root, run, type Shell, shells, usual } from './shells.ts';

const answer = execCredential(`${api}v1`, entry);
/** A shell's arguments with another path in place of the front's. */
const under = (shell: Shell, file: string) => shell.args.map((arg) => (arg === front ? file : arg));
const stale = () => fixture.put(line(0, `tka1 ${entry.token.length} ${now - 10}`), now - 10);
const functions = (names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [`BASH_FUNC_${name}%%`, '() { \\printf pwned; \\exit 7; }']));
const builtins = ['[', 'echo', 'read', 'printf', 'test', 'true', 'umask', 'command', 'readlink', 'unalias', 'shopt'];
const special = ['exit', 'return', 'set', 'unset', 'shift', 'exec', 'export', 'break', ':'];

const surroundings: readonly (readonly [string, Record<string, string | undefined>])[] = [
  ['HOME only', { PATH: undefined }],
  ['IFS', { IFS: 'x0"eyJ/:+' }],
  ['CDPATH', { CDPATH: `${root}:/` }],
  ['ENV', { ENV: path.join(root, 'startup') }],
  ['POSIXLY_CORRECT', { POSIXLY_CORRECT: '1' }],
  ['LANG', { LANG: 'C.UTF-8' }],
  ['LC_ALL', { LC_ALL: 'C.UTF-8' }],
  ['LC_ALL empty', { LC_ALL: '' }],
  ['LC_CTYPE and LC_COLLATE', { LC_CTYPE: 'C.UTF-8', LC_COLLATE: 'C.UTF-8' }],
  ['shell variables', { OPTIND: '5', PS4: '$(echo pwned >&2)', OLDPWD: '/', PWD: '/nowhere', RANDOM: '1', _: 'x' }],
  [
    'variables of the front',
    {
      tka_token: 'x',
      tka_entry: '/x',
      tka_api: 'x',
      tka_folder: '/',
      tka_locale: '=x',
      tka_callers: 'x',
      tka_mark: '/',
    },
  ],
  ['bash options', { BASHOPTS: 'nocasematch:extglob:nullglob:failglob:expand_aliases:xpg_echo:execfail:dotglob' }],
  ['bash functions', functions(builtins)],
  ...[
    'nounset',
    'errexit',
    'noclobber',
    'noglob',
    'allexport',
    'posix',
    'nounset:errexit:noglob:noclobber:allexport',
  ].map((options) => [`SHELLOPTS ${options}`, { SHELLOPTS: options }] as const),
];

for (const shell of shells) {
  describe.skipIf(missing(shell))(`the front under ${shell.name}${missing(shell)}`, () => {
    it.each(surroundings)('serves the entry with odd variables in the environment: %s', (_, env) => {
      fs.writeFileSync(path.join(root, 'startup'), 'echo pwned; exit 7\n');
      fixture.put();
      const { status, stdout, stderr } = run(shell, { env });
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: answer, stderr: '' });
      expect(fs.readFileSync(`${fixture.file}+served`, 'utf8')).toBe(`${process.pid} - - -\n`);
      expect(fs.statSync(`${fixture.file}+served`).mode & 0o777).toBe(0o600);
    });

    it.each(surroundings)('hands everything over unchanged: %s', (_, env) => {
      stale();
      fs.writeFileSync(`${fixture.file}+served`, '1 - - -\n', { mode: 0o600 });
      const all = { TELL_ALL: '1', TKA_NODE_OPTIONS: '', ...env };
      const ran = run(shell, { env: all });
      expect(ran.stderr).toBe('');
      const told = ran.stdout.split('\0');
      expect(told.splice(0, 5)).toEqual(['--started-as', front, ...usual]);
      // Shells set these themselves for every program that they start.
      const own =
        /^(?:PWD|OLDPWD|SHLVL|SHELLOPTS|BASHOPTS|_|A__z|POSIXLY_CORRECT|OPTIND|RANDOM|IFS|PS4|LOGNAME|tka_\w+)$/;
      const its = Object.fromEntries(told.map((one) => one.replace(/^\d+\n/, '').split(/=(.*)/s, 2)));
      for (const [name, value] of Object.entries(environment({ env: all })))
        if (!own.test(name) && !name.startsWith('BASH_FUNC'))
          expect([name, its[name]]).toEqual([name, name === 'TKA_NODE_OPTIONS' ? '' : value]);
      expect(ran.stdout).not.toContain(entry.token);
    });

    it('hands over each argument unchanged', () => {
      const odd = ['exec', 'a b', '', '*', '$HOME', '`id`', '"', "'", '\\', '\n', '-n', '--', 'é', '%s'];
      for (const args of [
        odd,
        [],
        ['--help'],
        ['credential', ...odd],
        ['credential', '--server', '*', '--api-server', '\n'],
      ])
        expect(run(shell, { args })).toMatchObject({
          status: 0,
          stderr: '',
          stdout: ['--started-as', front, ...args, ''].join('\0'),
        });
    });

    it('shows no token in a trace', () => {
      fixture.put();
      const ran = run(shell, { env: { SHELLOPTS: 'xtrace:verbose' } });
      expect(ran).toMatchObject({ status: 0, stdout: answer });
      expect(ran.stderr).not.toContain(entry.token.slice(0, 40));
    });

    it('removes the caller’s NODE_OPTIONS and passes TKA_NODE_OPTIONS on', () => {
      const env = { TELL_ALL: '1', NODE_OPTIONS: '--inspect-brk' };
      expect(run(shell, { args: ['x'], env }).stdout).not.toMatch(/\bNODE_OPTIONS=/);
      const more = { ...env, TKA_NODE_OPTIONS: '--no-warnings -x' };
      expect(run(shell, { args: ['x'], env: more }).stdout).toMatch(/\0NODE_OPTIONS=--no-warnings -x\0/);
    });

    it('does not serve the same parent twice, but serves another one', () => {
      fixture.put();
      const twice = () => {
        const words = [shell.file ?? '', ...shell.args, ...usual];
        return spawnSync('/bin/sh', ['-c', '"$@"; "$@"; exit $?', 'sh', ...words], {
          env: environment({}),
          encoding: 'utf8',
        });
      };
      // Only the kernel's `sh` starts scripts by that name; the others run under their own names.
      if (shell.argv0 !== undefined) return;
      for (let i = 0; i < 2; i++)
        expect(twice().stdout).toBe(`${answer}${['--started-as', front, ...usual, ''].join('\0')}`);
    });

    const runCopy = (copy: string) =>
      run({ ...shell, file: shell.file === front ? copy : shell.file, args: under(shell, copy) });

    it('is found through links of any kind', () => {
      const odd = path.join(home, 'a \'b\' "c" $d\n* é');
      fs.mkdirSync(odd);
      const link = (target: string, name: string) => {
        fs.symlinkSync(target, path.join(odd, name));
        return path.join(odd, name);
      };
      fs.symlinkSync(path.dirname(front), path.join(odd, 'folder\n'));
      const links = [
        link(front, 'absolute'),
        link(path.relative(odd, front), 'relative'),
        link('absolute', 'again'),
        link('./again', '-n'),
        link('folder\n/kubectl-tka', 'in a folder'),
        link('in a folder', 'kubectl-tka\n'),
        link('kubectl-tka\n', 'behind a newline'),
        path.join(odd, 'folder\n', 'kubectl-tka'),
      ];
      for (const file of links) {
        const one = { ...shell, file: shell.file === front ? file : shell.file, args: under(shell, file) };
        for (const PATH of ['', undefined, '/usr/bin:/bin', '/nowhere'])
          expect(run(one, { args: ['x'], env: { PATH, CDPATH: '/' } })).toMatchObject({
            status: 0,
            stderr: '',
            stdout: `--started-as\0${file}\0x\0`,
          });
      }
      const relative = { ...shell, args: under(shell, `../${path.basename(odd)}/again`) };
      const started = shell.file === front ? front : `../${path.basename(odd)}/again`;
      expect(run(relative, { args: ['x'] }).stdout).toBe(`--started-as\0${started}\0x\0`);
    });

    it.skipIf(shell.file === front)('is found by its name, in the current folder first, as a shell does', () => {
      const here = path.dirname(front);
      const named = { ...shell, args: under(shell, 'kubectl-tka') };
      const elsewhere = path.join(home, 'bin');
      fs.mkdirSync(elsewhere);
      fs.writeFileSync(path.join(elsewhere, 'kubectl-tka'), '#!/bin/sh\necho pwned\n', { mode: 0o755 });
      for (const PATH of ['', undefined, '/usr/bin:/bin', `${elsewhere}:/usr/bin:/bin`])
        expect(run(named, { args: ['x'], env: { PATH } }, { cwd: here })).toMatchObject({
          status: 0,
          stderr: '',
          stdout: '--started-as\0./kubectl-tka\0x\0',
        });
    });

    it('prints an error if the program is missing', () => {
      const alone = path.join(home, 'alone');
      fs.copyFileSync(front, alone);
      expect(runCopy(alone)).toMatchObject({
        status: 1,
        stdout: '',
        stderr: `error: incomplete installation: ${home}/lib/kubectl-tka is missing\nhint: install it again\n`,
      });
    });

    it.each([
      ['empty', (file: string) => fs.writeFileSync(file, '', { mode: 0o755 })],
      ['not executable', (file: string) => fs.writeFileSync(file, '#!/bin/sh\necho pwned\n', { mode: 0o644 })],
      ['a folder', (file: string) => fs.mkdirSync(file)],
    ])('prints an error if the program is %s', (name, put) => {
      const lib = path.join(home, `${name} `, 'lib');
      fs.mkdirSync(lib, { recursive: true });
      put(path.join(lib, 'kubectl-tka'));
      const alone = path.join(lib, '..', 'kubectl-tka');
      fs.copyFileSync(front, alone);
      expect(runCopy(alone)).toMatchObject({
        status: 1,
        stdout: '',
        stderr: `error: incomplete installation: ${lib}/kubectl-tka cannot be run\nhint: install it again\n`,
      });
    });

    it.each([
      ['closed', '"$@" >&-'],
      ['full', '"$@" >/dev/full'],
      ['a pipe without a reader, SIGPIPE ignored', 'trap "" PIPE; { sleep 0.2; "$@"; echo $? >&2; } | :'],
    ])('fails with one line if stdout is %s', (name, script) => {
      if (name === 'full' && !fs.existsSync('/dev/full')) return;
      // zsh reuses the number of a closed stdout for its own files.
      if (name === 'closed' && shell.name.startsWith('zsh')) return;
      fixture.put();
      const words = [shell.file ?? '', ...shell.args, ...usual];
      const ran = spawnSync('/bin/bash', ['-c', script, 'bash', ...words], {
        env: { ...environment({}), PATH: '/usr/bin:/bin' },
        encoding: 'utf8',
        timeout: 20_000,
      });
      expect(ran.stderr.replace(/^1\n/m, '')).toBe('error: cannot write the credential\nhint: kubectl tka doctor\n');
      if (!script.includes('PIPE')) expect(ran.status).toBe(1);
    });

    it('serves with stdin or stderr closed', () => {
      for (const closed of ['<&-', '2>&-', '<&- 2>&-', '3>&- 4>&-']) {
        fixture.put();
        fs.writeFileSync(`${fixture.file}+served`, '1 - - -\n');
        const words = [shell.file ?? '', ...shell.args, ...usual];
        const ran = spawnSync('/bin/sh', ['-c', `"$@" ${closed}; exit $?`, 'sh', ...words], {
          env: environment({}),
          encoding: 'utf8',
        });
        expect(ran).toMatchObject({ status: 0, stdout: answer, stderr: '' });
      }
    });
  });
}

describe.skipIf(inBin('bash') === undefined)('the front under bash by its own name', () => {
  it('serves, whatever functions, aliases and options BASH_ENV sets', () => {
    const bash = shells.find(({ name }) => name === 'bash');
    if (bash === undefined) throw new Error('bash is in the table');
    const startup = path.join(root, 'bash startup');
    const names = [...builtins, ...special].filter((name) => name !== 'unset');
    fs.writeFileSync(
      startup,
      `shopt -s expand_aliases nocasematch extglob nullglob
set -euCf
alias echo='echo pwned' read='false' '['=false umask=false
${names.map((name) => `function ${name} { builtin printf pwned; builtin exit 7; }`).join('\n')}
`,
    );
    fixture.put();
    const { status, stdout } = run(bash, { env: { BASH_ENV: startup } });
    expect({ status, stdout }).toEqual({ status: 0, stdout: answer });
  });
});
