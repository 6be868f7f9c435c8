import type { Context } from '../context/context.ts';
import { withExecCommand } from '../contexts/spec.ts';
import { type SyncFlags, syncContexts } from '../sync/sync.ts';

/** Runs `sync`: writes a context for every cluster, in one edit. Throws TkaError if a cluster could not be synced. */
export async function sync(
  context: Context,
  _: readonly string[],
  { execCommand, ...flags }: SyncFlags & { readonly execCommand?: string },
): Promise<void> {
  const { error } = await syncContexts(withExecCommand(context, execCommand), flags);
  if (error !== undefined) throw error;
}
