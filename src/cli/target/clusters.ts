import { type ClusterList, findClusters } from '../../discovery/cluster-list.ts';
import type { Cluster } from '../../discovery/clusters.ts';
import { shortName } from '../../discovery/clusters.ts';
import { groupServers, type ServerRow } from '../../discovery/grouping.ts';
import { isJoined } from '../../discovery/joined.ts';
import { type FindOptions, isAnswer } from '../../discovery/listing.ts';
import { rememberedClusters } from '../../discovery/remembered.ts';
import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { TkaError } from '../../util/errors.ts';
import { localTime } from '../../util/time.ts';
import { joinedNameOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { byUser } from './named-by.ts';
import { findSeeds, type Seeds, taggedPeers } from './seeds.ts';
import { trustOf } from './trust.ts';

/** Like allClusters(), and prints a notice about tagged servers that are on no list: their clusters may be missing. */
export async function allClustersTold(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  return (await listClustersTold(context, view)).clusters;
}

/** Like listClusters(), and prints the notice of allClustersTold(). */
export async function listClustersTold(context: Context, view: KubeconfigView): Promise<ClusterList> {
  const list = await listClusters(context, view);
  const { unlisted = [] } = list;
  const { terminal, settings } = context;
  if (unlisted.length === 0) return list;
  const names = unlisted.map((server) => shortName(server, settings.tailnet)).sort();
  const shown = names.slice(0, 5).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');
  const servers = unlisted.length === 1 ? '1 tagged server is' : `${unlisted.length} tagged servers are`;
  if (settings.seed === undefined) {
    terminal.notice(`${servers} not listed and did not answer, so clusters may be missing: ${shown}`);
  } else {
    terminal.notice(`${servers} not in the list of the configured server: ${shown}`);
  }
  return list;
}

/** Returns all known clusters. Throws TkaError if there is no list at all. */
export async function allClusters(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  return (await listClusters(context, view)).clusters;
}

/**
 * Lists all clusters and says whether the list is current. If there is no server to ask (none is configured, and
 * tailscaled knows none), returns the clusters of the last list and of the user's contexts, and warns.
 */
export async function listClusters(context: Context, view: KubeconfigView): Promise<ClusterList> {
  let seeds: Seeds;
  try {
    seeds = await context.terminal.waiting('asking tailscaled for the TKA servers', () => findSeeds(context));
  } catch (error) {
    return withoutServer(context, view, error);
  }
  const trust = trustOf(context, view);
  const options: FindOptions = {
    allows: (server, provenance) => trust.allows(server, provenance),
    whyNot: () => trust.whyNot('its TKA server'),
    seeds: seeds.servers,
    lists: seeds.all,
    named: seeds.named,
    known: knownPairs(view),
    memory: context.memory,
    away: context.away,
    tagged: () => taggedPeers(context),
    serverOf: (peer) => context.settings.serverNamed(peer.dnsName),
    client: context.client,
    ...context.terminal,
  };
  const whom = seeds.servers.length === 1 ? seeds.servers[0] : `${seeds.servers.length} TKA servers`;
  const found = await context.terminal.waiting(`asking ${whom} for the list of clusters`, () => findClusters(options));
  context.remembered.renew();
  return found;
}

/**
 * Returns the clusters for `exec`, which must work as long as kubectl does: if no server answers, returns those of the
 * last list and of the contexts.
 */
export async function clustersToUse(context: Context, view: KubeconfigView): Promise<Cluster[]> {
  const found = await listClusters(context, view).catch((error: unknown) => {
    // A server that refuses is reachable, so the old list must not hide its refusal.
    if (isAnswer(error)) throw error;
    return withoutServer(context, view, error);
  });
  return found.clusters;
}

function withoutServer(context: Context, view: KubeconfigView, why: unknown): ClusterList {
  // The user must fix an invalid setting first.
  if (!(why instanceof TkaError) || why.exitCode !== 1) throw why;
  const found = knownClusters(context, view);
  if (found === undefined) throw why;
  context.terminal.warn(`${why.message}; using ${found.what}`);
  return { clusters: found.clusters, current: false, at: found.at };
}

/** Returns the clusters of the last list and of the user's contexts; undefined if there are neither. */
function knownClusters(
  context: Context,
  view: KubeconfigView,
): { clusters: Cluster[]; what: string; at: number | undefined } | undefined {
  const [list] = context.memory.all().sort((a, b) => b.at - a.at);
  const listed = list === undefined ? [] : rememberedClusters(list, { known: knownPairs(view) });
  const servers = new Set(listed.flatMap((cluster) => cluster.servers.map(({ server }) => server)));
  const others = view.ours.filter(({ server, apiServer }) => apiServer !== undefined && !servers.has(server));
  // A context can know the server of a cluster when the list does not.
  const covered = new Set(others.flatMap((each) => (isJoined(each) ? [] : each.apiServer)));
  const clusters = [
    ...listed.filter(({ server, apiEndpoint }) => server !== null || !covered.has(apiEndpoint)),
    ...ofContexts(others),
  ];
  if (clusters.length === 0) return undefined;
  const from = [
    ...(list === undefined ? [] : [`the list from ${localTime(list.at)}`]),
    ...(others.length === 0 ? [] : ['the contexts in your kubeconfig']),
  ];
  return { clusters, what: from.join(' and '), at: list?.at };
}

function ofContexts(contexts: KubeconfigView['ours']): Cluster[] {
  const oneEach = new Map([...contexts].reverse().map((each) => [each.server, each])).values();
  const rows = [...oneEach].reverse().map(({ name, server, apiServer = '', namedBy }): ServerRow => {
    const provenance = namedBy === byUser ? 'known' : 'stated';
    const cluster = joinedNameOf(server) ?? null;
    const what = { name, cluster, server, provenance, apiEndpoint: apiServer, state: 'unknown' } as const;
    return { ...what, reason: null, lastSeen: null, version: null, labels: new Map(), usable: true, since: 0 };
  });
  return groupServers(rows).clusters;
}

/** Returns the managed contexts with their servers, the current context first. */
function knownPairs({ ours, currentContext }: KubeconfigView): KubeconfigView['ours'] {
  return [...ours].sort((a, b) => Number(b.name === currentContext) - Number(a.name === currentContext));
}
