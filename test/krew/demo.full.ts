// npm run test:debian: the README's first command on a bare Debian with only its Node and npm packages.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { root } from '../../krew/targets.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { needsRoots, rootOf, runIn } from './debian.ts';
import { own } from './packages.ts';

const lacks = needsRoots ?? (own.name.startsWith('linux-') ? undefined : 'amd64 or arm64');

it.skipIf(lacks)(`npm ci && npm run demo${lacks === undefined ? '' : ` (skipped: it needs ${lacks})`}`, async () => {
  const system = await rootOf('trixie', own.arch, `trixie-${own.arch}-npm`, [
    '--variant=minbase',
    '--include=nodejs,npm',
    '--dpkgopt=force-unsafe-io',
    '--customize-hook=: > "$1/etc/resolv.conf"',
  ]);
  const libraries = fs.readdirSync(path.join(system, 'usr/lib'), { recursive: true, encoding: 'utf8' });
  expect(libraries.filter((name) => name.includes('libatomic'))).toEqual([]);
  const [opt, home] = [testFolder('tka-krew-'), testFolder('tka-krew-')];
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' }).split('\0').slice(0, -1);
  for (const file of files) {
    const from = path.join(root, file);
    if (!fs.existsSync(from)) continue;
    fs.mkdirSync(path.dirname(path.join(opt, file)), { recursive: true });
    fs.copyFileSync(from, path.join(opt, file));
  }
  // The registry of this machine's npm configuration.
  const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim();
  fs.copyFileSync('/etc/ssl/certs/ca-certificates.crt', path.join(home, 'authorities.pem'));
  fs.writeFileSync(path.join(home, '.npmrc'), `cafile=/root/authorities.pem\nregistry=${registry}\n`);
  const prepare = 'mount --bind /etc/resolv.conf "$root/etc/resolv.conf"';
  const command = 'cd /opt && npm ci --no-audit --no-fund --loglevel=error && npm run demo';
  const place = { root: system, opt, home, prepare, longest: 900_000 };
  const { status, stdout, stderr } = await runIn(place, 'sh', '-c', command);
  expect({ status, stderr }).toMatchObject({ status: 0, stderr: expect.stringContaining('Downloading the libraries') });
  expect(stdout).toMatch(/^# Every step did what it should, in /m);
});
