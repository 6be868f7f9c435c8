// Wrong command lines of the built tka-server, and its version.
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { program } from './program.ts';

const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, stdout, stderr: stderr.split('\n').slice(0, -1) };
};

test('--version is the version command', () => {
  const version = run('version');
  expect(version).toMatchObject({ status: 0, stdout: expect.stringMatching(/^tka-server .*\n$/), stderr: [] });
  expect(run('--version')).toEqual(version);
});

test.each<[string, string, string[]]>([
  ['serv', "unknown command 'serv'", ['did you mean serve?', 'tka-server --help']],
  ['confg show', "unknown command 'confg'", ['did you mean config?', 'tka-server --help']],
  ['config chek', "unknown command 'chek'", ['did you mean check?', 'tka-server config --help']],
  ['serve --confg x', "unknown option '--confg'", ['did you mean --config?', 'tka-server serve --help']],
  ['serve --confg=x', "unknown option '--confg=x'", ['did you mean --config?', 'tka-server serve --help']],
  ['config show --ouput json', "unknown option '--ouput'", ['did you mean --output?', 'tka-server config show --help']],
  ['--verson', "unknown option '--verson'", ['did you mean --version?', 'tka-server --help']],
  ['nothing', "unknown command 'nothing'", ['tka-server --help']],
])('%s', (args, error, hints) => {
  const told = [`error: ${error}`, ...hints.map((hint) => `hint: ${hint}`)];
  expect(run(...args.split(' '))).toEqual({ status: 2, stdout: '', stderr: told });
});
