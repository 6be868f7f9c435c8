import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { cell } from '../../terminal/output.ts';
import { progressBar } from '../../terminal/progress.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { nameOfServer } from '../target/contexts.ts';
import { type SignOutGroup, type SignOutScope, signOutGroups } from '../target/same-cluster.ts';

/** Maximum number of concurrent sign-outs. */
const parallel = 8;

export interface FailedSignOut {
  readonly server: string;
  readonly error: TkaError;
}

/**
 * Calls `act` for each server that must be told of the sign-out from these servers' clusters. Returns the failures.
 * Rethrows every error that is not a TkaError.
 */
export async function forEachToTell(
  context: Context,
  view: KubeconfigView,
  servers: readonly string[],
  act: (server: string, group: SignOutGroup) => Promise<void>,
  scope?: SignOutScope,
): Promise<FailedSignOut[]> {
  const failed: FailedSignOut[] = [];
  const attempt = async (server: string, group: SignOutGroup) => {
    try {
      await act(server, group);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      failed.push({ server, error });
    }
  };
  const groups = signOutGroups(context, view, servers, scope);
  const all = groups.flatMap((group) => group.told.map((server) => [server, group] as const));
  let done = 0;
  const [only] = all;
  const text = () => {
    if (all.length === 1) return `signing out of ${only?.[0]}`;
    return `signing out of the servers ${progressBar(done, all.length)}`;
  };
  const attemptAll = async () => {
    for (let at = 0; at < all.length; at += parallel) {
      const batch = all.slice(at, at + parallel);
      await Promise.all(batch.map(([server, group]) => attempt(server, group).then(() => done++)));
    }
  };
  await context.terminal.waiting(text, attemptAll);
  return failed;
}

/**
 * Signs out of a cluster through one of its servers. With the first of the `told` servers, also signs out locally of
 * the servers that need not be told.
 */
export async function signOut(
  context: Context,
  view: KubeconfigView,
  server: string,
  { told, held, known }: SignOutGroup,
): Promise<void> {
  const { sessions, terminal } = context;
  const others = server === told[0] ? [...held, ...known] : [];
  terminal.log(`signing out of ${[server, ...others].join(', ')}`);
  // Mark all of them before the server answers: meanwhile no other process may sign in again through one of them.
  const here = others.map((other) => sessions.signOutHere(other, known.includes(other)));
  const [asked, ...rest] = await Promise.allSettled([sessions.signOut(server), ...here]);
  for (const result of [asked, ...rest]) if (result?.status === 'rejected') throw result.reason;
  const wasSignedIn = asked?.status === 'fulfilled' && asked.value === true;
  report(context, view, server, wasSignedIn ? '' : '; you were not signed in there');
}

/**
 * Signs out of a server that this machine has nothing about. If there was no sign-in, records nothing and throws; if a
 * selector means many servers, this is only a notice.
 */
export async function signOutUnknown(
  context: Context,
  view: KubeconfigView,
  server: string,
  isOneOfMany: boolean,
): Promise<void> {
  const { signedOut } = context.sessions.store;
  const wasSignedIn = await context.sessions.signOut(server).catch((error) => {
    signedOut.remove(server);
    // The error says that this machine is signed out. It never was signed in, so only the cause matters.
    throw error instanceof TkaError && error.cause instanceof TkaError ? error.cause : error;
  });
  if (wasSignedIn) return report(context, view, server, '');
  signedOut.remove(server);
  const name = context.remembered.nameOf(server);
  const message = `you were not signed in to ${name === undefined ? server : `${name} (${server})`}`;
  if (!isOneOfMany) throw new TkaError(message, { hints: ['kubectl tka status'] });
  context.terminal.notice(message);
}

function report(context: Context, view: KubeconfigView, server: string, remark: string): void {
  const name = cell(nameOfServer(context, view, server));
  if (!context.settings.quiet) context.terminal.out(`Signed out of ${name} (${server})${remark}.\n`);
}
