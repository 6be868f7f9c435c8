import { composed } from '../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import { markName } from './glance.ts';
import { type KubeconfigEntry, type SectionKey, type Source, sectionKeys } from './source.ts';
import { isPlainMap, type Plain, type PlainMap } from './value.ts';

/**
 * What a context stores about its cluster, so that another TKA server of the cluster can be used while its own is down.
 */
export interface ContextSiblings {
  /** The name of the cluster. */
  readonly cluster: string;
  /** Where the cluster's sign-ins are stored, as its TKA server states it. */
  readonly signInStore: string;
  /** Canonical URLs of its other TKA servers. */
  readonly servers: readonly string[];
}

/** A managed context and what it refers to. */
export interface OurContext {
  readonly name: string;
  readonly cluster: string;
  readonly user: string;
  readonly file: string;
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** Canonical URL of the API server that kubectl talks to; undefined if there is none or it is not an https URL. */
  readonly apiServer: string | undefined;
  readonly command: string | undefined;
  /** Base64 of PEM, without line breaks. */
  readonly caData: string | undefined;
  readonly insecureSkipTlsVerify: boolean;
  /** Undefined in contexts of version 0.1.0, and if the TKA server does not state all of it (Go). */
  readonly siblings?: ContextSiblings | undefined;
  /** What named the server when the context was written; undefined in contexts of version 0.1.0. */
  readonly namedBy?: string | undefined;
}

/** Any context of the merged view. */
export interface ContextInfo {
  readonly ours: boolean;
  readonly file: string;
  readonly cluster: string;
  readonly user: string;
}

/** The kubeconfig files as kubectl sees them together. */
export interface KubeconfigView {
  readonly currentContext: string | undefined;
  readonly contexts: ReadonlyMap<string, ContextInfo>;
  readonly ours: readonly OurContext[];
  /** The composed() names that entries which are not managed have, each with the kind of the entry. */
  readonly foreign: ReadonlyMap<string, 'context' | 'cluster' | 'user'>;
}

/** The view of a kubeconfig without entries. */
export const emptyView: KubeconfigView = {
  currentContext: undefined,
  contexts: new Map(),
  ours: [],
  foreign: new Map(),
};

/** An entry and its file. */
export interface MergedEntry {
  readonly source: Source;
  readonly entry: KubeconfigEntry;
}

export type Merged = Readonly<Record<SectionKey, ReadonlyMap<string, MergedEntry>>>;

/** Returns all entries by name. The first file with a name wins, as in kubectl. */
export function mergeSources(sources: readonly Source[]): Merged {
  const merged = {
    clusters: new Map<string, MergedEntry>(),
    contexts: new Map<string, MergedEntry>(),
    users: new Map<string, MergedEntry>(),
  };
  for (const source of sources) {
    for (const key of sectionKeys) {
      for (const entry of source.entries[key]) {
        if (!merged[key].has(entry.name)) merged[key].set(entry.name, { source, entry });
      }
    }
  }
  return merged;
}

interface Mark {
  readonly index: number;
  readonly server: string;
  readonly namedBy: string | undefined;
}

// Cached: an edit of a thousand contexts asks for each mark several times.
const marks = new WeakMap<KubeconfigEntry, Mark | undefined>();

/**
 * Returns the index of our mark in an entry's `extensions`, and its TKA server; undefined if the entry is not managed.
 */
export function markOf(entry: KubeconfigEntry | undefined): Mark | undefined {
  if (entry === undefined) return undefined;
  if (!marks.has(entry)) marks.set(entry, readMark(entry));
  return marks.get(entry);
}

function readMark(entry: KubeconfigEntry): Mark | undefined {
  const list = entry.body.extensions;
  if (!Array.isArray(list)) return undefined;
  const index = list.findIndex((item) => isPlainMap(item) && item.name === markName);
  const extension = (list[index] as PlainMap | undefined)?.extension;
  if (!isPlainMap(extension)) return undefined;
  // A mark without a valid server cannot be matched with anything, so its entry counts as not managed.
  const server = orUndefined(canonicalServer, textOf(extension.server));
  return server === undefined ? undefined : { index, server, namedBy: textOf(extension.namedBy) };
}

/** Returns what a managed context stores about its cluster; undefined if any part is missing. */
export function siblingsOf(entry: KubeconfigEntry): ContextSiblings | undefined {
  const mark = markOf(entry);
  const list = entry.body.extensions;
  const item = mark !== undefined && Array.isArray(list) ? list[mark.index] : undefined;
  const extension = isPlainMap(item) ? item.extension : undefined;
  if (!isPlainMap(extension)) return undefined;
  const { cluster, signInStore, servers } = extension;
  if (typeof cluster !== 'string' || typeof signInStore !== 'string' || !Array.isArray(servers)) return undefined;
  if (signInStore === '') return undefined;
  const urls = servers.map((server) => orUndefined(canonicalServer, textOf(server)));
  return { cluster, signInStore, servers: urls.filter((url) => url !== undefined && url !== '') as string[] };
}

/** Returns the value if it is a string, else undefined. */
export const textOf = (value: Plain | undefined): string | undefined => (typeof value === 'string' ? value : undefined);

function orUndefined(canonical: (text: string) => string, text: string | undefined): string | undefined {
  try {
    return text && canonical(text);
  } catch {
    return undefined;
  }
}

/** Returns the merged view of the files, from which edits are planned. */
export function viewOf(sources: readonly Source[], merged: Merged): KubeconfigView {
  const contexts = new Map<string, ContextInfo>();
  const ours: OurContext[] = [];
  for (const [name, { source, entry }] of merged.contexts) {
    const mark = markOf(entry);
    const cluster = textOf(entry.body.cluster) ?? '';
    const user = textOf(entry.body.user) ?? '';
    contexts.set(name, { ours: mark !== undefined, file: source.file, cluster, user });
    if (!mark) continue;
    const target = merged.clusters.get(cluster)?.entry.body ?? {};
    const exec = merged.users.get(user)?.entry.body.exec;
    ours.push({
      name,
      cluster,
      user,
      file: source.file,
      server: mark.server,
      apiServer: orUndefined(canonicalApiServer, textOf(target.server)),
      command: isPlainMap(exec) ? textOf(exec.command) : undefined,
      caData: textOf(target['certificate-authority-data'])?.replace(/[\r\n]+/g, '') || undefined,
      insecureSkipTlsVerify: target['insecure-skip-tls-verify'] === true,
      siblings: siblingsOf(entry),
      namedBy: mark.namedBy,
    });
  }
  const currentContext = sources.find((source) => source.currentContext !== '')?.currentContext;
  return { currentContext, contexts, ours, foreign: foreignIn(merged) };
}

function foreignIn(merged: Merged): KubeconfigView['foreign'] {
  const kinds = { users: 'user', clusters: 'cluster', contexts: 'context' } as const;
  const found = new Map<string, 'context' | 'cluster' | 'user'>();
  for (const key of ['users', 'clusters', 'contexts'] as const)
    for (const [name, { entry }] of merged[key]) if (markOf(entry) === undefined) found.set(composed(name), kinds[key]);
  return found;
}
