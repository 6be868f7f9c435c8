import { expect, test } from 'vitest';
import { loadConfig } from '../../../src/server/config/config.ts';
import { hostnameOf, meshTag, publicHost } from '../../../src/server/tailnet/place.ts';
import type { TailnetStatus } from '../../../src/tailscale/localapi.ts';

const statusOf = (hostName: string): TailnetStatus => {
  const self = { hostName, dnsName: `${hostName}.example.ts.net`, addresses: [], tags: [], online: true, self: true };
  return {
    name: 'example.com',
    suffix: 'example.ts.net',
    login: '',
    self,
    peers: [self],
    userspace: true,
    certDomains: [],
  };
};

test.each([
  ['tka-prod-us', 'tka-prod-us', 'tka-prod-us'],
  ['TKA-prod-us', 'tka-prod-us-1', 'tka-prod-us-1'],
  ['tka-prod-us', 'tka-prod-us-12', 'tka-prod-us-12'],
  ['tka-prod-us.example.ts.net', 'tka-prod-us-1', 'tka-prod-us-1.example.ts.net'],
  // A name other than its node's.
  ['tka-prod-us', 'tka-prod-us-1-2', 'tka-prod-us'],
  ['tka-prod-us', 'tka-prod-us-east', 'tka-prod-us'],
  ['tka-prod-us', 'tka-prod-us-', 'tka-prod-us'],
  ['tka-prod-us', 'tka', 'tka-prod-us'],
  ['tka-prod-us', undefined, 'tka-prod-us'],
])('tailscale.hostname: %s on the node %s is %s', async (hostname, node, expected) => {
  const config = await loadConfig(undefined, {
    TKA_CLUSTERINFO_APIENDPOINT: 'https://api.example.com',
    TKA_TAILSCALE_HOSTNAME: hostname,
    TKA_TAILSCALE_TAILNET: 'example.ts.net',
  });
  const status = node === undefined ? undefined : statusOf(node);
  expect(hostnameOf(config, status)).toBe(expected);
  expect(publicHost(config, status)).toBe(expected.includes('.') ? expected : `${expected}.example.ts.net`);
});

test.each([
  [['tag:tka', 'tag:k8s'], 'tag:tka', 'tag:tka'],
  [['tag:tka', 'tag:k8s'], 'tag:k8s', 'tag:k8s'],
  [['tag:k8s'], 'tag:tka', 'tag:k8s'],
  [['tag:k8s', 'tag:other'], 'tag:tka', undefined],
  [['tag:k8s', 'tag:other'], '', undefined],
  [[], 'tag:tka', undefined],
])('a node with %j and tailscale.tag %j shares %j with the mesh', (tags, usual, expected) => {
  expect(meshTag({ self: { ...statusOf('tka').self, tags } }, usual)).toBe(expected);
});
