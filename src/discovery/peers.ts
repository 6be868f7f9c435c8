import type { Peer, TailnetStatus } from '../tailscale/localapi.ts';

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
