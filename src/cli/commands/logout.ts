import { editKubeconfig, type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { cell } from '../../terminal/output.ts';
import { hintsOf, TkaError, UsageError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { chooseClusters } from '../target/by-name.ts';
import { allClusters } from '../target/clusters.ts';
import { nameOfServer } from '../target/context-name.ts';
import { type Held, heldOf, heldTarget, knownHere } from '../target/held-target.ts';
import { type SignOutGroup, signOutGroups } from '../target/same-cluster.ts';

interface AllFlag {
  readonly all?: boolean;
}

interface LogoutFlags extends AllFlag {
  readonly selector?: string;
}

const parallel = 8;
const mostHints = 8;
const emptyView: KubeconfigView = { currentContext: undefined, contexts: new Map(), ours: [] };

/** `logout [NAME...] [-l SELECTOR] [--all]`: revokes on the server, deletes the token, and stays signed out. */
export async function logout(context: Context, names: readonly string[], flags: LogoutFlags): Promise<void> {
  // Damage there is no reason to keep a sign-in alive.
  const view = await readKubeconfig(context.kubeconfig).catch((error) => {
    if (!(error instanceof TkaError)) throw error;
    context.terminal.warn(`the kubeconfig is passed over: ${error.message}`);
    return emptyView;
  });
  const { sessions } = context;
  if (flags.all !== true) {
    const targets = await targetsOf(context, view, names, flags.selector);
    const unknown = new Set(targets.filter(({ known }) => !known).map(({ server }) => server));
    const servers = [...new Set(targets.map(({ server }) => server))];
    const isOneOfMany = flags.selector !== undefined;
    const groups = signOutGroups(context, view, servers);
    const errors = await each(groups, (group, server) =>
      unknown.has(server) && group.told.length === 1 && group.held.length === 0
        ? signOutUnknown(context, view, server, isOneOfMany)
        : signOut(context, view, server, group),
    );
    if (errors.length > 0) throw summary(context, errors, 'logout', servers.length);
    return;
  }
  const all = everything(context, view, names[0] ?? flags.selector, 'logout');
  const held = new Set(sessions.store.list().map(({ server }) => server));
  const errors = await each(signOutGroups(context, view, all), async (group, server) => {
    const signedOut = signOut(context, view, server, group);
    // Without a token here there may still be a sign-in there; but who does not answer then is no failure.
    return held.has(server) ? signedOut : signedOut.catch((error) => context.terminal.log(`${server}: ${error}`));
  });
  if (errors.length > 0) throw summary(context, errors, 'logout', all.length);
  if (all.length === 0 && !context.settings.quiet) context.terminal.out('There are no sessions on this machine.\n');
}

async function targetsOf(
  context: Context,
  view: KubeconfigView,
  names: readonly string[],
  selector: string | undefined,
): Promise<Held[]> {
  if (selector !== undefined) {
    if (names.length > 0) throw new UsageError('give either names or a selector');
    const chosen = chooseClusters(await allClusters(context, view), [], selector, view);
    const here = knownHere(context, view);
    // A cluster that is not placed cannot have been signed in to.
    return chosen.flatMap((cluster) => (cluster.server === null ? [] : heldOf(cluster, here)));
  }
  if (names.length === 0) return [await heldTarget(context, undefined, view, 'logout')];
  const targets: Held[] = [];
  for (const name of names) targets.push(await heldTarget(context, name, view, 'logout'));
  return targets;
}

/** `forget [NAME] [--all]`: logs out where it can, and takes our contexts out of the kubeconfig. */
export async function forget(context: Context, [name]: readonly string[], flags: AllFlag): Promise<void> {
  const { sessions, terminal, settings } = context;
  const view = await readKubeconfig(context.kubeconfig);
  const targets =
    flags.all === true
      ? everything(context, view, name, 'forget')
      : [(await heldTarget(context, name, view, 'forget')).server];
  const isKnown = (server: string) =>
    sessions.store.read(server) !== undefined ||
    sessions.store.signedOut.read(server) !== undefined ||
    view.ours.some((c) => c.server === server);
  const unknown = targets.find((server) => !isKnown(server));
  if (unknown !== undefined) {
    throw new TkaError(`no session or context for ${unknown} on this machine`, {
      hints: ['kubectl tka status', 'kubectl config get-contexts'],
    });
  }
  const held = new Set(sessions.store.list().map(({ server }) => server));
  const errors = await each(signOutGroups(context, view, targets), (group, server) =>
    signOut(context, view, server, group),
  );
  for (const { server, error } of errors) {
    if (held.has(server)) terminal.warn(error.message);
    else terminal.log(error.message);
  }
  const removed: string[] = [];
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    removed.splice(0, removed.length, ...v.ours.filter((c) => targets.includes(c.server)).map((c) => c.name));
    return { remove: removed };
  });
  // Last: as long as a context is left, it is one that is signed out.
  for (const server of targets) {
    sessions.store.forget(server);
    context.accepted.remove(server);
  }
  if (settings.quiet) return;
  if (removed.length === 0) terminal.out('No context of ours was in the kubeconfig.\n');
  else terminal.out(`Removed from the kubeconfig: ${removed.map(cell).join(', ')}.\n`);
  if (edit.previousContext !== undefined && edit.currentContext === undefined) {
    terminal.notice(`there is no current context any more: it was "${edit.previousContext}"`);
    terminal.hint('kubectl config use-context NAME');
  }
}

