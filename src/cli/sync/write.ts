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

/** The result of a plan. */
export interface WrittenSync {
  readonly plan: SyncPlan;
  readonly changedFiles: readonly string[];
  readonly previousContext: string | undefined;
  readonly currentContext: string | undefined;
  /** For a dry run: the edit in the format of `diff -u`. */
  readonly diff: string;
}

/**
 * Writes a plan in one edit; with `dryRun`, only shows it. If some contexts cannot be written, for instance because an
 * entry that is not managed has the name, plans again without them. Throws TkaError if nothing can be written.
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

// Other people's tokens and keys can stand next to our changes, and the output of a dry run ends up in logs. So never
// show lines that may be secret as context.
function mayHoldSecret(line: string): boolean {
  if (/^\s*certificate-authority-data:/.test(line)) return false;
  return /token|secret|passw|key|\bvalue\b|auth|[A-Za-z0-9+/_-]{40}/i.test(line);
}

// Show that the line is removed, but not its secret.
function redact(line: string): string {
  return line
    .replace(/((?:token|secret|password|key-data|\bvalue)["']?\s*[:=]\s*)(?!\s)[^\r\n]+/i, '$1[redacted]')
    .replace(/\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}/g, '[redacted token]');
}
