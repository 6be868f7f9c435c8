import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  JoinTokens,
  joinTokenType,
  readToken,
  type Terms,
  termsOf,
  tokenAnnotation,
  ttlOf,
  writeToken,
} from '../../../src/server/federation/join-tokens.ts';
import { federationPaths, type Secret } from '../../../src/server/federation/objects.ts';
import { connectKube, type Kube } from '../../../src/server/kubernetes/kube.ts';
import { ObjectEvents } from '../../../src/server/provisioner/events.ts';
import { SecretsApi } from './secrets-api.ts';

const hash = 'h'.repeat(43);
const content = { cluster: 'prod-eu', secret: 'join-token-x7k2p', key: 'k'.repeat(43), hash };
const coded = (json: object): string => `tka-join-${Buffer.from(JSON.stringify(json)).toString('base64url')}`;
const secretWith = (annotations: Readonly<Record<string, string>>): Secret => ({
  metadata: { name: 'join-token-x7k2p', uid: 'u', resourceVersion: '1', annotations },
});
const annotation = (name: string) => `tka.specht-labs.de/${name}`;

it('reads the token that it writes', () => {
  expect(readToken(writeToken(content))).toEqual(content);
});

it.each([
  ['nothing', ''],
  ['another word', 'tka-token-e30'],
  ['no JSON', `tka-join-${Buffer.from('{').toString('base64url')}`],
  ['another version', coded({ ...content, v: 2 })],
  ['no version', coded(content)],
  ['a name that is no DNS label', coded({ ...content, v: 1, cluster: 'prod/eu' })],
  ['a Secret in another namespace', coded({ ...content, v: 1, secret: '../tka-system/key' })],
  ['a Secret whose name is too long', coded({ ...content, v: 1, secret: 'a'.repeat(254) })],
  ['a short key', coded({ ...content, v: 1, key: 'k' })],
  ['an invalid hash', coded({ ...content, v: 1, hash: 7 })],
  ['more than 4 KiB', coded({ ...content, v: 1, more: 'm'.repeat(4096) })],
])('reads no token from %s', (_, token) => {
  expect(readToken(token)).toBeUndefined();
});

it('is valid for 24 hours and for one use unless an annotation says something else', () => {
  const name = { [annotation('cluster-name')]: 'prod-eu' };
  expect(termsOf(secretWith(name))).toEqual({ cluster: 'prod-eu', ttlMs: 86_400_000, uses: 1, usedBy: [], spent: [] });
  const given = { ...name, [annotation('ttl')]: '1h30m', [annotation('uses')]: '3' };
  const usedBy = `${hash},${hash},no hash`;
  expect(termsOf(secretWith({ ...given, [annotation('used-by')]: usedBy }))).toEqual({
    cluster: 'prod-eu',
    ttlMs: 5_400_000,
    uses: 3,
    usedBy: [hash],
    spent: [],
  });
});

it.each([
  ['cluster-name', undefined, 'the annotation tka.specht-labs.de/cluster-name is missing: the name for the cluster'],
  ['cluster-name', 'Prod', 'tka.specht-labs.de/cluster-name: "Prod" is not a DNS label, like "prod-eu"'],
  ['ttl', '0s', 'tka.specht-labs.de/ttl: "0s" is not a duration from 1s to 8760h, like "24h"'],
  ['ttl', 'a day', 'tka.specht-labs.de/ttl: "a day" is not a duration from 1s to 8760h, like "24h"'],
  ['uses', '0', 'tka.specht-labs.de/uses: "0" is not a whole number from 1 to 1000'],
  ['uses', '1e3', 'tka.specht-labs.de/uses: "1e3" is not a whole number from 1 to 1000'],
  ['uses', '1001', 'tka.specht-labs.de/uses: "1001" is not a whole number from 1 to 1000'],
])('says what is wrong with %s: %s', (name, value, problem) => {
  const { [annotation(name)]: _, ...rest } = { [annotation('cluster-name')]: 'prod-eu' };
  expect(
    termsOf(
      secretWith(
        value === undefined
          ? rest
          : {
              ...rest,
              ...(name === 'cluster-name' ? {} : { [annotation('cluster-name')]: 'prod-eu' }),
              [annotation(name)]: value,
            },
      ),
    ),
  ).toBe(problem);
});