function everything(context: Context, view: KubeconfigView, name: string | undefined, command: string): string[] {
  if (name !== undefined) throw new UsageError(`${command} takes either a name or --all`);
  const { store } = context.sessions;
  return [...new Set([...store.list(), ...store.signedOut.list(), ...view.ours].map(({ server }) => server))].sort();
}

/**
 * Signs out of a server that this machine knows nothing about. Unless there was a sign-in, nothing is recorded, and that
 * is an error, or of one of many that a selector means, a notice.
 */
async function signOutUnknown(
  context: Context,
  view: KubeconfigView,
  server: string,
  isOneOfMany: boolean,
): Promise<void> {
  const { store } = context.sessions;
  const wasKnown = await context.sessions.signOut(server).catch((error) => {
    store.signedOut.remove(server);
    // That this machine is signed out goes without saying: it never was signed in.
    throw error instanceof TkaError && error.cause instanceof TkaError ? error.cause : error;
  });
  if (!wasKnown) {
    store.signedOut.remove(server);
    const name = context.remembered.nameOf(server);
    const message = `you were not signed in to ${name === undefined ? server : `${name} (${server})`}`;
    if (isOneOfMany) return context.terminal.notice(message);
    throw new TkaError(message, { hints: ['kubectl tka status'] });
  }
  sayOut(context, view, server, true);
}

/** Signs out of a cluster by one of its servers; with the first of those that are told, of all that need not be. */
async function signOut(context: Context, view: KubeconfigView, server: string, group: SignOutGroup): Promise<void> {
  const { sessions } = context;
  const isFirst = server === group.told[0];
  const others = isFirst ? [...group.held, ...group.known] : [];
  // Before the server is told: no other process must sign in again through one of the others meanwhile.
  const here = others.map((other) => sessions.signOutHere(other, group.known.includes(other)));
  const results = await Promise.allSettled([sessions.signOut(server), ...here]);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  const [told] = results;
  sayOut(context, view, server, told?.status === 'fulfilled' && told.value === true);
}

function sayOut(context: Context, view: KubeconfigView, server: string, known: boolean): void {
  const { terminal, settings } = context;
  const name = cell(nameOfServer(context, view, server));
  if (settings.quiet) return;
  terminal.out(
    known
      ? `Signed out of ${name} (${server}).\n`
      : `Signed out of ${name} (${server}); you were not signed in there.\n`,
  );
}

interface Failed {
  readonly server: string;
  readonly error: TkaError;
}

/** Does something for each server that is to be told, and returns what failed. */
async function each(
  groups: readonly SignOutGroup[],
  act: (group: SignOutGroup, server: string) => Promise<void>,
): Promise<Failed[]> {
  const failed: Failed[] = [];
  const attempt = async (group: SignOutGroup, server: string) => {
    try {
      await act(group, server);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      failed.push({ server, error });
    }
  };
  const all = groups.flatMap((group) => group.told.map((server) => [group, server] as const));
  for (let at = 0; at < all.length; at += parallel)
    await Promise.all(all.slice(at, at + parallel).map(([group, server]) => attempt(group, server)));
  return failed;
}

function summary(context: Context, failed: readonly Failed[], what: string, total: number): TkaError {
  const [only] = failed;
  if (failed.length === 1 && only !== undefined) return only.error;
  for (const { error } of failed) context.terminal.warn(error.message);
  const hints = new Set(failed.flatMap(({ server, error }) => hintsOf(error, server)));
  return new TkaError(`${what} failed for ${failed.length} of ${total} servers`, {
    hints: [...hints].slice(0, mostHints),
  });
}
