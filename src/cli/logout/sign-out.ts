import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { cell } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { nameOfServer } from '../target/contexts.ts';
import { type SignOutGroup, signOutGroups } from '../target/same-cluster.ts';

/** Limit on the servers that are told at once. */
const parallel = 8;

export interface FailedSignOut {
  readonly server: string;
  readonly error: TkaError;
}

/**
 * Acts on each server that is to be told of the sign-out from these servers' clusters, and returns the failures. Throws
 * only what is no TkaError.
 */
export async function forEachToTell(
  context: Context,
  view: KubeconfigView,
  servers: readonly string[],
  act: (server: string, group: SignOutGroup) => Promise<void>,
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
  const groups = signOutGroups(context, view, servers);
  const all = groups.flatMap((group) => group.told.map((server) => [server, group] as const));
  for (let at = 0; at < all.length; at += parallel)
    await Promise.all(all.slice(at, at + parallel).map(([server, group]) => attempt(server, group)));
  return failed;
}

/** Signs out of a cluster by one of its servers; with the first of those that are told, of all that need not be. */
export async function signOut(
  context: Context,
  view: KubeconfigView,
  server: string,
  { told, held, known }: SignOutGroup,
): Promise<void> {
  const { sessions, terminal } = context;
  const others = server === told[0] ? [...held, ...known] : [];
  terminal.log(`signing out of ${[server, ...others].join(', ')}`);
  // Before the server is told: no other process must sign in again through one of the others meanwhile.
  const here = others.map((other) => sessions.signOutHere(other, known.includes(other)));
  const [asked, ...rest] = await Promise.allSettled([sessions.signOut(server), ...here]);
  for (const result of [asked, ...rest]) if (result?.status === 'rejected') throw result.reason;
  const wasSignedIn = asked?.status === 'fulfilled' && asked.value === true;
  report(context, view, server, wasSignedIn ? '' : '; you were not signed in there');
}

/**
 * Signs out of a server that this machine knows nothing about. Unless there was a sign-in, nothing is recorded, and that
 * is an error; for one of many that a selector means, it is a notice.
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
    // The error says that this machine is signed out, but it never was signed in: only the cause is of interest.
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
