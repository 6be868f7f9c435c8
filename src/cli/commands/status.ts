import { isJoined, loginServerName } from '../../discovery/joined.ts';
import { type KubeconfigView, type OurContext, readKubeconfig } from '../../kubeconfig/index.ts';
import { timeLeft } from '../../session/session.ts';
import type { Style } from '../../terminal/colour.ts';
import { type Cell, cell, type OutputFormat, structured, table } from '../../terminal/output.ts';
import { checkToken } from '../../tka/token.ts';
import { TkaError } from '../../util/errors.ts';
import { localTime } from '../../util/time.ts';
import type { Context } from '../context/context.ts';
import { contextOf, nameOfServer } from '../target/contexts.ts';

/** Runs `status`: shows the sessions of this machine, from the cache alone. */
export async function status(
  context: Context,
  _: readonly string[],
  flags: { readonly output?: OutputFormat; readonly headers?: boolean },
): Promise<void> {
  const { terminal, settings, sessions } = context;
  // A damaged kubeconfig only hides the names of contexts.
  const view = await readKubeconfig(context.kubeconfig).catch((error: unknown) => {
    if (!(error instanceof TkaError)) throw error;
    terminal.warn(error.message);
    return undefined;
  });
  // What was signed out of has no end any more, although the mark still has that of the session.
  const signedOut = sessions.store.signedOut.list().map((mark) => ({ ...mark, until: null, state: 'signed-out' }));
  const marked = new Set(signedOut.map(({ server }) => server));
  const held = sessions.store
    .list()
    .filter(({ server }) => !marked.has(server))
    .map((session) => ({ ...session, state: timeLeft(session) > 0 ? 'active' : 'expired' }));
  const clocks = new Map(held.map(({ server, clockOffset }) => [server, clockOffset]));
  const entries: Entry[] = [...held, ...signedOut];
  const all = oneEach(entries, context, view)
    .map(({ ours, ...entry }) => ({ ours, entry, name: nameOfServer(context, view, entry.server) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const rows = all.map(({ name, ours, entry: { server, username, role, until, state } }) => {
    return {
      name,
      server,
      through: throughOf(context, server),
      username,
      role,
      until,
      context: ours?.name ?? null,
      state,
    };
  });
  const format = flags.output ?? (settings.long ? 'wide' : 'table');
  if (format === 'json' || format === 'yaml') return terminal.out(await structured(format, rows));
  if (format === 'name') return terminal.out(rows.map((row) => `${cell(row.name)}\n`).join(''));
  if (rows.length === 0) {
    terminal.notice('no sessions on this machine');
    return settings.quiet ? undefined : terminal.hint('kubectl tka login');
  }
  const headings = ['CURRENT', 'NAME', 'USER', 'ROLE', 'STATE', 'EXPIRES', 'CONTEXT', 'TKA SERVER'];
  const more = format === 'wide' ? all.map((each) => wideCells(context, each)) : [];
  const cells = rows.map((row, i): Cell[] => [
    { text: row.context !== null && row.context === view?.currentContext ? '*' : '', style: 'green' },
    row.name,
    row.username ?? '-',
    row.role ?? '-',
    { text: row.state, style: stateStyles[row.state] },
    // The server states the end by its own clock.
    row.until === null ? '-' : localTime(Date.parse(row.until) - (clocks.get(row.server) ?? 0)),
    row.context ?? '-',
    row.server,
    ...(more[i] ?? []),
  ]);
  terminal.outPainted(
    table([...headings, ...(format === 'wide' ? wideHeadings : [])], cells, { showsHeadings: flags.headers }),
  );
}

const stateStyles: Readonly<Record<string, Style>> = { active: 'green', expired: 'yellow', 'signed-out': 'dim' };

const wideHeadings = ['THROUGH', 'API SERVER', 'SERVICE ACCOUNT'];

interface Shown {
  readonly entry: Entry;
  readonly ours: OurContext | undefined;
}

function wideCells(context: Context, { entry, ours }: Shown): Cell[] {
  const claims = entry.token === undefined ? '' : checkToken(entry.token, 0);
  const account = typeof claims === 'string' ? undefined : claims.account;
  return [throughOf(context, entry.server) ?? '-', entry.apiServer ?? ours?.apiServer ?? '-', account ?? '-'];
}

/** Returns the name of the login server's cluster that a session is through; null for one at the cluster's own server. */
function throughOf({ remembered }: Context, server: string): string | null {
  return isJoined({ server }) ? (remembered.of(server)?.through ?? loginServerName(server, undefined)) : null;
}

interface Entry {
  readonly server: string;
  readonly username: string | null;
  readonly role: string | null;
  readonly state: string;
  readonly until: string | null;
  readonly apiServer?: string;
  readonly token?: string;
}

/**
 * Returns one entry per cluster, even if several of its servers have entries: the one that kubectl would use. A way
 * through a login server has its own account, and so its own entry.
 */
function oneEach<T extends Entry>(
  entries: readonly T[],
  context: Context,
  view: KubeconfigView | undefined,
): (T & { readonly ours: OurContext | undefined })[] {
  const all = entries.map((entry) => ({ ...entry, ours: view && contextOf(view, entry.server) }));
  const { remembered } = context;
  const clusterOf = ({ server, ours, apiServer = ours?.apiServer }: (typeof all)[number]) => {
    const joined = isJoined({ server });
    const cluster = remembered.of(server) ?? (joined ? undefined : remembered.at(apiServer));
    if (cluster !== undefined) return `${cluster.apiEndpoint} ${cluster.name} ${joined}`;
    return joined ? server : (apiServer ?? server);
  };
  const rank = ({ ours, state }: (typeof all)[number]) =>
    (ours === undefined ? 4 : ours.name === view?.currentContext ? 0 : 2) + (state === 'active' ? 0 : 1);
  return [...Map.groupBy(all, clusterOf).values()].flatMap((alike) =>
    alike.sort((a, b) => rank(a) - rank(b) || Date.parse(b.until ?? '') - Date.parse(a.until ?? '') || 0).slice(0, 1),
  );
}
