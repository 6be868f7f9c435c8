import * as fs from 'node:fs';
import * as path from 'node:path';
import { systemCode } from '../util/errors.ts';

/** A place where tailscaled's LocalAPI may listen. */
export type LocalPlace =
  | { readonly at: string; readonly socketPath: string }
  /** The macOS app: a port on this machine, with a password. */
  | { readonly at: string; readonly port: number; readonly password: string };

export interface PlaceOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform | undefined;
  /** The root of the file system: `/` by default. */
  readonly root?: string | undefined;
}

const pipe = '\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled';

/** Returns the socket that the user named (TS_SOCKET), if any. */
export function namedSocket({ env }: PlaceOptions): string | undefined {
  return env.TS_SOCKET || undefined;
}

/**
 * Returns the places to ask, in order: the one in TS_SOCKET, else those of the platform. Synchronous, because a
 * resolver that does not answer may block all threads that asynchronous file calls need.
 */
export function placesOf(options: PlaceOptions): LocalPlace[] {
  const { platform = process.platform, root = '/' } = options;
  const socket = (socketPath: string): LocalPlace => ({ at: socketPath, socketPath });
  const named = namedSocket(options);
  if (named !== undefined) return [socket(named)];
  if (platform === 'win32') return [socket(pipe)];
  if (platform !== 'darwin') {
    return ['var/run/tailscale/tailscaled.sock', 'run/tailscale/tailscaled.sock'].map((name) =>
      socket(path.join(root, name)),
    );
  }
  const app = macApp(path.join(root, 'Library/Tailscale'));
  return [socket(path.join(root, 'var/run/tailscaled.socket')), ...(app === undefined ? [] : [app])];
}

function macApp(folder: string): LocalPlace | undefined {
  try {
    const port = portOf(path.join(folder, 'ipnport'));
    if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65_535) return undefined;
    const password = firstBytes(path.join(folder, `sameuserproof-${port}`));
    if (!/^[\x21-\x7e]{1,256}$/.test(password)) return undefined;
    return { at: `127.0.0.1:${port}`, port: Number(port), password };
  } catch {
    return undefined;
  }
}

// The app writes a symlink whose target is the port number.
function portOf(file: string): string {
  try {
    return fs.readlinkSync(file);
  } catch (error) {
    if (systemCode(error) !== 'EINVAL') throw error;
    return firstBytes(file);
  }
}

function firstBytes(file: string): string {
  const fd = fs.openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(1024);
    return bytes.toString('latin1', 0, fs.readSync(fd, bytes, 0, bytes.length, 0)).trim();
  } finally {
    fs.closeSync(fd);
  }
}
