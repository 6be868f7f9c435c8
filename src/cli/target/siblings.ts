// What is kept of a cluster's TKA servers, for when the one that a context names is away; see src/session/failover.ts.
import type { ClusterServer } from '../../discovery/clusters.ts';
import { ListMemory } from '../../discovery/memory.ts';
import type { Word } from '../../discovery/place.ts';
import { siblingCandidates } from '../../discovery/siblings.ts';
import { AcceptedServers, Trust } from '../../discovery/trust.ts';
import {
  type ContextSiblings,
  type ContextSpec,
  kubeconfigFiles,
  kubectlHome,
  readKubeconfig,
} from '../../kubeconfig/index.ts';
import { disagreement, type KnownCluster, knownClusterOf, type Siblings } from '../../session/failover.ts';
import { SessionStore } from '../../session/store.ts';
import type { Paths } from '../../settings/paths.ts';
import type { Settings } from '../../settings/settings.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context.ts';
import { taggedAmong } from './directory.ts';

/** So many of a cluster's servers are kept. */
const mostKept = 8;
/** Milliseconds for one of them to describe its cluster. */
const confirmTimeout = 500;

/** What one server of a cluster stated of it. */
export interface Described {
  readonly server: string;
  readonly info: ClusterDescription;
}

/**
 * Returns what is to be kept of a cluster: what `server` stated of it, and those of its other servers that are trusted and
 * state the same themselves, within half a second. Undefined if the server does not state enough (Go). Never throws.
 */
export async function siblingsToKeep(
  { client, terminal }: Pick<Context, 'client' | 'terminal'>,
  trust: Trust,
  { server, info }: Described,
  servers: readonly ClusterServer[],
): Promise<Siblings | undefined> {
  const known = knownClusterOf(info);
  if (known === undefined) return undefined;
  const others = new Map(servers.flatMap((each) => (each.server === null ? [] : [[each.server, each.word] as const])));
  others.delete(server);
  const confirm = async ([other, word]: readonly [string, Word]): Promise<string[]> => {
    if (!(await trust.allows(other, word))) return [];
    const asked = client(other);
    try {
      const difference = disagreement(known, await asked.clusterInfo({ timeout: confirmTimeout }));
      if (difference === undefined) return [other];
      terminal.log(`${other} is not kept as a server of ${known.cluster}: ${difference}`);
    } catch (error) {
      terminal.log(`${other} is not kept as a server of ${known.cluster}: ${error}`);
    } finally {
      await asked.close();
    }
    return [];
  };
  const confirmed = await Promise.all([...others].slice(0, mostKept).map(confirm));
  return { known, servers: confirmed.flat().sort() };
}

/** The same for another server of the cluster; undefined if it is not one of those that have confirmed it. */
export function siblingsOf(server: string, asked: string, siblings: Siblings | undefined): Siblings | undefined {
  const all = [asked, ...(siblings?.servers ?? [])];
  if (siblings === undefined || !all.includes(server)) return undefined;
  return { ...siblings, servers: all.filter((each) => each !== server).sort() };
}

/** The same as a context keeps it; undefined for a cluster with one server. */
export function inContext(siblings: Siblings | undefined): ContextSiblings | undefined {
  if (siblings === undefined || siblings.servers.length === 0) return undefined;
  const { cluster, signInStore } = siblings.known;
  return { cluster, signInStore, servers: siblings.servers };
}

/** Keeps it on this machine, for contexts that are not in the usual kubeconfig. Only warns where it cannot. */
export function keepSiblings({ sessions, terminal }: Context, server: string, siblings: Siblings | undefined): void {
  if (siblings === undefined) return;
  try {
    sessions.store.keepSiblings(server, siblings);
  } catch (error) {
    terminal.log(`what is known of the cluster of ${server} cannot be kept: ${error}`);
  }
}

/**
 * The same for contexts that were written. Those in the usual kubeconfig keep it themselves, so this is for others, and where
 * this machine keeps something older.
 */
