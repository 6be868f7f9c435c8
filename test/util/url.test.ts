import { describe, expect, it } from 'vitest';
import { checkToken } from '../../src/tka/token.ts';
import { cleanText } from '../../src/util/text.ts';
import { canonicalApiServer, canonicalOrigin, canonicalServer, joinedNameOf, originOf } from '../../src/util/url.ts';

describe('canonicalServer', () => {
  it.each([
    ['https://TKA.Example.ts.net', 'https://tka.example.ts.net'],
    ['https://tka.example.ts.net:443/', 'https://tka.example.ts.net'],
    ['http://tka.example.ts.net:80', 'http://tka.example.ts.net'],
    ['https://tka.example.ts.net./', 'https://tka.example.ts.net'],
    ['https://tka.example.ts.net/api/v1alpha1', 'https://tka.example.ts.net'],
    ['https://tka.example.ts.net/api/v1alpha1/', 'https://tka.example.ts.net'],
    ['http://127.0.0.11:8123', 'http://127.0.0.11:8123'],
    ['http://127.1:8123', 'http://127.0.0.1:8123'],
    ['https://[FD7A:115C:A1E0::1]:8443', 'https://[fd7a:115c:a1e0::1]:8443'],
    ['https://bücher.example', 'https://xn--bcher-kva.example'],
    ['https://TKA.Example.ts.net.:443/clusters/site-1', 'https://tka.example.ts.net/clusters/site-1'],
    ['https://tka/clusters/site-1/', 'https://tka/clusters/site-1'],
    ['https://tka/clusters/site-1//', 'https://tka/clusters/site-1'],
    ['https://tka/clusters/site-1/api/v1alpha1', 'https://tka/clusters/site-1'],
    ['https://tka/clusters/site-1/api/v1alpha1/', 'https://tka/clusters/site-1'],
    ['http://127.0.0.1:8123/clusters/9', 'http://127.0.0.1:8123/clusters/9'],
    ['https://[fd7a::1]:8443/clusters/clusters', 'https://[fd7a::1]:8443/clusters/clusters'],
    [`https://tka/clusters/${'a'.repeat(63)}`, `https://tka/clusters/${'a'.repeat(63)}`],
  ])('%s becomes %s', (text, canonical) => {
    expect(canonicalServer(text)).toBe(canonical);
    expect(canonicalServer(canonical)).toBe(canonical);
  });

  it.each([
    'tka',
    '',
    'ftp://tka',
    'javascript:alert(1)',
    'file:///etc/passwd',
    'https://',
    'https://user:pw@tka',
    'https://tka/path',
    'https://tka?x=1',
    'https://tka#f',
    'https://tka\n.evil',
    'https://tk a',
    'https://tka:99999',
    'https://a+b',
    "https://a'b",
    'https://../etc',
    'https://a/../../b',
    `https://${'a'.repeat(3000)}`,
    'https://-a',
    'https://a$(id)',
    'https://a:0',
    'https://a..b',
    'https://tka//',
    'https://tka/x/..',
    'https://tka/clusters',
    'https://tka/clusters/',
    'https://tka/clusters//a',
    'https://tka//clusters/a',
    'https://tka/x/clusters/a',
    'https://tka/Clusters/a',
    'https://tka/clusters/A',
    'https://tka/clusters/-a',
    'https://tka/clusters/a-',
    'https://tka/clusters/a_b',
    'https://tka/clusters/a.b',
    'https://tka/clusters/..',
    'https://tka/clusters/../',
    'https://tka/clusters/../clusters/a',
    'https://tka/clusters/./a',
    'https://tka/clusters/%2e%2e/',
    'https://tka/clusters/%61',
    'https://tka/clusters/a%2fb',
    'https://tka\\clusters\\a',
    'https://tka/clusters/a\\',
    'https://tka/clusters/a\u0000',
    'https://tka/clusters/a\u001b[31m',
    'https://tka/clusters/ä',
    'https://tka/clusters/a/b',
    'https://tka/clusters/a?x',
    'https://tka/clusters/a#x',
    'https://tka/clusters/a/api/v1',
    'https://tka/clusters/a/api/v1alpha1/login',
    `https://tka/clusters/${'a'.repeat(64)}`,
  ])('%j is refused', (text) => {
    expect(() => canonicalServer(text)).toThrow(/^server /);
  });

  it('reads a path of slashes in linear time', () => {
    const start = performance.now();
    for (const path of ['/'.repeat(2000), `/clusters/a${'/'.repeat(2000)}b`, `/clusters/${'a-'.repeat(1000)}`])
      expect(() => canonicalServer(`https://tka${path}`)).toThrow(/^server /);
    expect(performance.now() - start).toBeLessThan(1000);
  });
});

