// The archives for Linux on a bare system: a root of Debian's essential packages, without libatomic and libstdc++, and
// with a glibc older than they need.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeAll, describe, expect } from 'vitest';
import { entryName } from '../../src/credential/entry.ts';
import { test } from '../fixtures/mesh.ts';
import { jwt, type Ran, start } from '../fixtures/program.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { debianRoot, needsRoots, type Place, runIn } from './debian.ts';
import { makes, own, type Packages, packages, read } from './packages.ts';

const folder = fileFolder('tka-krew-');
let made: Packages;
beforeAll(async () => {
  if (makes) made = await packages(folder);
}, 300_000);

/** Extracts the archive for a target; returns undefined if there is none. */
function extract(name: string): string | undefined {
  const archive = made?.archives.find(({ target }) => target.name === name);
  if (archive === undefined) return undefined;
  const to = path.join(folder, name);
  if (fs.existsSync(to)) return to;
  fs.mkdirSync(to);
  execFileSync('tar', ['-xzf', archive.file, '-C', to]);
  return to;
}

/** Returns the newest glibc version whose symbols an ELF file needs: x of 2.x. */
function glibc(elf: Buffer): number {
  const asked = [...elf.toString('latin1').matchAll(/GLIBC_2\.(\d+)(?:\.\d+)?\0/g)];
  return Math.max(...asked.map(([, minor]) => Number(minor)));
}

/** Returns a program that needs glibc 2.98 in place of 2.28, changed in its text and its hash (of the System V ABI). */
function newerGlibc(elf: Buffer): Buffer {
  const hash = (name: string) => {
    let value = 0;
    for (const byte of Buffer.from(name)) {
      value = value * 16 + byte;
      const high = Math.floor(value / 2 ** 28);
      value = ((value % 2 ** 28) ^ (high << 4)) >>> 0;
    }
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  const changes = [(name: string) => Buffer.from(name), hash].map(
    (form) => [form('GLIBC_2.28'), form('GLIBC_2.98')] as const,
  );
  // Both are in the first segment.
  for (const [old, other] of changes) {
    for (let at = elf.indexOf(old); at !== -1 && at < 5e6; at = elf.indexOf(old, at + 4)) other.copy(elf, at);
  }
  return elf;
}

/** Signs in, and gets the token from the cache and then, without the cache, from the server. */
async function credentials(run: (...args: string[]) => Promise<Ran>, server: string, cache: string): Promise<void> {
  expect(await run('login', server)).toMatchObject({ status: 0 });
  const entry = path.join(cache, entryName(server) ?? '');
  for (const kept of [true, false]) {
    if (!kept) fs.rmSync(entry);
    const { status, stdout, stderr } = await run('credential', '--server', server);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ kind: 'ExecCredential', status: { token: expect.stringMatching(jwt) } });
    expect(fs.existsSync(entry)).toBe(true);
  }
}

describe.skipIf(!makes || !own.name.startsWith('linux'))('an archive for Linux', () => {
  test.for(['linux-amd64', 'linux-arm64'])('%s needs no glibc newer than 2.28', async (name, { skip }) => {
    const archive = made.archives.find(({ target }) => target.name === name) ?? skip(`no archive for ${name}`);
    const programs = (await read(archive)).filter(({ data }) => data.subarray(0, 4).equals(Buffer.from('\x7fELF')));
    expect(programs.map(({ name }) => name).sort()).toEqual([
      'lib/kubectl-tka',
      'lib/libatomic.so.1',
      'lib/libgcc_s.so.1',
      'lib/libstdc++.so.6',
    ]);
    for (const { name, data } of programs) expect(glibc(data), name).toBeLessThanOrEqual(28);
  });

  test.skipIf(own.name !== 'linux-amd64' && own.name !== 'linux-arm64')(
    'uses its own libraries, whatever LD_LIBRARY_PATH contains',
    async ({ home, skip }) => {
      const tka = extract(own.name) ?? skip('no archive for this machine');
      const others = path.join(home.root, 'others');
      for (const name of ['libatomic.so.1', 'libstdc++.so.6', 'libgcc_s.so.1']) home.write(path.join(others, name), '');
      const ran = await home.run('version', {
        program: path.join(tka, 'kubectl-tka'),
        env: { LD_LIBRARY_PATH: others },
      });
      expect(ran).toMatchObject({ status: 0, stderr: '' });
    },
  );
});

