// npm run release -- VERSION [what npm run package takes]: sets the version, dates its section of CHANGELOG.md, commits and tags, and packages what
// the tag names. Nothing is published: it ends with the commands that do that.
import { execFileSync, type StdioOptions } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { changelogOf, notesOf } from './changelog.ts';
import { options } from './package.ts';
import { Failed, npm, root } from './targets.ts';

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
  } catch {
    throw new Failed(`git ${args[0]} failed`);
  }
}

function release(version: string, packaging: readonly string[]): void {
  const changelog = path.join(root, 'CHANGELOG.md');
  options(packaging);
  const tag = `v${version}`;
  const pack = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  if (
    !/^(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-(?!0\d+(?:\.|$))[0-9A-Za-z-]+(?:\.(?!0\d+(?:\.|$))[0-9A-Za-z-]+)*)?$/.test(
      version,
    )
  ) {
    throw new Failed(`${version} is no version: 1.2.3, or 1.2.3-rc.1`);
  }
  if (git('status', '--porcelain') !== '') throw new Failed('the work tree has changes: commit them, or put them away');
  if (git('tag', '--list', tag) !== '') throw new Failed(`there is a tag ${tag} already`);
  const today = new Date().toISOString().slice(0, 10);
  if (!fs.existsSync(changelog)) throw new Failed('there is no CHANGELOG.md');
  const dated = changelogOf(fs.readFileSync(changelog, 'utf8'), version, today, pack.homepage);
  if (dated === undefined) throw new Failed('CHANGELOG.md says nothing under [Unreleased]');

  try {
    fs.writeFileSync(changelog, dated);
    if (pack.version !== version) npm(['version', version, '--no-git-tag-version', '--ignore-scripts']);
    git('commit', '--quiet', '--all', '--message', `release: ${tag}`);
  } catch (error) {
    git('restore', '--staged', '--worktree', 'CHANGELOG.md', 'package.json', 'package-lock.json');
    throw error;
  }
  // The archives name their commit, so it comes first.
  const made = packages(packaging);
  const notes = path.join(path.dirname(made[0] ?? ''), 'notes.md');
  fs.writeFileSync(path.join(root, notes), notesOf(dated, version) ?? '');
  git('tag', '--annotate', tag, '--message', tag);
  process.stdout.write([...made, notes].map((file) => `${file}\n`).join(''));
  const assets = made.filter((file) => !file.endsWith('.yaml'));
  process.stderr.write(
    [
      `${tag} is committed and tagged here, and nowhere else. To publish it:`,
      `  git push origin HEAD ${tag}`,
      `  gh release create ${tag} --title ${tag} --notes-file ${notes} ${assets.join(' ')}`,
      '  and copy krew/tka.yaml to plugins/ of the krew index',
      '',
    ].join('\n'),
  );
}

// A process of its own: this one has read the version before. Returns the files, relative to the project.
function packages(args: readonly string[]): string[] {
  try {
    const file = path.join(root, 'krew', 'package.ts');
    const stdio: StdioOptions = ['ignore', 'pipe', 'inherit'];
    return execFileSync(process.execPath, [file, ...args], { cwd: root, encoding: 'utf8', stdio })
      .trim()
      .split('\n');
  } catch {
    throw new Failed('packaging failed; nothing is tagged', 'git reset --keep HEAD~1 takes the commit back');
  }
}

function main([version, ...packaging]: readonly string[]): number {
  // Ends what packages, which comes here in its own way: what is committed by then has to be said.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
  try {
    if (version === undefined || version.startsWith('-'))
      throw new Failed('which version?', 'npm run release -- 1.2.3', 2);
    release(version, packaging);
    return 0;
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    process.stderr.write(error.told());
    return error.status;
  }
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2));
