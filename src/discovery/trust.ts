// Decides which TKA servers to trust. Anyone on a tailnet can name a device "tka" or put an address into a list, but
// only the tailnet policy grants tags. So the tag decides if tailscaled can be asked. A server without the tag is used
// only if the user has named it.
import type { Peer, TailnetStatus } from '../tailscale/localapi.ts';
import { hostOf } from '../util/url.ts';
import { type Provenance, type ResolvedCluster, UnusableCluster } from './clusters.ts';

/**
 * Where a server comes from: a Provenance from discovery, `named` by the user (a URL, a host with a dot or a port, the
 * configuration), or `typed` by the user as a bare word, which may be a typo.
 */
export type Origin = Provenance | 'named' | 'typed';

interface Evidence {
  readonly origin: Origin;
  /** True if its node has the tag; undefined if tailscaled cannot be asked. */
  readonly tagged: boolean | undefined;
  /** True if the user has signed in to it by URL, knowing that it has no tag. */
  readonly accepted: boolean;
  /** True if the user has signed in to it before, in any way, or has a context for it. */
  readonly used: boolean;
}

/** `warn` and `ask` are for the first sign-in. Other commands treat `warn` as `use` and `ask` as `refuse`. */
export type TrustVerdict = 'use' | 'warn' | 'ask' | 'refuse';

/** Returns whether a server may be used. */
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

/** Returns true for a NAME or `-s` value without scheme, dot or port. It may be a cluster, a device or a typo. */
export function isBareWord(name: string): boolean {
  return !/[.:[\]/]/.test(name);
}

interface TrustOptions {
  readonly tag: string;
  /** Returns the peers with the tag. Called once. */
  readonly tagged: () => Promise<TaggedPeers>;
  readonly accepted: (server: string) => boolean;
  readonly used: (server: string) => boolean;
  /** Returns how the user named a server on the command line or in the configuration; undefined if the user did not. */
  readonly namedAs: (server: string) => 'known' | 'typed' | undefined;
}

/** The TKA server of a cluster must not be used. */
class UntrustedServer extends UnusableCluster {
  constructor(cluster: string, server: string, why: string) {
    super(`cannot use the TKA server of ${cluster}: ${why}`, why, acceptHint(server));
  }
}

/** Returns a hint with the command to use a server without the tag. */
export function acceptHint(server: string): string {
  return `if you trust it, sign in once by its URL: kubectl tka login ${server}`;
}

export class TrustPolicy {
  readonly #options: TrustOptions;
  readonly #agreed = new Set<string>();
  #asked: Promise<{ readonly hosts: ReadonlySet<string>; readonly problem: string | undefined }> | undefined;

  constructor(options: TrustOptions) {
    this.#options = options;
  }

  #tagged() {
    this.#asked ??= this.#options.tagged().then(({ peers, problem }) => ({
      // A set, because a list may have ten thousand servers.
      hosts: new Set(peers.flatMap(({ dnsName, addresses }) => [dnsName, ...addresses])),
      problem,
    }));
    return this.#asked;
  }

  /** Returns whether a server's node has the tag; undefined if tailscaled cannot be asked. */
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
      // Getters, because each one reads the disk and a list may have ten thousand servers.
      get accepted() {
        return agreed.has(server) || accepted(server);
      },
      get used() {
        return used(server);
      },
    });
  }

  /** Returns true if a server from discovery may be used without asking the user. */
  async allows(server: string, provenance: Provenance): Promise<boolean> {
    const verdict = await this.verdict(server, provenance);
    return verdict === 'use' || verdict === 'warn';
  }

  /** Throws UntrustedServer, with a hint to sign in by URL, if a cluster's server must not be used. */
  async require({ server, provenance, name }: Pick<ResolvedCluster, 'server' | 'provenance' | 'name'>): Promise<void> {
    if (!(await this.allows(server, provenance))) throw new UntrustedServer(name, server, await this.whyNot(server));
  }

  /** Returns why a server does not count as tagged. `server` is its name in the message. */
  async whyNot(server: string): Promise<string> {
    const { problem } = await this.#tagged();
    const { tag } = this.#options;
    return problem === undefined
      ? `${server} is not tagged ${tag}`
      : `cannot check whether ${server} is tagged ${tag}: ${problem}`;
  }

  /** Remembers, in this process, that the user agreed to use a server. */
  accept(server: string): void {
    this.#agreed.add(server);
  }

  wasAccepted(server: string): boolean {
    return this.#agreed.has(server);
  }
}

/** Peers with the tag of TKA servers. `problem` is set if tailscaled could not be asked. */
export interface TaggedPeers {
  readonly peers: readonly Peer[];
  readonly problem?: string;
}

/** Returns the peers with a tag and the tailnet's MagicDNS suffix ('' if unknown). Never throws. */
export async function taggedAmong(
  tailnet: () => Promise<TailnetStatus>,
  tag: string,
  log: (line: string) => void,
): Promise<TaggedPeers & { readonly suffix: string }> {
  try {
    const { suffix, peers } = await tailnet();
    return { suffix, peers: peers.filter(({ tags }) => tags.includes(tag)) };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    log(`no tailnet to ask: ${problem}`);
    return { suffix: '', peers: [], problem };
  }
}

/** Returns the peer whose DNS name or IP address is `host`. */
export function peerAt(host: string, peers: readonly Peer[]): Peer | undefined {
  return peers.find(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
}
