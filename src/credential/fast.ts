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
 * nothing and returns false. No lock, no configuration, no network, no module but node:fs and node:path.
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
  // client-go asks twice when the API server refused the first answer: the slow path looks into that.
  if (asksAgain(folder, server, parent, now) && !wasChecked(folder, server, now)) return false;
  writeServed(folder, server, parent);
  writeAll(1, execCredential(apiVersion, entry));
  return true;
}

// A restored cache does not undo a logout. Without a home to look in, the slow path asks the system for it.
function isSignedOut(server: string, env: NodeJS.ProcessEnv): boolean {
  const state = stateFolder(env, process.platform === 'win32' ? env.USERPROFILE : env.HOME);
  const name = entryName(server);
  return state === undefined || name === undefined || exists(signedOutFile(state, name));
}
