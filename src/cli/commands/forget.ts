import { editKubeconfig, type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { cell } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { forEachToTell, signOut } from '../logout/sign-out.ts';
import { allHeld, heldTarget, knownHere } from '../target/held-target.ts';

/** Runs `forget [NAME] [--all]`: logs out if possible, and removes managed contexts from the kubeconfig. */
export async function forget(
  context: Context,
  [name]: readonly string[],
  flags: { readonly all?: boolean },
): Promise<void> {
  const { sessions, terminal, settings } = context;
  const view = await readKubeconfig(context.kubeconfig);
  const servers =
    flags.all === true
      ? allHeld(context, view, name, 'forget')
      : [(await heldTarget(context, name, view, 'forget')).server];
  requireKnown(context, view, servers);
  await signOutOf(context, view, servers);
  terminal.log(`taking the contexts for ${servers.join(', ')} out of the kubeconfig`);
  const { removed, edit } = await removeContexts(context, servers);
  // Forget the servers last: until then, a context that is still there stays signed out.
  for (const server of servers) {
    sessions.store.forget(server);
    context.accepted.remove(server);
  }
  if (settings.quiet) return;
  if (removed.length === 0) terminal.out('No managed contexts in the kubeconfig.\n');
  else terminal.out(`Removed from the kubeconfig: ${removed.map(cell).join(', ')}.\n`);
  if (edit.previousContext !== undefined && edit.currentContext === undefined) {
    terminal.notice(`no current context any more (was "${edit.previousContext}")`);
    terminal.hint('kubectl config use-context NAME');
  }
}

function requireKnown(context: Context, view: KubeconfigView, servers: readonly string[]): void {
  const { store } = context.sessions;
  const here = knownHere(context, view);
  const isKnown = (server: string) => here.has(server) || store.signedOut.read(server) !== undefined;
  const unknown = servers.find((server) => !isKnown(server));
  if (unknown === undefined) return;
  throw new TkaError(`no session or context for ${unknown} on this machine`, {
    hints: ['kubectl tka status', 'kubectl config get-contexts'],
  });
}

/** Signs out. If a server cannot be told, warns; without a token here, only logs it. */
async function signOutOf(context: Context, view: KubeconfigView, servers: readonly string[]): Promise<void> {
  const { sessions, terminal } = context;
  const held = new Set(sessions.store.list().map(({ server }) => server));
  const failed = await forEachToTell(context, view, servers, (server, group) => signOut(context, view, server, group));
  for (const { server, error } of failed) {
    if (held.has(server)) terminal.warn(error.message);
    else terminal.log(error.message);
  }
}

async function removeContexts({ kubeconfig }: Context, servers: readonly string[]) {
  let removed: string[] = [];
  const edit = await editKubeconfig(kubeconfig, ({ ours }) => {
    removed = ours.filter(({ server }) => servers.includes(server)).map(({ name }) => name);
    return { remove: removed };
  });
  return { removed, edit };
}