describe('the parts of a server’s URL', () => {
  it.each([
    ['https://tka:8443', undefined, 'https://tka:8443'],
    ['https://tka:8443/clusters/site-1', 'site-1', 'https://tka:8443'],
    ['http://[::1]/clusters/clusters', 'clusters', 'http://[::1]'],
  ])('%s has the joined cluster %s and the origin %s', (server, name, origin) => {
    expect(joinedNameOf(server)).toBe(name);
    expect(originOf(server)).toBe(origin);
  });

  it('canonicalOrigin refuses a joined cluster', () => {
    expect(canonicalOrigin('https://TKA/')).toBe('https://tka');
    expect(() => canonicalOrigin('https://tka/clusters/a')).toThrow(/^server .* has a path/);
  });
});

it.each([
  () => canonicalServer('https://alice:sesame@tka'),
  () => canonicalServer('https://alice:se/s@me@tka/x'),
  () => canonicalApiServer('https://alice:sesame@api?x'),
])('errors do not show a password', (read) => {
  expect(read).toThrow(/^[^:]*"https:\/\/\[redacted\]@[^:]*$/);
});

describe('canonicalApiServer', () => {
  it.each([
    ['https://API.example.com:443/', 'https://api.example.com'],
    ['https://api.example.com.:6443', 'https://api.example.com:6443'],
    ['https://rancher.example.com/k8s/clusters/c-1/', 'https://rancher.example.com/k8s/clusters/c-1'],
  ])('%s becomes %s', (text, canonical) => expect(canonicalApiServer(text)).toBe(canonical));

  it.each(['http://api.example.com', 'https://a:b@api', 'https://api?x', 'https://api#x', 'api:6443', 'javascript:0'])(
    '%j is refused',
    (text) => {
      expect(() => canonicalApiServer(text)).toThrow(/^API server /);
    },
  );
});

describe('cleanText', () => {
  it.each([
    ['plain', 'plain'],
    ['\u001b[31mred\u001b[0m', '[31mred [0m'],
    ['two\r\nlines\tand a tab', 'two lines and a tab'],
    ['\u202egnp.exe', 'gnp.exe'],
    ['a\u200bb\ufeffc\u0000d', 'ab c d'],
    ['\u009b31m', '31m'],
    ['lone \ud800 surrogate', 'lone  surrogate'],
    ['  spaced  ', 'spaced'],
    ['Zoë 日本 🚀', 'Zoë 日本 🚀'],
  ])('%j becomes %j', (text, clean) => expect(cleanText(text)).toBe(clean));

  it('cuts by characters, and marks the cut', () => {
    expect(cleanText('🚀'.repeat(10), 4)).toBe('🚀🚀🚀…');
    expect(cleanText('x'.repeat(5_000_000), 10)).toBe('xxxxxxxxx…');
  });
});

describe('checkToken', () => {
  const jwt = (claims: unknown) => `eyJh.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`;
  it('returns the times in milliseconds', () => {
    expect(checkToken(jwt({ exp: 2000, iat: 1000 }), 1_500_000)).toEqual({ expires: 2_000_000, issued: 1_000_000 });
    expect(checkToken(jwt({ exp: 2000.9 }), 0)).toEqual({ expires: 2_000_000, issued: undefined });
  });
  it.each([
    ['', 'not a JWT'],
    ['a.b', 'not a JWT'],
    ['a.b.c.d', 'not a JWT'],
    ['a.!!.c', 'not a JWT'],
    ['a.bm90anNvbg.c', 'not a JWT'],
    [jwt(null), 'not a JWT'],
    [`${jwt({ exp: 9 })}\n`, 'not a JWT'],
    [jwt({}), 'no expiry'],
    [jwt({ exp: '2000' }), 'no expiry'],
    [jwt({ exp: null }), 'no expiry'],
    [jwt({ exp: 1000 }), 'expired'],
    [jwt({ exp: -1 }), 'expired'],
    [jwt({ exp: 9e9, pad: 'x'.repeat(20_000) }), 'too long'],
  ])('%# is refused', (token, why) => expect(checkToken(token, 1_000_000)).toMatch(why));
});
