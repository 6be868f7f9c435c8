// Readers of answers at the edges of what is taken.
import { expect, it } from 'vitest';
import { parseClusterInfo } from '../../src/tka/answers.ts';

const server_url = 'https://api.example.com:6443';
const pem = (bytes: number) => {
  const [begin, end] = ['-----BEGIN CERTIFICATE-----\n', '\n-----END CERTIFICATE-----\n'];
  return begin + 'A'.repeat(bytes - begin.length - end.length) + end;
};
const read = (ca: string) => {
  const body = JSON.stringify({ server_url, ca_data: Buffer.from(ca).toString('base64') });
  return parseClusterInfo({ status: 200, headers: {}, body }, 'the server');
};

it('a CA of 64 KiB is taken, a larger one is not', () => {
  expect(Buffer.from(read(pem(65_536)).caData, 'base64')).toHaveLength(65_536);
  for (const size of [65_537, 65_540, 700_000]) expect(() => read(pem(size))).toThrow(/the CA is larger than 64 KiB/);
});

it.each([
  ['a text', 'no PEM'],
  ['a beginning', '-----BEGIN CERTIFICATE-----\nAAAA\n'],
  ['an end before its beginning', '-----END CERTIFICATE-----\nAAAA\n-----BEGIN CERTIFICATE-----\n'],
  ['a key', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'],
  ['two halves', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n'],
])('%s is no CA', (_, ca) => {
  expect(() => read(ca)).toThrow(/the CA is not base64 PEM/);
});
