import { TkaError } from '../util/errors.ts';
import { quoted } from '../util/text.ts';
import { usableCommand } from './command.ts';
import type { KubeconfigFiles } from './files.ts';
import { type Entry, KubeconfigTooLarge, maxBytes, type SectionKey, type Source, shellWord, shown } from './source.ts';
import {
  type ContextSpec,
  checkSpec,
  clusterFields,
  contextFields,
  newCluster,
  newContext,
  newUser,
  otherName,
  userFields,
} from './spec.ts';
import type { Field } from './splice.ts';
import type { PlainMap } from './value.ts';
import { type KubeconfigView, type Merged, markOf, textOf } from './view.ts';

/** What to do to the kubeconfig files, in one go. */
export interface KubeconfigChange {
  readonly upsert?: readonly ContextSpec[];
  /** Names of contexts of ours; one that is not there is passed over. */
  readonly remove?: readonly string[];
  /** null clears; undefined leaves it. */
  readonly currentContext?: string | null | undefined;
}

/** What to do to one file. */
export interface FileChange {
  readonly remove: Record<SectionKey, Set<string>>;
  readonly update: { readonly entry: Entry; readonly fields: readonly Field[] }[];
  readonly create: Record<SectionKey, PlainMap[]>;
  current: string | undefined;
}

/**
 * What each file must become, or not (files without a change are left out). Throws TkaError for a name that is taken by
 * somebody else's entry, and for specs that must not be written.
 */
export function planChange(
  files: KubeconfigFiles,
  sources: readonly Source[],
  merged: Merged,
  view: KubeconfigView,
  change: KubeconfigChange,
): Map<Source, FileChange> {
  const changes = new Map<Source, FileChange>();
  const changeOf = (source: Source): FileChange => {
    const found = changes.get(source);
    if (found) return found;
    const remove = { clusters: new Set<string>(), contexts: new Set<string>(), users: new Set<string>() };
    const create = { clusters: [], contexts: [], users: [] };
    const fresh: FileChange = { remove, update: [], create, current: undefined };
    changes.set(source, fresh);
    return fresh;
  };
  const defaultSource = (): Source => {
    const source = sources.find(({ file }) => file === files.defaultFile);
    if (source) return source;
    throw new TkaError('no kubeconfig to write to: KUBECONFIG names no file', {
      hints: ['unset KUBECONFIG, or name a file: --kubeconfig FILE'],
    });
  };

  const specs = new Map<string, ContextSpec>();
  for (const spec of change.upsert ?? []) {
    const checked = checkSpec(spec);
    if (specs.has(checked.name)) throw new TkaError(`context ${quoted(checked.name)} is asked for twice`);
    specs.set(checked.name, checked);
  }
  // Servers state CAs: what could never be written is refused before it is spliced, which takes many times its size.
  const size = [...specs.values()].reduce((sum, { caData = '' }) => sum + caData.length, 0);
  if (size > maxBytes) {
    throw new KubeconfigTooLarge(
      `the CAs of ${specs.size} contexts are larger than ${maxBytes >> 20} MiB, too much for a kubeconfig`,
    );
  }

  const removed = removeContexts(sources, view, new Set(change.remove ?? []), specs, changeOf);
  upsertContexts(sources, merged, specs, removed, defaultSource, changeOf, files.searchPath);

  const exists = (name: string): boolean =>
    specs.has(name) ||
    sources.some((s) => s.entries.contexts.some((e) => e.name === name && !changes.get(s)?.remove.contexts.has(name)));
  for (const source of sources) {
    if (removed.has(source.currentContext) && !exists(source.currentContext)) changeOf(source).current = '';
  }
  const wanted = change.currentContext;
  if (wanted === null) {
    const first = sources.find((source) => source.currentContext !== '');
    if (first) changeOf(first).current = '';
  } else if (wanted !== undefined && wanted !== view.currentContext) {
    if (!exists(wanted)) throw new TkaError(`no context ${quoted(wanted)}`, { hints: ['kubectl config get-contexts'] });
    changeOf(defaultSource()).current = wanted;
  } else if (wanted !== undefined && !exists(wanted)) {
    throw new TkaError(`no context ${quoted(wanted)}`, { hints: ['kubectl config get-contexts'] });
  }
  return changes;
}