export function keepAllSiblings(context: Context, specs: readonly ContextSpec[]): void {
  for (const { server, apiServer, caData = '', insecureSkipTlsVerify = false, siblings } of specs) {
    if (siblings === undefined) continue;
    if (!context.kubeconfig.explicit && context.sessions.store.siblings(server) === undefined) continue;
    const { servers, ...named } = siblings;
    keepSiblings(context, server, { known: { ...named, apiServer, caData, insecureSkipTlsVerify }, servers });
  }
}

/** What there is to find a server's siblings with. */
export interface World {
  readonly paths: Paths;
  readonly settings: () => Promise<Settings>;
  readonly env: NodeJS.ProcessEnv;
  /** The value of --kubeconfig. */
  readonly kubeconfig: string | undefined;
  /** What tailscaled knows. Throws TailscaleError. */
  readonly tailnet: () => Promise<TailnetStatus>;
  readonly log: (line: string) => void;
}

/**
 * The servers that may take the place of one that is away, of those that a context, the last sign-in or the last lists name
 * as of the same cluster. They are believed as `login` believes servers: by their tag; where tailscaled cannot be asked,
 * only if the list of a server that the user named states them. Undefined where nothing is known of the cluster, or it is another
 * one's than the API server's.
 */
export async function findSiblings(
  server: string,
  apiServer: string | undefined,
  world: World,
): Promise<Siblings | undefined> {
  const { paths, log } = world;
  const kept = await keptOf(server, apiServer, world);
  if (kept === undefined) {
    log(`nothing is known of the cluster of ${server}: no other server can take its place`);
    return undefined;
  }
  const { known } = kept;
  const settings = await world.settings();
  const tagged = async () => taggedAmong(world.tailnet, settings.tag, log);
  if (settings.needsTailnet(undefined)) settings.assumeTailnet((await tagged()).suffix);
  const accepted = new AcceptedServers(paths.state);
  const trust = new Trust({
    tag: settings.tag,
    tagged,
    accepted: (each) => accepted.has(each),
    used: () => false,
    namedAs: (each) => (each === settings.entryServer ? 'known' : undefined),
  });
  const candidates = siblingCandidates(server, {
    apiServer: known.apiServer,
    cluster: known.cluster,
    kept: kept.servers,
    lists: new ListMemory(paths.state).byServer(),
    isNamed: (each) => each === settings.entryServer || accepted.has(each),
  });
  const servers: string[] = [];
  for (const candidate of candidates) {
    if (await trust.allows(candidate.server, candidate.word)) servers.push(candidate.server);
    else log(`${candidate.server} is not used: ${await trust.whyNot('it')}`);
  }
  return { known, servers };
}

/** What the server stated of its cluster: as this machine keeps it, else as a context does. */
async function keptOf(server: string, apiServer: string | undefined, world: World): Promise<Siblings | undefined> {
  const isMeant = (known: Pick<KnownCluster, 'apiServer'>) => apiServer === undefined || known.apiServer === apiServer;
  const here = new SessionStore(world.paths).siblings(server);
  if (here !== undefined && isMeant(here.known)) return here;
  const { env, kubeconfig: explicit } = world;
  const files = kubeconfigFiles({ explicit, env, home: kubectlHome(env), cwd: process.cwd() });
  const view = await readKubeconfig(files).catch((error) => {
    world.log(`the kubeconfig cannot be read: ${cleanText(String(error))}`);
    return undefined;
  });
  for (const { server: own, apiServer: api, caData = '', insecureSkipTlsVerify, siblings } of view?.ours ?? []) {
    if (own !== server || api === undefined || siblings === undefined || !isMeant({ apiServer: api })) continue;
    const { servers, ...named } = siblings;
    return { known: { ...named, apiServer: api, caData, insecureSkipTlsVerify }, servers };
  }
  return undefined;
}
