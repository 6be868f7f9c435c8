// Readers of answers at the limits of what they accept.
import { expect, it } from 'vitest';
import { parseClusterInfo, parseSignIn } from '../../src/tka/answers.ts';

const server_url = 'https://api.example.com:6443';
const pem = (bytes: number) => {
  const [begin, end] = ['-----BEGIN CERTIFICATE-----\n', '\n-----END CERTIFICATE-----\n'];
  return begin + 'A'.repeat(bytes - begin.length - end.length) + end;
};
const read = (ca: string) => {
  const body = JSON.stringify({ server_url, ca_data: Buffer.from(ca).toString('base64') });
  return parseClusterInfo({ status: 200, headers: {}, body }, 'the server');
};

it('accepts a CA of 64 KiB, but not a larger one', () => {
  expect(Buffer.from(read(pem(65_536)).caData, 'base64')).toHaveLength(65_536);
  for (const size of [65_537, 65_540, 700_000]) expect(() => read(pem(size))).toThrow(/the CA is larger than 64 KiB/);
});

it.each([
  ['a plain text', 'no PEM'],
  ['a first line only', '-----BEGIN CERTIFICATE-----\nAAAA\n'],
  ['a last line before the first', '-----END CERTIFICATE-----\nAAAA\n-----BEGIN CERTIFICATE-----\n'],
  ['a key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'],
  ['two halves', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n'],
])('%s is not a CA', (_, ca) => {
  expect(() => read(ca)).toThrow(/the CA is not base64 PEM/);
});

it.each([
  ['a tagged device is shown by its name', 'ci-7.example.ts.net', 'ci-7.example.ts.net'],
  ['a person', undefined, 'nBLYviWLGB11DEVEL'],
  ['a name that is none', 'ci-7\u001b[31m', 'nBLYviWLGB11DEVEL'],
  ['an empty name', '', 'nBLYviWLGB11DEVEL'],
  ['a name of another type', ['ci-7'], 'nBLYviWLGB11DEVEL'],
])('the user of a sign-in: %s', (_, node, shown) => {
  const body = JSON.stringify({ username: 'nBLYviWLGB11DEVEL', role: 'view', until: '2026-11-21T08:00:00Z', node });
  expect(parseSignIn({ status: 202, headers: {}, body }, 'the server').username).toBe(shown);
});
