import { TkaError } from '../util/errors.ts';
import { quoted } from '../util/text.ts';
import type { FileChanges, KubeconfigChange, KubeconfigState } from './change.ts';
import { maxBytes, tooLarge } from './damage.ts';
import type { KubeconfigFiles } from './files.ts';
import { updateOf } from './rewrite.ts';
import { hasAliases, type KubeconfigEntry, type SectionKey } from './source.ts';
import {
  type ContextSpec,
  checkSpec,
  clusterFields,
  contextFields,
  newCluster,
  newContext,
  newUser,
  otherName,
  usableCommand,
  userFields,
} from './spec.ts';
import type { Field } from './splice.ts';
import type { PlainMap } from './value.ts';
import { type Merged, markOf, textOf } from './view.ts';

/** A context to write, and the names of the cluster and the user that it refers to. */
interface Upsert {
  readonly spec: ContextSpec;
  readonly cluster: string;
  readonly user: string;
  /** True if the context exists. */
  readonly isKnown: boolean;
}

/** The sections that a context refers to, and the context's fields with the names. */
const references = [
  ['clusters', 'cluster'],
  ['users', 'user'],
] as const;

/**
 * Plans the contexts of a change one by one, and returns which cannot be written and why: the spec is invalid, a name
 * is taken, the cluster or user would be shared with another server, or the rest of the file refers to its entries.
 * Throws TkaError if the change is too large for a file.
 */
export function planUpserts(files: KubeconfigFiles, state: KubeconfigState, change: KubeconfigChange) {
  const { merged } = state;
  const { specs, blocked } = checkedSpecs(change);
  const removed = new Set((change.remove ?? []).filter((name) => !specs.has(name)));
  const users = referringContexts(state, removed);
  const upserts: Upsert[] = [];
  const planned = new Map<string, ContextSpec>();
  for (const spec of specs.values()) {
    const upsert = upsertOf(spec, merged);
    const error =
      foreignEntry(upsert, merged) ??
      usedForAnotherServer(upsert, merged, specs, users) ??
      sharedWithEarlier(upsert, planned) ??
      notEditable(upsert, merged, files.searchPath);
    if (error) {
      blocked.set(spec.name, error);
      continue;
    }
    upserts.push(upsert);
    for (const [key, field] of references) planned.set(`${key} ${upsert[field]}`, spec);
  }
  return { upserts, blocked, specs };
}

function checkedSpecs({ upsert = [] }: KubeconfigChange) {
  const specs = new Map<string, ContextSpec>();
  const blocked = new Map<string, TkaError>();
  for (const spec of upsert) {
    try {
      if (specs.has(spec.name)) throw new TkaError(`context ${quoted(spec.name)} is requested twice`);
      specs.set(spec.name, checkSpec(spec));
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      blocked.set(spec.name, error);
    }
  }
  // CAs come from servers. Refuse too many before splicing them, which takes many times their size in memory.
  const size = [...specs.values()].reduce((sum, { caData = '' }) => sum + caData.length, 0);
  if (size > maxBytes) {
    throw tooLarge(
      `the CAs of ${specs.size} contexts are larger than ${maxBytes >> 20} MiB, too much for a kubeconfig`,
    );
  }
  return { specs, blocked };
}

/** Returns the contexts that stay, by `clusters NAME` and `users NAME` of the entries that they refer to. */
function referringContexts({ sources }: KubeconfigState, removed: ReadonlySet<string>) {
  const found = new Map<string, KubeconfigEntry[]>();
  for (const entry of sources.flatMap((source) => source.entries.contexts)) {
    if (removed.has(entry.name) && markOf(entry)) continue;
    for (const [key, field] of references) {
      const id = `${key} ${textOf(entry.body[field]) ?? ''}`;
      const list = found.get(id);
      if (list) list.push(entry);
      else found.set(id, [entry]);
    }
  }
  return found;
}

function upsertOf(spec: ContextSpec, { contexts }: Merged): Upsert {
  const body = contexts.get(spec.name)?.entry.body;
  const nameIn = (field: 'cluster' | 'user') => textOf(body?.[field]) || spec.name;
  return { spec, cluster: nameIn('cluster'), user: nameIn('user'), isKnown: body !== undefined };
}

