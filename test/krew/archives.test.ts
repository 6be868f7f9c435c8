// The archives of `npm run package`: the content of each, its platform, and that each run makes the same bytes.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { build } from 'esbuild';
import { beforeAll, describe, expect, it } from 'vitest';
import { tarGz, zip } from '../../krew/archive.ts';
import { makePackages } from '../../krew/package.ts';
import { checkIntegrity, locked, root, type Target, targets } from '../../krew/targets.ts';
import { fileFolder, testFolder } from '../fixtures/temporary.ts';
import {
  archiveName,
  archivesIn,
  executableFormat,
  isStripped,
  makes,
  needsTools,
  own,
  type Packages,
  packages,
  read,
  readTar,
  sha256,
  signatureFault,
  signatureTable,
  version,
} from './packages.ts';

const folder = fileFolder('tka-krew-');
let made: Packages;
beforeAll(async () => {
  made = await packages(folder);
}, 300_000);

const archiveOf = (target: Target) => made.archives.find((archive) => archive.target === target);

describe.each(targets)('the archive for $name', (target) => {
  it('contains the program and its files', async ({ skip }) => {
    const archive = archiveOf(target) ?? skip(`no archive for ${target.name}`);
    expect(fs.statSync(archive.file).size).toBeLessThanOrEqual(45e6);
    const entries = await read(archive);
    const modes = Object.fromEntries(entries.map(({ name, mode }) => [name, mode.toString(8)]));
    const programs =
      target.os === 'windows'
        ? ['kubectl-tka.exe', 'kubectl_complete-tka.cmd']
        : ['kubectl-tka', 'lib/kubectl-tka', 'kubectl_complete-tka', 'lib/'];
    const libraries = target.os === 'linux' ? ['libatomic.so.1', 'libgcc_s.so.1', 'libstdc++.so.6'] : [];
    for (const name of libraries) expect(modes).toHaveProperty([`lib/${name}`], '644');
    for (const name of [...programs, 'completions/']) expect(modes).toHaveProperty([name], '755');
    const scripts = ['bash', 'fish', 'ps1', 'zsh'].map((shell) => `completions/kubectl-tka.${shell}`);
    for (const name of ['LICENSE', 'README.md', 'THIRD_PARTY_LICENSES', ...scripts])
      expect(modes).toHaveProperty([name], '644');
    for (const { name } of entries) expect(name).toMatch(/^(?!.*\.\.)[\w.+-]+(?:\/[\w.+-]+)*\/?$/);
    // One time and one owner, which do not identify this machine.
    expect(new Set(entries.map(({ mtime, owner }) => `${mtime?.getTime()} ${owner}`)).size).toBe(1);
    if (target.os !== 'windows') expect(entries[0]?.owner).toBe('0:0 :');
  });

  it('has an executable for its system and architecture, stripped and signed as required', async ({ skip }) => {
    const archive = archiveOf(target) ?? skip(`no archive for ${target.name}`);
    const entries = await read(archive);
    const executable = entries.find(({ name }) => /^(?:lib\/kubectl-tka|kubectl-tka\.exe)$/.test(name))?.data;
    if (executable === undefined) throw new Error('no executable');
    expect(executableFormat(executable)).toBe(target.name);
    if (target.os === 'linux') expect(isStripped(executable)).toBe(true);
    if (target.os === 'darwin') expect(signatureFault(executable)).toBe('');
    if (target.os === 'windows') expect(signatureTable(executable)).toEqual({ at: 0, size: 0 });
    // The executable must not name the machine that built it.
    for (const here of [root, os.homedir(), path.join(os.tmpdir(), 'tka-')]) {
      if (/[\\/].+[\\/]./.test(here)) expect(executable.includes(here), here).toBe(false);
    }
  });
});

it.skipIf(!makes)(`an archive for this machine is always made${needsTools}`, () => {
  expect(archiveOf(own)).toBeDefined();
});

it.skipIf(!makes)(
  'checksums.txt lists every archive, the SBOM, krew’s manifest, the chart and the objects, with their real hashes',
  () => {
    const lines = fs.readFileSync(path.join(made.dir, 'checksums.txt'), 'utf8').split('\n').slice(0, -1);
    const listed = lines.map((line) => line.split('  '));
    const there = fs.readdirSync(made.dir).filter((name) => /\.(?:tar\.gz|tgz|zip|cdx\.json|yaml)$/.test(name));
    expect(listed.map(([, name]) => name).sort()).toEqual(there.sort());
    for (const [hash, name = ''] of listed) expect(sha256(fs.readFileSync(path.join(made.dir, name)))).toBe(hash);
  },
);