it.each([
  ['1s', 1_000],
  ['8760h', 31_536_000_000],
  ['999ms', undefined],
  ['8761h', undefined],
  ['-1h', undefined],
  ['9'.repeat(100), undefined],
])('a ttl of %s is %s ms', (text, ms) => {
  expect(ttlOf(text)).toBe(ms);
});

describe('a use of a token', () => {
  const usedUp = { ok: false, code: 'rejected', message: 'the join token has been used already: create a new one' };
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const path = federationPaths.secrets('t');
  let api: SecretsApi;
  let kube: Kube;
  let events: ObjectEvents;
  let secret: () => Promise<Secret>;
  let tokens: JoinTokens;

  beforeEach(async () => {
    api = new SecretsApi();
    await api.start();
    kube = connectKube(api.kubeConfig());
    events = new ObjectEvents(kube, 'tka-federation', log);
    const annotations = { [tokenAnnotation.cluster]: 'prod-eu', [tokenAnnotation.uses]: '2' };
    const created = await kube.create<Secret>(federationPaths.secrets(), {
      metadata: { name: 't', annotations },
      type: joinTokenType,
    });
    secret = async () => (await kube.get<Secret>(path)) ?? created;
    const all = (): Secret[] => [created];
    tokens = new JoinTokens({ kube, log, events, endpoint: '', hash: () => undefined, known: () => undefined, all });
  });
  afterEach(async () => {
    events.stop();
    await tokens.stop();
    kube.close();
    await api[Symbol.asyncDispose]();
  });

  it('may be repeated by the same key until its TkaCluster was created, and while it exists', async () => {
    for (let time = 0; time < 2; time++) expect(await tokens.count(await secret(), hash, '', false)).toBe(true);
    await tokens.spend('t', hash);
    expect(await tokens.count(await secret(), hash, '', true)).toBe(true);
    expect(await tokens.count(await secret(), hash, '', false)).toEqual(usedUp);
    // A Secret from which only the uses were removed does not help either.
    await kube.patch(path, { metadata: { annotations: { [tokenAnnotation.usedBy]: '' } } });
    expect(await tokens.count(await secret(), hash, '', false)).toEqual(usedUp);
  });

  it('is spent for each key, also if two are spent at the same moment, or twice', async () => {
    const other = 'o'.repeat(43);
    expect(await tokens.count(await secret(), hash, '', false)).toBe(true);
    expect(await tokens.count(await secret(), other, '', false)).toBe(true);
    await Promise.all([hash, other, hash].map((key) => tokens.spend('t', key)));
    expect(termsOf(await secret())).toMatchObject({ usedBy: [hash, other] });
    const { spent } = termsOf(await secret()) as Terms;
    expect([...spent].sort()).toEqual([hash, other].sort());
    const { resourceVersion } = (await secret()).metadata;
    await tokens.spend('t', hash);
    expect((await secret()).metadata.resourceVersion).toBe(resourceVersion);
  });

  it('that cannot be marked as spent is an error; a token that was revoked meanwhile is not', async () => {
    expect(await tokens.count(await secret(), hash, '', false)).toBe(true);
    api.fault = (method) => (method === 'PATCH' ? 'forbid' : undefined);
    await expect(tokens.spend('t', hash)).rejects.toThrow('forbidden');
    api.set('t', undefined);
    await tokens.spend('t', hash);
  });

  it('is spent when the TkaCluster is deleted, even if the server ended before it could do so', async () => {
    expect(await tokens.count(await secret(), hash, '', false)).toBe(true);
    const now = await secret();
    const of = { kube, log, events, endpoint: '', hash: () => undefined, known: () => undefined, all: () => [now] };
    const restarted = new JoinTokens(of);
    restarted.evicted('prod-eu', 'o'.repeat(43));
    restarted.evicted('prod-eu', hash);
    await expect.poll(async () => termsOf(await secret())).toMatchObject({ spent: [hash] });
    expect(await restarted.count(await secret(), hash, '', false)).toEqual(usedUp);
    await restarted.stop();
  });
});
