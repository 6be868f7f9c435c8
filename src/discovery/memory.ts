import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, serverOfEntry } from '../credential/entry.ts';
import type { Member } from '../tka/memberlist.ts';
import { readMembers } from '../tka/memberlist.ts';
import { ensurePrivateFolder, readOwn, readOwnLine, writeFileAtomic } from '../util/files.ts';
import { isSelectable } from '../util/selector.ts';
import type { Cluster, Provenance } from './clusters.ts';
import { isJoined } from './joined.ts';

/** A member as it was last listed. Times are in milliseconds since the epoch. */
export interface RememberedMember extends Member {
  /** When a memberlist last contained it. */
  readonly listed: number;
  /** When the tailnet's peers were last asked for its server; 0 for never. */
  readonly tried: number;
  /** How we know that `server` is its TKA server. */
  readonly provenance: Provenance;
  /** When a list first contained it. */
  readonly since: number;
}

export interface RememberedList {
  /** When the last good answer arrived, in milliseconds since the epoch. */
  readonly at: number;
  /** True if that answer was the Go server's HTML page. */
  readonly html: boolean;
  readonly members: readonly RememberedMember[];
}

const sizeLimit = 32 * 1024 * 1024;

/** Returns a cluster's line for completion: name, server URLs and labels, separated by tabs. */
export function nameLine({ name, servers, labels }: Pick<Cluster, 'name' | 'servers' | 'labels'>): string {
  const urls = servers.flatMap(({ server }) => server ?? []);
  const pairs = [...labels].filter(([key, value]) => isSelectable(key, value)).map(([key, value]) => `${key}=${value}`);
  return `${name}\t${urls.join(' ')}\t${pairs.join(',')}`;
}

// The file's first line has only the names, so that completion need not read ten thousand members. The rest of the JSON
// object is on the second line.
const namesStart = '{"names":';

/** The last good memberlist of each seed, in the state folder's `clusters`. */
export class ListMemory {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'clusters');
  }

  #file(seed: string): string | undefined {
    const name = entryName(seed);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, `${name}.json`);
  }

  /** Returns the last good list, or undefined if it is missing or damaged. */
  read(seed: string): RememberedList | undefined {
    const file = this.#file(seed);
    const text = file === undefined ? undefined : readOwn(file, sizeLimit);
    if (text === undefined) return undefined;
    try {
      const { at, html, members, times } = JSON.parse(text);
      if (typeof at !== 'number' || typeof html !== 'boolean') return undefined;
      if (!Array.isArray(members) || !Array.isArray(times)) return undefined;
      // Use the same parser as for a server's answer, because the file is just as untrusted.
      const list = readMembers(members);
      if (list.unread > 0 || list.members.length !== times.length) return undefined;
      const now = Date.now();
      // Replace a future time (the clock was set back) with now. Otherwise its member would never be dropped.
      const number = (value: unknown) => (typeof value === 'number' && value > 0 ? Math.min(value, now) : 0);
      const remembered = list.members.map((member, i) => ({
        ...member,
        listed: number(times[i]?.[0]),
        tried: number(times[i]?.[1]),
        provenance: provenanceOf(times[i]?.[2]),
        // Version 0.1.0 did not store it.
        since: number(times[i]?.[3] ?? times[i]?.[0]),
      }));
      return { at: number(at), html, members: remembered };
    } catch {
      return undefined;
    }
  }

  /** Returns the lines of nameLine() for the last good list, or undefined if they were not stored. */
  names(seed: string): string[] | undefined {
    const file = this.#file(seed);
    const line = file === undefined ? undefined : readOwnLine(file, sizeLimit);
    if (line?.startsWith(namesStart) !== true) return undefined;
    try {
      const names: unknown = JSON.parse(line.slice(namesStart.length));
      return typeof names === 'string' ? names.split('\n').filter((name) => name !== '') : undefined;
    } catch {
      return undefined;
    }
  }

  /** Writes a list and the names of its clusters. Throws the system's error. */
  write(seed: string, list: RememberedList, clusters?: readonly Cluster[]): void {
    const file = this.#file(seed);
    if (file === undefined) return;
    ensurePrivateFolder(path.dirname(file));
    const members = list.members.map(({ listed: _, tried: __, provenance: ___, since: ____, labels, ...rest }) => ({
      ...rest,
      labels: Object.fromEntries(labels),
    }));
    const times = list.members.map((each) => [each.listed, each.tried, provenanceOf(each.provenance), each.since]);
    const rest = JSON.stringify({ at: list.at, html: list.html, members, times });
    const names = clusters && JSON.stringify(clusters.map(nameLine).join('\n'));
    writeFileAtomic(file, names === undefined ? `${rest}\n` : `${namesStart}${names}\n,${rest.slice(1)}\n`);
  }

  /**
   * Removes a server from the members of an API endpoint, and allows a new search at once. A joined cluster is nothing
   * without its server, so it is removed. Throws what write() throws.
   */
  forget(apiEndpoint: string, server: string): void {
    const isIt = (member: RememberedMember) => member.apiEndpoint === apiEndpoint && member.server === server;
    for (const seed of this.seeds()) {
      const list = this.read(seed);
      if (list === undefined || !list.members.some(isIt)) continue;
      const members = list.members
        .filter((member) => !isIt(member) || !isJoined(member))
        .map((member) => (isIt(member) ? { ...member, server: null, tried: 0 } : member));
      this.write(seed, { ...list, members });
    }
  }

  all(): RememberedList[] {
    return this.byServer().map(([, list]) => list);
  }

  /** Returns all lists, each with its seed. */
  byServer(): (readonly [seed: string, list: RememberedList])[] {
    return this.seeds().flatMap((server) => {
      const list = this.read(server);
      return list === undefined ? [] : [[server, list] as const];
    });
  }

  /** Returns the servers with a stored list. */
  seeds(): string[] {
    const folder = this.#folder;
    if (folder === undefined || !fs.existsSync(folder)) return [];
    return fs
      .readdirSync(folder)
      .flatMap((name) => (name.endsWith('.json') ? (serverOfEntry(name.slice(0, -5)) ?? []) : []));
  }
}

// Without a provenance (old files), the tag decides. `known` counts as `stated`, because version 0.1.0 also wrote
// `known` for servers from a list.
function provenanceOf(value: unknown): Provenance {
  return value === 'stated' || value === 'known' ? 'stated' : 'tailnet';
}
