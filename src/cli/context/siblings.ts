import { ListMemory } from '../../discovery/memory.ts';
import { AcceptedServers } from '../../discovery/server-marks.ts';
import { siblingCandidates } from '../../discovery/siblings.ts';
import { TrustPolicy, taggedAmong } from '../../discovery/trust.ts';
import { kubeconfigFiles, kubectlHome, readKubeconfig } from '../../kubeconfig/index.ts';
import type { KnownCluster, Siblings } from '../../session/siblings.ts';
import { SessionStore } from '../../session/store.ts';
import type { Paths } from '../../settings/paths.ts';
import type { Settings } from '../../settings/settings.ts';
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { cleanText } from '../../util/text.ts';
import { originOf } from '../../util/url.ts';

export interface World {
  readonly paths: Paths;
  readonly settings: () => Promise<Settings>;
  readonly env: NodeJS.ProcessEnv;
  /** The value of --kubeconfig. */
  readonly kubeconfig: string | undefined;
  readonly tailnet: () => Promise<TailnetStatus>;
  readonly log: (line: string) => void;
}

/**
 * Returns the servers that can replace one that is away: those that a context, the last sign-in or the last lists name
 * for the same cluster. Trusts them like `login` does: by their tag or, if tailscaled cannot be asked, only if they are
 * on the list of a server that the user named. Returns undefined if nothing is known about the cluster, or if it has
 * another API server.
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
  const trust = new TrustPolicy({
    tag: settings.tag,
    tagged,
    accepted: (each) => accepted.has(each),
    used: () => false,
    namedAs: (each) => (each === settings.seed ? 'known' : undefined),
  });
  // The URL of a joined cluster also names its login server, whose list it is.
  const named = settings.seed === undefined ? [] : [settings.seed, originOf(settings.seed)];
  const candidates = siblingCandidates(server, {
    apiServer: known.apiServer,
    cluster: known.cluster,
    kept: kept.servers,
    lists: new ListMemory(paths.state).byServer(),
    isNamed: (each) => named.includes(each) || accepted.has(each),
  });
  const servers: string[] = [];
  for (const candidate of candidates) {
    if (await trust.allows(candidate.server, candidate.provenance)) servers.push(candidate.server);
    else log(`${candidate.server} is not used: ${await trust.whyNot('it')}`);
  }
  return { known, servers };
}

/** Returns what the server stated about its cluster: as stored on this machine, else in a context. */
async function keptOf(server: string, apiServer: string | undefined, world: World): Promise<Siblings | undefined> {
  const isMeant = (known: Pick<KnownCluster, 'apiServer'>) => apiServer === undefined || known.apiServer === apiServer;
  const here = new SessionStore(world.paths).siblings.read(server);
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
