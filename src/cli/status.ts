import { shortName } from '../discovery/naming.ts';
import { TkaError } from '../errors.ts';
import { readKubeconfig } from '../kubeconfig/index.ts';
import { timeLeft } from '../session/store.ts';
import { cell, type OutputFormat, structured, table, when } from '../terminal.ts';
import type { Context } from './context.ts';
import { contextOf } from './target.ts';

/** `status`: the sessions of this machine, from the cache alone. */
export async function status(
  context: Context,
  _: readonly string[],
  flags: { readonly output?: OutputFormat },
): Promise<void> {
  const { terminal, settings, sessions } = context;
  // A kubeconfig that is damaged only hides the names of its contexts.
  const view = await readKubeconfig(context.kubeconfig).catch((error: unknown) => {
    if (!(error instanceof TkaError)) throw error;
    terminal.warn(error.message);
    return undefined;
  });
  const signedOut = sessions.store.listSignedOut().map((mark) => ({ ...mark, state: 'signed-out' }));
  const marked = new Set(signedOut.map(({ server }) => server));
  const held = sessions.store
    .list()
    .filter(({ server }) => !marked.has(server))
    .map((session) => ({ ...session, state: timeLeft(session) > 0 ? 'active' : 'expired' }));
  const clocks = new Map(held.map(({ server, clockOffset }) => [server, clockOffset]));
  const rows = [...held, ...signedOut]
    .map(({ server, username, role, until, state }) => {
      const ours = (view && contextOf(view, server)?.name) ?? null;
      return { name: ours ?? shortName(server, settings.tailnet), server, username, role, until, context: ours, state };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const format = flags.output ?? 'table';
  if (format === 'json' || format === 'yaml') return terminal.out(await structured(format, rows));
  if (format === 'name') return terminal.out(rows.map((row) => `${cell(row.name)}\n`).join(''));
  if (rows.length === 0) {
    terminal.notice('no sessions on this machine');
    return settings.quiet ? undefined : terminal.hint('kubectl tka login');
  }
  const headings = ['NAME', 'USER', 'ROLE', 'STATE', 'UNTIL', 'CONTEXT', 'TKA SERVER'];
  const cells = rows.map((row) => [
    row.name,
    row.username ?? '-',
    row.role ?? '-',
    row.state,
    row.until === null ? '-' : when(Date.parse(row.until), Date.now() + (clocks.get(row.server) ?? 0)),
    row.context ?? '-',
    row.server,
  ]);
  terminal.out(table(headings, cells));
}
