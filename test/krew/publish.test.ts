// .ci/publish: its calls of GitHub, and the branch for krew's index. test/image covers its image and chart.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { root } from '../../krew/targets.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { onPath, sha256 } from './packages.ts';

const lacks = process.platform === 'win32' ? 'Unix' : ['bash', 'git', 'sha256sum'].find((name) => !onPath(name));

describe.skipIf(lacks)(`.ci/publish${lacks === undefined ? '' : ` (skipped: it needs ${lacks})`}`, () => {
  let clone: string;
  let env: NodeJS.ProcessEnv;
  let calls: string;
  const git = (...args: string[]) => execFileSync('git', args, { cwd: clone, env, encoding: 'utf8' }).trim();
  const publish = (what: string) => spawnSync('.ci/publish', [what], { cwd: clone, env, encoding: 'utf8' });
  /** Returns the arguments of each call of gh. */
  const called = (): string[][] =>
    fs.existsSync(calls)
      ? fs
          .readFileSync(calls, 'utf8')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line))
      : [];
  const write = (name: string, text: string) => {
    fs.mkdirSync(path.dirname(path.join(clone, name)), { recursive: true });
    fs.writeFileSync(path.join(clone, name), text);
  };

  beforeEach(() => {
    const folder = testFolder('tka-publish-');
    const bin = path.join(folder, 'bin');
    [clone, calls] = [path.join(folder, 'clone'), path.join(folder, 'calls')];
    fs.mkdirSync(bin);
    // Records its arguments, since the tests cannot call GitHub.
    const note = `#!${process.execPath}\nrequire('node:fs').appendFileSync(process.env.CALLS, JSON.stringify(process.argv.slice(2)) + '\\n');\n`;
    fs.writeFileSync(path.join(bin, 'gh'), note, { mode: 0o755 });
    env = {
      ...process.env,
      CALLS: calls,
      GIT_CONFIG_GLOBAL: '/dev/null',
      PATH: `${bin}${path.delimiter}${process.env.PATH}`,
    };
    fs.mkdirSync(clone);
    fs.cpSync(path.join(root, '.ci'), path.join(clone, '.ci'), { recursive: true });
    write('.gitignore', 'release/\n');
    write('package.json', '{\n  "name": "kubectl-tka",\n  "version": "7.8.9",\n  "license": "Apache-2.0"\n}\n');
    git('init', '--quiet', '--initial-branch=main');
    git('add', '--all');
    git('-c', 'user.name=Test', '-c', 'user.email=test@example.com', 'commit', '--quiet', '--message', 'all');
    git('tag', 'v7.8.9');
    git('clone', '--quiet', '--bare', clone, path.join(folder, 'origin'));
    git('remote', 'add', 'origin', path.join(folder, 'origin'));
    write('release/tka.yaml', 'manifest\n');
    write('release/notes.md', 'notes\n');
    write('release/tka-7.8.9.tgz', 'chart\n');
    const sums = ['tka.yaml', 'tka-7.8.9.tgz'].map((name) => {
      return `${sha256(fs.readFileSync(path.join(clone, 'release', name)))}  ${name}\n`;
    });
    write('release/checksums.txt', sums.join(''));
    // Archives of images go to the registry only.
    write('release/tka-server-7.8.9-linux-amd64.tar', 'image\n');
  });

  const assets = ['release/tka.yaml', 'release/tka-7.8.9.tgz', 'release/checksums.txt'];

  it('makes a release of the files in checksums.txt, with the notes', () => {
    expect(publish('release')).toMatchObject({ status: 0, stderr: '' });
    expect(called()).toEqual([
      [
        'release',
        'create',
        'v7.8.9',
        '--verify-tag',
        '--title',
        'v7.8.9',
        '--notes-file',
        'release/notes.md',
        ...assets,
      ],
    ]);
  });

  it('marks a pre-release, which krew does not offer', () => {
    write('package.json', '{\n  "version": "8.0.0-rc.1",\n}\n');
    expect(publish('release')).toMatchObject({ status: 0, stderr: '' });
    expect(called()).toMatchObject([
      [
        'release',
        'create',
        'v8.0.0-rc.1',
        '--verify-tag',
        '--prerelease',
        ...Array(4 + assets.length).fill(expect.anything()),
      ],
    ]);
    expect(publish('krew')).toMatchObject({
      status: 0,
      stdout: 'v8.0.0-rc.1 is a pre-release: no pull request for krew\n',
    });
    expect(called()).toHaveLength(1);
    expect(git('branch', '--all', '--list', '*krew*')).toBe('');
  });

  it('makes no release if a file does not match checksums.txt', () => {
    write('release/tka.yaml', 'another\n');
    expect(publish('release').status).toBe(1);
    expect(called()).toEqual([]);
  });

  it('opens a pull request that adds the manifest to the index, on top of the tag', () => {
    expect(publish('krew')).toMatchObject({ status: 0, stderr: '' });
    expect(called()).toMatchObject([
      [
        'pr',
        'create',
        '--base',
        'main',
        '--head',
        'krew-v7.8.9',
        '--title',
        'krew: v7.8.9',
        '--body',
        expect.anything(),
      ],
    ]);
    git('fetch', '--quiet', 'origin');
    expect(git('show', 'origin/krew-v7.8.9:plugins/tka.yaml')).toBe('manifest');
    expect(git('rev-parse', 'origin/krew-v7.8.9~1')).toBe(git('rev-parse', 'v7.8.9'));
    expect(git('diff', '--name-only', 'v7.8.9', 'origin/krew-v7.8.9')).toBe('plugins/tka.yaml');
    expect(git('rev-parse', 'origin/main')).toBe(git('rev-parse', 'v7.8.9'));
  });

  it('lists what it can publish', () => {
    expect(publish('everything')).toMatchObject({ status: 2, stderr: expect.stringMatching(/^usage: /) });
  });
});
