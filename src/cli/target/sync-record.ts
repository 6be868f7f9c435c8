import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName } from '../../credential/entry.ts';
import type { ClusterServer } from '../../discovery/clusters.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../../util/files.ts';

const keepFor = 7 * 86_400_000;
const sizeLimit = 16 * 1024 * 1024;
const most = 20_000;

type Listed = Pick<ClusterServer, 'server' | 'state' | 'lastSeen'>;

/**
 * Which servers a memberlist has ever named, as syncs have seen it, each with the day when it last did. It tells the
 * contexts that came from a memberlist from those for servers that the user named by address, which stay: a
 * memberlist has nothing to say about them.
 */
export class SyncRecord {
  readonly #file: string | undefined;
  readonly #before: ReadonlyMap<string, string>;
  readonly #servers: ReadonlyMap<string, string>;
  /** False for a list that does not tell when its members were seen: perhaps gossip is off for the moment. */
  readonly #dated: boolean;

  /** `entryServer` is the configured one; undefined where it is found on the tailnet. */
  constructor(stateFolder: string | undefined, entryServer: string | undefined, listed: readonly Listed[]) {
    const name = entryServer === undefined ? 'tailnet' : entryName(entryServer);
    this.#file =
      stateFolder === undefined || name === undefined ? undefined : path.join(stateFolder, 'synced', `${name}.json`);
    this.#before = this.#file === undefined ? new Map() : readRecord(this.#file);
    const today = new Date().toISOString().slice(0, 10);
    // Without a server in common it is another mesh that is looked at: another tailnet, or all is new.
    const sameMesh = listed.some(({ server, state }) => state !== 'missing' && this.#before.has(server ?? ''));
    const servers = new Map(sameMesh ? this.#before : []);
    for (const { server, state } of listed) {
      if (server === null || (state === 'missing' && servers.has(server))) continue;
      servers.set(server, today);
    }
    this.#servers = servers;
    this.#dated = listed.some(({ lastSeen }) => lastSeen !== null);
  }

  /** True for a server that an earlier list of this mesh named, so that its absence from this one means something. */
  wasListed(server: string): boolean {
    const day = this.#servers.get(server);
    return day !== undefined && (this.#dated || Date.now() - Date.parse(day) > keepFor);
  }

  /** Keeps it, without the servers whose contexts are gone. Throws the system's error where it cannot be kept. */
  write(gone: ReadonlySet<string>): void {
    if (this.#file === undefined) return;
    const servers = [...this.#servers].filter(([server]) => !gone.has(server)).sort();
    if (JSON.stringify(servers) === JSON.stringify([...this.#before].sort())) return;
    const folder = path.dirname(this.#file);
    ensurePrivateFolder(path.dirname(folder));
    ensurePrivateFolder(folder);
    writeFileAtomic(this.#file, `${JSON.stringify(Object.fromEntries(servers.slice(0, most)))}\n`);
  }
}

/**
 * The servers that syncs have found in any list. A context for one of them tells nothing of the user: sync may have written
 * it.
 */
export function syncedServers(stateFolder: string | undefined): ReadonlySet<string> {
  const folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'synced');
  if (folder === undefined || !fs.existsSync(folder)) return new Set();
  const files = fs.readdirSync(folder).filter((name) => name.endsWith('.json'));
  return new Set(files.flatMap((name) => [...readRecord(path.join(folder, name)).keys()]));
}

function readRecord(file: string): Map<string, string> {
  try {
    const value: unknown = JSON.parse(readOwn(file, sizeLimit) ?? '{}');
    if (typeof value !== 'object' || value === null) return new Map();
    return new Map(
      Object.entries(value).filter(
        (pair): pair is [string, string] => typeof pair[1] === 'string' && !Number.isNaN(Date.parse(pair[1])),
      ),
    );
  } catch {
    return new Map();
  }
}
