import { contextNames, shortName } from '../../discovery/naming.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';

/** What this machine calls a server: as its cluster, as the context for it, or as its host. */
export function nameOfServer(context: Context, view: KubeconfigView | undefined, server: string): string {
  const ours = view && contextOf(view, server);
  const endpoint = ours?.apiServer ?? context.sessions.store.read(server)?.apiServer;
  return context.remembered.nameOf(server, endpoint) ?? ours?.name ?? shortName(server, context.settings.tailnet);
}

/** What a context is for. */
export interface ContextTarget {
  readonly server: string;
  /** The name of its cluster; null where that is not known. */
  readonly clusterName: string | null;
  /** The cluster's other servers. */
  readonly servers?: readonly (string | null)[];
  /** The context that the cluster is known to have. */
  readonly known?: string | undefined;
}

/**
 * The name of the context for a cluster: the one that it has; else the first of its names that is free. A name that
 * somebody else's entry has is returned too: writing it is what fails then, with a hint.
 * Throws TkaError where the wanted name is that of a context of ours for another server.
 */
export function contextFor(
  view: KubeconfigView,
  { server, clusterName, servers = [], known }: ContextTarget,
  options: { tailnet: string; wanted?: string | undefined; taken?: ReadonlySet<string> },
): string {
  const ours = new Map(view.ours.map((c) => [c.name, c]));
  const { wanted } = options;
  if (wanted !== undefined) {
    const other = ours.get(wanted);
    if (other === undefined || other.server === server || servers.includes(other.server) || wanted === known)
      return wanted;
    throw new TkaError(`context ${JSON.stringify(wanted)} is that of ${other.server}`, {
      hints: ['choose another name: --context NAME', `or give it up first: kubectl tka forget ${wanted}`],
    });
  }
  const existing = contextOf(view, server) ?? (known === undefined ? undefined : ours.get(known));
  if (existing !== undefined) return existing.name;
  const names = contextNames(server, options.tailnet, clusterName);
  const free = names.find((name) => !ours.has(name) && options.taken?.has(name) !== true);
  return free ?? names.at(-1) ?? server;
}

/** Our context for a server: the current one if it is, else the first. */
export function contextOf(view: KubeconfigView, server: string): OurContext | undefined {
  const all = view.ours.filter((c) => c.server === server);
  return all.find((c) => c.name === view.currentContext) ?? all[0];
}
