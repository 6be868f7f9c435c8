// Stand-ins for the discovery tests: a client that answers without a network, and peers.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Peer } from '../../src/tailscale/localapi.ts';
import { TkaClient } from '../../src/tka/client.ts';
import type { Member } from '../../src/tka/memberlist.ts';

type Answers = Partial<Pick<TkaClient, 'clusterInfo' | 'memberlist' | 'memberlistPage' | 'close'>>;

/** Returns a client with these answers; any other request fails the test. */
export function standInClient(answers: Answers): TkaClient {
  const unexpected = (what: string) => async () => {
    throw new Error(`unexpected question: ${what}`);
  };
  return Object.assign(new TkaClient('http://127.0.0.1:9'), {
    clusterInfo: unexpected('clusterInfo'),
    memberlist: unexpected('memberlist'),
    memberlistPage: unexpected('memberlistPage'),
    ...answers,
  });
}

/** Returns a peer named `NAME.example.ts.net` with the tag of TKA servers. */
export function peerOf(hostName: string, more: Partial<Peer> = {}): Peer {
  const dnsName = `${hostName}.example.ts.net`;
  return { hostName, dnsName, addresses: [], tags: ['tag:tka'], online: true, self: false, ...more };
}

/** Returns a member with only an API endpoint. */
export function memberOf(apiEndpoint: string): Member {
  return {
    name: null,
    cluster: null,
    server: null,
    apiEndpoint,
    state: null,
    lastSeen: null,
    version: null,
    labels: new Map(),
  };
}

/** Returns the page of a sample of the Go server's memberlist: `memberlist-html.http`. */
export function samplePage(name: string): string {
  const text = fs.readFileSync(path.join(import.meta.dirname, '../samples', name), 'utf8');
  return text.slice(text.indexOf('<!DOCTYPE'));
}
