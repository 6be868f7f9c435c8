// Makes a release in a separate clone: version, changelog, commit, tag, notes. Nothing is pushed.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { changelogOf, notesOf } from '../../krew/changelog.ts';
import { pinnedFiles, withPins } from '../../krew/pin.ts';
import { root } from '../../krew/targets.ts';
import { compareVersions, versionedFiles, withVersion } from '../../krew/version.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { copyProject, makesOwn, own, version } from './packages.ts';

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
  it('gets a date for the unreleased part, and keeps the rest', () => {
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

  it('of the first version links to no earlier version', () => {
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

// Places that name the version to install. The test below checks that there are no others.
const versions: Readonly<Record<string, readonly string[]>> = {
  'README.md': ['kubectl-tka-VERSION-linux-amd64.tar.gz'],
  'docs/install-server.md': ['tka-server:VERSION'],
  'deploy/README.md': ['tka-server:VERSION', '?ref=vVERSION'],
  'deploy/kustomization.yaml': ['newTag: VERSION'],
  'deploy/chart/Chart.yaml': ['\nversion: VERSION\n', '\nappVersion: VERSION\n'],
};

describe('a version', () => {
  it.for(Object.entries(versions))('%s names the version of package.json', ([file, places]) => {
    const text = fs.readFileSync(path.join(root, file), 'utf8');
    for (const place of places) expect(text).toContain(place.replace('VERSION', version));
  });

  it('does not appear in other files, addresses or commands', () => {
    const old = version.replaceAll('.', '\\.');
    const whole = new RegExp(`(?<![\\w.])v?${old}(?![\\w.]*\\d)`);
    // Part of a longer word, a value, or in backquotes. A sentence may name the version: "Coming from 0.1.0".
    const code = [
      `[^\\s(\`"']v?${old}`,
      `${old}[^\\s,;:.)?!'’\`"]`,
      `[:=] *["']?v?${old}["']?$`,
      `\`[^\`]*${old}[^\`]*\``,
    ];
    const place = new RegExp(code.join('|'));
    const places = (text: string): string[] =>
      text.split('\n').filter((line) => whole.test(line) && place.test(line) && !/^ *(?:\/\/|#) /.test(line));
    const named = [`tka-${version}.zip`, `image: x:${version}`, `version: ${version}`, `url/v${version}/x`];
    for (const line of named) expect(places(line), line).toEqual([line]);
    const told = [`Coming from ${version}`, `of ${version}, which`, `(${version})`, `1.${version}`, `${version}1`];
    for (const line of told) expect(places(line), line).toEqual([]);

    const files = (...patterns: string[]) =>
      execFileSync('git', ['ls-files', ...patterns], { cwd: root, encoding: 'utf8' })
        .trim()
        .split('\n');
    const set = new Set(files(...versionedFiles));
    const apart = /^(?:CHANGELOG\.md$|test\/|src\/|package(?:-lock)?\.json$)/;
    const unknown = files('*.md', '*.yaml', '*.yml', '*.json', '*.sh', 'deploy', '.ci', '.github')
      .filter((file) => !apart.test(file))
      .flatMap((file) => {
        const text = fs.readFileSync(path.join(root, file), 'utf8');
        const left = places(set.has(file) ? withVersion(text, version, '7.8.9') : text);
        return left.map((line) => `${file}: ${line}`);
      });
    expect(unknown).toEqual([]);
  });

  it('is ordered as on semver.org', () => {
    const sorted = ['0.9.0', '1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-alpha.beta', '1.0.0-beta.2', '1.0.0-beta.11'];
    const all = [...sorted, '1.0.0-rc.1', '1.0.0', '1.0.1', '1.2.0', '1.10.0', '2.0.0'];
    expect([...all].reverse().sort(compareVersions)).toEqual(all);
    expect(compareVersions('1.2.3-rc.1', '1.2.3-rc.1')).toBe(0);
  });

  it('stays unchanged in a sentence about an older one', () => {
    const text = 'Coming from 0.1.0\nnewTag: 0.1.0\nnewTag: 0.1.01\n(?ref=v0.1.0)\n';
    expect(withVersion(text, '0.1.0', '0.2.0')).toBe(
      'Coming from 0.1.0\nnewTag: 0.2.0\nnewTag: 0.1.01\n(?ref=v0.2.0)\n',
    );
  });
});

const able = makesOwn && spawnSync('git', ['--version']).error === undefined;

describe.skipIf(!able)(`npm run release${able ? '' : ' (skipped: it needs git and apt-get)'}`, () => {
  const folder = fileFolder('tka-krew-');
  const clone = path.join(folder, 'clone');
  const ran = path.join(folder, 'ran');
  const env = {
    ...process.env,
    RAN: ran,
    GIT_CONFIG_GLOBAL: path.join(folder, 'gitconfig'),
    GIT_CONFIG_SYSTEM: '/dev/null',
  };
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
    for (const file of pinnedFiles(clone)) {
      const pinOf = (name: string) => (name.includes('@') ? 'a'.repeat(40) : `sha256:${'b'.repeat(64)}`);
      fs.writeFileSync(file, withPins(fs.readFileSync(file, 'utf8'), pinOf));
    }
    // The scripts do nothing here. The test checks that each runs, and that a failure stops the release.
    const pack = JSON.parse(fs.readFileSync(path.join(clone, 'package.json'), 'utf8'));
    for (const name of ['lint', 'typecheck', 'test']) {
      pack.scripts[name] =
        `node -e "fs.appendFileSync(process.env.RAN, '${name} '); process.exit(process.env.FAIL === '${name}' ? 1 : 0)"`;
    }
    fs.writeFileSync(path.join(clone, 'package.json'), JSON.stringify(pack, undefined, 2));
    git('init', '--quiet', '--initial-branch=main');
    git('add', '--all');
    git('commit', '--quiet', '--message', 'all');
  });

  it('refuses an invalid version, and a work tree with changes', () => {
    expect(release(['1.2'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^error: invalid version 1\.2:/),
    });
    fs.writeFileSync(path.join(clone, 'new'), '');
    expect(release(['1.2.3'])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^error: the working tree has changes/),
    });
    fs.rmSync(path.join(clone, 'new'));
    expect(git('tag')).toBe('');
  });

  it('refuses what cannot succeed before it changes anything', () => {
    const before = git('rev-parse', 'HEAD');
    const cases = [
      [[], {}, 2, /^error: version required\nhint: npm run release -- 1\.2\.3\n$/],
      [['1.2.3-rc..1'], {}, 1, /^error: invalid version 1\.2\.3-rc\.\.1:/],
      [['1.2.3-01'], {}, 1, /^error: invalid version 1\.2\.3-01:/],
      [['0.1.0'], {}, 1, /^error: 0\.1\.0 is not higher than the last version, 0\.1\.0\n$/],
      [['0.1.0-rc.1'], {}, 1, /^error: 0\.1\.0-rc\.1 is not higher than the last version, 0\.1\.0\n$/],
      [['1.2.3'], { FAIL: 'typecheck' }, 1, /^error: npm run typecheck failed; nothing was changed$/m],
      [['1.2.3'], { FAIL: 'test' }, 1, /^error: npm run test failed; nothing was changed$/m],
      [['1.2.3', '--target', 'plan9-mips'], {}, 2, /^error: unknown target: plan9-mips\nhint: /],
      [['1.2.3', '--target', 'own'], { GIT_AUTHOR_DATE: 'never' }, 1, /^error: git commit failed$/m],
    ] as const;
    for (const [args, more, status, said] of cases) {
      const ran = release(args, more);
      expect(ran).toMatchObject({ status, stdout: '', stderr: expect.stringMatching(said) });
      expect(ran.stderr).not.toMatch(/^ +at /m);
      expect([git('status', '--porcelain'), git('rev-parse', 'HEAD'), git('tag')]).toEqual(['', before, '']);
    }
  });

  it('refuses another branch, and a package-lock.json that does not match package.json', () => {
    git('checkout', '--quiet', '-b', 'other');
    expect(release(['1.2.3'])).toMatchObject({
      status: 1,
      stderr: 'error: releases are made on the branch main, but the current branch is other\n',
    });
    const pack = JSON.parse(fs.readFileSync(path.join(clone, 'package.json'), 'utf8'));
    pack.dependencies.yaml = '1.0.0';
    fs.writeFileSync(path.join(clone, 'package.json'), JSON.stringify(pack, undefined, 2));
    git('checkout', '--quiet', 'main');
    git('commit', '--quiet', '--all', '--message', 'another yaml');
    expect(release(['1.2.3'])).toMatchObject({
      status: 1,
      stderr: 'error: package-lock.json does not match package.json\nhint: npm install --package-lock-only\n',
    });
    git('reset', '--quiet', '--hard', 'HEAD~1');
    git('branch', '--quiet', '-D', 'other');
  });

  it('refuses an action or a base image that is not pinned', () => {
    const file = path.join(clone, 'deploy', 'Containerfile');
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(/@sha256:b+/, ''));
    git('commit', '--quiet', '--all', '--message', 'not pinned');
    const before = git('rev-parse', 'HEAD');
    const refused = {
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^error: not pinned: deploy\/Containerfile:\d+: docker\.io\/.+\nhint: npm run pin\n$/,
      ),
    };
    expect(release(['1.2.3'])).toMatchObject(refused);
    expect(release(['--check', `v${version}`])).toMatchObject(refused);
    expect([git('status', '--porcelain'), git('rev-parse', 'HEAD'), git('tag')]).toEqual(['', before, '']);
    git('reset', '--quiet', '--hard', 'HEAD~1');
  });

  it('turns a version into archives, checksums, manifest and notes', { timeout: 300_000 }, () => {
    fs.rmSync(ran, { force: true });
    const { status, stdout, stderr } = release(['7.8.9', '--target', 'own']);
    expect(fs.readFileSync(ran, 'utf8')).toBe('lint typecheck test ');
    expect({ status, stderr }).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^v7\.8\.9 is committed and tagged/m),
    });
    expect(stderr).toMatch(/^ {2}git push --atomic origin main v7\.8\.9$/m);
    const files = stdout.trim().split('\n');
    for (const file of files) expect(fs.existsSync(path.join(clone, file)), file).toBe(true);
    expect(files.map((file) => path.basename(file)).sort()).toEqual(
      [
        `kubectl-tka-7.8.9-${own.name}.${own.os === 'windows' ? 'zip' : 'tar.gz'}`,
        'kubectl-tka-7.8.9.cdx.json',
        'tka-7.8.9.tgz',
        'checksums.txt',
        'tka.yaml',
        'tka-k8s.yaml',
        'notes.md',
      ].sort(),
    );
    expect(fs.readFileSync(path.join(clone, 'release', 'notes.md'), 'utf8')).toBe('### Fixed\n\n- A thing.\n');
    const manifest = fs.readFileSync(path.join(clone, 'release', 'tka.yaml'), 'utf8');
    expect(manifest).toContain('version: v7.8.9\n');
    const objects = fs.readFileSync(path.join(clone, 'release', 'tka-k8s.yaml'), 'utf8');
    expect(objects).toMatch(/^ *image: \S+\/tka-server:7\.8\.9$/m);
    for (const [file, places] of Object.entries(versions)) {
      const text = fs.readFileSync(path.join(clone, file), 'utf8');
      for (const place of places) expect(text, file).toContain(place.replace('VERSION', '7.8.9'));
    }
    for (const name of ['package.json', 'package-lock.json']) {
      expect(JSON.parse(fs.readFileSync(path.join(clone, name), 'utf8')).version).toBe('7.8.9');
    }
    expect(git('status', '--porcelain')).toBe('');
    expect(git('log', '-1', '--format=%s')).toBe('release: v7.8.9');
    expect(git('rev-parse', 'v7.8.9^{commit}')).toBe(git('rev-parse', 'HEAD'));
    // The program prints the version and the tagged commit.
    execFileSync('tar', ['-xzf', path.join(clone, files[0] ?? ''), '-C', folder]);
    const told = execFileSync(path.join(folder, 'kubectl-tka'), ['version', '-o', 'json'], { encoding: 'utf8' });
    expect(JSON.parse(told)).toMatchObject({
      version: '7.8.9',
      commit: git('rev-parse', '--short=12', 'v7.8.9^{commit}'),
    });
    // The first step of the tag's workflow.
    fs.rmSync(path.join(clone, 'release', 'notes.md'));
    expect(release(['--check', 'v7.8.9'])).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(path.join(clone, 'release', 'notes.md'), 'utf8')).toBe('### Fixed\n\n- A thing.\n');
    expect(release(['--check', 'v7.8.10'])).toMatchObject({
      status: 1,
      stderr: 'error: the tag v7.8.10 does not match the version in package.json, 7.8.9\n',
    });
    expect(release(['7.8.9'])).toMatchObject({ status: 1, stderr: 'error: tag v7.8.9 already exists\n' });
    expect(release(['7.9.0'])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('no entries under [Unreleased]'),
    });
  });
});
