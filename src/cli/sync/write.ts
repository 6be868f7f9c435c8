import * as fs from 'node:fs';
import { shown } from '../../kubeconfig/damage.ts';
import {
  type BlockedBy,
  editKubeconfig,
  type KubeconfigFiles,
  type KubeconfigView,
  previewKubeconfig,
} from '../../kubeconfig/index.ts';
import type { TkaError } from '../../util/errors.ts';
import { unifiedDiff } from './diff.ts';
import type { SyncPlan } from './plan.ts';

type Planner = (view: KubeconfigView, blocked: ReadonlyMap<string, TkaError>) => SyncPlan;

/** What came of a plan. */
export interface WrittenSync {
  readonly plan: SyncPlan;
  readonly changedFiles: readonly string[];
  readonly previousContext: string | undefined;
  readonly currentContext: string | undefined;
  /** Of a dry run: what would be written, as `diff -u` tells it. */
  readonly diff: string;
}

/**
 * Carries a plan out in one edit, or with `dryRun` only shows it. The plan is made again without the contexts that cannot be
 * written, for instance because an entry that is not ours has the name. Throws TkaError where nothing can be written.
 */
export async function writeSync(files: KubeconfigFiles, planner: Planner, dryRun: boolean): Promise<WrittenSync> {
  const made: { plan?: SyncPlan; view?: KubeconfigView } = {};
  const plan = (view: KubeconfigView, blockedBy: BlockedBy) => {
    const blocked = new Map<string, TkaError>();
    let wanted = planner(view, blocked);
    for (;;) {
      const more = [...blockedBy(wanted.change)].filter(([name]) => !blocked.has(name));
      if (more.length === 0) break;
      for (const [name, error] of more) blocked.set(name, error);
      wanted = planner(view, blocked);
    }
    made.plan = wanted;
    made.view = view;
    return wanted.change;
  };
  const result = dryRun ? await preview(files, plan) : { ...(await editKubeconfig(files, plan)), diff: '' };
  const current = made.view?.currentContext;
  return { previousContext: current, currentContext: current, ...result, plan: made.plan as SyncPlan };
}

async function preview(files: KubeconfigFiles, plan: Parameters<typeof previewKubeconfig>[1]) {
  const previews = await previewKubeconfig(files, plan);
  const diffs = previews.map(({ file, before, after }) => {
    const there = before !== '' || fs.existsSync(file);
    return unifiedDiff(shown(file), there ? before : undefined, after, { secret: mayHoldSecret, redact });
  });
  return { changedFiles: previews.map(({ file }) => file), diff: diffs.join('') };
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
