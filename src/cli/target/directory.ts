import { isAnswer } from '../../discovery/ask.ts';
import { type Cluster, OtherCluster } from '../../discovery/clusters.ts';
import { ageOf, type Found, findClusters, minuteOf, rememberedClusters } from '../../discovery/find.ts';
import { groupServers, type ServerRow } from '../../discovery/grouping.ts';
import { shortName } from '../../discovery/naming.ts';
import type { Tagged } from '../../discovery/place.ts';
import { parseSelector } from '../../discovery/selector.ts';
import { type ConfirmOptions, isBareWord, Trust, Untrusted } from '../../discovery/trust.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { Unavailable } from '../../network/failure.ts';
import type { Settings } from '../../settings/settings.ts';
import { type Peer, type TailnetStatus, TailscaleError } from '../../tailscale/localapi.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context.ts';
import { contextsByCluster } from '../contexts/by-cluster.ts';
import { syncedServers } from '../sync/record.ts';

/** Peers that carry the tag of TKA servers, or why tailscaled could not be asked for them. */
export function taggedPeers(context: Context): ReturnType<typeof taggedAmong> {
  return taggedAmong(context.tailnet, context.settings.tag, context.terminal.log);
}

/** The same, for those who have no context. */
export async function taggedAmong(
  tailnet: () => Promise<TailnetStatus>,
  tag: string,
  log: (line: string) => void,
): Promise<Tagged & { readonly suffix: string }> {
  try {
    const { suffix, peers } = await tailnet();
    return { suffix, peers: peers.filter(({ tags }) => tags.includes(tag)) };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    log(`no tailnet to ask: ${problem}`);
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

/** Settings for whose sake it was said already that tailscaled cannot be asked. */
const told = new WeakSet<Settings>();

async function learnTailnet(context: Context, name: string | undefined): Promise<void> {
  const { settings } = context;
  if (name === undefined && settings.values.get('tailscale.hostname')?.value === undefined) return;
  if (!settings.needsTailnet(name)) return;
  try {
    settings.assumeTailnet((await context.tailnet()).suffix);
  } catch (error) {
    if (!(error instanceof TailscaleError)) throw error;
    const { log, warn, hint } = context.terminal;
    if (told.has(settings)) return;
    told.add(settings);
    // Without Tailscale on this machine, the name may be one that the resolver knows all the same.
    if (error.problem === 'absent') return log(`no tailnet to complete a name with: ${error.message}`);
    warn(`a name cannot be completed with that of the tailnet: ${error.message}`);
    for (const line of error.hints) hint(line);
  }
}

/** Judges servers with what this machine knows: tailscaled, the configuration, sessions and contexts. */
export function trustOf(context: Context, view: Pick<KubeconfigView, 'ours'>): Trust {
  const { settings, sessions, accepted, paths } = context;
  const { store } = sessions;
  const hostname = settings.values.get('tailscale.hostname');
  const isTyped = hostname?.source === '--server' && isBareWord(String(hostname.value));
  const withContext = new Set(view.ours.map(({ server }) => server));
  let synced: ReadonlySet<string> | undefined;
  const isSynced = (server: string) => {
    synced ??= syncedServers(paths.state);
    return synced.has(server);
  };
  return new Trust({
    tag: settings.tag,
    tagged: () => taggedPeers(context),
    accepted: (server) => accepted.has(server),
    used: (server) =>
      (withContext.has(server) && !isSynced(server)) ||
      store.read(server) !== undefined ||
      // Version 0.1.0 left such a mark, without a name, for any server that `logout` was called with.
      (store.signedOut(server)?.username ?? null) !== null,
    namedAs: (server) => (server !== settings.entryServer ? undefined : isTyped ? 'typed' : 'known'),
  });
}

/** The same as allClusters(), and says which tagged servers no list has: their clusters may be missing. */
export async function allClustersTold(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  const { clusters, unlisted = [] } = await listClusters(context, view);
  const { terminal, settings } = context;
  if (unlisted.length === 0) return clusters;
  const names = unlisted.map((server) => shortName(server, settings.tailnet)).sort();
  const shown = names.slice(0, 5).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');
  const servers = unlisted.length === 1 ? '1 tagged server is' : `${unlisted.length} tagged servers are`;
  if (settings.entryServer === undefined) {
    terminal.notice(`${servers} in no list and did not answer, so their clusters may be missing: ${shown}`);
  } else {
    terminal.notice(`${servers} not in the list of the configured server: ${shown}`);
  }
  return clusters;
}

/** All clusters there are. Throws TkaError where there is no list at all. */
export async function allClusters(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  return (await listClusters(context, view)).clusters;
}

/**
 * The same, and whether that is how it is now. If there is no server to ask (none is configured, and tailscaled knows
 * none), these are the clusters of the last list and of the user's contexts, which one line says.
 */
export async function listClusters(context: Context, view: KubeconfigView): Promise<Found> {
  const entry = await entryServers(context).catch((error: unknown) => error);
  return isEntry(entry) ? askForClusters(context, view, entry) : withoutServer(context, view, entry);
}

/** The clusters for `exec`, which works as long as kubectl does: if no server answers, those of the contexts, too. */
export async function clustersToUse(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  const found = await listClusters(context, view).catch((error: unknown) => {
    // A server that refuses is not away.
    if (isAnswer(error)) throw error;
    return withoutServer(context, view, error);
  });
  return found.clusters;
}

function isEntry(entry: unknown): entry is Entry {
  return typeof entry === 'object' && entry !== null && 'servers' in entry;
}

function withoutServer(context: Context, view: KubeconfigView, why: unknown): Found {
  // A setting that is wrong has to be put right.
  if (!(why instanceof TkaError) || why.exitCode !== 1) throw why;
  const found = knownClusters(context, view);
  if (found === undefined) throw why;
  context.terminal.warn(`${why.message}; using ${found.what}`);
  return { clusters: found.clusters, current: false };
}

/** The clusters of the last list and of the user's contexts; undefined if there are neither. */
function knownClusters(context: Context, view: KubeconfigView): { clusters: Cluster[]; what: string } | undefined {
  const [list] = context.memory.all().sort((a, b) => b.at - a.at);
  const listed = list === undefined ? [] : rememberedClusters(list, { known: knownPairs(view) });
  const servers = new Set(listed.flatMap((cluster) => cluster.servers.map(({ server }) => server)));
  const others = view.ours.filter(({ server, apiServer }) => apiServer !== undefined && !servers.has(server));
  // The list may not know where the server of a cluster is, while the context does.
  const covered = new Set(others.map(({ apiServer }) => apiServer));
  const clusters = [
    ...listed.filter(({ server, apiEndpoint }) => server !== null || !covered.has(apiEndpoint)),
    ...ofContexts(others, syncedServers(context.paths.state)),
  ];
  if (clusters.length === 0) return undefined;
  const from = [
    ...(list === undefined ? [] : [`the list of ${minuteOf(list.at)} (${ageOf(list.at)} ago)`]),
    ...(others.length === 0 ? [] : ['the contexts of your kubeconfig']),
  ];
  return { clusters, what: from.join(' and ') };
}

function ofContexts(contexts: KubeconfigView['ours'], synced: ReadonlySet<string>): Cluster[] {
  const oneEach = new Map([...contexts].reverse().map((each) => [each.server, each])).values();
  const rows = [...oneEach].reverse().map(({ name, server, apiServer = '' }): ServerRow => {
    // A list stated what sync has written.
    const word = synced.has(server) ? 'stated' : 'known';
    const what = { name, cluster: null, server, word, apiEndpoint: apiServer, state: 'unknown' } as const;
    return { ...what, reason: null, lastSeen: null, version: null, labels: new Map(), usable: true, since: 0 };
  });
  return groupServers(rows).clusters;
}

/** The servers of our contexts, that of the current one first. */
function knownPairs({ ours, currentContext }: KubeconfigView): KubeconfigView['ours'] {
  return [...ours].sort((a, b) => Number(b.name === currentContext) - Number(a.name === currentContext));
}

async function askForClusters(context: Context, view: KubeconfigView, entry: Entry): Promise<Found> {
  const { servers, all, named } = entry;
  const { log, warn, notice } = context.terminal;
  const trust = trustOf(context, view);
  const found = await findClusters({
    allows: (server, word) => trust.allows(server, word),
    whyNot: () => trust.whyNot('its TKA server'),
    entries: servers,
    lists: all,
    named,
    known: knownPairs(view),
    memory: context.memory,
    away: context.away,
    tagged: () => taggedPeers(context),
    serverOf: (peer) => peerServer(context, peer),
    client: context.client,
    log,
    warn,
    notice,
  });
  context.remembered.renew();
  return found;
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
  return error instanceof Unplaced || error instanceof Untrusted ? error.unnamed : error.message;
}

/** A cluster whose TKA server is known. Throws Unplaced. */
export function placed(cluster: Cluster): Cluster & { readonly server: string } {
  const { server } = cluster;
  if (server !== null) return { ...cluster, server };
  throw new Unplaced(cluster);
}

/** So many of a cluster's servers are asked to confirm it: anyone can claim to be one of them. */
const mostConfirmed = 8;
/** One that did not answer a moment ago is given so long while the cluster has others, in milliseconds. */
const awayTimeout = 2000;

/**
 * Confirms a cluster with its server, as Trust.confirm() does; if that speaks for another cluster, with the next of its
 * servers. The answer has the server that confirmed it. With a client for a sign-in, which goes on at another server where
 * something is kept of the cluster, the next one is asked where it is away, too: without, no context would get another server
 * while its own is away. Throws TkaError, also where the cluster is not placed.
 */
export async function confirmed(
  context: Context,
  cluster: Cluster,
  trust: Trust,
  signInClient?: ConfirmOptions['client'],
) {
  const options = {
    client: signInClient ?? context.client,
    timeout: context.askTimeout,
    forget: (apiEndpoint: string, server: string) => {
      try {
        context.memory.forget(apiEndpoint, server);
      } catch (error) {
        context.terminal.log(`the last list cannot be changed: ${error}`);
      }
    },
  };
  const first = placed(cluster);
  const others = cluster.servers.filter(({ server }) => server !== first.server).slice(0, mostConfirmed);
  const isAway = others.length > 0 && context.away.has(first.server) !== undefined;
  try {
    const timeout = isAway ? Math.min(options.timeout, awayTimeout) : options.timeout;
    return await trust.confirm(first, { ...options, timeout });
  } catch (cause) {
    const isOfUse = cause instanceof OtherCluster || (signInClient && cause instanceof Unavailable && cause.away);
    if (!isOfUse) throw cause;
    for (const { server, word } of others) {
      if (server === null || !(await trust.allows(server, word))) continue;
      context.terminal.log(`${cause.message}: asking ${server}`);
      try {
        return await trust.confirm({ ...cluster, server, word }, options);
      } catch (error) {
        if (!(error instanceof TkaError)) throw error;
        context.terminal.log(error.message);
      }
    }
    throw cause;
  }
}

/**
 * The cluster that a name means: the one that is called so, or whose server it is or is called so, else that of our
 * context of this name, else the only one whose name begins so; undefined if there is none, or only a context for a server that is not
 * listed. Throws UsageError where several are meant, with what to type: `command` and each of them.
 */
export function clusterByName(
  clusters: readonly Cluster[],
  name: string,
  { ours }: Pick<KubeconfigView, 'ours'>,
  command = 'login',
): Cluster | undefined {
  const called = clusters.filter((cluster) => cluster.name === name || cluster.server === name);
  const named =
    called.length > 0
      ? called
      : clusters.filter(({ servers }) => servers.some((each) => each.name === name || each.server === name));
  const there = named.filter((cluster) => cluster.state !== 'missing');
  // A cluster that was made anew under its old name is the one that is meant.
  const exact = there.length > 0 ? there : named;
  const own = exact.length === 0 ? ours.find((context) => context.name === name) : undefined;
  if (own !== undefined) return [...contextsByCluster({ ours: [own] }, clusters).keys()][0];
  const found = exact.length > 0 ? exact : clusters.filter((cluster) => name !== '' && cluster.name.startsWith(name));
  if (found.length < 2) return found[0];
  const what = exact.length > 0 ? 'are called' : 'have a name that begins with';
  throw new UsageError(`${found.length} clusters ${what} ${JSON.stringify(cleanText(name))}`, {
    hints: found.slice(0, 10).map(({ name: each, server, apiEndpoint }) => {
      const alike = found.filter((other) => other.name === each).length > 1;
      const word = cleanText(alike ? (server ?? each) : each);
      return `kubectl tka ${command} ${word}${command === 'exec' ? ' -- COMMAND' : ''} (${alike && server !== null ? each : (server ?? apiEndpoint)})`;
    }),
  });
}

/** A name that no cluster has. */
export class NoCluster extends TkaError {
  constructor(message: string, options: { readonly hints?: readonly string[] } = {}) {
    super(message, { hints: ['kubectl tka clusters', ...(options.hints ?? [])] });
  }
}

/** The error for a name that no cluster has, with the nearest names that there are. */
export function noCluster(
  name: string,
  clusters: readonly Cluster[],
  { ours }: Pick<KubeconfigView, 'ours'>,
  hints: readonly string[] = [],
): NoCluster {
  const names = [...clusters, ...ours].map((each) => cleanText(each.name));
  const wanted = cleanText(name);
  return new NoCluster(`no cluster named ${JSON.stringify(wanted)}${didYouMean(wanted, names)}`, { hints });
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
  command?: string,
): Cluster[] {
  if (names.length > 0 && selector !== undefined) throw new UsageError('give either names or a selector');
  if (names.length === 0) {
    const matches = parseSelector(selector ?? '');
    const found = clusters.filter((cluster) => matches(cluster.labels));
    if (found.length === 0) throw new TkaError('no cluster matches the selector', { hints: ['kubectl tka clusters'] });
    return found;
  }
  const found = names.map((name) => {
    const cluster = clusterByName(clusters, name, view, command);
    if (cluster !== undefined) return cluster;
    throw noCluster(name, clusters, view);
  });
  return [...new Set(found)];
}
