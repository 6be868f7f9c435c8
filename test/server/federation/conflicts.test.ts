import { expect, it } from 'vitest';
import {
  conflictOf,
  isDirect,
  type MeshClaims,
  ownersOf,
  writtenConflict,
} from '../../../src/server/federation/conflicts.ts';
import { keyHash, newKey } from '../../../src/server/federation/keys.ts';
import { type KnownCluster, knownCluster, type TkaCluster } from '../../../src/server/federation/objects.ts';
import { claimsOf, type Member } from './mesh-claims.ts';

const { publicKey } = newKey();
const hash = keyHash(publicKey);
const own = { name: 'Login', apiEndpoint: 'https://login-api.example.com' };

const object = (name: string, apiEndpoint: string, since = '2026-01-01T00:00:00Z', key = publicKey): TkaCluster => ({
  metadata: { name, uid: name, resourceVersion: '1', creationTimestamp: since, labels: { env: 'prod' } },
  spec: { publicKey: key, apiEndpoint },
});

function known(...given: Parameters<typeof object>): KnownCluster {
  const cluster = knownCluster(object(...given));
  if (typeof cluster === 'string') throw new Error(cluster);
  return cluster;
}

const wish = (name: string, apiEndpoint = 'https://a.example.com', keyHash = hash) => ({ name, apiEndpoint, keyHash });

/** Returns the reason for which a cluster may not have what it wants. */
function reason(
  wanted: ReturnType<typeof wish>,
  members: readonly Member[] = [],
  clusters: readonly KnownCluster[] = [],
): string | undefined {
  return reasonWith(
    wanted,
    claimsOf(() => members),
    clusters,
  );
}

function reasonWith(
  wanted: ReturnType<typeof wish>,
  claims: MeshClaims,
  clusters: readonly KnownCluster[] = [],
): string | undefined {
  const owners = ownersOf(clusters);
  const owner = (apiEndpoint: string) => owners.get(apiEndpoint);
  const conflict = conflictOf(wanted, { own, claims, owner });
  return typeof conflict === 'string' ? conflict : conflict?.reason;
}

it('while the members of the mesh are not known, a name and an endpoint may be taken', () => {
  const notKnown = claimsOf(() => undefined);
  expect(reasonWith(wish('a'), notKnown)).toBe('unknown');
  expect(isDirect(wish('a'), notKnown)).toBe(false);
  expect(reasonWith(wish('login'), notKnown)).toBe('NameTaken');
  expect(reasonWith(wish('a'), notKnown, [known('b', 'https://a.example.com')])).toBe('EndpointTaken');
});

it.each([
  ['NameTaken', 'True', { reason: 'NameTaken', message: 'taken' }],
  ['NoConflict', 'False', undefined],
  ['Invented', 'True', undefined],
] as const)('the conflict in a status with reason %s and status %s is read again', (reason, status, conflict) => {
  const lastTransitionTime = '2026-01-01T00:00:00Z';
  const conditions = [{ type: 'Conflict', status, reason, message: 'taken', lastTransitionTime }] as const;
  const cluster = object('a', 'https://a.example.com');
  expect(writtenConflict({ ...cluster, status: { conditions } })).toEqual(conflict);
  expect(writtenConflict(cluster)).toBeUndefined();
});

it('a name and an endpoint that no other cluster has are free', () => {
  const others: Member[] = [{ cluster: 'other', apiEndpoint: 'https://other.example.com' }];
  expect(reason(wish('a'), others, [known('third', 'https://third.example.com')])).toBeUndefined();
  expect(
    isDirect(
      wish('a'),
      claimsOf(() => others),
    ),
  ).toBe(false);
});

it('a cluster is not told which joined cluster has the API endpoint that it wants', () => {
  const owner = () => known('b', 'https://a.example.com');
  expect(conflictOf(wish('a'), { own, claims: () => [], owner })).toEqual({
    reason: 'EndpointTaken',
    message: 'the API endpoint "https://a.example.com" belongs to TkaCluster "b"',
    told: 'the API endpoint "https://a.example.com" belongs to another joined cluster',
  });
});

it("the login server's own name and endpoint are taken", () => {
  expect(reason(wish('login'))).toBe('NameTaken');
  expect(reason(wish('a', own.apiEndpoint))).toBe('EndpointTaken');
});

it('names and endpoints in the mesh are taken, except by the cluster whose key a member names', () => {
  const members: Member[] = [
    { cluster: 'prod', apiEndpoint: 'https://prod.example.com' },
    // A member of version 0.1.0 states no cluster: its own name counts.
    { apiEndpoint: 'https://old.example.com' },
  ];
  expect(reason(wish('prod'), members)).toBe('NameTaken');
  expect(reason(wish('member-1'), members)).toBe('NameTaken');
  expect(reason(wish('a', 'https://prod.example.com'), members)).toBe('EndpointTaken');
  expect(reason(wish('a', 'https://old.example.com'), members)).toBe('EndpointTaken');
  // Its other server names no key yet.
  const joined = [...members, { cluster: 'prod', apiEndpoint: 'https://prod.example.com', federationKey: hash }];
  const prod = wish('prod', 'https://prod.example.com');
  expect(reason(prod, joined)).toBeUndefined();
  expect(
    isDirect(
      prod,
      claimsOf(() => joined),
    ),
  ).toBe(true);
  const thief = { ...prod, keyHash: keyHash(newKey().publicKey) };
  expect(reason(thief, joined)).toBe('NameTaken');
  expect(
    isDirect(
      thief,
      claimsOf(() => joined),
    ),
  ).toBe(false);
  expect(reason(wish('prod', 'https://old.example.com'), joined)).toBe('EndpointTaken');
});

it('a member that has left the mesh has no name and no endpoint any more', () => {
  const member = { cluster: 'prod', apiEndpoint: 'https://prod.example.com', federationKey: hash, left: true };
  expect(reason(wish('prod', 'https://prod.example.com', 'another'), [member])).toBeUndefined();
});

it('a cluster is the same as before while its member in the mesh restarts', () => {
  const claims = claimsOf(() => [
    { cluster: 'prod', apiEndpoint: 'https://prod.example.com', federationKey: hash, left: true },
  ]);
  expect(isDirect(wish('prod'), claims)).toBe(true);
  expect(isDirect(wish('prod', 'https://prod.example.com', 'another'), claims)).toBe(false);
});

it('of two clusters with the same endpoint, the older one has it', () => {
  const young = known('a', 'https://x.example.com', '2026-01-01T00:00:02Z');
  const old = known('z', 'https://x.example.com', '2026-01-01T00:00:01Z');
  for (const clusters of [
    [young, old],
    [old, young],
  ]) {
    expect(reason(old, [], clusters)).toBeUndefined();
    expect(reason(young, [], clusters)).toBe('EndpointTaken');
  }
});

it.each([
  ['its name', object('a.b', 'https://a.example.com')],
  ['its spec.publicKey', object('a', 'https://a.example.com', '', 'short')],
  ['its spec.apiEndpoint', object('a', 'http://a.example.com')],
  [
    'an invalid label',
    { ...object('a', 'https://a.example.com'), metadata: { ...object('a', '').metadata, labels: { 'a\n': '' } } },
  ],
  ['its spec.publicKey', { metadata: object('a', '').metadata } as unknown as TkaCluster],
])('does not use a TkaCluster because of %s', (what, cluster) => {
  expect(knownCluster(cluster)).toContain(what);
});

it('compares endpoints in canonical form', () => {
  expect(known('a', 'https://A.example.com:443/').apiEndpoint).toBe('https://a.example.com');
});
