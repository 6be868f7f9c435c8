// The join Secret: a mounted folder with the files `endpoint` and `token`.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { systemCode } from '../../util/errors.ts';
import { canonicalApiServer } from '../../util/url.ts';
import { readToken } from './join-tokens.ts';

/** A join Secret that can be used. */
export interface JoinSecret {
  /** The canonical URL of the login server: `https://login.example.com:7947`. */
  readonly endpoint: string;
  readonly token: string;
  /** From the token: the name that this cluster gets, and the hash of the login server's key (keys.ts). */
  readonly cluster: string;
  readonly keyHash: string;
  /** SHA-256 of both, as hexadecimal digits. It changes with the Secret, and reveals nothing of the token. */
  readonly hash: string;
}

/** What the folder contains. */
export type FoundSecret =
  /** No Secret: the folder is missing or empty. */
  | { readonly kind: 'none' }
  | ({ readonly kind: 'secret' } & JoinSecret)
  /** The Secret must be changed. */
  | { readonly kind: 'invalid'; readonly problem: string; readonly hash: string }
  /** The Secret cannot be read now. */
  | { readonly kind: 'unreadable'; readonly problem: string };

// A token has about 250 characters.
const limit = 4096;

const swapLimit = 5;

/**
 * Reads the join Secret. kubelet writes each version of a Secret to a folder of its own, and then makes `..data` point
 * there: both files are read from the same version.
 */
export function readJoinSecret(folder: string): FoundSecret {
  try {
    for (let swaps = 0; swaps < swapLimit; swaps++) {
      const version = versionOf(folder);
      const [endpoint, token] = ['endpoint', 'token'].map((name) => readPart(path.join(version ?? folder, name)));
      if (versionOf(folder) === version) return secretOf(endpoint, token);
    }
    return { kind: 'unreadable', problem: `${folder} changes all the time` };
  } catch (error) {
    return { kind: 'unreadable', problem: `cannot read ${folder} (${systemCode(error) ?? String(error)})` };
  }
}

/** Returns the folder of kubelet's current version, or undefined if kubelet does not write this folder. */
function versionOf(folder: string): string | undefined {
  return orAbsent(() => fs.realpathSync(path.join(folder, '..data')));
}

/** Returns at most `limit` + 1 bytes of a file, or undefined if it is missing. */
function readPart(file: string): Buffer | undefined {
  const fd = orAbsent(() => fs.openSync(file, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0)));
  if (fd === undefined) return undefined;
  try {
    const bytes = Buffer.alloc(limit + 1);
    let size = 0;
    for (let read = 1; read > 0 && size < bytes.length; size += read) {
      read = fs.readSync(fd, bytes, size, bytes.length - size, null);
    }
    return bytes.subarray(0, size);
  } finally {
    fs.closeSync(fd);
  }
}

function orAbsent<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (/^(?:ENOENT|ENOTDIR)$/.test(systemCode(error) ?? '')) return undefined;
    throw error;
  }
}

function secretOf(endpointBytes: Buffer | undefined, tokenBytes: Buffer | undefined): FoundSecret {
  if (endpointBytes === undefined && tokenBytes === undefined) return { kind: 'none' };
  const hash = createHash('sha256');
  for (const part of [endpointBytes, tokenBytes]) hash.update(`${part?.length ?? -1}:`).update(part ?? '');
  const digest = hash.digest('hex');
  const invalid = (problem: string): FoundSecret => ({ kind: 'invalid', problem, hash: digest });
  const endpoint = textOf(endpointBytes);
  if (typeof endpoint !== 'string') return invalid(`the "endpoint" of the join Secret ${endpoint.problem}`);
  const token = textOf(tokenBytes);
  if (typeof token !== 'string') return invalid(`the "token" of the join Secret ${token.problem}`);
  if (!token.startsWith('tka-join-')) {
    return invalid('the "token" of the join Secret is not a join token: it must start with "tka-join-"');
  }
  const content = readToken(token);
  if (content === undefined) return invalid('the "token" of the join Secret is incomplete: copy the whole token');
  const { cluster, hash: keyHash } = content;
  try {
    return { kind: 'secret', endpoint: canonicalApiServer(endpoint), token, cluster, keyHash, hash: digest };
  } catch {
    return invalid('the "endpoint" of the join Secret is not an https URL');
  }
}

/** Returns the text of a file without white space around it. */
function textOf(bytes: Buffer | undefined): string | { readonly problem: string } {
  if (bytes === undefined) return { problem: 'is missing' };
  if (bytes.length > limit) return { problem: `is larger than ${limit >> 10} KiB` };
  const text = bytes.toString('utf8').trim();
  if (text === '') return { problem: 'is empty' };
  return /^[!-~]+$/.test(text) ? text : { problem: 'contains white space, control characters or other signs' };
}
