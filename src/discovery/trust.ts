// Which TKA servers are trusted. Anyone on a tailnet can call a device "tka" or put an address into a list; only the
// tailnet's policy grants tags. So the tag decides wherever tailscaled can be asked. A server without the tag is used
// only if the user has named it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { entryName } from '../credential/entry.ts';
import type { ClusterDescription } from '../tka/answers.ts';
import type { TkaClient } from '../tka/client.ts';
import { TkaError } from '../util/errors.ts';
import { ensurePrivateFolder, readOwn, writeFileAtomic } from '../util/files.ts';
import { hostOf } from '../util/url.ts';
import type { Provenance } from './clusters.ts';
import { type Cluster, confirmCluster, OtherCluster } from './clusters.ts';
import type { TaggedPeers } from './peers.ts';

/**
 * Where a server comes from: a Provenance of discovery, or `named` by the user (a URL, a host with a dot or a port, the
 * configuration), or `typed` by the user as a bare word, which may be a typo.
 */
export type Origin = Provenance | 'named' | 'typed';

/** What is known about a server. */
export interface Evidence {
  readonly origin: Origin;
  /** Whether its node carries the tag; undefined if tailscaled cannot be asked. */
  readonly tagged: boolean | undefined;
  /** The user has signed in to it by its URL, knowing that it had no tag. */
  readonly accepted: boolean;
  /** The user has signed in to it before, in whatever way, or has a context for it. */
  readonly used: boolean;
}

/** `warn` and `ask` are for the first sign-in; other commands take `warn` for `use` and `ask` for `refuse`. */
export type TrustVerdict = 'use' | 'warn' | 'ask' | 'refuse';

/** Says whether a server may be used. */
export function judge(evidence: Evidence): TrustVerdict {
  const { origin, tagged } = evidence;
  if (tagged === true) return 'use';
  const isListed = origin === 'stated' || origin === 'known';
  if (isListed && tagged === undefined) return 'use';
  if (evidence.accepted) return 'use';
  if (origin === 'stated' || origin === 'tailnet') return 'refuse';
  if (evidence.used) return 'use';
  return origin === 'typed' ? 'ask' : 'warn';
}

/** True for a NAME or `-s` value without scheme, dot or port: it may be a cluster, a device or a typo. */
export function isBareWord(name: string): boolean {
  return !/[.:[\]/]/.test(name);
}

