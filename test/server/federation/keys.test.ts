import { createPrivateKey, createPublicKey, generateKeyPairSync, sign as signWith } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  isPublicKey,
  keyHash,
  keyLimit,
  newKey,
  publicKeyOf,
  readKeys,
  sign,
  verify,
  writeKeys,
} from '../../../src/server/federation/keys.ts';

const data = Buffer.from('what is signed');

test('keys survive being written and read, in their order', () => {
  const keys = [newKey(), newKey()];
  const read = readKeys(`# two keys\n${writeKeys(keys)}`);
  expect(read.map(({ publicKey }) => publicKey)).toEqual(keys.map(({ publicKey }) => publicKey));
  for (const [i, key] of read.entries()) {
    expect(verify(keys[i]?.publicKey ?? '', data, sign(key, data))).toBe(true);
  }
});

// RFC 8032, 7.1, test 1; the hash is that of `openssl pkey -pubin -outform DER | sha256sum`.
test('public key, signature and hash are those of the standards', () => {
  const seed = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex');
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const [read] = readKeys(String(key.export({ format: 'pem', type: 'pkcs8' })));
  if (read === undefined) throw new Error('no key');
  const raw = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a';
  expect(Buffer.from(read.publicKey, 'base64url').toString('hex')).toBe(raw);
  expect(Buffer.from(sign(read, Buffer.alloc(0)), 'base64url').toString('hex')).toBe(
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  );
  expect(publicKeyOf(read.publicKey).equals(createPublicKey(key))).toBe(true);
  expect(Buffer.from(keyHash(read.publicKey), 'base64url').toString('hex')).toBe(
    '06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9',
  );
});

test('a signature is valid for its key and its data only', () => {
  const [a, b] = [newKey(), newKey()];
  const signature = sign(a, data);
  expect(verify(a.publicKey, data, signature)).toBe(true);
  expect(verify(b.publicKey, data, signature)).toBe(false);
  expect(verify(a.publicKey, Buffer.from('something else'), signature)).toBe(false);
});

describe('refuses', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export({ format: 'pem', type: 'pkcs8' });
  test.each([
    ['an empty text', '', 'there is no private key (PKCS#8, PEM)'],
    ['a key of another kind', String(rsa), 'private key 1 is not an Ed25519 key'],
    [
      'a damaged key',
      '-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----',
      'private key 1 cannot be read',
    ],
    [
      'too many keys',
      writeKeys(Array.from({ length: keyLimit + 1 }, newKey)),
      `there are more than ${keyLimit} private keys`,
    ],
  ])('%s, without a word of it in the error', (_, pem, message) => {
    expect(() => readKeys(pem)).toThrow(message);
  });

  const { publicKey } = newKey();
  test.each([
    ['a number', 1],
    ['a short text', publicKey.slice(1)],
    ['a long text', `${publicKey}A`],
    ['other characters', `${publicKey.slice(0, -1)}=`],
    ['another spelling of the same bytes', `${publicKey.slice(0, -1)}B`],
    ['a list', [publicKey]],
  ])('%s as a public key', (_, value) => {
    expect(isPublicKey(value)).toBe(false);
    expect(() => keyHash(value as string)).toThrow('this is not a public key');
    expect(verify(value as string, data, sign(newKey(), data))).toBe(false);
  });

  test.each([
    ['nothing', undefined],
    ['an empty text', ''],
    ['one of 63 bytes', signWith(null, data, newKey().key).subarray(1).toString('base64url')],
    ['a list', ['A'.repeat(86)]],
  ])('%s as a signature', (_, value) => {
    expect(verify(publicKey, data, value)).toBe(false);
  });
});
