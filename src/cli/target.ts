import { type Cluster, clusterNamed, type ListOptions, listClusters } from '../discovery/clusters.ts';
import { contextNames, shortName } from '../discovery/naming.ts';
import { TkaError, UsageError } from '../errors.ts';
import type { KubeconfigView, OurContext } from '../kubeconfig/index.ts';
import { cleanText } from '../tka/text.ts';
import { type Context, requireEntryServer } from './context.ts';

/** What a NAME on the command line stands for. */
export interface Target {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The member of the mesh that was named so; undefined for a server named by address, or none. */
  readonly cluster: Cluster | undefined;
  /** True for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean;
}

/** How discovery asks and speaks in this context. */
export function listOptions(context: Context, view: KubeconfigView): ListOptions {
  const { log, warn, notice } = context.terminal;
  return { known: view.ours, timeout: Math.min(context.sessions.timeout, 10_000), log, warn, notice };
}

const isUrl = (name: string) => name.includes('://');

/**
 * The server that a NAME of `login` means: a URL, a member of the entry server's mesh, a context of ours, or a host;
 * without a NAME the configured server. Throws TkaError or UsageError.
 */
export async function loginTarget(context: Context, name: string | undefined, view: KubeconfigView): Promise<Target> {
  const { settings, terminal } = context;
  if (name === undefined) return { server: requireEntryServer(settings), cluster: undefined };
  if (name.trim() === '')
    throw new UsageError('the name is empty', { hints: ['kubectl tka clusters shows the names'] });
  if (isUrl(name)) return { server: settings.serverNamed(name), cluster: undefined };
  const entryServer = settings.entryServer;
  let unlisted = false;
  if (entryServer !== undefined) {
    try {
      const cluster = clusterNamed(await listClusters(entryServer, listOptions(context, view)), name);
      if (cluster !== undefined) return { server: placed(cluster), cluster };
      unlisted = true;
    } catch (error) {
      if (!(error instanceof TkaError) || error.exitCode === 2 || error instanceof Unplaced) throw error;
      terminal.warn(`cannot look for ${cleanText(name)} among the clusters: ${error.message}`);
    }
  }
  const ours = view.ours.find((c) => c.name === name);
  if (ours !== undefined) return { server: ours.server, cluster: undefined };
  return { server: settings.serverNamed(name), cluster: undefined, unlisted };
}

class Unplaced extends TkaError {}

function placed(cluster: Cluster): string {
  if (cluster.server !== null) return cluster.server;
  throw new Unplaced(`${cluster.name} has no known TKA server: ${cluster.reason ?? 'unresolved'}`, {
    hints: ['if you know its host, name that: kubectl tka login HOST'],
  });
}

/**
 * The server that a NAME of `logout` or `forget` means, found without the network where possible: a context of ours, a
 * session's short name, a URL, a member, a host; without a NAME the current context's, else the configured server.
 */
export async function knownTarget(context: Context, name: string | undefined, view: KubeconfigView): Promise<string> {
  const { settings, sessions } = context;
  const ours = (wanted: string | undefined) => view.ours.find((c) => c.name === wanted)?.server;
  // A server on the command line is meant before whatever context happens to be the current one.
  if (name === undefined) {
    const named = settings.values.get('tailscale.hostname')?.source === '--server' ? settings.entryServer : undefined;
    return named ?? ours(view.currentContext) ?? requireEntryServer(settings);
  }
  if (isUrl(name)) return settings.serverNamed(name);
  const held = [...sessions.store.list(), ...sessions.store.listSignedOut()];
  const byName = new Set(
    held.map(({ server }) => server).filter((server) => shortName(server, settings.tailnet) === name),
  );
  const local = ours(name) ?? (byName.size === 1 ? [...byName][0] : undefined);
  return local ?? (await loginTarget(context, name, view)).server;
}

/**
 * The name of the context for a server: the one that it has; else the first of its names that is free. A name that
 * somebody else's entry has is returned too: writing it is what fails then, with a hint.
 * Throws TkaError where the wanted name is that of a context of ours for another server.
 */
export function contextFor(
  view: KubeconfigView,
  target: { server: string; memberName: string | null },
  options: { tailnet: string; wanted?: string | undefined; taken?: ReadonlySet<string> },
): string {
  const { server } = target;
  const ours = new Map(view.ours.map((c) => [c.name, c]));
  const { wanted } = options;
  if (wanted !== undefined) {
    const other = ours.get(wanted);
    if (other === undefined || other.server === server) return wanted;
    throw new TkaError(`context ${JSON.stringify(wanted)} is that of ${other.server}`, {
      hints: ['choose another name: --context NAME', `or give it up first: kubectl tka forget ${wanted}`],
    });
  }
  const existing = contextOf(view, server);
  if (existing !== undefined) return existing.name;
  const names = contextNames(server, options.tailnet, target.memberName);
  const free = names.find((name) => !ours.has(name) && options.taken?.has(name) !== true);
  return free ?? names.at(-1) ?? server;
}

/** Our context for a server: the current one if it is, else the first. */
export function contextOf(view: KubeconfigView, server: string): OurContext | undefined {
  const all = view.ours.filter((c) => c.server === server);
  return all.find((c) => c.name === view.currentContext) ?? all[0];
}