/** Returns whether a server is on a peer with the tag, by name or address; undefined if tailscaled cannot be asked. */
export function isTagged(server: string, { peers, problem }: TaggedPeers): boolean | undefined {
  if (problem !== undefined) return undefined;
  const host = hostOf(server);
  return peers.some(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
}

export interface TrustOptions {
  readonly tag: string;
  /** Peers with the tag; called once. */
  readonly tagged: () => Promise<TaggedPeers>;
  readonly accepted: (server: string) => boolean;
  readonly used: (server: string) => boolean;
  /** How the user named a server on this command line or in the configuration; undefined if the user did not. */
  readonly namedAs: (server: string) => 'known' | 'typed' | undefined;
}

/** What confirming a cluster takes. */
export interface ConfirmOptions {
  readonly client: (server: string) => Pick<TkaClient, 'clusterInfo' | 'close'>;
  /** Milliseconds. */
  readonly timeout: number;
  /** Forgets that a server was thought to be that of an API endpoint. */
  readonly forget: (apiEndpoint: string, server: string) => void;
}

/** A cluster's server that must not be used. */
export class Untrusted extends TkaError {
  /** The message where the cluster's name stands before it anyway. */
  readonly unnamed: string;

  constructor(cluster: string, server: string, why: string) {
    super(`cannot use the TKA server of ${cluster}: ${why}`, { hints: [acceptHint(server)] });
    this.unnamed = why;
  }
}

/** Judges servers for one command. */
export class TrustPolicy {
  readonly #options: TrustOptions;
  readonly #agreed = new Set<string>();
  #asked: Promise<{ readonly hosts: ReadonlySet<string>; readonly problem: string | undefined }> | undefined;

  constructor(options: TrustOptions) {
    this.#options = options;
  }

  #tagged() {
    this.#asked ??= this.#options.tagged().then(({ peers, problem }) => ({
      // A list may hold ten thousand servers.
      hosts: new Set(peers.flatMap(({ dnsName, addresses }) => [dnsName, ...addresses])),
      problem,
    }));
    return this.#asked;
  }

  /** Returns whether a server's node carries the tag; undefined if tailscaled cannot be asked. */
  async isTagged(server: string): Promise<boolean | undefined> {
    const { hosts, problem } = await this.#tagged();
    return problem === undefined ? hosts.has(hostOf(server)) : undefined;
  }

  async verdict(server: string, origin: Origin): Promise<TrustVerdict> {
    const { accepted, used, namedAs } = this.#options;
    const agreed = this.#agreed;
    const named = namedAs(server);
    return judge({
      origin: named === 'typed' || (named === 'known' && origin !== 'named') ? named : origin,
      tagged: await this.isTagged(server),
      // Each takes a look at the disk, and a list may hold ten thousand servers.
      get accepted() {
        return agreed.has(server) || accepted(server);
      },
      get used() {
        return used(server);
      },
    });
  }

  /** Returns whether a server that discovery found may be used without asking the user. */
  async allows(server: string, provenance: Provenance): Promise<boolean> {
    const verdict = await this.verdict(server, provenance);
    return verdict === 'use' || verdict === 'warn';
  }

  /** Throws TkaError, with the URL to sign in to as the hint, if a cluster's server must not be used. */
  async require({
    server,
    provenance,
    name,
  }: Pick<Cluster, 'provenance' | 'name'> & { readonly server: string }): Promise<void> {
    if (!(await this.allows(server, provenance))) throw new Untrusted(name, server, await this.whyNot(server));
  }

  /** Returns what is wrong with a server that is not known to carry the tag; `server` is what to call it. */
  async whyNot(server: string): Promise<string> {
    const { problem } = await this.#tagged();
    const { tag } = this.#options;
    return problem === undefined
      ? `${server} is not tagged ${tag}`
      : `cannot check whether ${server} is tagged ${tag}: ${problem}`;
  }

  /** Notes that the user agreed to use a server. */
  accept(server: string): void {
    this.#agreed.add(server);
  }

  wasAccepted(server: string): boolean {
    return this.#agreed.has(server);
  }

  /**
   * Asks the server of a cluster whether it is that cluster's, and how its API server is reached. Only then is its
   * address believed. A server that says otherwise is forgotten as that cluster's. Throws TkaError as require() does,
   * and OtherCluster where the server names another API endpoint.
   */
  async confirm(
    cluster: Cluster & { readonly server: string },
    { client, timeout, forget }: ConfirmOptions,
  ): Promise<ClusterDescription & { readonly server: string }> {
    await this.require(cluster);
    const { server, apiEndpoint } = cluster;
    try {
      return { ...(await confirmCluster(cluster, client(server), timeout)), server };
    } catch (error) {
      if (error instanceof OtherCluster) forget(apiEndpoint, server);
      throw error;
    }
  }
}

/** Returns what to type in order to use a server that has no tag. */
export function acceptHint(server: string): string {
  return `if you trust it, sign in to it once by its URL: kubectl tka login ${server}`;
}

/** The servers without a tag that the user has signed in to by their URL: `~/.local/state/kubectl-tka/accepted/…`. */
export class AcceptedServers {
  readonly #folder: string | undefined;

  constructor(stateFolder: string | undefined) {
    this.#folder = stateFolder === undefined ? undefined : path.join(stateFolder, 'accepted');
  }

  #file(server: string): string | undefined {
    const name = entryName(server);
    return this.#folder === undefined || name === undefined ? undefined : path.join(this.#folder, name);
  }

  has(server: string): boolean {
    const file = this.#file(server);
    return file !== undefined && readOwn(file, 4096) !== undefined;
  }

  /** Throws the system's error where it cannot be kept. */
  add(server: string): void {
    const file = this.#file(server);
    if (file === undefined || this.has(server)) return;
    ensurePrivateFolder(path.dirname(path.dirname(file)));
    ensurePrivateFolder(path.dirname(file));
    writeFileAtomic(file, `${JSON.stringify({ server })}\n`);
  }

  /** Throws the system's error where it cannot be removed. */
  remove(server: string): void {
    const file = this.#file(server);
    if (file !== undefined) fs.rmSync(file, { force: true });
  }
}
