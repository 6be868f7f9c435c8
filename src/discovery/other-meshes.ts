import { Unavailable } from '../network/failure.ts';
import type { Peer } from '../tailscale/localapi.ts';
import type { Member } from '../tka/memberlist.ts';
import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import type { GoodListing } from './current-list.ts';
import type { FindOptions } from './find-options.ts';
import { askListing } from './listing.ts';
import type { MemberResolver } from './member-servers.ts';
import type { RememberedMember } from './memory.ts';
import { describeServers } from './own-description.ts';

/** Milliseconds for the answer of one server of another mesh. */
const otherTimeout = 1000;

/** Milliseconds for all of them. */
const othersBudget = 3000;

const othersAtOnce = 16;

/**
 * Returns what the other meshes of the tailnet list: tagged peers that are online and in no list so far are asked, several at
 * once, until each is in one. One that keeps no list, or is not in its own, is asked for its cluster; one that was away a
 * moment ago is not asked. None is asked if the user has named the server whose list counts.
 */
export async function otherLists(
  own: readonly RememberedMember[],
  { provenanceOf, alone }: GoodListing,
  resolve: MemberResolver,
  options: FindOptions,
): Promise<{ listed: RememberedMember[]; unlisted: string[] }> {
  const { peers } = await options.tagged();
  const hosts = new Set<string>();
  const listed: RememberedMember[] = [];
  const cover = (members: readonly RememberedMember[]) => {
    for (const { server } of members) if (server !== null) hosts.add(hostOf(server));
  };
  const isIn = ({ dnsName, addresses }: Peer) => hosts.has(dnsName) || addresses.some((each) => hosts.has(each));
  cover(own);
  const rest = peers.filter((peer) => peer.online && !isIn(peer));
  if (options.named || alone) return { listed, unlisted: rest.map(options.serverOf) };
  const known = new Set(own.map(identityOf));
  const add = (members: readonly RememberedMember[]) => {
    cover(members);
    listed.push(...members.filter((member) => !known.has(identityOf(member)) && known.add(identityOf(member))));
  };
  const ask = { client: options.client, timeout: otherTimeout, html: () => false };
  const one = async (peer: Peer) => {
    const server = options.serverOf(peer);
    const { members, ...listing } = await askListing(server, ask);
    if (members !== undefined) add(await resolve({ ...listing, members, provenanceOf, alone: false }));
    if (isIn(peer)) return;
    const itself = await describeServers([server], peers, { ...options, warn: options.log });
    add(await resolve({ ...listing, members: itself, provenanceOf, alone: true }));
  };
  const deadline = performance.now() + othersBudget;
  const queue = rest.values();
  const worker = async () => {
    for (const peer of queue) {
      if (isIn(peer)) continue;
      if (performance.now() > deadline) return;
      const server = options.serverOf(peer);
      if (options.away.has(server) !== undefined) continue;
      await one(peer).catch((error: unknown) => {
        if (!(error instanceof TkaError)) throw error;
        options.log(`${server} is in no list: ${error.message}`);
        if (error instanceof Unavailable && error.away) options.away.note(server, 'failed');
      });
    }
  };
  await Promise.all(Array.from({ length: Math.min(othersAtOnce, rest.length) }, worker));
  return { listed, unlisted: rest.filter((peer) => !isIn(peer)).map(options.serverOf) };
}

function identityOf({ server, name, apiEndpoint }: Member): string {
  return server ?? `${name ?? ''} ${apiEndpoint}`;
}
