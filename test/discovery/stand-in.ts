// Stand-ins for the tests of discovery: a client that answers without a network, and peers.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Peer } from '../../src/tailscale/localapi.ts';
import { TkaClient } from '../../src/tka/client.ts';
import type { Member } from '../../src/tka/memberlist.ts';

type Answers = Partial<Pick<TkaClient, 'clusterInfo' | 'memberlist' | 'memberlistPage' | 'close'>>;

/** A client that gives these answers; any other question fails the test. */
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

/** A peer called `NAME.example.ts.net` with the tag of TKA servers. */
export function peerOf(hostName: string, more: Partial<Peer> = {}): Peer {
  const dnsName = `${hostName}.example.ts.net`;
  return { hostName, dnsName, addresses: [], tags: ['tag:tka'], online: true, self: false, ...more };
}

/** A member of which only the API endpoint is known. */
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
