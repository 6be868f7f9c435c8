// npm run mutants: breaks the code on purpose, one rule of rules.ts at a time, and expects the tests of that code to
// fail. Works on a copy, so that the checkout never contains broken code. `npm run mutants -- lease mesh` runs the
// rules whose name or file contains one of these words. Not a part of `.ci/run`: it takes as long as the tests, once
// per rule.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { mutants, mutate } from './rules.ts';

const root = path.join(import.meta.dirname, '../..');
const exe = process.platform === 'win32' ? '.cmd' : '';

/** Copies the files that git tracks or does not ignore, as they are in the work tree; node_modules is linked. */
function copyProject(to: string): void {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: root });
  for (const file of listed.toString().split('\0')) {
    const from = path.join(root, file);
    if (file === '' || !fs.existsSync(from)) continue;
    fs.mkdirSync(path.dirname(path.join(to, file)), { recursive: true });
    fs.copyFileSync(from, path.join(to, file));
  }
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(to, 'node_modules'), 'junction');
}

/** Builds the copy and runs tests in it. Returns the number of tests that passed and failed, and the output. */
function test(copy: string, files: readonly string[]): { passed: number; failed: number; output: string } {
  const bin = path.join(copy, 'node_modules/.bin');
  const env = { ...process.env, PATH: `${bin}${path.delimiter}${process.env.PATH}`, CI: '', NO_COLOR: '1' };
  const report = path.join(copy, 'report.json');
  fs.rmSync(report, { force: true });
  const run = (command: string, args: readonly string[]) =>
    spawnSync(path.join(bin, command + exe), args, { cwd: copy, env, encoding: 'utf8', maxBuffer: 1e9 });
  const built = run('node', ['build.ts']);
  if (built.status !== 0) throw new Error(`the build failed:\n${built.stderr}`);
  const output = [];
  let [passed, failed] = [0, 0];
  for (const isCluster of [false, true]) {
    const chosen = files.filter((file) => file.startsWith('test/cluster/') === isCluster);
    if (chosen.length === 0) continue;
    const config = isCluster ? ['--config', 'test/cluster/vitest.config.ts'] : [];
    const names = chosen.map((file) => (isCluster ? path.posix.basename(file) : file));
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const { stdout, stderr } = run('vitest', ['run', ...config, ...names, '--retry=0', '--bail=1', ...reporters]);
    output.push(stdout, stderr);
    if (!fs.existsSync(report)) continue;
    const { numPassedTests, numFailedTests } = JSON.parse(fs.readFileSync(report, 'utf8'));
    passed += numPassedTests;
    failed += numFailedTests;
    fs.rmSync(report);
  }
  return { passed, failed, output: output.join('') };
}

const words = process.argv.slice(2);
const chosen = mutants.filter(
  ({ name, file }) => words.length === 0 || words.some((word) => name.includes(word) || file.includes(word)),
);
const folder = new TemporaryFolder('tka-mutants-');
const copy = folder.path;
process.once('exit', () => folder[Symbol.dispose]());
process.once('SIGINT', () => process.exit(130));
copyProject(copy);

const problems: string[] = [];
for (const mutant of mutants) {
  try {
    mutate(fs.readFileSync(path.join(copy, mutant.file), 'utf8'), mutant);
  } catch (error) {
    problems.push(`no longer applies: ${(error as Error).message}`);
  }
}

// A test that fails without a mutant would count every mutant as caught.
const suites = new Set(chosen.map(({ tests }) => tests.join(' ')));
const green = new Set<string>();
for (const suite of problems.length > 0 ? [] : suites) {
  const { passed, failed, output } = test(copy, suite.split(' '));
  if (failed === 0 && passed > 0) green.add(suite);
  else problems.push(`${suite}: fails without any change, or runs no test\n${output.slice(-2000)}`);
}

let caught = 0;
for (const mutant of chosen) {
  const { name, file, tests } = mutant;
  if (!green.has(tests.join(' '))) continue;
  const at = path.join(copy, file);
  const original = fs.readFileSync(at, 'utf8');
  fs.writeFileSync(at, mutate(original, mutant));
  const { failed } = test(copy, tests);
  fs.writeFileSync(at, original);
  if (failed > 0) caught++;
  else problems.push(`survived: ${name} (${file}); tests: ${tests.join(' ')}`);
  console.log(`${failed > 0 ? 'caught  ' : 'SURVIVED'} ${name}`);
}
for (const problem of problems) console.error(problem);
console.log(`${caught} of ${chosen.length} mutants caught`);
process.exitCode = problems.length === 0 ? 0 : 1;
