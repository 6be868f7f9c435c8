// The program's folders, as its slow path (env-paths) and its hot path (the copy in credential/entry.ts) name them.
import { execFile } from 'node:child_process';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const script = `
Object.defineProperty(process, 'platform', { value: process.argv[1] });
const { findPaths } = await import(process.argv[2]);
const { cacheFolder, stateFolder } = await import(process.argv[3]);
const { cache, state, home } = await findPaths(process.env);
const mirror = { cache: cacheFolder(process.env), state: stateFolder(process.env, home) };
process.stdout.write(JSON.stringify({ found: { cache, state }, mirror }));
`;

/** Asks in a separate process with this environment, on a faked platform. */
async function foldersIn(env: Readonly<Record<string, string>>, platform: string) {
  const modules = ['settings/paths.ts', 'credential/entry.ts'].map((file) =>
    path.join(import.meta.dirname, '../../src', file),
  );
  const args = ['--input-type=module', '-e', script, platform, ...modules];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env });
  return JSON.parse(stdout);
}

const home = { HOME: '/h', USERPROFILE: '/h' };
const linux = { cache: '/h/.cache/kubectl-tka', state: '/h/.local/state/kubectl-tka' };
const windows = { cache: '/h/AppData/Local/kubectl-tka/Cache', state: '/h/AppData/Local/kubectl-tka/Data' };
const user = os.userInfo().homedir;

describe.skipIf(process.platform === 'win32')('the folders', () => {
  it.each<[string, Record<string, string>, Partial<typeof linux>]>([
    ['linux', home, linux],
    [
      'linux',
      { ...home, XDG_CACHE_HOME: '/c', XDG_STATE_HOME: '/s' },
      { cache: '/c/kubectl-tka', state: '/s/kubectl-tka' },
    ],
    ['linux', { ...home, XDG_CACHE_HOME: 'c', XDG_STATE_HOME: './s' }, linux],
    ['linux', { ...home, XDG_CACHE_HOME: '', XDG_STATE_HOME: '' }, linux],
    ['linux', { ...home, TKA_CACHE_DIR: '/t', XDG_CACHE_HOME: '/c' }, { cache: '/t', state: linux.state }],
    ['linux', {}, { state: `${user}/.local/state/kubectl-tka` }],
    ['linux', { HOME: '' }, { state: `${user}/.local/state/kubectl-tka` }],
    [
      'linux',
      { HOME: '', XDG_CACHE_HOME: '/c' },
      { cache: '/c/kubectl-tka', state: `${user}/.local/state/kubectl-tka` },
    ],
    ['freebsd', home, linux],
    [
      'darwin',
      { ...home, XDG_CACHE_HOME: '/c', XDG_STATE_HOME: '/s' },
      { cache: '/h/Library/Caches/kubectl-tka', state: '/h/Library/Application Support/kubectl-tka' },
    ],
    ['darwin', { HOME: '' }, { state: `${user}/Library/Application Support/kubectl-tka` }],
    ['win32', home, windows],
    [
      'win32',
      { ...home, LOCALAPPDATA: '/l', APPDATA: '/a' },
      { cache: '/l/kubectl-tka/Cache', state: '/l/kubectl-tka/Data' },
    ],
    ['win32', { ...home, LOCALAPPDATA: '' }, windows],
    ['win32', { LOCALAPPDATA: '/l' }, { cache: '/l/kubectl-tka/Cache', state: '/l/kubectl-tka/Data' }],
  ])('on %s with %j', async (platform, env, expected) => {
    const { found, mirror } = await foldersIn(env, platform);
    expect(found).toEqual(expected);
    expect(mirror).toEqual(expected);
  });
});
