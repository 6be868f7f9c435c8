// Joins the mesh: passes the configuration and the state of tailscaled to src/server/mesh.
import { setTimeout as delay } from 'node:timers/promises';
import { dial } from '../network/dial.ts';
import { proxyFor } from '../network/environment.ts';
import { destinationOf } from '../network/plain.ts';
import { throughProxy } from '../network/proxy.ts';
import { defaultContext } from '../network/tls.ts';
import { type Peer, type TailnetStatus, type WhoIs, whoIs } from '../tailscale/localapi.ts';
import type { ClusterInfo } from '../tka/types.ts';
import { isLoopback } from '../util/address.ts';
import { UsageError } from '../util/errors.ts';
import { versionInfo } from '../util/version.ts';
import type { Config } from './config/config.ts';
import type { Log } from './log/log.ts';
import { Denied } from './mesh/gate.ts';
import { type Dial, type Mesh, startMesh, type TailnetNode } from './mesh/mesh.ts';
import type { MeshOptions, OwnRecord } from './mesh/options.ts';
import { whoCalls } from './tailnet/callers.ts';
import { hostnameOf, meshTag } from './tailnet/place.ts';
import { askStatus } from './tailnet/status.ts';

export interface GossipOptions {
  readonly config: Config;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Canonical URL of this TKA server: `https://tka.example.ts.net`. */
  readonly server: string;
  /** Addresses to listen on. */
  readonly hosts: readonly string[];
  readonly status: TailnetStatus | undefined;
  readonly clusterInfo: () => Promise<ClusterInfo>;
  /** What the federation adds to this server's part of the mesh. */
  readonly federation?: Pick<MeshOptions, 'joined' | 'federationKey'> | undefined;
  /** True if this server joins a login server: `federation.loginServer` then is no member to contact. */
  readonly isJoined: boolean;
}

const infoMs = 60_000;
// How long a list of the tailnet's peers is used. After a name moves to another address, it is found again within this
// time.
const statusMs = 10_000;
const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** Joins the mesh. Throws UsageError if this server cannot be a member, and the system's error if it cannot listen. */
export async function joinMesh(options: GossipOptions): Promise<Mesh> {
  const { config, env, log, signal, status } = options;
  const port = config.get('gossip.port');
  const keys = config.get('gossip.key');
  const key = keys.length > 0 ? keys : undefined;
  const usual = config.get('tailscale.tag');
  const tag = status && meshTag(status, usual);
  if (key === undefined && tag === undefined) {
    throw new UsageError(
      `the mesh would admit every node: this node has neither ${usual || 'tag:tka'} nor exactly one tag`,
      {
        hints: ['tag the node in the tailnet policy, or set the same gossip.key on all members'],
      },
    );
  }
  const login = options.isJoined ? undefined : config.get('federation.loginServer');
  const bootstrapPeers = [...config.get('gossip.bootstrapPeers')];
  if (login !== undefined) bootstrapPeers.push(`${new URL(login).hostname}:${port}`);
  const local = { env, timeout: 5_000, log: (line: string) => log.debug({}, line) };
  const peers = cachedFor(async () => (await askStatus(env, log)).peers, statusMs);
  const who = whoCalls({ env, log, userspace: status?.userspace === true });
  const nodeOf = (who: WhoIs | undefined) => ourNode(who, status?.suffix ?? '');
  const mesh = await startMesh({
    name: nameOf(options, key === undefined),
    record: await recordOf(options),
    hosts: options.hosts,
    port,
    key,
    whois: async (address, from) => nodeOf(await whoIs(address, from, local)),
    whoCalls: async (address, from) => nodeOf(await who(address, from)),
    tag,
    bootstrapPeers,
    async candidates() {
      if (tag === undefined) return [];
      return (await peers())
        .filter((peer) => !peer.self && peer.online && peer.tags.includes(tag))
        .map(({ dnsName }) => `${dnsName}:${port}`);
    },
    factor: config.get('gossip.factor'),
    intervalMs: config.get('gossip.interval'),
    stalenessThreshold: config.get('gossip.stalenessThreshold'),
    deadThreshold: config.get('gossip.deadThreshold'),
    dial: tailnetDial(options, peers, key !== undefined),
    log: (level, line) => log[level]({}, line),
    ...options.federation,
  });
  keepRecord(options, mesh).catch((error) => {
    if (!signal.aborted) throw error;
  });
  return mesh;
}

