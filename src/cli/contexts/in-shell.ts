// Tells whether this program runs in a shell of `kubectl tka shell`.
import * as path from 'node:path';
import { quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';

/** The name of a shell's kubeconfig, in a folder of its own. */
export const fileName = 'config';
/** How the names of these folders look: process ID, its space, a unique name. */
export const folderShape = /^([0-9]{1,10})\.([0-9a-f]{8})\.[0-9a-f]{12}$/;
/** How they begin where they are in the folder for temporary files. */
export const inTemporary = 'kubectl-tka-shell-';

/** Returns the cluster of the shell that this program runs in; undefined without one, or with another kubeconfig. */
export function shellCluster({ env, kubeconfig }: Pick<Context, 'env' | 'kubeconfig'>): string | undefined {
  const [file = '', ...others] = kubeconfig.files;
  const folder = path.basename(path.dirname(file));
  const isOwn = folder.startsWith(inTemporary) || folderShape.test(folder);
  return others.length === 0 && isOwn && path.basename(file) === fileName ? env.TKA_CLUSTER : undefined;
}

/** Says that a change of the kubeconfig is for this shell alone, if it is. */
export function sayInShell(context: Context): void {
  const cluster = shellCluster(context);
  if (cluster === undefined) return;
  context.terminal.notice(`this is for this shell only; it was opened for cluster ${quoted(cluster)}`);
}
