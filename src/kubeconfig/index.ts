import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { TkaError } from '../util/errors.ts';
import type { FileChange, KubeconfigChange, KubeconfigState } from './change.ts';
import { checkWritable as checkFile, commit, isLost, place, type Snapshot, snapshot, stage, target } from './disk.ts';
import type { KubeconfigFiles } from './files.ts';
import { attempt, clearStale, type KubeconfigLock, withLocks } from './lock.ts';
import { blockedContexts, planChange } from './plan.ts';
import { rewrite } from './rewrite.ts';
import { parseSource } from './source.ts';
import { type KubeconfigView, mergeSources, viewOf } from './view.ts';

export type { KubeconfigChange } from './change.ts';
export { type KubeconfigFiles, kubeconfigFiles, kubectlHome } from './files.ts';
export { markName } from './glance.ts';
export type { ContextSpec } from './spec.ts';
export { type ContextInfo, type ContextSiblings, emptyView, type KubeconfigView, type OurContext } from './view.ts';

/** The result of an edit. */
export interface EditResult {
  readonly changedFiles: readonly string[];
  readonly previousContext: string | undefined;
  readonly currentContext: string | undefined;
}

/** One file that an edit would change. */
export interface FilePreview {
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

/** Returns the contexts of a change that cannot be written, by name, each with the error that says why. */
export type BlockedBy = (change: KubeconfigChange) => ReadonlyMap<string, TkaError>;

/** Returns the change to make to the present files. It is called again if the files change meanwhile. */
export type KubeconfigPlan = (view: KubeconfigView, blockedBy: BlockedBy) => KubeconfigChange;

interface Loaded extends KubeconfigState {
  readonly snapshots: readonly Snapshot[];
}

interface Work {
  readonly loaded: Loaded;
  readonly result: EditResult;
  /** In the order of writing. */
  readonly previews: readonly FilePreview[];
}

/**
 * Reads the kubeconfig files and merges them as kubectl does; files may be missing. Throws TkaError
 * (`path:line:column`) for a damaged or unreadable one. Contract: client-go clientcmd, ClientConfigLoadingRules.Load.
 */
export async function readKubeconfig(files: KubeconfigFiles): Promise<KubeconfigView> {
  return (await settled(files)).view;
}

/**
 * Returns what an edit would write, file by file, without writing or locking. Throws TkaError as editKubeconfig does.
 */
export async function previewKubeconfig(files: KubeconfigFiles, plan: KubeconfigPlan): Promise<readonly FilePreview[]> {
  return prepare(files, await settled(files), plan).previews;
}

/** Throws TkaError if a file that an edit would change cannot be written or locked, or leads nowhere. */
export function checkWritable(previews: readonly FilePreview[]): void {
  for (const { file } of previews) checkFile(file);
}

/**
 * Changes the kubeconfig files in place. Text that the change does not concern stays byte for byte, and each file is
 * replaced whole, under the lock that kubectl uses. If there is nothing to change, it only removes locks that killed
 * runs of ours left. Throws TkaError for a damaged file, for a name that is not managed, and for what cannot be spliced
 * safely; all files are then unchanged. If a write fails, the files written before it are complete. Contract: client-go
 * clientcmd, ModifyConfig and writeCurrentContext.
 */
export async function editKubeconfig(files: KubeconfigFiles, plan: KubeconfigPlan): Promise<EditResult> {
  let work = prepare(files, await settled(files), plan);
  clearStale(work.loaded.snapshots.flatMap(({ file }) => [place(file), attempt(() => target(file)) ?? place(file)]));
  for (let round = 0; work.previews.length > 0; round++) {
    if (round === 10) throw new TkaError('another program keeps changing the kubeconfig', { hints: ['try again'] });
    const targets = new Map(work.previews.map(({ file }) => [file, target(file)]));
    // kubectl locks the path as given. Lock the link's target too, against programs that use the target's own path.
    const isWritten = await withLocks(
      [...targets].flatMap(([file, path]) => [place(file), path]),
      (locks) => {
        try {
          // Everything up to the rename is synchronous, so no signal handler and no timer runs in between.
          const now = load(files);
          if (now !== work.loaded) work = prepare(files, now, plan);
          if (work.previews.some(({ file }) => targets.get(file) !== target(file))) return false;
          writeAll(work.previews, targets, locks);
          return true;
        } catch (error) {
          if (!isLost(error)) throw error;
          work = prepare(files, load(files), plan);
          return false;
        }
      },
    );
    if (isWritten) break;
  }
  return work.result;
}

/** Writes all new texts beside their files, then renames each into place. Throws as stage() and commit() do. */
function writeAll(
  previews: readonly FilePreview[],
  targets: ReadonlyMap<string, string>,
  locks: ReadonlyMap<string, KubeconfigLock>,
): void {
  const writes = previews.map(({ file, after }) => {
    const path = targets.get(file) as string;
    return { path, after, lock: locks.get(path) as KubeconfigLock };
  });
  for (const { lock, path, after } of writes) stage(lock, path, after);
  for (const { lock, path } of writes) commit(lock, path);
}

// kubectl writes in place, so a read may find a file empty or truncated for a moment. Report damage only if it
// persists.
async function settled(files: KubeconfigFiles): Promise<Loaded> {
  const locked = (file: string) => existsSync(`${file}.lock`);
  for (let tries = 0; ; tries++) {
    try {
      const loaded = load(files);
      if (tries === 3 || !loaded.snapshots.some(({ file, bytes }) => bytes?.length === 0 && locked(file)))
        return loaded;
    } catch (error) {
      if (tries === 3 || (tries > 0 && !files.files.some(locked))) throw error;
    }
    await sleep(20);
  }
}

// The last read of each KubeconfigFiles object. If the YAML parser is needed, a thousand clusters take 0.4 s to read.
const last = new WeakMap<KubeconfigFiles, Loaded>();

// Returns the same object as last time if no byte has changed.
function load(files: KubeconfigFiles): Loaded {
  const paths = new Set(files.files);
  if (files.defaultFile !== '') paths.add(files.defaultFile);
  const seen = new Set<string>();
  const snapshots = [...paths].map(snapshot).filter(({ id }) => {
    // The same file under two names counts once.
    if (id === undefined) return true;
    const first = !seen.has(id);
    seen.add(id);
    return first;
  });
  const before = last.get(files);
  if (before && sameBytes(before.snapshots, snapshots)) return before;
  const sources = snapshots.map(({ file, bytes }) => parseSource(file, bytes ?? Buffer.alloc(0)));
  const merged = mergeSources(sources);
  const loaded = { snapshots, sources, merged, view: viewOf(sources, merged) };
  last.set(files, loaded);
  return loaded;
}

function sameBytes(a: readonly Snapshot[], b: readonly Snapshot[]): boolean {
  const same = ({ file, bytes }: Snapshot, other: Snapshot | undefined) =>
    file === other?.file && (bytes && other.bytes ? bytes.equals(other.bytes) : bytes === other.bytes);
  return a.length === b.length && a.every((one, i) => same(one, b[i]));
}

function prepare(files: KubeconfigFiles, loaded: Loaded, plan: KubeconfigPlan): Work {
  const { sources, view } = loaded;
  const changes = planChange(
    files,
    loaded,
    plan(view, (change) => blockedContexts(files, loaded, change)),
  );
  const previews = [...changes]
    .sort(([, a], [, b]) => rank(a) - rank(b))
    .map(([source, change]) => ({ file: source.file, before: source.text, after: rewrite(source, change) }))
    .filter(({ before, after }) => before !== after);
  const current = sources.map((source) => changes.get(source)?.current ?? source.currentContext);
  return {
    loaded,
    previews,
    result: {
      changedFiles: previews.map(({ file }) => file),
      previousContext: view.currentContext,
      currentContext: current.find((name) => name !== ''),
    },
  };
}

// An edit that is interrupted between two files must not leave a context without its user. So write new clusters and
// users before contexts, and remove old ones after contexts.
function rank({ create, update, remove, current }: FileChange): number {
  const late = create.contexts.length > 0 || Boolean(current) || update.some((u) => u.entry.section === 'contexts');
  const early = remove.contexts.size > 0;
  const lateRemoval = remove.clusters.size > 0 || remove.users.size > 0;
  return Number(late) + Number(lateRemoval) - Number(early);
}
