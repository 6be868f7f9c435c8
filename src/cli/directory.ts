import { type Cluster, confirmCluster, OtherCluster } from '../discovery/clusters.ts';
import { type Found, findClusters } from '../discovery/find.ts';
import type { Tagged } from '../discovery/place.ts';
import { parseSelector } from '../discovery/selector.ts';
import { TkaError, UsageError } from '../errors.ts';
import type { KubeconfigView } from '../kubeconfig/index.ts';
import { type Peer, TailscaleError } from '../tailscale/localapi.ts';
import { cleanText } from '../tka/text.ts';
import type { Context } from './context.ts';

/** Peers that carry the tag of TKA servers, or why tailscaled could not be asked for them. */
export async function taggedPeers(context: Context): Promise<Tagged & { readonly suffix: string }> {
  try {
    const { suffix, peers } = await context.tailnet();
    return { suffix, peers: peers.filter(({ tags }) => tags.includes(context.settings.tag)) };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    context.terminal.log(`no tailnet to ask: ${problem}`);
    return { suffix: '', peers: [], problem };
  }
}

/** The URL of a peer's TKA server: its name, with the configured port. */
export function peerServer(context: Context, peer: Peer): string {
  return context.settings.serverNamed(peer.dnsName);
}

/** Where discovery begins. */
export interface Entry {
  /** Canonical URLs; the first is asked first. */
  readonly servers: readonly string[];
  /** The same, and those that are not online. */
  readonly all: readonly string[];
  /** True where a person, a flag or the configuration names the server. */
  readonly named: boolean;
}

/**
 * The servers where discovery begins: the configured one, else the tailnet's peers with the right tag, which is the only
 * proof there is: anybody may call a laptop `tka`. Throws TkaError where there are none, with what to type.
 */
export async function entryServers(context: Context): Promise<Entry> {
  const configured = await configuredServer(context);
  if (configured !== undefined) return { servers: [configured], all: [configured], named: true };
  const { settings } = context;
  const status = await context.tailnet().catch((error) => {
    if (!(error instanceof TkaError)) throw error;
    throw new TkaError(`no TKA server is configured, and none can be looked for: ${error.message}`, {
      hints: [...error.hints, 'or name a server: kubectl tka config tailscale.hostname HOST'],
      cause: error,
    });
  });
  const tagged = status.peers.filter(({ tags }) => tags.includes(settings.tag));
  const all = tagged.map((peer) => peerServer(context, peer)).sort();
  const online = tagged.filter((peer) => peer.online).map((peer) => peerServer(context, peer));
  if (all.length > 0) return { servers: online.length > 0 ? online.sort() : all, all, named: false };
  const alike = status.peers.filter(({ hostName }) => /^tka(?:-|$)/.test(hostName)).slice(0, 5);
  throw new TkaError(
    `no TKA server is configured, and no device of ${status.suffix || 'the tailnet'} carries ${settings.tag}`,
    {
      hints: [
        ...alike.map((peer) => {
          // That of another tailnet, shared with this one, keeps its whole name.
          const name = peer.dnsName === `${peer.hostName}.${status.suffix}` ? peer.hostName : peer.dnsName;
          return `if you trust ${peer.dnsName}: kubectl tka config tailscale.hostname ${name}`;
        }),
        ...(alike.length === 0 ? ['kubectl tka config tailscale.hostname HOST'] : []),
        'or another tag: kubectl tka config tailscale.tag tag:NAME',
      ],
    },
  );
}

/** The configured server's canonical URL; undefined where none is. A bare name gets the tailnet's suffix. */
export async function configuredServer(context: Context): Promise<string | undefined> {
  await learnTailnet(context, undefined);
  return context.settings.entryServer;
}

/** The canonical URL of a server that a person names. Throws UsageError for what is none. */
export async function namedServer(context: Context, name: string): Promise<string> {
  await learnTailnet(context, name);
  return context.settings.serverNamed(name);
}

async function learnTailnet(context: Context, name: string | undefined): Promise<void> {
  const { settings } = context;
  if (name === undefined && settings.values.get('tailscale.hostname')?.value === undefined) return;
  if (!settings.needsTailnet(name)) return;
  try {
    settings.assumeTailnet((await context.tailnet()).suffix);
  } catch (error) {
    if (!(error instanceof TailscaleError)) throw error;
    const { log, warn, hint } = context.terminal;
    // Without Tailscale on this machine, the name may be one that the resolver knows all the same.
    if (error.problem === 'absent') return log(`no tailnet to complete a name with: ${error.message}`);
    warn(`a name cannot be completed with that of the tailnet: ${error.message}`);
    for (const line of error.hints) hint(line);
  }
}