function foreignEntry({ spec, cluster, user }: Upsert, merged: Merged): TkaError | undefined {
  for (const [key, what, name] of [
    ['contexts', 'context', spec.name],
    ['clusters', 'cluster', cluster],
    ['users', 'user', user],
  ] as const) {
    const found = merged[key].get(name);
    if (found === undefined || markOf(found.entry)) continue;
    return new TkaError(`${what} ${quoted(name)} already exists and is not managed by kubectl-tka`, {
      hints: [otherName],
    });
  }
  return undefined;
}

/** Returns an error if a cluster or user would get another TKA server while other contexts use it. */
function usedForAnotherServer(
  upsert: Upsert,
  merged: Merged,
  specs: ReadonlyMap<string, ContextSpec>,
  users: ReadonlyMap<string, readonly KubeconfigEntry[]>,
): TkaError | undefined {
  const { spec, isKnown } = upsert;
  for (const [key, field] of references) {
    const mark = markOf(merged[key].get(upsert[field])?.entry);
    if (mark === undefined || mark.server === spec.server) continue;
    const other = users.get(`${key} ${upsert[field]}`)?.find((entry) => {
      if (entry.name === spec.name) return false;
      const server = specs.get(entry.name)?.server ?? markOf(entry)?.server;
      return server === undefined ? !isKnown : server !== spec.server;
    });
    if (other === undefined) continue;
    const what = `${field} ${quoted(upsert[field])}`;
    return new TkaError(`${what} is in use by context ${quoted(other.name)} for another server`, {
      hints: [otherName],
    });
  }
  return undefined;
}

function sharedWithEarlier(upsert: Upsert, planned: ReadonlyMap<string, ContextSpec>): TkaError | undefined {
  const { spec } = upsert;
  for (const [key, field] of references) {
    const earlier = planned.get(`${key} ${upsert[field]}`);
    if (!earlier || (earlier.server === spec.server && earlier.apiServer === spec.apiServer)) continue;
    const names = `contexts ${quoted(earlier.name)} and ${quoted(spec.name)}`;
    return new TkaError(`${names} would share one of ${key}: ${quoted(upsert[field])}`);
  }
  return undefined;
}

/** One entry of a context: make() returns it as new, diff() returns the fields to change in an existing one. */
interface EntryPlan {
  readonly key: SectionKey;
  readonly name: string;
  readonly make: () => PlainMap;
  readonly diff: (entry: KubeconfigEntry) => Field[];
}

/** Returns clusters and users before contexts: a context must not come before the entries that it refers to. */
function entryPlans({ spec, cluster, user }: Upsert, merged: Merged, searchPath: string | undefined): EntryPlan[] {
  const runs = (command: string) => usableCommand(command, merged.users.get(user)?.source.file ?? '', searchPath);
  return [
    { key: 'clusters', name: cluster, make: () => newCluster(cluster, spec), diff: (old) => clusterFields(old, spec) },
    { key: 'users', name: user, make: () => newUser(user, spec), diff: (old) => userFields(old, spec, runs) },
    {
      key: 'contexts',
      name: spec.name,
      make: () => newContext(spec.name, cluster, user, spec),
      diff: (old) => contextFields(old, cluster, user, spec),
    },
  ];
}

/** Returns an error if other parts of the file refer to an anchor of an entry: an edit would change them too. */
function notEditable(upsert: Upsert, merged: Merged, searchPath: string | undefined): TkaError | undefined {
  for (const { key, name, diff } of entryPlans(upsert, merged, searchPath)) {
    const { source, entry } = merged[key].get(name) ?? {};
    if (source === undefined || entry === undefined || !hasAliases(source)) continue;
    try {
      updateOf(source, entry, diff(entry));
    } catch (error) {
      if (error instanceof TkaError) return error;
      throw error;
    }
  }
  return undefined;
}

/** Adds what planned contexts need to the changes of the files: new entries, and fields that differ. */
export function applyUpserts(
  upserts: readonly Upsert[],
  merged: Merged,
  edit: FileChanges,
  searchPath: string | undefined,
): void {
  const done = new Set<string>();
  for (const { key, name, make, diff } of upserts.flatMap((upsert) => entryPlans(upsert, merged, searchPath))) {
    if (done.has(`${key} ${name}`)) continue;
    done.add(`${key} ${name}`);
    const found = merged[key].get(name);
    if (!found) {
      edit.ofDefault.create[key].push(make());
      continue;
    }
    const fields = diff(found.entry);
    if (fields.length > 0) edit.of(found.source).update.push({ entry: found.entry, fields });
  }
}
