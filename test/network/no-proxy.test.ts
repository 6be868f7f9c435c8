import { describe, expect, it } from 'vitest';
import { bypassesProxy } from '../../src/network/no-proxy.ts';

// Each line gives the result of golang.org/x/net/http/httpproxy v0.62.0, except those under `beyond Go`.
const table: readonly [noProxy: string, target: string, bypassed: boolean][] = [
  ['', 'example.com:443', false],
  ['*', 'example.com:443', true],
  ['*', '10.0.0.1:443', true],
  [' a.com , * ', 'example.com:443', true],
  ['*.com', 'example.com:443', true],
  ['*.com', 'com:443', false],
  ['a*', 'ab:443', false],
  ['example.com', 'example.com:443', true],
  ['EXAMPLE.com', 'example.com:443', true],
  ['example.com', 'www.example.com:443', true],
  ['example.com', 'wwwexample.com:443', false],
  ['example.com', 'example.com.evil.org:443', false],
  ['.example.com', 'www.example.com:443', true],
  ['.example.com', 'example.com:443', false],
  ['*.example.com', 'a.b.example.com:443', true],
  ['*.example.com', 'example.com:443', false],
  ['ts.net', 'tka.example.ts.net:443', true],
  ['example.com:443', 'example.com:443', true],
  ['example.com:443', 'www.example.com:443', true],
  ['example.com:443', 'example.com:8443', false],
  ['.example.com:80', 'www.example.com:443', false],
  ['example.com:', 'example.com:443', true],
  [':443', 'example.com:443', false],
  ['other.com,example.com', 'example.com:443', true],
  ['other.com, example.com', 'example.com:443', true],
  ['other.com example.com', 'example.com:443', false],
  [',,', 'example.com:443', false],
  ['10.0.0.1', '10.0.0.1:443', true],
  ['10.0.0.1', '10.0.0.11:443', false],
  ['10.0.0.1:443', '10.0.0.1:443', true],
  ['10.0.0.1:443', '10.0.0.1:80', false],
  ['10.0.0.0/8', '10.255.0.1:443', true],
  ['10.1.2.3/8', '10.255.0.1:443', true],
  ['10.0.0.0/8', '11.0.0.1:443', false],
  ['10.0.0.0/8', 'ten.example.com:443', false],
  ['10.0.0.0/33', '10.0.0.1:443', false],
  ['10.0.0.0/8:443', '10.0.0.1:443', false],
  ['0.0.0.0/0', '8.8.8.8:443', true],
  ['0.0.0.0/0', '[2001:db8::1]:443', false],
  ['::/0', '10.0.0.1:443', false],
  ['::/0', '[2001:db8::1]:443', true],
  ['100.64.0.0/10', '100.100.1.2:443', true],
  ['100.64.0.0/10', '100.128.0.1:443', false],
  ['fd7a:115c:a1e0::/48', '[fd7a:115c:a1e0::1]:443', true],
  ['fd7a:115c:a1e0::/48', '[fd7a:115c:a1e1::1]:443', false],
  ['2001:db8::1', '[2001:db8::1]:443', true],
  ['2001:DB8:0:0::1', '[2001:db8::1]:443', true],
  ['[2001:db8::1]:443', '[2001:db8::1]:443', true],
  ['[2001:db8::1]:80', '[2001:db8::1]:443', false],
  ['[2001:db8::1]', '[2001:db8::1]:443', false],
  ['10.0.0.1', '[::ffff:10.0.0.1]:443', true],
  ['::ffff:10.0.0.1', '10.0.0.1:443', true],
  ['::ffff:10.0.0.0/104', '10.1.2.3:443', true],
  ['10.0.0.0/8', '[::ffff:10.0.0.1]:443', true],
  ['bücher.example', 'xn--bcher-kva.example:443', true],
  ['.bücher.example', 'a.xn--bcher-kva.example:443', true],
  ['', 'localhost:443', true],
  ['', '127.0.0.1:443', true],
  ['', '127.8.9.1:443', true],
  ['', '[::1]:443', true],
  ['', '[::ffff:127.0.0.1]:443', true],
  ['', 'a.localhost:443', false],
];

const beyondGo: typeof table = [
  ['', 'localhost.:443', true],
  ['example.com', 'example.com.:443', true],
  ['Example.com.', 'www.example.com:443', true],
  ['example.com.:443', 'example.com:443', true],
  ['.', 'example.com:443', false],
];

function bypasses(noProxy: string, target: string): boolean {
  const url = new URL(`https://${target}`);
  return bypassesProxy(noProxy, url.hostname.replace(/^\[|\]$/g, ''), Number(url.port || 443));
}

it.each(table)('NO_PROXY=%j, %s: %s', (noProxy, target, bypassed) => {
  expect(bypasses(noProxy, target)).toBe(bypassed);
});

describe('beyond Go', () => {
  it.each(beyondGo)('NO_PROXY=%j, %s: %s', (noProxy, target, bypassed) => {
    expect(bypasses(noProxy, target)).toBe(bypassed);
  });
});