/**
 * Returns the member's name. If the tailnet decides who is a member, it is the node's own name, because the other
 * members reject any other. With a key it is `tailscale.hostname`, or HOSTNAME-N for further servers of a cluster.
 */
function nameOf({ config, log, status }: GossipOptions, byTailnet: boolean): string {
  const configured = hostnameOf(config, status);
  const node = status?.self.hostName;
  if (!byTailnet || !node) return configured;
  if (configured.split('.', 1)[0] !== node) {
    const hints = [`set tailscale.hostname: ${node}`, 'or rename the node: tailscale set --hostname=…'];
    log.warn(
      { hints },
      `tailscale.hostname is "${configured}", but this node is "${node}" on the tailnet: the mesh uses "${node}"`,
    );
  }
  return node;
}

/** Ignores devices that another tailnet shares with ours: their names and tags are those of the other tailnet. */
function ourNode(who: WhoIs | undefined, suffix: string): TailnetNode | undefined {
  if (who === undefined || suffix === '' || !who.dnsName.endsWith(`.${suffix}`)) return undefined;
  return { name: who.dnsName.split('.', 1)[0] ?? '', tags: who.tags };
}

/** Returns what the other members learn about this server. Waits until the cluster info is available. */
async function recordOf({ clusterInfo, server, signal }: GossipOptions): Promise<OwnRecord> {
  for (;;) {
    try {
      const { server_url: apiEndpoint, labels, cluster } = await clusterInfo();
      return { server, apiEndpoint, labels, cluster, version: versionInfo().version };
    } catch {
      // The provisioner has logged the reason.
      await delay(1_000, undefined, { signal });
    }
  }
}

/** Updates the record when the ConfigMap changes. */
async function keepRecord(options: GossipOptions, mesh: Mesh): Promise<void> {
  if (options.config.get('clusterInfo.apiEndpoint') !== undefined) return;
  for (let last = JSON.stringify(await recordOf(options)); ; ) {
    await delay(infoMs, undefined, { signal: options.signal });
    const record = await recordOf(options);
    const text = JSON.stringify(record);
    if (text === last) continue;
    last = text;
    try {
      mesh.update(record);
    } catch (error) {
      options.log.error({ err: error }, 'could not update the mesh record of this server');
    }
  }
}

/** Returns a function that caches its answer for `keepMs`. Failures are not cached. */
function cachedFor<T>(ask: () => Promise<T>, keepMs: number): () => Promise<T> {
  let kept: { readonly answer: Promise<T>; readonly until: number } | undefined;
  return () => {
    if (kept === undefined || performance.now() > kept.until) {
      kept = { answer: ask(), until: performance.now() + keepMs };
      kept.answer.catch(() => {
        kept = undefined;
      });
    }
    return kept.answer;
  };
}

/**
 * Returns how to reach a member. Resolves tailnet names with tailscaled, because the machine's resolver may not know
 * them; whois decides by address anyway. With userspace networking, connects through tailscaled's proxy.
 */
function tailnetDial(
  { env, log, status }: GossipOptions,
  peers: () => Promise<readonly Peer[]>,
  hasKey: boolean,
): Dial {
  const userspace = status?.userspace === true;
  const variable = ['ALL_PROXY', 'all_proxy'].find((name) => env[name]?.trim());
  const names = { log: (line: string) => log.debug({}, line) };
  return async (host, port, signal) => {
    let address = host;
    if (status !== undefined && !/^[0-9.]+$|:/.test(host)) {
      const name = host.toLowerCase();
      const peer = (await peers()).find(
        ({ dnsName, hostName }) => dnsName === name || (userspace && hostName === name),
      );
      address = peer?.addresses[0] ?? host;
    }
    if (userspace && variable !== undefined) {
      const target = destinationOf(`http://${bracketed(address)}:${port}`);
      const proxy = proxyFor(variable, env, target);
      if (proxy !== undefined) {
        const socket = await throughProxy(proxy, target, names, () => defaultContext(undefined), signal);
        return { socket, address, port };
      }
    }
    // Without the proxy, the connection would use the pod's network. There, a tailnet address may belong to any
    // machine, so it proves no tag.
    if (userspace && !hasKey && !isLoopback(address)) {
      throw new Denied(
        403,
        `${address} is only reachable through the tailnet: set ALL_PROXY to the proxy of tailscaled`,
      );
    }
    const socket = await dial([address], port, signal);
    return { socket, address: socket.remoteAddress ?? address, port: socket.remotePort ?? port };
  };
}
