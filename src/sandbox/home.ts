import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A private HOME, and the environment of programs that live in it. */
export interface SandboxHome {
  readonly dir: string;
  /** The folder of the built `kubectl-tka`, first on the environment's PATH. */
  readonly bin: string;
  readonly env: Readonly<Record<string, string>>;
  /** Variables of the outside that would reach past the private HOME. */
  readonly unset: readonly string[];
  remove(): Promise<void>;
}

// What a program needs of the outside; all else (XDG_*, TKA_*, KUBECONFIG, proxies) is left behind.
const kept = ['TERM', 'LANG', 'LC_ALL', 'NO_COLOR', 'SYSTEMROOT', 'COMSPEC', 'PATHEXT'];
const leaky = /^(?:XDG_.*|TKA_.*|KUBE.*|TS_SOCKET|(?:https?|all)_proxy)$/i;

/** Makes a temporary HOME whose environment names `server` as the TKA server. */
export async function makeHome(server: string): Promise<SandboxHome> {
  const dir = await mkdtemp(join(tmpdir(), 'tka-sandbox-'));
  const bin = fileURLToPath(new URL('../../dist', import.meta.url));
  await mkdir(join(dir, 'tmp'));
  await mkdir(join(dir, '.kube'));
  const outside = Object.entries(process.env).filter((entry): entry is [string, string] => kept.includes(entry[0]));
  // npm puts node_modules/.bin of this and every parent folder on PATH; a user's shell has none of that.
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