describe.skipIf(needsRoots !== undefined || own.name !== 'linux-amd64')(
  `in a root of Debian's essential packages${needsRoots === undefined ? '' : ` (skipped: it needs ${needsRoots})`}`,
  () => {
    let place: Place;
    beforeAll(async () => {
      const opt = extract('linux-amd64') ?? '';
      const root = await debianRoot('amd64', '--variant=essential');
      for (const name of ['libatomic.so.1', 'libstdc++.so.6']) {
        expect(fs.existsSync(path.join(root, 'usr/lib/x86_64-linux-gnu', name)), name).toBe(false);
      }
      place = { root, opt, home: '' };
    }, 600_000);

    test('the program starts, signs in and prints credentials', async ({ home, us }) => {
      const run = (...args: string[]) => runIn({ ...place, home: home.dir }, '/opt/kubectl-tka', ...args);
      const version = await run('version', '-o', 'json');
      expect(version).toMatchObject({ status: 0, stderr: '' });
      expect(JSON.parse(version.stdout)).toMatchObject({ platform: 'linux/amd64' });
      await credentials(run, us.server, home.cache);
      // One for login, one without the cache.
      expect(us.counts.login).toBe(2);
    });

    // The ld.so of this root, under the names of an older one.
    const loader = '/lib/x86_64-linux-gnu/ld-2.31.so';
    const older = `mount -t tmpfs tmpfs "$root/lib64"; : > "$root/lib64/ld-2.27.so"`;
    const usual = `ln -s ${loader} "$root/lib64/ld-linux-x86-64.so.2"`;

    test('prints one line with a hint if glibc is too old', async ({ home }) => {
      const opt = path.join(home.root, 'opt');
      fs.cpSync(place.opt, opt, { recursive: true });
      const program = path.join(opt, 'lib/kubectl-tka');
      fs.writeFileSync(program, newerGlibc(fs.readFileSync(program)));
      const there = { ...place, opt, home: home.dir, prepare: `${older}; ${usual}` };
      expect(await runIn(there, '/opt/kubectl-tka', 'version')).toMatchObject({
        status: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /^error: kubectl-tka needs glibc 2\.28 or newer, and this system has glibc 2\.27\nhint: .+\n$/,
        ),
      });
    });

    test('starts despite a file of an older glibc that is not in use', async ({ home }) => {
      const there = { ...place, home: home.dir, prepare: `${older}; ${usual}` };
      expect(await runIn(there, '/opt/kubectl-tka', 'version')).toMatchObject({ status: 0, stderr: '' });
    });

    test('prints one line with a hint without glibc', async ({ home }) => {
      const there = { ...place, home: home.dir, prepare: 'mount -t tmpfs tmpfs "$root/lib64"' };
      expect(await runIn(there, loader, '/bin/sh', '/opt/kubectl-tka', 'version')).toMatchObject({
        status: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /^error: kubectl-tka needs glibc 2\.28 or newer, and this system has none\nhint: .+\n$/,
        ),
      });
    });
  },
);

const qemu = ['/usr/bin/qemu-aarch64-static', '/usr/bin/qemu-aarch64'].find((file) => fs.existsSync(file));
const lacks = needsRoots ?? (qemu === undefined ? 'qemu-user' : undefined);

test.skipIf(lacks !== undefined)(
  `linux-arm64 runs with glibc only${lacks === undefined ? '' : ` (skipped: it needs ${lacks})`}`,
  { timeout: 600_000 },
  async ({ home, us, skip }) => {
    const tka = extract('linux-arm64') ?? skip('no archive for linux-arm64');
    // Extracted only: install scripts of packages would need qemu as well.
    const root = await debianRoot('arm64', '--variant=extract', '--include=libc6');
    const program = path.join(tka, 'lib', 'kubectl-tka');
    const run = (...args: string[]) => start(qemu ?? '', ['-L', root, program, ...args], home.env).ran;
    const version = await run('version', '-o', 'json');
    expect(version).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(version.stdout)).toMatchObject({ platform: 'linux/arm64' });
    await credentials(run, us.server, home.cache);
  },
);
