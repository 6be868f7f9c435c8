import * as fs from 'node:fs';
import {
  type ContextSpec,
  editKubeconfig,
  type KubeconfigFiles,
  type KubeconfigView,
  previewKubeconfig,
} from '../../kubeconfig/index.ts';
import { KubeconfigTooLarge, parseSource, shown } from '../../kubeconfig/source.ts';
import { markOf, mergeSources, textOf } from '../../kubeconfig/view.ts';
import { TkaError } from '../../util/errors.ts';
import { unifiedDiff } from './diff.ts';
import type { SyncPlan } from './plan.ts';

type Planner = (view: KubeconfigView, blocked: ReadonlyMap<string, TkaError>) => SyncPlan;

/** What came of a plan. */
export interface Written {
  readonly plan: SyncPlan;
  readonly changedFiles: readonly string[];
  readonly previousContext: string | undefined;
  readonly currentContext: string | undefined;
  /** Of a dry run: what would be written, as `diff -u` tells it. */
  readonly diff: string;
}

const mostTries = 20;

/**
 * Carries a plan out in one edit, or with `dryRun` only shows it. Contexts that cannot be written, because somebody
 * else's entry has their name, are left out: the plan is made again with them named. Throws TkaError where nothing can
 * be written.
 */
export async function writeSync(files: KubeconfigFiles, planner: Planner, dryRun: boolean): Promise<Written> {
  const blocked = new Map<string, TkaError>();
  for (;;) {
    const made: { plan?: SyncPlan; view?: KubeconfigView } = {};
    const plan = (view: KubeconfigView) => {
      made.view = view;
      made.plan = planner(view, blocked);
      return made.plan.change;
    };
    try {
      const result = dryRun ? await preview(files, plan) : { ...(await editKubeconfig(files, plan)), diff: '' };
      const current = made.view?.currentContext;
      return { previousContext: current, currentContext: current, ...result, plan: made.plan as SyncPlan };
    } catch (error) {
      if (
        !(error instanceof TkaError) ||
        error instanceof KubeconfigTooLarge ||
        made.plan === undefined ||
        blocked.size > 0
      )
        throw error;
      await findBlocked(files, made.plan.change.upsert, blocked);
      if (blocked.size === 0) throw error;
    }
  }
}

async function preview(files: KubeconfigFiles, plan: Parameters<typeof previewKubeconfig>[1]) {
  const previews = await previewKubeconfig(files, plan);
  const diffs = previews.map(({ file, before, after }) => {
    const there = before !== '' || fs.existsSync(file);
    return unifiedDiff(shown(file), there ? before : undefined, after, { secret: mayHoldSecret, redact });
  });
  return { changedFiles: previews.map(({ file }) => file), diff: diffs.join('') };
}

// Clusters and users that are somebody else's, which a view does not tell. Only looked for when an edit has failed.
function foreignNames(files: KubeconfigFiles, specs: readonly ContextSpec[], blocked: Map<string, TkaError>): void {
  const paths = new Set([...files.files, files.defaultFile].filter((file) => fs.existsSync(file)));
  const merged = mergeSources([...paths].map((file) => parseSource(file, fs.readFileSync(file))));
  for (const { name } of specs) {
    const body = merged.contexts.get(name)?.entry.body;
    for (const [key, field] of [
      ['clusters', 'cluster'],
      ['users', 'user'],
    ] as const) {
      const reference = textOf(body?.[field]) || name;
      const entry = merged[key].get(reference)?.entry;
      if (entry === undefined || markOf(entry) !== undefined) continue;
      blocked.set(name, new TkaError(`the kubeconfig has a ${field} ${JSON.stringify(reference)} that is not ours`));
    }
  }
}

// What else there is against a name is told by trying: the search is for the shortest beginning of the list that cannot
// be written, and its last one is to blame.
async function findBlocked(
  files: KubeconfigFiles,
  specs: readonly ContextSpec[],
  blocked: Map<string, TkaError>,
): Promise<void> {
  const failure = (upsert: readonly ContextSpec[]) =>
    previewKubeconfig(files, () => ({ upsert })).then(
      () => undefined,
      (error: unknown) => error,
    );
  // What fails without any of them is nobody's fault here.
  if ((await failure([])) !== undefined) return;
  foreignNames(files, specs, blocked);
  let tries = 0;
  for (let rest = specs.filter(({ name }) => !blocked.has(name)); (await failure(rest)) !== undefined; ) {
    let [good, bad] = [0, rest.length];
    while (bad - good > 1) {
      const middle = (good + bad) >> 1;
      if ((await failure(rest.slice(0, middle))) === undefined) good = middle;
      else bad = middle;
    }
    const error = await failure(rest.slice(0, bad));
    const known = [...blocked.values()].some(({ message }) => error instanceof TkaError && message === error.message);
    // The same words twice are about the file, not about a name.
    if (!(error instanceof TkaError) || known || ++tries > mostTries) throw error;
    blocked.set((rest[bad - 1] as ContextSpec).name, error);
    rest = rest.filter((_, i) => i !== bad - 1);
  }
}

// Other people's tokens and keys may stand next to what we change, and a dry run's output gets into logs. Lines that
// might be such serve as no context.
function mayHoldSecret(line: string): boolean {
  if (/^\s*certificate-authority-data:/.test(line)) return false;
  return /token|secret|passw|key|\bvalue\b|auth|[A-Za-z0-9+/_-]{40}/i.test(line);
}

// A line that goes away must be shown, but not its secret.
function redact(line: string): string {
  return line
    .replace(/((?:token|secret|password|key-data|\bvalue)["']?\s*[:=]\s*)(?!\s)[^\r\n]+/i, '$1[redacted]')
    .replace(/\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}/g, '[redacted token]');
}
