import type { Cluster } from '../discovery/clusters.ts';
import { contextNames, shortName } from '../discovery/naming.ts';
import { TkaError, UsageError } from '../errors.ts';
import type { KubeconfigView, OurContext } from '../kubeconfig/index.ts';
import { Refused } from '../tka/errors.ts';
import { cleanText } from '../tka/text.ts';
import type { Context } from './context.ts';
import { allClusters, clusterByName, entryServers, namedServer, placed, Unplaced } from './directory.ts';

/** What a NAME on the command line stands for. */
export interface Target {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The member of the mesh that was named so; undefined for a server named by address, or none. */
  readonly cluster: Cluster | undefined;
  /** True, or why, for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean | TkaError;
}

/** A cluster as a target. Throws Unplaced. */
export function targetOf(cluster: Cluster): Target {
  return { server: placed(cluster).server, cluster };
}

const isUrl = (name: string) => name.includes('://');

/**
 * The server that a NAME of `login` means: a URL, a cluster (or an unambiguous prefix of its name), a context of ours, or
 * a host; without a NAME the configured server, or the only one that the tailnet has. Throws TkaError or UsageError.
 */
export async function loginTarget(context: Context, name: string | undefined, view: KubeconfigView): Promise<Target> {
  if (name === undefined) return { server: await onlyServer(context), cluster: undefined };
  if (name.trim() === '')
    throw new UsageError('the name is empty', { hints: ['kubectl tka clusters shows the names'] });
  if (isUrl(name)) return { server: await namedServer(context, name), cluster: undefined };
  let unlisted = false;
  let failure: TkaError | undefined;
  try {
    const cluster = clusterByName(await allClusters(context, view), name, view);
    if (cluster?.server != null) return targetOf(cluster);
    // A host of that name may be meant; what cannot be placed is told below otherwise.
    if (cluster !== undefined && cluster.name === name) return targetOf(cluster);
    unlisted = true;
  } catch (error) {
    if (!(error instanceof TkaError) || error.exitCode === 2 || error instanceof Unplaced) throw error;
    failure = error;
  }
  const ours = view.ours.find((c) => c.name === name);
  if (ours !== undefined) return { server: ours.server, cluster: undefined };
  // A bare name is more likely a cluster's than a host's: why it was not found there matters more than what DNS says.
  if (failure instanceof Refused && !/[.:]/.test(name)) throw failure;
  if (failure !== undefined)
    context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${failure.message}`);
  return { server: await namedServer(context, name), cluster: undefined, unlisted: failure ?? unlisted };
}

/** The configured server, or the tailnet's only tagged one; of several, the one that is chosen. Never the first. */
async function onlyServer(context: Context): Promise<string> {
  // One that is not online counts: the other of two would be a guess.
  const { all: servers } = await entryServers(context);
  const [server] = servers;
  if (server !== undefined && servers.length === 1) return server;
  const { canPick, pick } = await import('./picker.ts');
  if (canPick(context.env)) {
    const items = servers.map((each) => ({
      name: shortName(each, context.settings.tailnet),
      state: '',
      labels: each,
      current: false,
    }));
    const chosen = servers[await pick(items, context.env)];
    if (chosen !== undefined) return chosen;
  }
  throw new UsageError(`the tailnet has ${servers.length} TKA servers: which one is meant?`, {
    hints: servers.slice(0, 20).map((each) => `kubectl tka login ${each}`),
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
    return named ?? ours(view.currentContext) ?? (await onlyServer(context));
  }
  if (isUrl(name)) return namedServer(context, name);
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
