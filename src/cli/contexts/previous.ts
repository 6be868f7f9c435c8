import { createHash } from 'node:crypto';
import * as path from 'node:path';
import type { EditResult, KubeconfigFiles } from '../../kubeconfig/index.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../../util/files.ts';
import type { Context } from '../context/context.ts';

// One file per kubeconfig: a previous context means nothing in another kubeconfig.
function fileOf(state: string, kubeconfig: KubeconfigFiles): string {
  const name = createHash('sha256').update(kubeconfig.files.join('\n')).digest('hex').slice(0, 32);
  return path.join(state, 'previous-context', `${name}.json`);
}

/** Returns the context before our last switch; undefined if unknown. */
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

/**
 * Remembers the context that an edit of the kubeconfig switched away from, if any. On failure only warns; never throws.
 */
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
