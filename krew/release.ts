// npm run release -- VERSION [options of npm run package]: checks and tests the tree, sets the version everywhere, adds a
// dated section to CHANGELOG.md, commits, packages and tags. It publishes nothing: the workflow `release` does, when the
// tag is pushed. It starts with npm run release -- --check TAG, which checks that the tag is a release of this tree.
import { execFileSync, type StdioOptions } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { changelogOf, notesOf } from './changelog.ts';
import { options } from './package.ts';
import { unpinned } from './pin.ts';
import { Failed, npm, root } from './targets.ts';
import { compareVersions, isVersion, versionedFiles, withVersion } from './version.ts';

const branch = 'main';

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
  } catch {
    throw new Failed(`git ${args[0]} failed`);
  }
}

const read = (file: string) => fs.readFileSync(path.join(root, file), 'utf8');
const write = (file: string, text: string) => fs.writeFileSync(path.join(root, file), text);

function release(version: string, packaging: readonly string[]): void {
  const { out } = options(packaging);
  const tag = `v${version}`;
  const pack = JSON.parse(read('package.json'));
  if (!isVersion(version)) throw new Failed(`invalid version ${version}: must be like 1.2.3 or 1.2.3-rc.1`);
  checkTree(tag);
  checkHigher(version);
  checkLock(pack);
  checkPins();
  const today = new Date().toISOString().slice(0, 10);
  const dated = changelogOf(read('CHANGELOG.md'), version, today, pack.homepage);
  if (dated === undefined) throw new Failed('CHANGELOG.md has no entries under [Unreleased]');
  for (const script of ['lint', 'typecheck', 'test']) runScript(script);

  commitVersion(pack.version, version, dated);
  // Commit first, because the archives contain the commit.
  const made = packages(packaging);
  const notes = path.join(out, 'notes.md');
  fs.writeFileSync(notes, notesOf(dated, version) ?? '');
  git('tag', '--annotate', tag, '--message', tag);
  process.stdout.write([...made, path.relative(root, notes)].map((file) => `${file}\n`).join(''));
  process.stderr.write(
    [
      `${tag} is committed and tagged locally, and not published yet. To publish it:`,
      `  git push --atomic origin ${branch} ${tag}`,
      '',
    ].join('\n'),
  );
}

/** Checks that a tag is a release of this tree, and writes its section of the changelog to release/notes.md. */
function check(tag: string): void {
  const pack = JSON.parse(read('package.json'));
  if (tag !== `v${pack.version}`)
    throw new Failed(`the tag ${tag} does not match the version in package.json, ${pack.version}`);
  checkLock(pack);
  checkPins();
  const notes = notesOf(read('CHANGELOG.md'), pack.version);
  if (notes === undefined) throw new Failed(`CHANGELOG.md has no section for ${pack.version}`);
  fs.mkdirSync(path.join(root, 'release'), { recursive: true });
  write(path.join('release', 'notes.md'), notes);
}

function checkTree(tag: string): void {
  const current = git('rev-parse', '--abbrev-ref', 'HEAD');
  if (current !== branch)
    throw new Failed(`releases are made on the branch ${branch}, but the current branch is ${current}`);
  if (git('status', '--porcelain') !== '') throw new Failed('the working tree has changes: commit or stash them');
  if (git('tag', '--list', tag) !== '') throw new Failed(`tag ${tag} already exists`);
}

function checkHigher(version: string): void {
  const tags = git('tag', '--list', 'v*').split('\n');
  const sections = [...read('CHANGELOG.md').matchAll(/^## \[(.+?)\]/gm)].map(([, name = '']) => name);
  const released = [...tags.map((tag) => tag.slice(1)), ...sections].filter(isVersion).sort(compareVersions);
  const last = released.at(-1);
  if (last !== undefined && compareVersions(version, last) <= 0) {
    throw new Failed(`${version} is not higher than the last version, ${last}`);
  }
}

function checkLock(pack: Readonly<Record<string, unknown>>): void {
  const { packages } = JSON.parse(read('package-lock.json'));
  const same = ['version', 'dependencies', 'devDependencies', 'optionalDependencies'].every((field) =>
    isDeepStrictEqual(packages[''][field], pack[field]),
  );
  if (!same) throw new Failed('package-lock.json does not match package.json', 'npm install --package-lock-only');
}

function checkPins(): void {
  const [first, ...others] = unpinned();
  if (first === undefined) return;
  const more = others.length === 0 ? '' : `, and ${others.length} more`;
  throw new Failed(`not pinned: ${first}${more}`, 'npm run pin');
}

function runScript(script: string): void {
  process.stderr.write(`npm run ${script}\n`);
  const cli = process.env.npm_execpath;
  const [file, ...first] = cli === undefined ? ['npm'] : [process.execPath, cli];
  try {
    const stdio: StdioOptions = ['ignore', 'ignore', 'inherit'];
    const shell = cli === undefined && process.platform === 'win32';
    execFileSync(file ?? 'npm', [...first, 'run', '--silent', script], { cwd: root, stdio, shell });
  } catch {
    throw new Failed(`npm run ${script} failed; nothing was changed`);
  }
}

function commitVersion(before: string, version: string, changelog: string): void {
  try {
    write('CHANGELOG.md', changelog);
    for (const file of git('ls-files', ...versionedFiles).split('\n')) {
      const text = read(file);
      const changed = withVersion(text, before, version);
      if (file !== 'CHANGELOG.md' && changed !== text) write(file, changed);
    }
    if (before !== version) npm(['version', version, '--no-git-tag-version', '--ignore-scripts']);
    git('commit', '--quiet', '--all', '--message', `release: v${version}`);
  } catch (error) {
    git('restore', '--staged', '--worktree', '.');
    throw error;
  }
}

// Runs in a separate process, because this process has read the old version. Returns the files, relative to the project.
function packages(args: readonly string[]): string[] {
  try {
    const file = path.join(root, 'krew', 'package.ts');
    const stdio: StdioOptions = ['ignore', 'pipe', 'inherit'];
    return execFileSync(process.execPath, [file, ...args], { cwd: root, encoding: 'utf8', stdio })
      .trim()
      .split('\n');
  } catch {
    throw new Failed('packaging failed; nothing was tagged', 'to undo the commit: git reset --keep HEAD~1');
  }
}

function main([version, ...packaging]: readonly string[]): number {
  // If a signal ends the packaging, still report what is committed.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
  try {
    if (version === '--check' && packaging[0] !== undefined) {
      check(packaging[0]);
      return 0;
    }
    if (version === undefined || version.startsWith('-'))
      throw new Failed('version required', 'npm run release -- 1.2.3', 2);
    release(version, packaging);
    return 0;
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    process.stderr.write(error.told());
    return error.status;
  }
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2));
