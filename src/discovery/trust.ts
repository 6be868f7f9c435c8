// Which TKA servers are trusted. Anyone on a tailnet can call a device "tka" or put an address into a list; only the
// tailnet's policy grants tags. So the tag decides wherever tailscaled can be asked. A server without the tag is used
// only if the user has named it.
import type { Peer, TailnetStatus } from '../tailscale/localapi.ts';
import { hostOf } from '../util/url.ts';
import { type Provenance, type ResolvedCluster, UnusableCluster } from './clusters.ts';

/**
 * Where a server comes from: a Provenance of discovery, or `named` by the user (a URL, a host with a dot or a port, the
 * configuration), or `typed` by the user as a bare word, which may be a typo.
 */
export type Origin = Provenance | 'named' | 'typed';

interface Evidence {
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

interface TrustOptions {
  readonly tag: string;
  /** Peers with the tag; called once. */
  readonly tagged: () => Promise<TaggedPeers>;
  readonly accepted: (server: string) => boolean;
  readonly used: (server: string) => boolean;
  /** How the user named a server on this command line or in the configuration; undefined if the user did not. */
  readonly namedAs: (server: string) => 'known' | 'typed' | undefined;
}

/** The TKA server of a cluster must not be used. */
class UntrustedServer extends UnusableCluster {
  constructor(cluster: string, server: string, why: string) {
    super(`cannot use the TKA server of ${cluster}: ${why}`, why, acceptHint(server));
  }
}

/** Returns what to type in order to use a server that has no tag. */
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
  async require({ server, provenance, name }: Pick<ResolvedCluster, 'server' | 'provenance' | 'name'>): Promise<void> {
    if (!(await this.allows(server, provenance))) throw new UntrustedServer(name, server, await this.whyNot(server));
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
}

/** Peers with the tag of TKA servers; `problem` says why tailscaled could not be asked for them. */
export interface TaggedPeers {
  readonly peers: readonly Peer[];
  readonly problem?: string;
}

/** Returns the peers that carry a tag, and the tailnet's MagicDNS suffix ('' if unknown). Never throws. */
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

/** Returns the peer that a host is the name or an address of. */
export function peerAt(host: string, peers: readonly Peer[]): Peer | undefined {
  return peers.find(({ dnsName, addresses }) => dnsName === host || addresses.includes(host));
}