/** True for a server on a peer with the right tag, by name or address; undefined where tailscaled cannot be asked. */
export async function isTagged(context: Context, server: string): Promise<boolean | undefined> {
  const { peers, problem } = await taggedPeers(context);
  const host = new URL(server).hostname.replace(/^\[|\]$/g, '');
  if (problem !== undefined) return undefined;
  return peers.some(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
}

/** All clusters there are. Throws TkaError where there is no list at all. */
export async function allClusters(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  return (await listClusters(context, view)).clusters;
}

/** The same, and whether that is how it is now. */
export async function listClusters(context: Context, view: KubeconfigView): Promise<Found> {
  const { servers, all, named } = await entryServers(context);
  const { log, warn, notice } = context.terminal;
  return findClusters({
    entries: servers,
    lists: all,
    named,
    known: view.ours,
    memory: context.memory,
    tagged: () => taggedPeers(context),
    serverOf: (peer) => peerServer(context, peer),
    client: context.client,
    log,
    warn,
    notice,
  });
}

/** A cluster whose TKA server nobody knows. */
export class Unplaced extends TkaError {
  /** The message where the cluster's name stands before it anyway. */
  readonly unnamed: string;
  constructor({ name, reason }: Cluster) {
    const unnamed = `no known TKA server: ${reason ?? 'unresolved'}`;
    super(`${name} has ${unnamed}`, { hints: ['if you know its host, name that: kubectl tka login HOST'] });
    this.unnamed = unnamed;
  }
}

/** What an error says after the name of the cluster that it is about. */
export function afterName(error: TkaError): string {
  return error instanceof Unplaced ? error.unnamed : error.message;
}

/** A cluster whose TKA server is known. Throws Unplaced. */
export function placed(cluster: Cluster): Cluster & { readonly server: string } {
  const { server } = cluster;
  if (server !== null) return { ...cluster, server };
  throw new Unplaced(cluster);
}

/**
 * Asks the server of a cluster whether it is that cluster's, and how its API server is reached: only then is its address
 * believed. One that says something else is forgotten as that cluster's. Throws TkaError where it is not placed, where
 * we inferred its server and no tag vouches for that now, or where that names another API endpoint.
 */
export async function confirmed(context: Context, cluster: Cluster) {
  const { server, word, name, apiEndpoint } = placed(cluster);
  if (word === 'tailnet') await requireTag(context, server, name);
  try {
    const info = await confirmCluster({ name, server, apiEndpoint }, context.client(server), context.askTimeout);
    return { ...info, server };
  } catch (error) {
    if (error instanceof OtherCluster && word !== 'stated') {
      try {
        context.memory.forget(apiEndpoint, server);
      } catch (cause) {
        context.terminal.log(`the last list cannot be changed: ${cause}`);
      }
    }
    throw error;
  }
}

// Anybody on the tailnet can say that he is a cluster's server, and can have the name of one that was.
async function requireTag(context: Context, server: string, name: string): Promise<void> {
  if ((await isTagged(context, server)) === true) return;
  const { tag } = context.settings;
  const { problem } = await taggedPeers(context);
  const why =
    problem === undefined ? `it does not carry ${tag}` : `whether it carries ${tag} cannot be asked: ${problem}`;
  throw new TkaError(`${server} is not used as the TKA server of ${name}: ${why}`, {
    hints: [`if you trust it, name it by its address: kubectl tka login ${server}`],
  });
}

/**
 * The cluster that a name means: the one that is called so, or whose server it is, else that of our context of this
 * name, else the only one whose name begins so; undefined if there is none, or only a context for a server that is not
 * listed. Throws UsageError, with the candidates, where several are meant.
 */
export function clusterByName(
  clusters: readonly Cluster[],
  name: string,
  { ours }: Pick<KubeconfigView, 'ours'>,
): Cluster | undefined {
  const named = clusters.filter((cluster) => cluster.name === name || cluster.server === name);
  const there = named.filter((cluster) => cluster.state !== 'missing');
  // A cluster that was made anew under its old name is the one that is meant.
  const exact = there.length > 0 ? there : named;
  const own = exact.length === 0 ? ours.find((context) => context.name === name) : undefined;
  if (own !== undefined) return clusters.find(({ server }) => server === own.server);
  const found = exact.length > 0 ? exact : clusters.filter((cluster) => name !== '' && cluster.name.startsWith(name));
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are called' : 'have a name that begins with';
  throw new UsageError(`${found.length} clusters ${what} ${JSON.stringify(cleanText(name))}`, {
    hints: found.slice(0, 10).map((cluster) => `${cluster.name} (${cluster.server ?? cluster.apiEndpoint})`),
  });
}

/**
 * The clusters that names, or a label selector, mean; all of them where neither is given. Throws UsageError for an
 * ambiguous name or both, TkaError for a name or a selector that means none.
 */
export function chooseClusters(
  clusters: readonly Cluster[],
  names: readonly string[],
  selector: string | undefined,
  view: Pick<KubeconfigView, 'ours'>,
): Cluster[] {
  if (names.length > 0 && selector !== undefined) throw new UsageError('give either names or a selector');
  if (names.length === 0) {
    const matches = parseSelector(selector ?? '');
    const found = clusters.filter((cluster) => matches(cluster.labels));
    if (found.length === 0) throw new TkaError('no cluster matches the selector', { hints: ['kubectl tka clusters'] });
    return found;
  }
  const found = names.map((name) => {
    const cluster = clusterByName(clusters, name, view);
    if (cluster !== undefined) return cluster;
    throw new TkaError(`there is no cluster ${JSON.stringify(cleanText(name))}`, { hints: ['kubectl tka clusters'] });
  });
  return [...new Set(found)];
}
