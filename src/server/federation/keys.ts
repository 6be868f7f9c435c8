// Ed25519 keys of login servers and joined clusters.
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signWith,
  verify as verifyWith,
} from 'node:crypto';
import { TkaError } from '../../util/errors.ts';
import { pemBlocks } from '../../util/pem.ts';

/** A private key with its public half. */
export interface FederationKey {
  /** Base64url of the 32 raw bytes of the public key. */
  readonly publicKey: string;
  readonly key: KeyObject;
}

/** Maximum number of keys that a login server has at a time: more than one only while it changes its key. */
export const keyLimit = 8;

/** Returns a new random key. */
export function newKey(): FederationKey {
  return withPublicKey(generateKeyPairSync('ed25519').privateKey);
}

/**
 * Returns the keys of a PEM text with one or more PKCS#8 blocks. The first one signs. Throws TkaError if there is none,
 * more than `keyLimit`, or one that is no Ed25519 key. The error quotes nothing of the text.
 */
export function readKeys(pem: string): FederationKey[] {
  const blocks = pemBlocks(pem, /^PRIVATE KEY$/);
  if (blocks.length === 0) throw new TkaError('there is no private key (PKCS#8, PEM)');
  if (blocks.length > keyLimit) throw new TkaError(`there are more than ${keyLimit} private keys`);
  return blocks.map((block, i) => {
    let key: KeyObject;
    try {
      key = createPrivateKey(block);
    } catch {
      // OpenSSL's error may quote the text.
      throw new TkaError(`private key ${i + 1} cannot be read`);
    }
    if (key.asymmetricKeyType !== 'ed25519') throw new TkaError(`private key ${i + 1} is not an Ed25519 key`);
    return withPublicKey(key);
  });
}

/** Returns the PEM text (PKCS#8) of keys, in their order. */
export function writeKeys(keys: readonly FederationKey[]): string {
  return keys.map(({ key }) => String(key.export({ format: 'pem', type: 'pkcs8' }))).join('');
}

/** Returns whether a value is the text of a public key. */
export function isPublicKey(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    /^[A-Za-z0-9_-]{43}$/.test(value) &&
    // The last character has two bits that belong to no byte: only one spelling is accepted.
    Buffer.from(value, 'base64url').toString('base64url') === value
  );
}

/** Returns the public key of a text. Throws TkaError if the text is not a public key. */
export function publicKeyOf(text: string): KeyObject {
  if (!isPublicKey(text)) throw new TkaError('this is not a public key: base64url of 32 bytes');
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: text }, format: 'jwk' });
}

/** Returns the hash of a public key: base64url of the SHA-256 of its SPKI form (DER). Throws TkaError if the text is not a
 * public key. */
export function keyHash(publicKey: string): string {
  const der = publicKeyOf(publicKey).export({ format: 'der', type: 'spki' });
  return createHash('sha256').update(der).digest('base64url');
}

/** Returns the signature of data: base64url of 64 bytes. */
export function sign({ key }: FederationKey, data: Uint8Array): string {
  return signWith(null, data, key).toString('base64url');
}

/** Returns whether a signature of data is valid. False also if the key or the signature has a wrong form. */
export function verify(publicKey: string, data: Uint8Array, signature: unknown): boolean {
  if (!isPublicKey(publicKey) || typeof signature !== 'string' || !/^[A-Za-z0-9_-]{86}$/.test(signature)) return false;
  return verifyWith(null, data, publicKeyOf(publicKey), Buffer.from(signature, 'base64url'));
}

function withPublicKey(key: KeyObject): FederationKey {
  const { x } = createPublicKey(key).export({ format: 'jwk' });
  return { publicKey: String(x), key };
}
