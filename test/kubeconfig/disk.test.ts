import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import {
  editKubeconfig,
  type KubeconfigChange,
  previewKubeconfig,
  readKubeconfig,
} from '../../src/kubeconfig/index.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { kubeconfig, kubectl, kubectlView, only, refusal, spec } from './helpers.ts';

const child = join(import.meta.dirname, 'child.ts');
const root = process.getuid?.() === 0;

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const process = spawn(command, [...args], { stdio: ['ignore', 'pipe', 'pipe'], env });
    let [stdout, stderr] = ['', ''];
    process.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    process.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    process.on('error', reject);
    process.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

const edit = (job: object): Promise<Ended> => run(process.execPath, [child, JSON.stringify(job)]);
const namesIn = async (file: string) => (await readKubeconfig(only(file))).ours.map(({ name }) => name).toSorted();
/** Returns a kubeconfig without the entries of this name in these sections. */
function takeOut(text: string, sections: readonly string[], name: string): string {
  const config = parse(text);
  for (const section of sections)
    config[section] = config[section].filter((item: { name: string }) => item.name !== name);
  return JSON.stringify(config);
}
const add = (file: string, name: string) => editKubeconfig(only(file), () => ({ upsert: [spec(name)] }));

describe('a write', () => {
  it('keeps mode and owner', async () => {
    for (const mode of [0o600, 0o640, 0o644]) {
      const file = kubeconfig('kind: Config\n');
      chmodSync(file, mode);
      if (root) chownSync(file, 12345, 54321);
      await add(file, 'a');
      const stat = statSync(file);
      expect(stat.mode & 0o7777).toBe(mode);
      if (root) expect([stat.uid, stat.gid]).toEqual([12345, 54321]);
      expect(readdirSync(dirname(file))).toEqual(['config']);
    }
  });

  it('follows symbolic links and keeps them, dangling ones too', async () => {
    const dir = testFolder('tka-');
    mkdirSync(join(dir, 'real'));
    writeFileSync(join(dir, 'real', 'config'), 'kind: Config\n', { mode: 0o640 });
    symlinkSync('real', join(dir, 'way'));
    symlinkSync('way/config', join(dir, 'one'));
    symlinkSync(join(dir, 'one'), join(dir, 'two'));
    symlinkSync('new/place/config', join(dir, 'nowhere'));
    for (const name of ['two', 'nowhere', 'way/config']) {
      await add(join(dir, name), name);
      expect(await namesIn(join(dir, name))).toContain(name);
    }
    expect(readlinkSync(join(dir, 'two'))).toBe(join(dir, 'one'));
    expect(readlinkSync(join(dir, 'one'))).toBe('way/config');
    expect(readlinkSync(join(dir, 'nowhere'))).toBe('new/place/config');
    expect(lstatSync(join(dir, 'new/place/config')).mode & 0o777).toBe(0o600);
    expect(lstatSync(join(dir, 'real/config')).mode & 0o777).toBe(0o640);
    expect(readdirSync(dir).toSorted()).toEqual(['new', 'nowhere', 'one', 'real', 'two', 'way']);
    expect(readdirSync(join(dir, 'real'))).toEqual(['config']);
  });

  it('follows a link that changed while it waited for the lock', async () => {
    const dir = testFolder('tka-');
    const [file, before, after] = ['config', 'before', 'after'].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    for (const real of [before, after]) writeFileSync(real, 'kind: Config\n');
    symlinkSync('before', file);
    writeFileSync(`${file}.lock`, '');
    let planned = 0;
    const edited = editKubeconfig(only(file), () => {
      planned++;
      return { upsert: [spec('a')] };
    });
    // The plan is made and the write waits for the lock.
    while (planned === 0) await delay(1);
    await delay(30);
    rmSync(file);
    symlinkSync('after', file);
    rmSync(`${file}.lock`);
    await edited;
    expect(readFileSync(before, 'utf8')).toBe('kind: Config\n');
    expect(await namesIn(after)).toEqual(['a']);
    expect(readlinkSync(file)).toBe('after');
    expect(readdirSync(dir).toSorted()).toEqual(['after', 'before', 'config']);
  });

  it('to several files writes clusters and users before the contexts that need them', async () => {
    const dir = testFolder('tka-');
    const [a, b] = [join(dir, 'a'), join(dir, 'b')];
    const files = { files: [a, b], defaultFile: a, explicit: false };
    const order = async (change: KubeconfigChange) =>
      (await previewKubeconfig(files, () => change)).map(({ file }) => file.slice(-1));
    // The first file has only the context of "two".
    await editKubeconfig(only(a), () => ({ upsert: [spec('one'), spec('two')] }));
    await editKubeconfig(only(b), () => ({ upsert: [spec('two')] }));
    writeFileSync(a, takeOut(readFileSync(a, 'utf8'), ['clusters', 'users'], 'two'));
    writeFileSync(b, takeOut(readFileSync(b, 'utf8'), ['contexts'], 'two'));
    const moved = { server: 'https://tka.moved.example', apiServer: 'https://moved.example.com' };
    expect(await order({ upsert: [spec('one', moved), spec('two', moved)] })).toEqual(['b', 'a']);
    expect(await order({ remove: ['two'] })).toEqual(['a', 'b']);
  });

  it('takes no lock and leaves the folder unchanged if nothing changes', async () => {
    const file = kubeconfig('kind: Config\n');
    await add(file, 'a');
    mkdirSync(`${file}.lock`);
    const before = statSync(dirname(file), { bigint: true }).mtimeNs;
    const start = performance.now();
    await add(file, 'a');
    expect(performance.now() - start).toBeLessThan(1900);
    expect(statSync(dirname(file), { bigint: true }).mtimeNs).toBe(before);
  });

  it.skipIf(!root)('to a folder without permission fails and leaves the file and folder unchanged', async () => {
    const file = kubeconfig('kind: Config\n');
    chmodSync(file, 0o644);
    chmodSync(dirname(file), 0o555);
    const ended = await edit({ file, names: ['a'], uid: 65534 });
    expect(ended).toMatchObject({ code: 1, stderr: '' });
    expect(JSON.parse(ended.stdout).message).toBe(`cannot write ${file}: permission denied`);
    expect(readFileSync(file, 'utf8')).toBe('kind: Config\n');
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  // Root can write read-only files, so another user tries.
  it('to a read-only file fails, as with kubectl', async () => {
    const file = kubeconfig('kind: Config\n');
    chmodSync(file, 0o444);
    chmodSync(dirname(file), 0o777);
    const ended = await edit({ file, names: ['a'], ...(root && { uid: 65534 }) });
    expect(ended).toMatchObject({ code: 1, stderr: '' });
    expect(JSON.parse(ended.stdout).message).toBe(`cannot write ${file}: permission denied`);
    expect(readFileSync(file, 'utf8')).toBe('kind: Config\n');
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it('fails on a full disk and leaves the file and folder unchanged', async () => {
    const file = kubeconfig(`# ${'x'.repeat(3000)}\nkind: Config\n`);
    const before = readFileSync(file, 'utf8');
    // A file size limit stands in for a full disk.
    const script = `ulimit -f 4; exec "$0" "$@"`;
    const ended = await run('bash', [
      '-c',
      script,
      process.execPath,
      child,
      JSON.stringify({ file, names: ['a', 'b', 'c', 'd'] }),
    ]);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(1);
    expect(ended.stdout).toContain(`cannot write ${file}: the file would become too large`);
    expect(readFileSync(file, 'utf8').startsWith(before)).toBe(true);
    await namesIn(file);
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it.skipIf(!existsSync('/proc/self'))('to a file system without regular files fails with a message', async () => {
    const error = await refusal(add('/proc/tka-test/config', 'a'));
    expect(error.message).toMatch(/^cannot write \/proc\/tka-test\/config: /);
  });
});

describe('a file that is a mount point', () => {
  const text = '# kept\nkind: Config\n';

  it('is written in place, with its inode, mode and owner', async () => {
    const file = kubeconfig(text);
    chmodSync(file, 0o644);
    const { ino } = statSync(file);
    expect(await edit({ file, names: ['a', 'b'], busy: true })).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(await namesIn(file)).toEqual(['a', 'b']);
    expect(readFileSync(file, 'utf8').startsWith(text)).toBe(true);
    expect(statSync(file)).toMatchObject({ ino });
    expect(statSync(file).mode & 0o777).toBe(0o644);
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it('leaves nothing of the old end if the new text is shorter', async () => {
    const file = kubeconfig(text);
    await add(file, 'a');
    const job = { file, names: [], remove: ['a'], busy: true };
    expect(await edit(job)).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(file, 'utf8')).toBe(`${text}clusters: []\ncontexts: []\nusers: []\n`);
  });

  it('keeps its old content if the disk is full', async () => {
    const file = kubeconfig(`# ${'x'.repeat(3000)}\nkind: Config\n`);
    const before = readFileSync(file, 'utf8');
    const script = `ulimit -f 4; exec "$0" "$@"`;
    const job = JSON.stringify({ file, names: ['a', 'b', 'c', 'd'], busy: true });
    const ended = await run('bash', ['-c', script, process.execPath, child, job]);
    expect(ended).toMatchObject({ code: 1, stderr: '' });
    expect(ended.stdout).toContain(`cannot write ${file}: the file would become too large`);
    expect(readFileSync(file, 'utf8').startsWith(before)).toBe(true);
    await namesIn(file);
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it('killed at any step, the file or its backup is whole, and the next edit works', async () => {
    let backups = 0;
    const one = async (killAt: number) => {
      const file = kubeconfig(text);
      await edit({ file, names: ['killed'], busy: true, killAt, killFrom: '.tka-backup' });
      const backup = `${file}.tka-backup`;
      if (existsSync(backup)) {
        backups++;
        expect(readFileSync(backup, 'utf8')).toBe(text);
        expect(statSync(backup).mode & 0o777).toBe(0o600);
      } else if (readFileSync(file, 'utf8') !== text) expect(await namesIn(file)).toEqual(['killed']);
      expect(await edit({ file, names: ['next'], busy: true })).toMatchObject({ code: 0, stdout: '' });
      expect(await namesIn(file)).toContain('next');
      expect(readdirSync(dirname(file))).toEqual(['config']);
    };
    // From before the backup to after its removal.
    for (const steps of [
      [1, 3, 5, 7],
      [9, 11, 13, 15],
    ])
      await Promise.all(steps.map(one));
    expect(backups).toBeGreaterThan(1);
  });

  const mounts = spawnSync('unshare', ['-m', 'true']).status === 0;
  it.skipIf(!mounts)('is written through a real bind mount (needs root and mount namespaces)', async () => {
    const [file, outside] = [kubeconfig(''), kubeconfig(text)];
    const inside = (options: string) =>
      `mount --bind ${outside} ${file} && mount -o remount,bind,${options} ${file} && exec "$0" "$@"`;
    const call = (options: string, job: object) =>
      run('unshare', ['-m', 'sh', '-c', inside(options), process.execPath, child, JSON.stringify(job)]);
    expect(await call('rw', { file, names: ['a'] })).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(await namesIn(outside)).toEqual(['a']);
    expect(readFileSync(file, 'utf8')).toBe('');
    expect([...readdirSync(dirname(file)), ...readdirSync(dirname(outside))]).toEqual(['config', 'config']);
    const readOnly = await call('ro', { file, names: ['b'], check: true });
    expect(JSON.parse(readOnly.stdout).message).toBe(`cannot write ${file}: the file system is read-only`);
  });

  it.skipIf(!root)(
    'is checked for write permission before an edit if its folder takes no lock, as is any other file',
    async () => {
      const file = kubeconfig(text);
      chmodSync(file, 0o666);
      chmodSync(dirname(file), 0o555);
      const ended = await edit({ file, names: ['a'], check: true, uid: 65534 });
      expect(JSON.parse(ended.stdout).message).toBe(`cannot write ${file}: permission denied`);
    },
  );
});

describe('the lock', () => {
  it('of another program delays the write until it is released', async () => {
    const file = kubeconfig('kind: Config\n');
    writeFileSync(`${file}.lock`, '', { mode: 0 });
    setTimeout(() => rmSync(`${file}.lock`), 400);
    const start = performance.now();
    await add(file, 'a');
    expect(performance.now() - start).toBeGreaterThan(350);
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it('that stays fails the write after 5 s with its path, its age and the command to type; it is not removed', async () => {
    const [file, other] = [kubeconfig('kind: Config\n'), kubeconfig('kind: Config\n')];
    writeFileSync(`${file}.lock`, '');
    const old = new Date(Date.now() - 3_600_000);
    utimesSync(`${file}.lock`, old, old);
    mkdirSync(`${other}.lock`);
    writeFileSync(join(`${other}.lock`, 'somebody'), '');
    utimesSync(`${other}.lock`, old, old);
    const start = performance.now();
    const [one, two] = await Promise.all([refusal(add(file, 'a')), refusal(add(other, 'a'))]);
    expect(performance.now() - start).toBeLessThan(7000);
    expect(one.message).toMatch(new RegExp(`^${file} is locked by another program: ${file}\\.lock is 360\\d s old$`));
    expect(one.hints).toEqual([`if no kubectl is running, remove it: rm ${file}.lock`]);
    expect(two.hints.join()).toContain(`rm -r ${other}.lock`);
    expect(existsSync(`${file}.lock`)).toBe(true);
    expect(existsSync(join(`${other}.lock`, 'somebody'))).toBe(true);
    expect(readFileSync(file, 'utf8')).toBe('kind: Config\n');
  });

  it('left by a killed process is removed at once when it is old, with the half-written file', async () => {
    const file = kubeconfig('kind: Config\n');
    for (const content of [[], ['tka-0123456789abcdef.tmp']]) {
      mkdirSync(`${file}.lock`);
      for (const name of content) writeFileSync(join(`${file}.lock`, name), 'half');
      const old = new Date(Date.now() - 2500);
      utimesSync(`${file}.lock`, old, old);
      const start = performance.now();
      await add(file, `a${content.length}`);
      expect(performance.now() - start).toBeLessThan(1900);
    }
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it('left by a killed process is removed without a write too, also through a link; a fresh one stays', async () => {
    const dir = testFolder('tka-');
    const [file, real] = [join(dir, 'config'), join(dir, 'real')];
    writeFileSync(real, 'kind: Config\n');
    symlinkSync('real', file);
    await add(file, 'a');
    const old = new Date(Date.now() - 2500);
    for (const lock of [`${file}.lock`, `${real}.lock`]) {
      mkdirSync(lock);
      writeFileSync(join(lock, 'tka-0123456789abcdef.tmp'), 'half');
      utimesSync(lock, old, old);
    }
    await add(file, 'a');
    expect(readdirSync(dir).toSorted()).toEqual(['config', 'real']);
    const fresh = join(`${file}.lock`, 'tka-0123456789abcdef.tmp');
    mkdirSync(`${file}.lock`);
    writeFileSync(fresh, 'half');
    await add(file, 'a');
    expect(existsSync(fresh)).toBe(true);
    // Files of other programs are not removed.
    rmSync(fresh);
    writeFileSync(join(`${file}.lock`, 'somebody'), '');
    utimesSync(`${file}.lock`, old, old);
    await add(file, 'a');
    expect(readdirSync(`${file}.lock`)).toEqual(['somebody']);
  });

  it('with an mtime in the future is removed too', async () => {
    const file = kubeconfig('kind: Config\n');
    mkdirSync(`${file}.lock`);
    const ahead = new Date(Date.now() + 3_600_000);
    utimesSync(`${file}.lock`, ahead, ahead);
    await add(file, 'a');
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });
});

describe('many edits at once', () => {
  it('25 edits in one process and 20 in four others all arrive', async () => {
    const file = kubeconfig('# kept\nkind: Config\n');
    // An old lock that all of them find at the same time.
    mkdirSync(`${file}.lock`);
    writeFileSync(join(`${file}.lock`, 'tka-0123456789abcdef.tmp'), '');
    utimesSync(`${file}.lock`, 1, 1);
    const expected: string[] = [];
    const others = Array.from({ length: 4 }, (_, p) => {
      const names = Array.from({ length: 5 }, (_, i) => `child-${p}-${i}`);
      expected.push(...names);
      return edit({ file, names });
    });
    const here = Array.from({ length: 25 }, (_, i) => {
      expected.push(`here-${i}`);
      return add(file, `here-${i}`);
    });
    for (const ended of await Promise.all(others)) expect(ended).toMatchObject({ code: 0, stdout: '', stderr: '' });
    await Promise.all(here);
    expect(await namesIn(file)).toEqual(expected.toSorted());
    expect(readFileSync(file, 'utf8').startsWith('# kept\n')).toBe(true);
    expect(readdirSync(dirname(file))).toEqual(['config']);
  });

  it.skipIf(!kubectl)(
    'kubectl writes at the same time: no write of kubectl is undone, and the file is whole at any time',
    async () => {
      const file = kubeconfig('kind: Config\n');
      let done = false;
      const ours = Promise.all(
        Array.from({ length: 2 }, (_, p) =>
          edit({ file, names: Array.from({ length: 30 }, (_, i) => `ours-${p}-${i}`) }),
        ),
      ).finally(() => {
        done = true;
      });
      const written: string[] = [];
      for (let i = 0; !done || i < 5; i++) {
        const args = ['config', 'set-cluster', `theirs-${i}`, '--server=https://x'];
        const ended = await run(kubectl as string, args, { ...process.env, KUBECONFIG: file });
        if (ended.code === 0) written.push(`theirs-${i}`);
        else expect(ended.stderr).toMatch(/file exists/);
        await readKubeconfig(only(file));
      }
      await ours;
      const clusters = kubectlView(file).clusters?.map(({ name }) => name) ?? [];
      expect(written.length).toBeGreaterThan(0);
      expect(clusters).toEqual(expect.arrayContaining(written));
      expect(readdirSync(dirname(file))).toEqual(['config']);
    },
  );
});

it('killed at any step from the lock to its release, the file is whole and the next edit works within 5 s', async () => {
  const steps = Array.from({ length: 15 }, (_, i) => 2 * i + 1);
  let killed = 0;
  let written = 0;
  const one = async (killAt: number) => {
    const file = kubeconfig('# kept\nkind: Config\n');
    chmodSync(file, 0o640);
    const ended = await edit({ file, names: ['killed'], killAt });
    if (ended.signal === 'SIGKILL') killed++;
    else expect(ended).toMatchObject({ code: 0, stdout: '' });
    const text = readFileSync(file, 'utf8');
    if (text !== '# kept\nkind: Config\n') {
      written++;
      expect(await namesIn(file)).toEqual(['killed']);
    }
    // A lock that stays for 5 s is an error.
    await add(file, 'next');
    expect(await namesIn(file)).toContain('next');
    expect(readdirSync(dirname(file))).toEqual(['config']);
    expect(statSync(file).mode & 0o777).toBe(0o640);
  };
  const queue = [...steps];
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let step = queue.shift(); step !== undefined; step = queue.shift()) await one(step);
    }),
  );
  expect(killed).toBeGreaterThan(9);
  expect(written).toBeGreaterThan(0);
});
