import builtin, * as fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { readJoinSecret } from '../../../src/server/federation/join-secret.ts';
import { testFolder } from '../../fixtures/temporary.ts';
import { mountSecret, tokenFor } from './join-secrets.ts';

const endpoint = 'https://login.example.com:7947';
const token = tokenFor({ cluster: 'site-7' });

/** Returns a folder with these files. */
function folderWith(files: Readonly<Record<string, string | Buffer>>): string {
  const folder = testFolder();
  for (const [name, content] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), content);
  return folder;
}

test('a folder that is missing or empty contains no join Secret', () => {
  expect(readJoinSecret(path.join(testFolder(), 'none'))).toEqual({ kind: 'none' });
  expect(readJoinSecret(testFolder())).toEqual({ kind: 'none' });
  // A folder of kubelet's for an optional Secret that does not exist.
  const folder = testFolder();
  mountSecret(folder, {});
  expect(readJoinSecret(folder)).toEqual({ kind: 'none' });
});

test('reads endpoint and token, with what the token says', () => {
  const found = readJoinSecret(folderWith({ endpoint: 'https://LOGIN.example.com:7947/\n', token: `${token}\n` }));
  expect(found).toEqual({
    kind: 'secret',
    endpoint,
    token,
    cluster: 'site-7',
    keyHash: 'h'.repeat(43),
    hash: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
});

test('the hash changes with either file, and not with anything else', () => {
  const hashOf = (files: Readonly<Record<string, string>>) =>
    (readJoinSecret(folderWith(files)) as { hash: string }).hash;
  const usual = hashOf({ endpoint, token });
  expect(hashOf({ endpoint, token, other: 'x' })).toBe(usual);
  expect(hashOf({ endpoint, token: tokenFor({ cluster: 'site-8' }) })).not.toBe(usual);
  expect(hashOf({ endpoint: 'https://other.example.com', token })).not.toBe(usual);
  // The border between the two counts.
  expect(hashOf({ endpoint: 'ab', token: 'c' })).not.toBe(hashOf({ endpoint: 'a', token: 'bc' }));
});

describe('an unusable Secret says what is wrong, without its content', () => {
  const tokenOf = (content: unknown) => `tka-join-${Buffer.from(JSON.stringify(content)).toString('base64url')}`;
  const content = { v: 1, cluster: 'site-7', secret: 's', key: 'k'.repeat(43), hash: 'h'.repeat(43) };
  test.each<[string, Readonly<Record<string, string | Buffer>>, string]>([
    ['only the endpoint', { endpoint }, 'the "token" of the join Secret is missing'],
    ['only the token', { token }, 'the "endpoint" of the join Secret is missing'],
    ['an empty file', { endpoint, token: '\n' }, 'the "token" of the join Secret is empty'],
    ['a huge file', { endpoint, token: 'x'.repeat(100_000) }, 'the "token" of the join Secret is larger than 4 KiB'],
    ['a control character', { endpoint: `${endpoint}\u001b[2J`, token }, 'the "endpoint" of the join Secret contains '],
    [
      'bytes that are not text',
      { endpoint, token: Buffer.from([0xff, 0xfe, 0]) },
      'the "token" of the join Secret contains ',
    ],
    ['two lines', { endpoint, token: `${token}\n${token}` }, 'the "token" of the join Secret contains white space'],
    [
      'plain http',
      { endpoint: 'http://login.example.com', token },
      'the "endpoint" of the join Secret is not an https URL',
    ],
    [
      'a password',
      { endpoint: 'https://a:geheim@login.example.com', token },
      'the "endpoint" of the join Secret is not an https URL',
    ],
    ['another secret', { endpoint, token: 'geheim' }, 'the "token" of the join Secret is not a join token'],
    ['half a token', { endpoint, token: token.slice(0, 60) }, 'the "token" of the join Secret is incomplete'],
    ['no object', { endpoint, token: tokenOf([]) }, 'the "token" of the join Secret is incomplete'],
    [
      'no hash',
      { endpoint, token: tokenOf({ ...content, hash: undefined }) },
      'the "token" of the join Secret is incomplete',
    ],
    [
      'a bad name',
      { endpoint, token: tokenOf({ ...content, cluster: '../x' }) },
      'the "token" of the join Secret is incomplete',
    ],
    [
      'a later version',
      { endpoint, token: tokenOf({ ...content, v: 2 }) },
      'the "token" of the join Secret is incomplete',
    ],
  ])('%s', (_, files, problem) => {
    const found = readJoinSecret(folderWith(files));
    expect(found).toMatchObject({ kind: 'invalid', hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
    const said = (found as { problem: string }).problem;
    expect(said).toContain(problem);
    expect(said).not.toMatch(/geheim|\u001b/);
  });
});

test.skipIf(process.platform === 'win32' || process.getuid?.() === 0)('an unreadable file is tried again', () => {
  const folder = folderWith({ endpoint, token });
  fs.chmodSync(path.join(folder, 'token'), 0);
  expect(readJoinSecret(folder)).toEqual({ kind: 'unreadable', problem: `cannot read ${folder} (EACCES)` });
});

test('a folder in place of a file is tried again', () => {
  const folder = folderWith({ endpoint });
  fs.mkdirSync(path.join(folder, 'token'));
  expect(readJoinSecret(folder)).toMatchObject({ kind: 'unreadable' });
});

test('both files are of the same version while kubelet replaces them', () => {
  const folder = testFolder();
  const versions = Array.from({ length: 2 }, (_, i) => ({
    endpoint: `https://login-${i}.example.com`,
    token: tokenFor({ cluster: `site-${i}` }),
  }));
  mountSecret(folder, versions[0] ?? {});
  let opened = 0;
  // kubelet swaps between the two reads, and removes the old version.
  const { openSync } = fs;
  vi.spyOn(builtin, 'openSync').mockImplementation((...args) => {
    if (++opened === 2) mountSecret(folder, versions[1] ?? {});
    return openSync(...args);
  });
  syncBuiltinESMExports();
  try {
    expect(readJoinSecret(folder)).toMatchObject({
      kind: 'secret',
      endpoint: versions[1]?.endpoint,
      cluster: 'site-1',
    });
  } finally {
    vi.restoreAllMocks();
    syncBuiltinESMExports();
  }
  expect(opened).toBe(4);
  mountSecret(folder, {});
  expect(readJoinSecret(folder)).toEqual({ kind: 'none' });
});
