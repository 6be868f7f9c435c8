import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { systemCode } from '../errors.ts';

/** Where tailscaled's LocalAPI may listen. */
export type Place =
  | { readonly at: string; readonly socketPath: string }
  /** The macOS app: a port of this machine, with a password. */
  | { readonly at: string; readonly port: number; readonly password: string };

export interface PlaceOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform | undefined;
  /** The root of the file system. */
  readonly root?: string | undefined;
}

const pipe = '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled';

/** The socket that the user named (TS_SOCKET), if any. */
export function namedSocket({ env }: PlaceOptions): string | undefined {
  return env.TS_SOCKET || undefined;
}

/** The places to ask, in order: only the one that TS_SOCKET names, else those of the platform. */
export async function placesOf(options: PlaceOptions): Promise<Place[]> {
  const { platform = process.platform, root = '/' } = options;
  const socket = (socketPath: string): Place => ({ at: socketPath, socketPath });
  const named = namedSocket(options);
  if (named !== undefined) return [socket(named)];
  if (platform === 'win32') return [socket(pipe)];
  if (platform !== 'darwin') {
    return ['var/run/tailscale/tailscaled.sock', 'run/tailscale/tailscaled.sock'].map((name) =>
      socket(path.join(root, name)),
    );
  }
  const app = await macApp(path.join(root, 'Library/Tailscale'));
  return [socket(path.join(root, 'var/run/tailscaled.socket')), ...(app === undefined ? [] : [app])];
}

async function macApp(folder: string): Promise<Place | undefined> {
  try {
    const port = await portOf(path.join(folder, 'ipnport'));
    if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65_535) return undefined;
    const password = await firstBytes(path.join(folder, `sameuserproof-${port}`));
    if (!/^[\x21-\x7e]{1,256}$/.test(password)) return undefined;
    return { at: `127.0.0.1:${port}`, port: Number(port), password };
  } catch {
    return undefined;
  }
}

// The app writes it as a symlink that points to the number.
async function portOf(file: string): Promise<string> {
  try {
    return await fs.readlink(file);
  } catch (error) {
    if (systemCode(error) !== 'EINVAL') throw error;
    return await firstBytes(file);
  }
}

async function firstBytes(file: string): Promise<string> {
  const handle = await fs.open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(1024), 0, 1024, 0);
    return buffer.toString('latin1', 0, bytesRead).trim();
  } finally {
    await handle.close();
  }
}