function removeContexts(
  sources: readonly Source[],
  view: KubeconfigView,
  asked: ReadonlySet<string>,
  specs: ReadonlyMap<string, ContextSpec>,
  changeOf: (source: Source) => FileChange,
): Set<string> {
  const names = new Set([...asked].filter((name) => !specs.has(name)));
  for (const name of names) {
    const found = view.contexts.get(name);
    if (found && !found.ours) {
      throw new TkaError(`context ${quoted(name)} is not ours: ${shown(found.file)}`, {
        hints: [`kubectl config delete-context ${shellWord(name)}`],
      });
    }
  }
  if (names.size === 0) return names;
  // The names themselves too: a removal that was cut short leaves clusters and users without a context.
  const orphans = { clusters: new Set(names), users: new Set(names) };
  const used = { clusters: new Set(specs.keys()), users: new Set(specs.keys()) };
  for (const source of sources) {
    for (const entry of source.entries.contexts) {
      const gone = names.has(entry.name) && markOf(entry) !== undefined;
      if (gone) changeOf(source).remove.contexts.add(entry.name);
      const sets = gone ? orphans : used;
      sets.clusters.add(textOf(entry.body.cluster) ?? '');
      sets.users.add(textOf(entry.body.user) ?? '');
    }
  }
  for (const source of sources) {
    for (const key of ['clusters', 'users'] as const) {
      for (const entry of source.entries[key]) {
        if (!orphans[key].has(entry.name) || used[key].has(entry.name) || !markOf(entry)) continue;
        changeOf(source).remove[key].add(entry.name);
      }
    }
  }
  return names;
}

function upsertContexts(
  sources: readonly Source[],
  merged: Merged,
  specs: ReadonlyMap<string, ContextSpec>,
  removed: ReadonlySet<string>,
  defaultSource: () => Source,
  changeOf: (source: Source) => FileChange,
  searchPath: string | undefined,
): void {
  if (specs.size === 0) return;
  const users = { clusters: new Map<string, Entry[]>(), users: new Map<string, Entry[]>() };
  for (const entry of sources.flatMap((source) => source.entries.contexts)) {
    if (removed.has(entry.name) && markOf(entry)) continue;
    for (const [key, field] of [
      ['clusters', 'cluster'],
      ['users', 'user'],
    ] as const) {
      const name = textOf(entry.body[field]) ?? '';
      const list = users[key].get(name);
      if (list) list.push(entry);
      else users[key].set(name, [entry]);
    }
  }
  const planned = new Map<string, ContextSpec>();
  const put = (
    key: SectionKey,
    name: string,
    spec: ContextSpec,
    make: () => PlainMap,
    diff: (entry: Entry) => Field[],
  ) => {
    const id = `${key} ${name}`;
    const earlier = planned.get(id);
    if (earlier && (earlier.server !== spec.server || earlier.apiServer !== spec.apiServer)) {
      throw new TkaError(
        `contexts ${quoted(earlier.name)} and ${quoted(spec.name)} would share one of ${key}: ${quoted(name)}`,
      );
    }
    if (earlier) return;
    planned.set(id, spec);
    const placed = merged[key].get(name);
    if (!placed) {
      changeOf(defaultSource()).create[key].push(make());
      return;
    }
    const { source, entry } = placed;
    const fields = diff(entry);
    if (fields.length > 0) changeOf(source).update.push({ entry, fields });
  };
  for (const spec of specs.values()) {
    const context = merged.contexts.get(spec.name);
    if (context) requireOurs('context', spec.name, context.source, context.entry);
    const refs = {
      clusters: textOf(context?.entry.body.cluster) || spec.name,
      users: textOf(context?.entry.body.user) || spec.name,
    };
    for (const key of ['clusters', 'users'] as const) {
      const placed = merged[key].get(refs[key]);
      if (!placed) continue;
      const mark = requireOurs(key === 'clusters' ? 'cluster' : 'user', refs[key], placed.source, placed.entry);
      if (mark.server === spec.server) continue;
      // It leads to another TKA server: whoever else uses it must not be led elsewhere with it.
      const other = users[key].get(refs[key])?.find((entry) => {
        if (entry.name === spec.name) return false;
        const theirs = specs.get(entry.name)?.server ?? markOf(entry)?.server;
        return context === undefined || theirs !== undefined ? theirs !== spec.server : false;
      });
      if (!other) continue;
      const what = `${key === 'clusters' ? 'cluster' : 'user'} ${quoted(refs[key])}`;
      throw new TkaError(`${what} is in use by context ${quoted(other.name)} for another server`, {
        hints: [otherName],
      });
    }
    // Clusters and users first: a context must not come before what it refers to.
    put(
      'clusters',
      refs.clusters,
      spec,
      () => newCluster(refs.clusters, spec),
      (entry) => clusterFields(entry, spec),
    );
    put(
      'users',
      refs.users,
      spec,
      () => newUser(refs.users, spec),
      (entry) => {
        const file = merged.users.get(refs.users)?.source.file ?? '';
        return userFields(entry, spec, (command) => usableCommand(command, file, searchPath));
      },
    );
    put(
      'contexts',
      spec.name,
      spec,
      () => newContext(spec.name, refs.clusters, refs.users, spec),
      (entry) => contextFields(entry, refs.clusters, refs.users, spec),
    );
  }
}

function requireOurs(what: string, name: string, source: Source, entry: Entry): { server: string } {
  const mark = markOf(entry);
  if (mark) return mark;
  throw new TkaError(`${what} ${quoted(name)} is there already and not ours: ${shown(source.file)}`, {
    hints: [otherName],
  });
}
