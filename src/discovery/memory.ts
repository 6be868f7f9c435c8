import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName, serverOfEntry } from '../credential/entry.ts';
import type { Member } from '../tka/memberlist.ts';
import { readMembers } from '../tka/memberlist.ts';
import { ensurePrivateFolder, readOwn, readOwnLine, writeFileAtomic } from '../util/files.ts';
import type { Cluster, Provenance } from './clusters.ts';
import { isSelectable } from './selector.ts';

/** A member as it was last listed. Times in milliseconds of the epoch. */
export interface RememberedMember extends Member {
  /** When a memberlist last named it. */
  readonly listed: number;
  /** When the tailnet's candidates were last asked for it in vain; 0 for never. */
  readonly tried: number;
  /** On whose word `server` is its TKA server. */
  readonly provenance: Provenance;
  /** When a list first named it. */
  readonly since: number;
}

export interface RememberedList {
  /** When the last good answer came. */
  readonly at: number;
  /** Whether that was the Go server's HTML page. */
  readonly html: boolean;
  readonly members: readonly RememberedMember[];
}

const sizeLimit = 32 * 1024 * 1024;

/** What completion offers of a cluster, as a line of three columns with tabs between them. */
export function nameLine({ name, servers, labels }: Pick<Cluster, 'name' | 'servers' | 'labels'>): string {
  const urls = servers.flatMap(({ server }) => server ?? []);
  const pairs = [...labels].filter(([key, value]) => isSelectable(key, value)).map(([key, value]) => `${key}=${value}`);
  return `${name}\t${urls.join(' ')}\t${pairs.join(',')}`;
}

// The file's first line has the names alone, so that completion need not read ten thousand members: the rest of the
// object follows on the second.
const namesStart = '{"names":';

/** The last good memberlist of each seed, kept in a folder. */
export class ListMemory {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'clusters');
  }

  #file(seed: string): string | undefined {
    const name = entryName(seed);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, `${name}.json`);
  }

  /** The last good list; undefined if there is none that can be read. */
  read(seed: string): RememberedList | undefined {
    const file = this.#file(seed);
    const text = file === undefined ? undefined : readOwn(file, sizeLimit);
    if (text === undefined) return undefined;
    try {
      const { at, html, members, times } = JSON.parse(text);
      if (typeof at !== 'number' || typeof html !== 'boolean') return undefined;
      if (!Array.isArray(members) || !Array.isArray(times)) return undefined;
      // The rows go through the same reader as those of a server: a file is no more to be trusted.
      const list = readMembers(members);
      if (list.unread > 0 || list.members.length !== times.length) return undefined;
      const now = Date.now();
      // A time to come (the clock was set back) is now: a member of such a list would never be given up.
      const number = (value: unknown) => (typeof value === 'number' && value > 0 ? Math.min(value, now) : 0);
      const remembered = list.members.map((member, i) => ({
        ...member,
        listed: number(times[i]?.[0]),
        tried: number(times[i]?.[1]),
        provenance: provenanceOf(times[i]?.[2]),
        // Version 0.1.0 did not keep it.
        since: number(times[i]?.[3] ?? times[i]?.[0]),
      }));
      return { at: number(at), html, members: remembered };
    } catch {
      return undefined;
    }
  }

  /** The names of the clusters of the last good list, as lines of nameLine(); undefined where they were not kept. */
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

  /** Keeps a list, and the names of its clusters. Throws the system's error where it cannot be kept. */
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

  /** Forgets where members of an API endpoint were, and that nobody else was found. Throws as write() does. */
  forget(apiEndpoint: string, server: string): void {
    const isIt = (member: RememberedMember) => member.apiEndpoint === apiEndpoint && member.server === server;
    for (const seed of this.seeds()) {
      const list = this.read(seed);
      if (list === undefined || !list.members.some(isIt)) continue;
      const members = list.members.map((member) => (isIt(member) ? { ...member, server: null, tried: 0 } : member));
      this.write(seed, { ...list, members });
    }
  }

  all(): RememberedList[] {
    return this.byServer().map(([, list]) => list);
  }

  /** Returns all lists, each with the server that it was asked of. */
  byServer(): (readonly [seed: string, list: RememberedList])[] {
    return this.seeds().flatMap((server) => {
      const list = this.read(server);
      return list === undefined ? [] : [[server, list] as const];
    });
  }

  /** The servers of which there are lists. */
  seeds(): string[] {
    const folder = this.#folder;
    if (folder === undefined || !fs.existsSync(folder)) return [];
    return fs
      .readdirSync(folder)
      .flatMap((name) => (name.endsWith('.json') ? (serverOfEntry(name.slice(0, -5)) ?? []) : []));
  }
}

// An old file may have no provenance: then the tag decides. What the user named is not read from here: version 0.1.0 wrote
// `known` for servers that a list had stated, too.
function provenanceOf(value: unknown): Provenance {
  return value === 'stated' || value === 'known' ? 'stated' : 'tailnet';
}
