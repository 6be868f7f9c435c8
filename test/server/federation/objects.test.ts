import { expect, it } from 'vitest';
import { dataOf, federationPaths, isClusterName, textsOf } from '../../../src/server/federation/objects.ts';

it('writes texts to a Secret and reads them back', () => {
  const texts = { endpoint: 'https://login.example.com:7947', note: 'zürich 東京', empty: '' };
  expect(Object.fromEntries(textsOf({ data: dataOf(texts) }))).toEqual(texts);
});

it('leaves out what is no text', () => {
  const bytes = Buffer.from([0xff, 0xfe, 0x00]).toString('base64');
  const hostile: object = { data: { bytes, number: 5, text: Buffer.from('good').toString('base64') } };
  expect(Object.fromEntries(textsOf(hostile))).toEqual({ text: 'good' });
  expect(textsOf({}).size).toBe(0);
});

it('names objects in one namespace only', () => {
  expect(federationPaths.secrets('signing-key')).toBe('/api/v1/namespaces/tka-federation/secrets/signing-key');
  expect(federationPaths.clusters()).toBe('/apis/tka.specht-labs.de/v1alpha1/namespaces/tka-federation/tkaclusters');
  expect(federationPaths.leases('a')).toBe('/apis/coordination.k8s.io/v1/namespaces/tka-federation/leases/a');
  for (const name of ['', '.', '..', '../tka-system', 'a/b', '%2e%2e']) {
    expect(() => federationPaths.secrets(name), name).toThrow('invalid object name');
  }
});

it.each(['a', 'prod-eu', '7', `a${'b'.repeat(62)}`])('accepts the cluster name %s', (name) => {
  expect(isClusterName(name)).toBe(true);
});

it.each(['', '-a', 'a-', 'A', 'a.b', 'a_b', 'a/b', 'ü', 'a\n', '..', `a${'b'.repeat(63)}`])(
  'refuses the cluster name %j',
  (name) => {
    expect(isClusterName(name)).toBe(false);
  },
);
