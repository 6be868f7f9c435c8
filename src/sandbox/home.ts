import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A private HOME, and the environment of programs that use it. */
export interface SandboxHome {
  readonly dir: string;
  /** The folder of the built `kubectl-tka`. It is the first on the environment's PATH. */
  readonly bin: string;
  readonly env: Readonly<Record<string, string>>;
  /** Names of variables that must be unset, because they point outside of the private HOME. */
  readonly unset: readonly string[];
  remove(): Promise<void>;
}

// The only outside variables that programs need. All others (XDG_*, TKA_*, KUBECONFIG, proxies) are left out.
const kept = ['TERM', 'LANG', 'LC_ALL', 'NO_COLOR', 'SYSTEMROOT', 'COMSPEC', 'PATHEXT'];
const leaky = /^(?:XDG_.*|TKA_.*|KUBE.*|TS_SOCKET|(?:https?|all)_proxy)$/i;

/** Makes a temporary HOME. Its environment names `server` as the TKA server. */
export async function makeHome(server: string): Promise<SandboxHome> {
  const dir = await mkdtemp(join(tmpdir(), 'tka-sandbox-'));
  const bin = fileURLToPath(new URL('../../dist', import.meta.url));
  await mkdir(join(dir, 'tmp'));
  await mkdir(join(dir, '.kube'));
  const outside = Object.entries(process.env).filter((entry): entry is [string, string] => kept.includes(entry[0]));
  // npm puts node_modules/.bin of this folder and its parents on PATH. A user's shell does not have these.
  const path = (process.env.PATH ?? '').split(delimiter).filter((part) => !/node_modules[\\/]\.bin$/.test(part));
  const env = {
    ...Object.fromEntries(outside),
    HOME: dir,
    USERPROFILE: dir,
    TMPDIR: join(dir, 'tmp'),
    KUBECONFIG: join(dir, '.kube', 'config'),
    TKA_TAILSCALE_HOSTNAME: server,
    NO_PROXY: '127.0.0.1,::1,localhost',
    no_proxy: '127.0.0.1,::1,localhost',
    PATH: [bin, ...path].join(delimiter),
  };
  const unset = Object.keys(process.env).filter((name) => leaky.test(name) && !(name in env));
  return { dir, bin, env, unset: unset.sort(), remove: () => rm(dir, { recursive: true, force: true }) };
}
