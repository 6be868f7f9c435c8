import { TkaError } from '../util/errors.ts';
import { quoted } from '../util/text.ts';
import { type FileChange, FileChanges, type KubeconfigChange, type KubeconfigState } from './change.ts';
import { shellWord, shown } from './damage.ts';
import type { KubeconfigFiles } from './files.ts';
import type { Source } from './source.ts';
import type { ContextSpec } from './spec.ts';
import { applyUpserts, planUpserts } from './upsert.ts';
import { markOf, textOf } from './view.ts';

/**
 * Returns the changes by file; files without a change are left out. Throws TkaError for a context that cannot be
 * written (see blockedContexts()), for a context to remove that is not managed, and for a current context that does not
 * exist.
 */
export function planChange(
  files: KubeconfigFiles,
  state: KubeconfigState,
  change: KubeconfigChange,
): Map<Source, FileChange> {
  const { upserts, blocked, specs } = planUpserts(files, state, change);
  const [error] = blocked.values();
  if (error) throw error;
  const edit = new FileChanges(files, state.sources);
  const removed = removeContexts(state, new Set(change.remove ?? []), specs, edit);
  applyUpserts(upserts, state.merged, edit, files.searchPath);
  if (change.namespace !== undefined) setNamespace(state, change.namespace, edit);
  setCurrent(state, change.currentContext, specs, removed, edit);
  return edit.changes;
}

/** Returns the contexts that cannot be written, by name, each with the error that says why. Pure. */
export function blockedContexts(
  files: KubeconfigFiles,
  state: KubeconfigState,
  change: KubeconfigChange,
): ReadonlyMap<string, TkaError> {
  return planUpserts(files, state, change).blocked;
}

/** Sets or clears the current context. A removed context is also cleared in each file that has it as current. */
function setCurrent(
  { sources, view }: KubeconfigState,
  wanted: string | null | undefined,
  specs: ReadonlyMap<string, ContextSpec>,
  removed: ReadonlySet<string>,
  edit: FileChanges,
): void {
  const isThere = (source: Source, name: string) =>
    source.entries.contexts.some((e) => e.name === name && !edit.changes.get(source)?.remove.contexts.has(name));
  const exists = (name: string) => specs.has(name) || sources.some((source) => isThere(source, name));
  for (const source of sources) {
    if (removed.has(source.currentContext) && !exists(source.currentContext)) edit.of(source).current = '';
  }
  if (wanted === null) {
    const first = sources.find((source) => source.currentContext !== '');
    if (first) edit.of(first).current = '';
  } else if (wanted !== undefined) {
    if (!exists(wanted)) throw noContext(wanted);
    if (wanted !== view.currentContext) edit.ofDefault.current = wanted;
  }
}

function noContext(name: string): TkaError {
  return new TkaError(`no context ${quoted(name)}`, { hints: ['kubectl config get-contexts'] });
}

/** Sets the namespace of a context, like `kubectl config set-context --namespace`. */
function setNamespace(
  { merged }: KubeconfigState,
  { context, namespace }: NonNullable<KubeconfigChange['namespace']>,
  edit: FileChanges,
): void {
  const found = merged.contexts.get(context);
  if (found === undefined) throw noContext(context);
  const { source, entry } = found;
  if (entry.body.namespace === namespace) return;
  edit.of(source).update.push({ entry, fields: [[['context', 'namespace'], namespace]] });
}

/** Removes managed contexts, and the managed clusters and users that no other context refers to. Returns the names. */
function removeContexts(
  { sources, view }: KubeconfigState,
  asked: ReadonlySet<string>,
  specs: ReadonlyMap<string, ContextSpec>,
  edit: FileChanges,
): Set<string> {
  const names = new Set([...asked].filter((name) => !specs.has(name)));
  for (const name of names) {
    const found = view.contexts.get(name);
    if (found && !found.ours) {
      throw new TkaError(`context ${quoted(name)} in ${shown(found.file)} is not managed by kubectl-tka`, {
        hints: [`kubectl config delete-context ${shellWord(name)}`],
      });
    }
  }
  if (names.size === 0) return names;
  // Include the contexts' own names: an interrupted removal may have left a cluster and a user without their context.
  const orphans = { clusters: new Set(names), users: new Set(names) };
  const used = { clusters: new Set(specs.keys()), users: new Set(specs.keys()) };
  for (const source of sources) {
    for (const entry of source.entries.contexts) {
      const gone = names.has(entry.name) && markOf(entry) !== undefined;
      if (gone) edit.of(source).remove.contexts.add(entry.name);
      const sets = gone ? orphans : used;
      sets.clusters.add(textOf(entry.body.cluster) ?? '');
      sets.users.add(textOf(entry.body.user) ?? '');
    }
  }
  for (const source of sources) {
    for (const key of ['clusters', 'users'] as const) {
      for (const entry of source.entries[key]) {
        if (!orphans[key].has(entry.name) || used[key].has(entry.name) || !markOf(entry)) continue;
        edit.of(source).remove[key].add(entry.name);
      }
    }
  }
  return names;
}
