import { emptyView, type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { hintsOf, TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { type FailedSignOut, forEachToTell, signOut, signOutUnknown } from '../logout/sign-out.ts';
import { type Held, heldTargets } from '../target/held-target.ts';

interface LogoutFlags {
  readonly selector?: string;
  readonly all?: boolean;
}

const mostHints = 8;

/** Runs `logout [NAME...] [-l SELECTOR] [--all]`: revokes on the server, deletes the token, and stays signed out. */
export async function logout(context: Context, names: readonly string[], flags: LogoutFlags): Promise<void> {
  // A damaged kubeconfig must not keep a sign-in alive.
  const view = await readKubeconfig(context.kubeconfig).catch((error) => {
    if (!(error instanceof TkaError)) throw error;
    context.terminal.warn(`ignoring the kubeconfig: ${error.message}`);
    return emptyView;
  });
  const targets = await heldTargets(context, { words: names, ...flags }, view, 'logout');
  if (flags.all === true) return logoutOfAll(context, view, targets);
  const unknown = new Set(targets.filter(({ known }) => !known).map(({ server }) => server));
  const servers = [...new Set(targets.map(({ server }) => server))];
  const failed = await forEachToTell(context, view, servers, (server, group) =>
    unknown.has(server) && group.told.length === 1 && group.held.length === 0
      ? signOutUnknown(context, view, server, flags.selector !== undefined)
      : signOut(context, view, server, group),
  );
  throwSummary(context, failed, servers.length);
}

async function logoutOfAll(context: Context, view: KubeconfigView, targets: readonly Held[]): Promise<void> {
  const all = targets.map(({ server }) => server);
  const held = new Set(context.sessions.store.list().map(({ server }) => server));
  const failed = await forEachToTell(context, view, all, async (server, group) => {
    const signedOut = signOut(context, view, server, group);
    // Without a token here the server may still have a sign-in, but a server that does not answer is then no failure.
    return held.has(server) ? signedOut : signedOut.catch((error) => context.terminal.log(`${server}: ${error}`));
  });
  throwSummary(context, failed, all.length);
  if (all.length === 0 && !context.settings.quiet) context.terminal.out('No sessions on this machine.\n');
}

/** Throws TkaError if something failed. If several failed, prints a warning for each. */
function throwSummary(context: Context, failed: readonly FailedSignOut[], total: number): void {
  const [first, ...others] = failed;
  if (first === undefined) return;
  if (others.length === 0) throw first.error;
  for (const { error } of failed) context.terminal.warn(error.message);
  const hints = new Set(failed.flatMap(({ server, error }) => hintsOf(error, server)));
  throw new TkaError(`logout failed for ${failed.length} of ${total} servers`, {
    hints: [...hints].slice(0, mostHints),
  });
}
