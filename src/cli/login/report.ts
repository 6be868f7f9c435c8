// Prints the output of `login`.
import { shortName } from '../../discovery/clusters.ts';
import type { LoginResult } from '../../session/login.ts';
import { roleNotice, roleRemedy } from '../../session/session.ts';
import { quoted } from '../../util/text.ts';
import { localTime } from '../../util/time.ts';
import type { Context } from '../context/context.ts';
import { sayInShell } from '../contexts/in-shell.ts';
import type { WrittenContext } from './context-writer.ts';

/** Prints who the user is now, with a warning or notice if that has changed. */
export function reportSession(
  { terminal, settings }: Context,
  { session, previous }: LoginResult,
  clusterName: string | null,
): void {
  const { server, username, role, until, clockOffset } = session;
  if (!settings.quiet) {
    const name = clusterName ?? shortName(server, settings.tailnet);
    const expiry = localTime(Date.parse(until) - clockOffset);
    terminal.out(`Signed in to ${name} (${server}) as ${username}, role ${role}; expires ${expiry}.\n`);
  }
  if (previous !== undefined && previous.username !== username) {
    terminal.warn(`you are now ${username} (was ${previous.username})`);
  }
  if (session.formerRole !== undefined) {
    terminal.warn(roleNotice(session));
    terminal.hint(roleRemedy(server));
  } else if (previous !== undefined && previous.username === username && previous.role !== role) {
    terminal.notice(`your role is now ${role} (was ${previous.role})`);
  }
}

/** Prints which context was written, and which one is current. */
export function reportContext(
  context: Context,
  { name, notice, namespace, before, previousContext, currentContext }: WrittenContext,
  { server, apiServer, isSwitch }: { readonly server: string; readonly apiServer: string; readonly isSwitch: boolean },
): void {
  const { terminal, settings } = context;
  if (before !== undefined && before.server !== server) {
    terminal.notice(`the TKA server of context ${quoted(name)} is now ${server} (was ${before.server})`);
  }
  if (before?.apiServer !== undefined && before.apiServer !== apiServer) {
    terminal.warn(`the API server of context "${name}" has changed from ${before.apiServer} to ${apiServer}`);
  }
  if (notice !== undefined) terminal.notice(notice);
  if (settings.quiet) return;
  const inNamespace = namespace === undefined ? '' : `, namespace "${namespace}"`;
  if (!isSwitch) {
    const current = nameOrNone(currentContext);
    terminal.out(`Context "${name}"${inNamespace} is ready; the current context is still ${current}.\n`);
  } else if (previousContext === name) {
    terminal.out(`Context "${name}"${inNamespace} is already the current context.\n`);
  } else {
    const was = previousContext === undefined ? '' : ` (was ${nameOrNone(previousContext)})`;
    terminal.out(`Switched to context "${name}"${inNamespace}${was}.\n`);
  }
  sayInShell(context);
}

/** Returns the quoted name of a context, or `none`. */
export function nameOrNone(name: string | undefined): string {
  return name === undefined ? 'none' : quoted(name);
}
