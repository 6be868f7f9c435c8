// The cache entry: one small file per TKA server, laid out so that a POSIX shell without any other program can find,
// judge and print it too. Its name follows from the server's canonical URL (`:` and `://` become `+`), its mtime is
// the moment until which it is fresh, and its lines are
//
//   tka1 <length of the token> <fresh until, seconds of the epoch>
//   <TKA server>
//   <API server that the token is for>
//   <expirationTimestamp>
//   <token>
//   <details as JSON, for the slow path only>
//
// Beside it: `+served` and `+checked` (see served.ts), `+lock`, `+failed`.
import * as fs from 'node:fs';
import * as path from 'node:path';

export interface CacheEntry {
  readonly server: string;
  readonly apiServer: string;
  /** RFC 3339, whole seconds, UTC. */
  readonly expirationTimestamp: string;
  readonly token: string;
  /** Local time until which it may be served without a look at the server; seconds of the epoch. */
  readonly freshUntil: number;
  /** The JSON of the last line, unparsed and unjudged. */
  readonly details: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

const serverShape = /^https?:\/\/(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/;
const headShape = /^tka1 ([0-9]{1,6}) ([0-9]{1,12})$/;
const apiServerShape = /^https:\/\/[!-~]{1,2040}$/;
const timestampShape =
  /^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$/;
const tokenShape = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
/** No token is longer: a shell reads one byte a system call. */
export const tokenLimit = 16 * 1024;
const readLimit = 256 * 1024;

/** True for a token that an entry can hold: three base64url parts, not too long. */
export function isTokenShaped(token: string): boolean {
  return token.length <= tokenLimit && tokenShape.test(token);
}

/**
 * The folder of the cache entries: TKA_CACHE_DIR, else the platform's cache folder. Undefined where the environment
 * names no home. (The same folder as env-paths', which the hot path cannot afford to load.)
 */
export function cacheFolder(env: Environment, platform: string = process.platform): string | undefined {
  if (env.TKA_CACHE_DIR) return path.resolve(env.TKA_CACHE_DIR);
  if (platform === 'win32') {
    const base = env.LOCALAPPDATA || (env.USERPROFILE && path.join(env.USERPROFILE, 'AppData', 'Local'));
    return base ? path.join(base, 'kubectl-tka', 'Cache') : undefined;
  }
  if (platform === 'darwin') return env.HOME ? path.join(env.HOME, 'Library', 'Caches', 'kubectl-tka') : undefined;
  // The XDG specification: a relative path is to be ignored.
  if (env.XDG_CACHE_HOME?.startsWith('/')) return path.join(env.XDG_CACHE_HOME, 'kubectl-tka');
  return env.HOME ? path.join(env.HOME, '.cache', 'kubectl-tka') : undefined;
}

/**
 * The folder for what must outlive a cleaned cache; undefined where the environment names none and `home` is undefined.
 * `~/.local/state/kubectl-tka`
 */
export function stateFolder(
  env: Environment,
  home: string | undefined,
  platform: string = process.platform,
): string | undefined {
  const under = (...parts: string[]) => (home ? path.join(home, ...parts) : undefined);
  if (platform === 'win32') {
    const base = env.LOCALAPPDATA || under('AppData', 'Local');
    return base && path.join(base, 'kubectl-tka', 'Data');
  }
  if (platform === 'darwin') return under('Library', 'Application Support', 'kubectl-tka');
  // The XDG specification: a relative path is to be ignored.
  if (env.XDG_STATE_HOME?.startsWith('/')) return path.join(env.XDG_STATE_HOME, 'kubectl-tka');
  return under('.local', 'state', 'kubectl-tka');
}

/** The mark of a logout. `~/.local/state/kubectl-tka/signed-out/https+tka.example.ts.net` */
export function signedOutFile(state: string, name: string): string {
  return path.join(state, 'signed-out', name);
}

/** True if there is anything at a path, readable or not. */
export function exists(file: string): boolean {
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // Where the folder cannot even be looked into (part of its path is a file), no logout has left a mark.
    return false;
  }
}

/** The name of a server's entry within the cache folder; undefined unless the URL is canonical in form. */
export function entryName(server: string): string | undefined {
  return serverShape.test(server) ? server.replace('://', '+').replaceAll(':', '+') : undefined;
}

/** Returns the server whose entry has this name: the reverse of entryName; undefined for other names. */
export function serverOfEntry(name: string): string | undefined {
  const server = name.replace('+', '://').replaceAll('+', ':');
  return entryName(server) === name ? server : undefined;
}

/** The path of what lies beside a server's entry. `~/.cache/kubectl-tka/https+tka.example.ts.net+served` */
export function besideEntry(folder: string, server: string, suffix: string): string {
  return path.join(folder, `${entryName(server)}${suffix}`);
}

/**
 * Opens a regular file of ours, a new one with the mode 0600; undefined for symlinks, FIFOs, devices and other users'
 * files, and where it cannot be opened. Never throws, never hangs.
 */
export function openOwn(file: string, flags: number): number | undefined {
  const guards = (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0);
  try {
    if (process.platform === 'win32' && !fs.lstatSync(file).isFile()) return undefined;
  } catch {
    if ((flags & fs.constants.O_CREAT) === 0) return undefined;
  }
  let fd: number;
  try {
    fd = fs.openSync(file, flags | guards, 0o600);
  } catch {
    return undefined;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (stat.isFile() && (process.getuid === undefined || stat.uid === process.getuid())) return fd;
  } catch {
    // A file server that gives up: ESTALE.
  }
  fs.closeSync(fd);
  return undefined;
}

// As the slow path keeps entries in no folder that is shared by its nature. (No shell can see its other bits.)
function isOwnFolder(folder: string): boolean {
  if (process.getuid === undefined) return true;
  const stat = fs.statSync(folder);
  return stat.uid === process.getuid() && (stat.mode & 0o1000) === 0;
}

/**
 * The entry of a server as the file holds it, fresh or not; undefined for an absent, foreign, damaged or misplaced
 * one. Never throws.
 */
export function readEntry(folder: string, server: string): CacheEntry | undefined {
  const name = entryName(server);
  if (name === undefined) return undefined;
  const fd = openOwn(path.join(folder, name), fs.constants.O_RDONLY);
  if (fd === undefined) return undefined;
  try {
    if (!isOwnFolder(folder)) return undefined;
    const stat = fs.fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(stat.size, readLimit));
    const length = fs.readSync(fd, bytes, 0, bytes.length, 0);
    return parseEntry(bytes.toString('latin1', 0, length), server, stat.mtimeMs / 1000);
  } catch {
    return undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** Judges an entry's text and mtime (seconds of the epoch); undefined for anything but a whole entry of the server. */
export function parseEntry(text: string, server: string, mtime: number): CacheEntry | undefined {
  // NULs do not count: a shell does not see them.
  const lines = text.replaceAll('\0', '').split('\n', 7);
  const [head, itsServer, apiServer, expirationTimestamp, token, ...rest] = lines;
  // Without a part after the token its line has no end, and the rest may be missing.
  if (rest.length === 0 || head === undefined || itsServer !== server) return undefined;
  const numbers = headShape.exec(head);
  if (numbers === null || token === undefined || String(token.length) !== numbers[1]) return undefined;
  if (!isTokenShaped(token)) return undefined;
  if (apiServer === undefined || !apiServerShape.test(apiServer)) return undefined;
  if (expirationTimestamp === undefined || !timestampShape.test(expirationTimestamp)) return undefined;
  const named = Number(numbers[2]);
  // A copied or touched file says nothing about its freshness. (Some file systems keep two seconds.)
  const freshUntil = Math.abs(mtime - named) > 2 ? 0 : Math.min(mtime, named);
  const details = Buffer.from(rest[0] ?? '', 'latin1').toString('utf8');
  return { server, apiServer, expirationTimestamp, token, freshUntil, details };
}

/** The text of an entry; its file's mtime must be set to `freshUntil`. */
export function formatEntry(entry: CacheEntry): string {
  const { server, apiServer, expirationTimestamp, token, freshUntil, details } = entry;
  return `tka1 ${token.length} ${freshUntil}\n${server}\n${apiServer}\n${expirationTimestamp}\n${token}\n${details}\n`;
}

/** True while the entry may be served without a look at the server (`now` in milliseconds of the epoch). */
export function isFresh(entry: Pick<CacheEntry, 'freshUntil'>, now: number): boolean {
  return entry.freshUntil > now / 1000;
}

/**
 * The apiVersion that the caller asks for in KUBERNETES_EXEC_INFO (client.authentication.k8s.io), v1 when it names
 * none; undefined for one that is not spoken here.
 */
export function wantedApiVersion(env: Environment): string | undefined {
  const info = env.KUBERNETES_EXEC_INFO;
  if (!info) return 'client.authentication.k8s.io/v1';
  try {
    const version: unknown = JSON.parse(info).apiVersion;
    const known = version === 'client.authentication.k8s.io/v1' || version === 'client.authentication.k8s.io/v1beta1';
    return known ? version : undefined;
  } catch {
    return undefined;
  }
}

/** One ExecCredential document, as client-go reads it from a plugin's stdout. */
export function execCredential(apiVersion: string, entry: Pick<CacheEntry, 'token' | 'expirationTimestamp'>): string {
  const { token, expirationTimestamp } = entry;
  return `${JSON.stringify({ kind: 'ExecCredential', apiVersion, status: { token, expirationTimestamp } })}\n`;
}

/** Writes a text to a file descriptor to the last byte. */
export function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      // A pipe that its reader has set to non-blocking and that is full for the moment: no event says when there is room.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}
