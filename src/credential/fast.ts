import {
  cacheFolder,
  entryName,
  execCredential,
  exists,
  isFresh,
  readEntry,
  signedOutFile,
  stateFolder,
  wantedApiVersion,
  writeAll,
} from './entry.ts';
import { asksAgain, wasChecked, writeServed } from './served.ts';

/**
 * The cached path of `credential --server URL [--api-server URL]`: prints a fresh entry and returns true, or prints
 * nothing and returns false. Uses no lock, no configuration, no network and no modules except node:fs and node:path.
 */
export function serveCached(args: readonly string[], env: NodeJS.ProcessEnv, parent: number): boolean {
  const [command, serverFlag, server, apiServerFlag, apiServer] = args;
  if (command !== 'credential' || serverFlag !== '--server' || server === undefined) return false;
  if (args.length !== 3 && !(args.length === 5 && apiServerFlag === '--api-server')) return false;
  if (env.TKA_DEBUG) return false;
  const folder = cacheFolder(env);
  const apiVersion = wantedApiVersion(env);
  if (folder === undefined || apiVersion === undefined || isSignedOut(server, env)) return false;
  const entry = readEntry(folder, server);
  const now = Date.now();
  if (entry === undefined || !isFresh(entry, now)) return false;
  if (apiServer !== undefined && apiServer !== entry.apiServer) return false;
  // client-go asks a second time if the API server refused the first token. The slow path checks that.
  if (asksAgain(folder, server, parent, now) && !wasChecked(folder, server, now)) return false;
  writeServed(folder, server, parent);
  writeAll(1, execCredential(apiVersion, entry));
  return true;
}

// Checks the logout mark, since restoring a cache from a backup must not undo a logout. Returns true without a home
// directory: the slow path then asks the system for it.
function isSignedOut(server: string, env: NodeJS.ProcessEnv): boolean {
  const state = stateFolder(env, process.platform === 'win32' ? env.USERPROFILE : env.HOME);
  const name = entryName(server);
  return state === undefined || name === undefined || exists(signedOutFile(state, name));
}
