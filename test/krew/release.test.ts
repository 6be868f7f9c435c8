// A release, in a clone of its own: version, changelog, commit, tag, notes; nothing leaves it.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { changelogOf, notesOf } from '../../krew/changelog.ts';
import { root } from '../../krew/targets.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { copyProject, makes, own } from './packages.ts';

const changelog = `# Changelog

All notable changes.

## [Unreleased]

### Fixed

- A thing.

## [0.1.0] - 2026-01-02

### Added

- All of it.

[Unreleased]: https://example.com/it/compare/v0.1.0...HEAD
[0.1.0]: https://example.com/it/releases/tag/v0.1.0
`;

describe('the changelog', () => {
  it('dates what is unreleased, and keeps the rest', () => {
    const dated = changelogOf(changelog, '0.2.0', '2026-03-04', 'https://example.com/it');
    expect(dated).toBe(
      changelog
        .replace('## [Unreleased]\n', '## [Unreleased]\n\n## [0.2.0] - 2026-03-04\n')
        .replace(
          'compare/v0.1.0...HEAD\n',
          'compare/v0.2.0...HEAD\n[0.2.0]: https://example.com/it/compare/v0.1.0...v0.2.0\n',
        ),
    );
    expect(notesOf(dated ?? '', '0.2.0')).toBe('### Fixed\n\n- A thing.\n');
    expect(notesOf(dated ?? '', '0.1.0')).toBe('### Added\n\n- All of it.\n');
    expect(notesOf(dated ?? '', 'Unreleased')).toBeUndefined();
    expect(changelogOf(dated ?? '', '0.3.0', '2026-03-05', 'https://example.com/it')).toBeUndefined();
  });

  it('of the first version has no version before it', () => {
    const first = changelogOf(
      '# Changelog\n\n## [Unreleased]\n\n- All.\n',
      '0.1.0',
      '2026-01-02',
      'https://example.com',
    );
    expect(first).toContain('\n[0.1.0]: https://example.com/releases/tag/v0.1.0\n');
  });

  it('of this project can be released, or has nothing new', () => {
    const text = fs.readFileSync(path.join(root, 'CHANGELOG.md'), 'utf8');
    expect(text).toMatch(/^## \[Unreleased\]$/m);
  });
});

const able = makes && spawnSync('git', ['--version']).error === undefined;

describe.skipIf(!able)(`npm run release${able ? '' : ' (skipped: it needs git, and what strips executables)'}`, () => {
  const folder = fileFolder('tka-krew-');
  const clone = path.join(folder, 'clone');
  const env = { ...process.env, GIT_CONFIG_GLOBAL: path.join(folder, 'gitconfig'), GIT_CONFIG_SYSTEM: '/dev/null' };
  const git = (...args: string[]) => execFileSync('git', args, { cwd: clone, env, encoding: 'utf8' }).trim();
  const release = (args: readonly string[], more: NodeJS.ProcessEnv = {}) => {
    const options = { cwd: clone, env: { ...env, ...more }, encoding: 'utf8' } as const;
    return spawnSync(process.execPath, ['krew/release.ts', ...args], options);
  };
  beforeAll(() => {
    fs.writeFileSync(env.GIT_CONFIG_GLOBAL, '[user]\nname = Test\nemail = test@example.com\n[safe]\ndirectory = *\n');
    copyProject(clone);
    fs.writeFileSync(path.join(clone, 'CHANGELOG.md'), changelog);
    fs.appendFileSync(path.join(clone, '.gitignore'), '\nnode_modules\n');
    git('init', '--quiet');
    git('add', '--all');
    git('commit', '--quiet', '--message', 'all');
  });

  it('refuses what is no version, and a work tree with changes', () => {
    expect(release(['1.2'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^error: 1\.2 is no version/),
    });
    fs.writeFileSync(path.join(clone, 'new'), '');
    expect(release(['1.2.3'])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^error: the work tree has changes/),
    });
    fs.rmSync(path.join(clone, 'new'));
    expect(git('tag')).toBe('');
  });

  it('refuses, before it changes anything, what cannot come to an end', () => {
    const before = git('rev-parse', 'HEAD');
    const cases = [
      [[], {}, 2, /^error: which version\?\nhint: npm run release -- 1\.2\.3\n$/],
      [['1.2.3-rc..1'], {}, 1, /^error: 1\.2\.3-rc\.\.1 is no version/],
      [['1.2.3-01'], {}, 1, /^error: 1\.2\.3-01 is no version/],
      [['1.2.3', '--target', 'plan9-mips'], {}, 2, /^error: no such target: plan9-mips\nhint: /],
      [['1.2.3', '--target', 'own'], { GIT_AUTHOR_DATE: 'never' }, 1, /^error: git commit failed$/m],
    ] as const;
    for (const [args, more, status, said] of cases) {
      const ran = release(args, more);
      expect(ran).toMatchObject({ status, stdout: '', stderr: expect.stringMatching(said) });
      expect(ran.stderr).not.toMatch(/^ +at /m);
      expect([git('status', '--porcelain'), git('rev-parse', 'HEAD'), git('tag')]).toEqual(['', before, '']);
    }
  });

  it('takes a version to archives, checksums, manifest and notes', { timeout: 300_000 }, () => {
    const { status, stdout, stderr } = release(['7.8.9', '--target', 'own']);
    expect({ status, stderr }).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^v7\.8\.9 is committed and tagged/),
    });
    const files = stdout.trim().split('\n');
    for (const file of files) expect(fs.existsSync(path.join(clone, file)), file).toBe(true);
    expect(files.map((file) => path.basename(file)).sort()).toEqual(
      [
        `kubectl-tka-7.8.9-${own.name}.${own.os === 'windows' ? 'zip' : 'tar.gz'}`,
        'kubectl-tka-7.8.9.cdx.json',
        'checksums.txt',
        'tka.yaml',
        'notes.md',
      ].sort(),
    );
    expect(fs.readFileSync(path.join(clone, 'release', 'notes.md'), 'utf8')).toBe('### Fixed\n\n- A thing.\n');
    expect(fs.readFileSync(path.join(clone, 'krew', 'tka.yaml'), 'utf8')).toContain('version: v7.8.9\n');
    for (const name of ['package.json', 'package-lock.json']) {
      expect(JSON.parse(fs.readFileSync(path.join(clone, name), 'utf8')).version).toBe('7.8.9');
    }
    expect(git('status', '--porcelain')).toBe('');
    expect(git('log', '-1', '--format=%s')).toBe('release: v7.8.9');
    expect(git('rev-parse', 'v7.8.9^{commit}')).toBe(git('rev-parse', 'HEAD'));
    // The program says the version, and the commit that the tag names.
    execFileSync('tar', ['-xzf', path.join(clone, files[0] ?? ''), '-C', folder]);
    const told = execFileSync(path.join(folder, 'kubectl-tka'), ['version', '-o', 'json'], { encoding: 'utf8' });
    expect(JSON.parse(told)).toMatchObject({ version: '7.8.9', commit: git('rev-parse', '--short=12', 'HEAD') });
    expect(release(['7.8.9'])).toMatchObject({ status: 1, stderr: 'error: there is a tag v7.8.9 already\n' });
    expect(release(['7.9.0'])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('nothing under [Unreleased]'),
    });
  });
});
