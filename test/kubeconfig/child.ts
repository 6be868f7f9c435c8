// A process of its own that edits a kubeconfig: node child.ts '{"file":…,"names":[…],"uid":…,"killAt":…}'.
// killAt: it is killed at the n-th call into the file system from taking the lock on, before that call is made.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { file, names, uid, killAt } = JSON.parse(process.argv[2] as string) as {
  file: string;
  names: string[];
  uid?: number;
  killAt?: number;
};

if (killAt !== undefined) {
  let calls = 0;
  let locking = false;
  const all = fs as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const name of Object.keys(all).filter((key) => key.endsWith('Sync'))) {
    const real = all[name] as (...args: unknown[]) => unknown;
    all[name] = (...args: unknown[]) => {
      if (name === 'mkdirSync' && String(args[0]).endsWith('.lock')) locking = true;
      if (locking && ++calls === killAt) process.kill(process.pid, 'SIGKILL');
      return real(...args);
    };
  }
  syncBuiltinESMExports();
}

const { editKubeconfig } = await import('../../src/kubeconfig/index.ts');
const { TkaError } = await import('../../src/errors.ts');
if (uid !== undefined) process.setuid?.(uid);
const files = { files: [file], defaultFile: file, explicit: true };
for (const name of names) {
  const context = {
    name,
    server: 'https://tka.example.ts.net',
    apiServer: 'https://api.example.com:6443',
    command: '/bin/sh',
    installHint: 'hint '.repeat(100),
  };
  try {
    await editKubeconfig(files, () => ({ upsert: [context] }));
  } catch (error) {
    if (!(error instanceof TkaError)) throw error;
    process.stdout.write(`${JSON.stringify({ message: error.message, hints: error.hints })}\n`);
    process.exitCode = 1;
  }
}
