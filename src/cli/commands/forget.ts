import { editKubeconfig, type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { cell } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { forEachToTell, signOut } from '../logout/sign-out.ts';
import { heldTargets, knownHere } from '../target/held-target.ts';
import type { SignOutGroup } from '../target/same-cluster.ts';

interface ForgetFlags {
  readonly selector?: string;
  readonly all?: boolean;
}

/**
 * Runs `forget [NAME...] [-l SELECTOR] [--all]`: logs out if possible, and removes managed contexts from the kubeconfig.
 */
export async function forget(context: Context, names: readonly string[], flags: ForgetFlags): Promise<void> {
  const { sessions, terminal, settings } = context;
  const view = await readKubeconfig(context.kubeconfig);
  const targets = await heldTargets(context, { words: names, ...flags }, view, 'forget');
  const chosen = [...new Set(targets.map(({ server }) => server))];
  const isHeld = holds(context, view);
  // A selector can match clusters that this machine has nothing about.
  const held = chosen.filter(isHeld);
  const servers = flags.selector !== undefined && held.length > 0 ? held : chosen;
  const unknown = servers.find((server) => !isHeld(server));
  if (unknown !== undefined) throw nothingHeld(unknown);
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

/** Returns a test whether this machine has a session, a context or a sign-out for a server. */
function holds(context: Context, view: KubeconfigView): (server: string) => boolean {
  const { store } = context.sessions;
  const here = knownHere(context, view);
  return (server) => here.has(server) || store.signedOut.read(server) !== undefined;
}

function nothingHeld(server: string): TkaError {
  return new TkaError(`no session or context for ${server} on this machine`, {
    hints: ['kubectl tka status', 'kubectl config get-contexts'],
  });
}

/** Signs out. If a server cannot be told, warns; without a token here, only logs it. */
async function signOutOf(context: Context, view: KubeconfigView, servers: readonly string[]): Promise<void> {
  const { sessions, terminal } = context;
  const held = new Set(sessions.store.list().map(({ server }) => server));
  const act = (server: string, group: SignOutGroup) => signOut(context, view, server, group);
  // The contexts of another way to a cluster stay, and with them its sign-in.
  const failed = await forEachToTell(context, view, servers, act, 'way');
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
