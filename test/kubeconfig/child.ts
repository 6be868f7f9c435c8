// A separate process that edits a kubeconfig: node child.ts '{"file":…,"names":[…],"uid":…,"killAt":…,"busy":…}'.
// busy: the file is a mount point, which a rename cannot replace. check: only checks whether the file can be written.
// remove: contexts to remove.
// killAt: kills the process before its n-th file system call, counted from the lock; with killFrom, counted from the
// first call whose path contains this text.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { file, names, uid, killAt, killFrom, busy, check, remove } = JSON.parse(process.argv[2] as string) as {
  file: string;
  names: string[];
  uid?: number;
  killAt?: number;
  killFrom?: string;
  busy?: boolean;
  check?: boolean;
  remove?: string[];
};

if (busy) {
  const { renameSync } = fs;
  fs.renameSync = (from, to) => {
    if (to === file) throw Object.assign(new Error('EBUSY: resource busy or locked, rename'), { code: 'EBUSY' });
    renameSync(from, to);
  };
  syncBuiltinESMExports();
}

if (killAt !== undefined) {
  let calls = 0;
  let locking = false;
  const all = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const name of Object.keys(all).filter((key) => key.endsWith('Sync'))) {
    const real = all[name] as (...args: unknown[]) => unknown;
    all[name] = (...args: unknown[]) => {
      const from =
        killFrom === undefined
          ? name === 'mkdirSync' && String(args[0]).endsWith('.lock')
          : args.some((arg) => typeof arg === 'string' && arg.includes(killFrom));
      if (from) locking = true;
      if (locking && ++calls === killAt) process.kill(process.pid, 'SIGKILL');
      return real(...args);
    };
  }
  syncBuiltinESMExports();
}

const { checkWritable, editKubeconfig, previewKubeconfig } = await import('../../src/kubeconfig/index.ts');
const { TkaError } = await import('../../src/util/errors.ts');
if (uid !== undefined) process.setuid?.(uid);
const files = { files: [file], defaultFile: file, explicit: true };
const upserts = names.map((name) => ({
  upsert: [
    {
      name,
      server: 'https://tka.example.ts.net',
      apiServer: 'https://api.example.com:6443',
      command: '/bin/sh',
      installHint: 'hint '.repeat(100),
    },
  ],
}));
for (const change of [...upserts, ...(remove === undefined ? [] : [{ remove }])]) {
  try {
    if (check) checkWritable(await previewKubeconfig(files, () => change));
    else await editKubeconfig(files, () => change);
  } catch (error) {
    if (!(error instanceof TkaError)) throw error;
    process.stdout.write(`${JSON.stringify({ message: error.message, hints: error.hints })}\n`);
    process.exitCode = 1;
  }
}
