import { describe, expect, it } from 'vitest';
import { isHostPort, isLoopback, isLoopbackOrTailnet, isTailnetIp, plainIp } from '../../src/util/address.ts';

const thisMachine = ['127.0.0.1', '127.255.0.3', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1'];
const tailnet = ['100.64.0.1', '100.127.255.254', 'fd7a:115c:a1e0::1', 'fd7a:115c:a1e0:ab12::1'];
const others = [
  '100.128.0.1',
  '100.63.255.255',
  '10.0.0.1',
  '192.168.1.1',
  '8.8.8.8',
  'fd7a:115c:a1e1::1',
  '::',
  '::ffff:10.0.0.1',
  'localhost',
  '127.0.0.1.example.com',
  '127.0.0.1:80',
  '127.999',
  '',
];

describe('an address', () => {
  it.each(thisMachine)('%s is loopback', (address) => {
    expect([isLoopback, isTailnetIp, isLoopbackOrTailnet].map((is) => is(address))).toEqual([true, false, true]);
  });
  it.each(tailnet)('%s is in a tailnet’s range', (address) => {
    expect([isLoopback, isTailnetIp, isLoopbackOrTailnet].map((is) => is(address))).toEqual([false, true, true]);
  });
  it.each(others)('%j is neither', (address) => {
    expect([isLoopback, isTailnetIp, isLoopbackOrTailnet].map((is) => is(address))).toEqual([false, false, false]);
  });
});

it.each([
  ['127.0.0.1', '127.0.0.1'],
  ['FD7A:115C:A1E0:0:0:0:0:1', 'fd7a:115c:a1e0::1'],
  ['::ffff:100.64.0.1', undefined],
  ['0:0:0:0:0:ffff:6440:1', undefined],
  ['fe80::1%eth0', undefined],
  ['localhost', undefined],
])('plainIp(%s) is %s', (text, plain) => {
  expect(plainIp(text)).toBe(plain);
});

it.each(['tka:7946', 'tka-1.example.ts.net:1', '100.64.0.1:65535', '[::1]:7946'])('%s is host:port', (text) => {
  expect(isHostPort(text)).toBe(true);
});

it.each(['tka', 'tka:0', 'tka:65536', 'TKA:7946', '::1:7946', '[tka]:7946', 'a b:1', 'a/b:1', 'u@a:1', '', 7946, null])(
  '%j is not host:port',
  (value) => {
    expect(isHostPort(value)).toBe(false);
  },
);
