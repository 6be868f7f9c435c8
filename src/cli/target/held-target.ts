import { type Cluster, resolved } from '../../discovery/clusters.ts';
import { shortName } from '../../discovery/naming.ts';
import { isBareWord } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { clusterByName, NoCluster } from './by-name.ts';
import { isUrl } from './cluster-target.ts';
import { listClusters } from './clusters.ts';
import { onlyServer } from './only-server.ts';
import { configuredServer, namedServer } from './seeds.ts';

/** A server that `logout` or `forget` is about. */
export interface Held {
  readonly server: string;
  /** False for a URL that this machine knows nothing about. */
  readonly known: boolean;
}

/**
 * The server that a NAME of `logout` or `forget` means, found without the network where possible: a context of ours, a
 * session's short name, a cluster, a URL or host. Only exact names count. Without a NAME it is the current context's, else the
 * configured server. Throws TkaError, with the nearest names, for a name that nothing has. `command` is for its hints.
 */
export async function heldTarget(
  context: Context,
  name: string | undefined,
  view: KubeconfigView,
  command: 'logout' | 'forget' | 'doctor',
): Promise<Held> {
  const { settings, sessions } = context;
  const ours = (wanted: string | undefined) => view.ours.find((c) => c.name === wanted)?.server;
  const found = (server: string): Held => ({ server, known: true });
  // A look at the cache mends its modes, and the doctor changes nothing.
  const listHere = () => knownHere(context, view);
  const isHere = (server: string) => listHere().has(server) || sessions.store.signedOut.read(server) !== undefined;
  if (name === undefined) {
    // A server on the command line is meant before whatever context happens to be the current one.
    const isFlag = settings.values.get('tailscale.hostname')?.source === '--server';
    const flagged = isFlag ? await configuredServer(context) : undefined;
    if (flagged !== undefined) return { server: flagged, known: command === 'doctor' || isHere(flagged) };
    return found(ours(view.currentContext) ?? (await onlyServer(context, view, command)).server);
  }
  if (name.trim() === '') throw new UsageError('the name is empty', { hints: ['kubectl tka status shows the names'] });
  const here = listHere();
  const shortNames = new Map([...here].map((server) => [server, shortName(server, settings.tailnet)]));
  const byName = [...here].filter((server) => shortNames.get(server) === name);
  const byCluster = heldByName(context.remembered.all, name, here);
  const local = ours(name) ?? byCluster ?? (byName.length === 1 ? byName[0] : undefined);
  if (local !== undefined) return found(local);
  const isAddress = !isBareWord(name);
  const server = await namedServer(context, name);
  if (isHere(server) || server === (await configuredServer(context))) return found(server);
  if (isUrl(name)) return { server, known: false };
  const clusters = await listClusters(context, view).then(
    (list) => list.clusters,
    (error: unknown) => {
      if (!(error instanceof TkaError) || error.exitCode !== 1) throw error;
      context.terminal.log(`cannot look for ${cleanText(name)} among the clusters: ${error.message}`);
      return [];
    },
  );
  const exact = clusters.filter((each) => each.name === name || each.servers.some((one) => one.name === name));
  const cluster = exact.length > 0 ? clusterByName(exact, name, view, command) : undefined;
  if (cluster !== undefined) return heldOf(cluster, here);
  if (isAddress) return { server, known: false };
  const names = [...view.ours.map((c) => c.name), ...shortNames.values(), ...clusters.map((c) => c.name)];
  const wanted = cleanText(name);
  throw new NoCluster(
    `no cluster or context named ${JSON.stringify(wanted)}${didYouMean(
      wanted,
      names.map((each) => cleanText(each)),
    )}`,
    { hints: ['kubectl tka status'] },
  );
}

/** The servers that this machine has a session, a sign-out or a context for. */
export function knownHere({ sessions: { store } }: Context, { ours }: Pick<KubeconfigView, 'ours'>): Set<string> {
  return new Set([...store.list(), ...store.signedOut.list(), ...ours].map(({ server }) => server));
}

/** The servers that `--all` means: sorted, all that knownHere() has. Throws UsageError if there is a name, too. */
export function allHeld(context: Context, view: KubeconfigView, name: string | undefined, command: string): string[] {
  if (name !== undefined) throw new UsageError(`${command} takes either a name or --all`);
  return [...knownHere(context, view)].sort();
}

/** The server of a cluster that this machine knows, else the one to use. Throws UnresolvedCluster. */
export function heldOf(cluster: Cluster, here: ReadonlySet<string>): Held {
  const held = cluster.servers.find(({ server }) => server !== null && here.has(server))?.server;
  return { server: held ?? resolved(cluster).server, known: held != null };
}

function heldByName(clusters: readonly Cluster[], name: string, here: ReadonlySet<string>): string | undefined {
  const called = clusters.filter((cluster) => cluster.name === name);
  const found =
    called.length > 0 ? called : clusters.filter(({ servers }) => servers.some((server) => server.name === name));
  // The last lists may have one cluster several times.
  const held = new Map(found.map((cluster) => [cluster.apiEndpoint, cluster.servers]));
  const [servers = []] = held.size === 1 ? held.values() : [];
  return servers.find(({ server }) => server !== null && here.has(server))?.server ?? undefined;
}