it.skipIf(!makes)('the chart’s archive has the files of deploy/chart, Chart.yaml first', async () => {
  const chart = path.join(root, 'deploy', 'chart');
  const entries = await readTar(path.join(made.dir, `tka-${version}.tgz`));
  const files = entries.filter(({ name }) => !name.endsWith('/'));
  expect(files[0]?.name).toBe('tka/Chart.yaml');
  for (const { name, data } of files) {
    expect(data.equals(fs.readFileSync(path.join(chart, name.replace(/^tka\//, '')))), name).toBe(true);
  }
  const there = fs.readdirSync(chart, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  expect(files.length).toBe(there.length);
});

it.skipIf(!makes)('the SBOM names everything in the bundle, and Node', async () => {
  const { metafile } = await build({
    entryPoints: [path.join(root, 'src/cli/main.ts'), path.join(root, 'cmd/kubectl-tka.ts')],
    bundle: true,
    write: false,
    outdir: root,
    metafile: true,
    platform: 'node',
    format: 'esm',
    alias: { 'graceful-fs': 'node:fs' },
    logLevel: 'error',
    loader: Object.fromEntries(['.sh', '.cmd', '.bash', '.fish', '.ps1', '.zsh'].map((name) => [name, 'text'])),
  });
  const files = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs));
  // Second versions are in the node_modules of the package that needs them.
  const inputs = files.map((name) => /^node_modules\/((?:.+\/node_modules\/)?(?:@[^/]+\/)?[^/]+)\//.exec(name)?.[1]);
  const bundled = [...new Set(inputs.filter((name) => name !== undefined))];
  expect(bundled).toContain('commander');
  const file = fs.readdirSync(made.dir).find((name) => /^kubectl-tka.*\.cdx\.json$/.test(name)) ?? '';
  const bom = JSON.parse(fs.readFileSync(path.join(made.dir, file), 'utf8'));
  expect(bom).toMatchObject({ bomFormat: 'CycloneDX', metadata: { component: { name: 'kubectl-tka' } } });
  const components = bom.components.map(({ name, version }: { name: string; version: string }) => `${name}@${version}`);
  for (const folder of bundled)
    expect(components).toContain(`${folder.replace(/^.+\/node_modules\//, '')}@${locked(folder).version}`);
  for (const { target } of made.archives) {
    expect(components).toContain(`${target.node}@${locked(target.node).version}`);
    expect(components).toContain(`node@${locked(target.node).version}`);
  }
  for (const name of ['vitest', 'esbuild', '@yao-pkg/pkg', '@kubernetes/client-node'])
    expect(components.join()).not.toContain(`${name}@`);
  const refs = new Set([bom.metadata.component, ...bom.components].map((component) => component['bom-ref']));
  for (const { ref, dependsOn } of bom.dependencies) for (const one of [ref, ...dependsOn]) expect(refs).toContain(one);
});

describe('a second run', () => {
  const again = fileFolder('tka-krew-');

  // These only fetch: nothing of the machine's tools and versions is in the archives.
  const fetches = ['git', 'apt-get', 'dpkg-deb', 'tar', 'xz'];

  it.skipIf(!makes)('makes the same bytes on a machine without other tools', { timeout: 300_000 }, async () => {
    const tools = testFolder('tka-krew-');
    for (const name of fetches) {
      const found = (process.env.PATH ?? '').split(path.delimiter).map((dir) => path.join(dir, name));
      const file = found.find((file) => fs.existsSync(file));
      if (file !== undefined) fs.symlinkSync(file, path.join(tools, name));
    }
    const before = process.env.PATH;
    process.env.PATH = tools;
    try {
      await makePackages([own], again);
    } finally {
      process.env.PATH = before;
    }
    const { archives, dir } = archivesIn(again);
    expect(archives.map(({ target }) => target)).toEqual([own]);
    const bytes = (of: string) => fs.readFileSync(path.join(of, archiveName(own)));
    expect(sha256(bytes(dir))).toBe(sha256(bytes(made.dir)));
  });

  describe('without a way to fetch the libraries for Linux', () => {
    const linux = ['--target', 'linux-amd64', '--target', 'linux-arm64'];
    const run = (home: string, out: string, ...args: string[]) =>
      spawnSync(process.execPath, [path.join(root, 'krew/package.ts'), ...args, '--out', out], {
        env: { ...process.env, HOME: home, PATH: home, npm_execpath: npmCli() },
        encoding: 'utf8',
      });

    it('fails with the reason, and keeps the existing files', () => {
      const home = testFolder('tka-krew-');
      const out = testFolder('tka-krew-');
      fs.writeFileSync(path.join(out, 'checksums.txt'), 'old\n');
      expect(run(home, out, ...linux)).toMatchObject({
        status: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /^error: linux-amd64 cannot be created: apt-get not found.*\nhint: .*apt-get.*\n$/,
        ),
      });
      expect(fs.readdirSync(out)).toEqual(['checksums.txt']);
    });

    it('leaves the archives out with --allow-missing, and fails if no others were requested', () => {
      const home = testFolder('tka-krew-');
      const out = testFolder('tka-krew-');
      const { status, stdout, stderr } = run(home, out, ...linux, '--allow-missing');
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      expect(stderr.split('\n')).toEqual([
        expect.stringMatching(/^warning: linux-amd64 skipped: apt-get not found/),
        expect.stringMatching(/^hint: /),
        expect.stringMatching(/^warning: linux-arm64 skipped: apt-get not found/),
        expect.stringMatching(/^hint: /),
        '',
      ]);
      expect(fs.readdirSync(out)).toEqual([]);
    });
  });
});

// npm sets this for its scripts; without npm, vitest has to find it.
function npmCli(): string {
  return (
    process.env.npm_execpath ??
    path.join(execFileSync('npm', ['root', '-g'], { encoding: 'utf8' }).trim(), 'npm/bin/npm-cli.js')
  );
}

it('refuses a Node other than the one in package-lock.json', () => {
  const data = Buffer.from('a Node');
  const integrity = `sha512-${createHash('sha512').update(data).digest('base64')}`;
  expect(() => checkIntegrity(data, 'a Node', integrity)).not.toThrow();
  for (const { node } of targets) {
    expect(() => checkIntegrity(data, node, locked(node).integrity)).toThrow(/another hash than in package-lock\.json/);
  }
});

describe('an archive', () => {
  const entries = [
    { name: 'a', data: Buffer.from('first'), mode: 0o755 as const },
    { name: 'b/c', data: Buffer.alloc(70_000, 'x'), mode: 0o644 as const },
  ];

  it.for(['tar.gz', 'zip'])('.%s extracts with the system’s own tool', async (kind, { skip }) => {
    const folder = testFolder('tka-krew-');
    const file = path.join(folder, `it.${kind}`);
    const time = new Date('2026-03-29T01:30:00Z');
    fs.writeFileSync(file, kind === 'zip' ? zip(entries, time) : await tarGz(entries, time));
    const tools =
      kind === 'zip'
        ? [
            ['unzip', '-q', file],
            ['python3', '-m', 'zipfile', '-e', file, '.'],
          ]
        : [['tar', '-xzf', file]];
    const tool = tools.find(([name = '']) => spawnSync(name, ['--help']).error === undefined);
    if (tool === undefined) skip(`no tool here extracts a .${kind}`);
    execFileSync(tool?.[0] ?? '', tool?.slice(1) ?? [], { cwd: folder });
    expect(fs.readFileSync(path.join(folder, 'a'), 'utf8')).toBe('first');
    expect(fs.statSync(path.join(folder, 'b/c')).size).toBe(70_000);
    if (kind === 'tar.gz') expect(fs.statSync(path.join(folder, 'a')).mtimeMs).toBe(time.getTime());
  });

  it('is the same in every time zone', async () => {
    const time = new Date('2026-03-29T01:30:00Z');
    const before = process.env.TZ;
    const made = new Set<string>();
    try {
      for (const zone of ['UTC', 'Europe/Berlin', 'America/Los_Angeles']) {
        process.env.TZ = zone;
        made.add(sha256(zip(entries, time)) + sha256(await tarGz(entries, time)));
      }
    } finally {
      if (before === undefined) delete process.env.TZ;
      else process.env.TZ = before;
    }
    expect(made.size).toBe(1);
  });
});
