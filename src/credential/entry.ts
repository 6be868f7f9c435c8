// The cache entry: one small file per TKA server. A POSIX shell can find, check and print it without any other program.
// Its name is the server's canonical URL with `://`, `:` and `/` replaced by `+`: `https+tka.example.ts.net+8443`, or
// `https+tka.example.ts.net+clusters+site-1` for a joined cluster. Its mtime is the time until which it is fresh. Its
// lines are:
//
//   tka1 <length of the token> <fresh until, seconds of the epoch>
//   <TKA server>
//   <API server of the token>
//   <expirationTimestamp>
//   <token>
//   <details as JSON, for the slow path only>
//
// Files beside it: `+served` and `+checked` (see served.ts), `+lock` and `+failed`.
import * as fs from 'node:fs';
import * as path from 'node:path';

export interface CacheEntry {
  readonly server: string;
  readonly apiServer: string;
  /** RFC 3339, whole seconds, UTC. */
  readonly expirationTimestamp: string;
  readonly token: string;
  /** Local time until which the entry may be served without asking the server, in seconds since the epoch. */
  readonly freshUntil: number;
  /** The JSON of the last line, neither parsed nor validated. */
  readonly details: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

const serverShape =
  /^https?:\/\/(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:\/clusters\/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)?$/;
const headShape = /^tka1 ([0-9]{1,6}) ([0-9]{1,12})$/;
const apiServerShape = /^https:\/\/[!-~]{1,2040}$/;
const timestampShape =
  /^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$/;
const tokenShape = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
/** Maximum length of a token. The limit is low because a shell reads one byte per system call. */
export const tokenLimit = 16 * 1024;
const readLimit = 256 * 1024;

/** Returns true for a token that an entry can hold: three base64url parts, at most `tokenLimit` characters. */
export function isTokenShaped(token: string): boolean {
  return token.length <= tokenLimit && tokenShape.test(token);
}

/**
 * Returns the folder of the cache entries: TKA_CACHE_DIR, else the platform's cache folder. Returns undefined if the
 * environment has no home directory. This is the folder that env-paths returns; that package is too slow for the hot
 * path.
 */
export function cacheFolder(env: Environment, platform: string = process.platform): string | undefined {
  if (env.TKA_CACHE_DIR) return path.resolve(env.TKA_CACHE_DIR);
  if (platform === 'win32') {
    const base = env.LOCALAPPDATA || (env.USERPROFILE && path.join(env.USERPROFILE, 'AppData', 'Local'));
    return base ? path.join(base, 'kubectl-tka', 'Cache') : undefined;
  }
  if (platform === 'darwin') return env.HOME ? path.join(env.HOME, 'Library', 'Caches', 'kubectl-tka') : undefined;
  // The XDG specification says to ignore relative paths.
  if (env.XDG_CACHE_HOME?.startsWith('/')) return path.join(env.XDG_CACHE_HOME, 'kubectl-tka');
  return env.HOME ? path.join(env.HOME, '.cache', 'kubectl-tka') : undefined;
}

/**
 * Returns the folder for files that must survive a cleaned cache, for example `~/.local/state/kubectl-tka`. Returns
 * undefined if the environment has no such folder and `home` is undefined.
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
  // The XDG specification says to ignore relative paths.
  if (env.XDG_STATE_HOME?.startsWith('/')) return path.join(env.XDG_STATE_HOME, 'kubectl-tka');
  return under('.local', 'state', 'kubectl-tka');
}

/** Returns the path of the logout mark: `~/.local/state/kubectl-tka/signed-out/https+tka.example.ts.net`. */
export function signedOutFile(state: string, name: string): string {
  return path.join(state, 'signed-out', name);
}

/** Returns true if anything exists at the path, readable or not. */
export function exists(file: string): boolean {
  try {
    return fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // lstat fails if part of the path is a file, for example. No logout can have left a mark there.
    return false;
  }
}

/** Returns the file name of a server's entry, or undefined if the URL does not have the canonical form. */
export function entryName(server: string): string | undefined {
  return serverShape.test(server) ? server.replace('://', '+').replace(/[:/]/g, '+') : undefined;
}

/** Returns the server whose entry has this name (the reverse of entryName), or undefined for other names. */
export function serverOfEntry(name: string): string | undefined {
  // No host and no name of a joined cluster contains `+`.
  const server = name
    .replace('+', '://')
    .replace(/\+clusters\+(?=[^+]*$)/, '/clusters/')
    .replaceAll('+', ':');
  return entryName(server) === name ? server : undefined;
}

/** Returns the path of a file beside a server's entry: `~/.cache/kubectl-tka/https+tka.example.ts.net+served`. */
export function besideEntry(folder: string, server: string, suffix: string): string {
  return path.join(folder, `${entryName(server)}${suffix}`);
}

/**
 * Opens a regular file that this user owns. A new file gets mode 0600. Returns undefined for symlinks, FIFOs, devices,
 * files of other users and files that cannot be opened. Never throws, never blocks.
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
    // fstat fails with ESTALE when a file server goes away.
  }
  fs.closeSync(fd);
  return undefined;
}

// Returns true if this user owns the folder and it has no sticky bit (as /tmp has): the slow path writes no entries
// elsewhere. The shell front cannot read the other mode bits, so they are not checked here.
function isOwnFolder(folder: string): boolean {
  if (process.getuid === undefined) return true;
  const stat = fs.statSync(folder);
  return stat.uid === process.getuid() && (stat.mode & 0o1000) === 0;
}

/**
 * Reads the entry of a server, fresh or not. Returns undefined if it is missing, damaged, owned by another user or
 * about another server. Never throws.
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

/**
 * Parses an entry's text and mtime (seconds since the epoch). Returns undefined unless it is a whole entry of the
 * server.
 */
export function parseEntry(text: string, server: string, mtime: number): CacheEntry | undefined {
  // Ignore NULs, because a shell does not see them.
  const lines = text.replaceAll('\0', '').split('\n', 7);
  const [head, itsServer, apiServer, expirationTimestamp, token, ...rest] = lines;
  // If nothing follows the token, its line has no newline and the token may be cut off.
  if (rest.length === 0 || head === undefined || itsServer !== server) return undefined;
  const numbers = headShape.exec(head);
  if (numbers === null || token === undefined || String(token.length) !== numbers[1]) return undefined;
  if (!isTokenShaped(token)) return undefined;
  if (apiServer === undefined || !apiServerShape.test(apiServer)) return undefined;
  if (expirationTimestamp === undefined || !timestampShape.test(expirationTimestamp)) return undefined;
  const named = Number(numbers[2]);
  // The mtime of a copied or touched file does not tell how fresh it is. Some file systems round mtimes to two seconds.
  const freshUntil = Math.abs(mtime - named) > 2 ? 0 : Math.min(mtime, named);
  const details = Buffer.from(rest[0] ?? '', 'latin1').toString('utf8');
  return { server, apiServer, expirationTimestamp, token, freshUntil, details };
}

/** Returns the text of an entry's file. The caller must set the file's mtime to `freshUntil`. */
export function formatEntry(entry: CacheEntry): string {
  const { server, apiServer, expirationTimestamp, token, freshUntil, details } = entry;
  return `tka1 ${token.length} ${freshUntil}\n${server}\n${apiServer}\n${expirationTimestamp}\n${token}\n${details}\n`;
}

/** Returns true while the entry may be served without asking the server. `now` is in milliseconds since the epoch. */
export function isFresh(entry: Pick<CacheEntry, 'freshUntil'>, now: number): boolean {
  return entry.freshUntil > now / 1000;
}

/**
 * Returns the client.authentication.k8s.io version that the caller requests in KUBERNETES_EXEC_INFO, or v1 if that
 * variable is not set. Returns undefined for an unsupported version.
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

/** Returns an ExecCredential document, as client-go reads it from a plugin's stdout. */
export function execCredential(apiVersion: string, entry: Pick<CacheEntry, 'token' | 'expirationTimestamp'>): string {
  const { token, expirationTimestamp } = entry;
  return `${JSON.stringify({ kind: 'ExecCredential', apiVersion, status: { token, expirationTimestamp } })}\n`;
}

/** Writes a whole text to a file descriptor, in several writes if necessary. */
export function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      // EAGAIN: the pipe is full, and its reader set it to non-blocking. No event reports free space, so wait 10 ms.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}
