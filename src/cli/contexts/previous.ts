import { createHash } from 'node:crypto';
import * as path from 'node:path';
import type { EditResult, KubeconfigFiles } from '../../kubeconfig/index.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../../util/files.ts';
import type { Context } from '../context/context.ts';

// Every kubeconfig has its own: one context before is of no use in another file.
function fileOf(state: string, kubeconfig: KubeconfigFiles): string {
  const name = createHash('sha256').update(kubeconfig.files.join('\n')).digest('hex').slice(0, 32);
  return path.join(state, 'previous-context', `${name}.json`);
}

/** The context that was the current one before the last switch of ours; undefined if that is not known. */
export function previousContext(context: Context): string | undefined {
  const { state } = context.paths;
  const text = state === undefined ? undefined : readOwn(fileOf(state, context.kubeconfig), 64 * 1024);
  try {
    const name: unknown = JSON.parse(text ?? '').context;
    return typeof name === 'string' && name !== '' ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Remembers what an edit of the kubeconfig switched away from, if it did. Warns where it cannot; never throws. */
export function rememberSwitch(context: Context, edit: Pick<EditResult, 'previousContext' | 'currentContext'>): void {
  const { previousContext: before, currentContext } = edit;
  if (before === undefined || before === currentContext) return;
  try {
    const { state } = context.paths;
    if (state === undefined) throw new TkaError('no home directory: HOME is not set');
    const file = fileOf(state, context.kubeconfig);
    ensurePrivateFolder(state);
    ensurePrivateFolder(path.dirname(file));
    writeFileAtomic(file, `${JSON.stringify({ context: before })}\n`);
  } catch (error) {
    const why = error instanceof TkaError ? error.message : (systemCode(error) ?? String(error));
    context.terminal.warn(`cannot remember the previous context: ${why}`);
  }
}
