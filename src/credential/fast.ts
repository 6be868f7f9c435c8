import {
  cacheFolder,
  execCredential,
  isFresh,
  readEntry,
  readServed,
  wantedApiVersion,
  writeAll,
  writeServed,
} from './entry.ts';

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
  if (folder === undefined || apiVersion === undefined) return false;
  const entry = readEntry(folder, server);
  if (entry === undefined || !isFresh(entry, Date.now())) return false;
  if (apiServer !== undefined && apiServer !== entry.apiServer) return false;
  // client-go asks twice only when the API server refused the first answer: the slow path looks into that.
  if (readServed(folder, server) === parent) return false;
  writeServed(folder, server, parent);
  writeAll(1, execCredential(apiVersion, entry));
  return true;
}
