import { describe, expect, test } from 'vitest';
import { TailscaleError, type TailscaleProblem } from '../../src/tailscale/localapi.ts';
import { type Peer, parseStatus, type TailnetStatus } from '../../src/tailscale/status.ts';
import { cpuTime } from '../fixtures/cpu.ts';

const self = { HostName: 'Laptop', DNSName: 'laptop.Example.ts.net.', TailscaleIPs: ['100.64.0.1'], Online: true };
const document = (fields: object = {}) => ({
  BackendState: 'Running',
  CurrentTailnet: { Name: 'x', MagicDNSSuffix: 'Example.ts.net' },
  Self: self,
  Peer: {},
  ...fields,
});
const parse = (value: unknown, loopback = false): TailnetStatus =>
  parseStatus(typeof value === 'string' ? value : JSON.stringify(value), { loopback });
/** Returns the one peer of a status besides this machine. */
const peer = (fields: unknown, loopback = false): Peer | undefined =>
  parse(document({ Peer: { k: fields } }), loopback).peers.find((p) => !p.self);

function errorOf(work: () => unknown): TailscaleError {
  try {
    work();
  } catch (error) {
    if (error instanceof TailscaleError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('a status', () => {
  test('describes a small tailnet', () => {
    const tka = {
      HostName: 'TKA prod',
      DNSName: 'tka-prod-us.example.ts.net.',
      TailscaleIPs: ['100.100.1.2', 'fd7a:115c:a1e0::1:2'],
      Tags: ['tag:tka', 'tag:k8s'],
      Online: true,
    };
    const away = { DNSName: 'away.example.ts.net.', TailscaleIPs: null, Online: false };
    const laptop = {
      hostName: 'laptop',
      dnsName: 'laptop.example.ts.net',
      addresses: ['100.64.0.1'],
      tags: [],
      online: true,
      self: true,
    };
    expect(parse(document({ Peer: { b: tka, a: away } }))).toEqual({
      name: 'x',
      suffix: 'example.ts.net',
      userspace: false,
      certDomains: [],
      login: '',
      self: laptop,
      peers: [
        { hostName: 'away', dnsName: 'away.example.ts.net', addresses: [], tags: [], online: false, self: false },
        laptop,
        {
          hostName: 'tka-prod-us',
          dnsName: 'tka-prod-us.example.ts.net',
          addresses: ['100.100.1.2', 'fd7a:115c:a1e0::1:2'],
          tags: ['tag:tka', 'tag:k8s'],
          online: true,
          self: false,
        },
      ],
    });
  });

  test('may have no peers', () => {
    for (const none of [null, undefined, [], 'x', 3]) expect(parse(document({ Peer: none })).peers).toHaveLength(1);
  });

  test('of an older daemon has the suffix elsewhere', () => {
    expect(parse(document({ CurrentTailnet: { Name: 'Example.com' } })).name).toBe('example.com');
    for (const CurrentTailnet of [null, {}, { Name: 7 }, { Name: 'x'.repeat(500) }]) {
      expect(parse(document({ CurrentTailnet })).name).toBe('');
    }
    expect(parse(document({ CurrentTailnet: null, MagicDNSSuffix: '.tail1234.ts.net.' })).suffix).toBe(
      'tail1234.ts.net',
    );
  });

  test('names the user of this machine, but not of a tagged one', () => {
    const User = { 7: { LoginName: 'alice@example.com' }, 8: { LoginName: 'tagged-devices' } };
    const loginOf = (more: object) => parse(document({ User, Self: { ...self, ...more } })).login;
    expect(loginOf({ UserID: 7 })).toBe('alice@example.com');
    expect(loginOf({ UserID: 8, Tags: ['tag:ci'] })).toBe('');
    expect(loginOf({ UserID: 8 })).toBe('');
    expect(loginOf({ UserID: 9 })).toBe('');
    expect(parse(document({ User: { 7: { LoginName: 'a\u001b\nb' } }, Self: { ...self, UserID: 7 } })).login).toBe(
      'a b',
    );
    for (const wrong of [null, [], { 7: 'alice' }, { 7: { LoginName: 7 } }])
      expect(parse(document({ User: wrong, Self: { ...self, UserID: 7 } })).login).toBe('');
  });

  test('may be of a machine without a name', () => {
    const status = parse(document({ Self: { ...self, DNSName: '' } }));
    expect(status.self).toMatchObject({ hostName: '', dnsName: '', self: true });
    expect(status.peers).toEqual([]);
  });
});

describe('a status is refused', () => {
  test.each<[string, TailscaleProblem, string, RegExp]>([
    ['Stopped', 'stopped', 'tailscale is stopped', /tailscale up$/],
    ['NeedsLogin', 'needs-login', 'tailscale is logged out', /tailscale login$/],
    ['NeedsMachineAuth', 'needs-approval', 'this machine awaits approval on the tailnet', /admin\/machines$/],
    ['InUseOtherUser', 'other-user', 'tailscale is in use by another user of this machine', /tailscale status$/],
    ['Starting', 'starting', 'tailscale is still starting', /tailscale status$/],
    ['NoState', 'starting', 'tailscale is still starting', /tailscale status$/],
    ['Odd\u001b[31m\nx', 'unreadable', 'tailscaled\'s status cannot be read (its state is "Odd [31m x")', /--json$/],
  ])('for the state %j', (state, problem, message, hint) => {
    const error = errorOf(() => parse(document({ BackendState: state })));
    expect(error).toMatchObject({ problem, message, exitCode: 1 });
    expect(error.hints).toEqual([expect.stringMatching(hint)]);
  });

  test.each([
    '',
    'x',
    '{',
    'null',
    '[]',
    '3',
    '"Running"',
    '{}',
    '{"BackendState":7}',
    '{"BackendState":["Running"]}',
    '{"BackendState":"Running"}',
    '{"BackendState":"Running","Self":[]}',
    '{"__proto__":{"BackendState":"Running","Self":{}}}',
    `${'['.repeat(100_000)}`,
  ])('for the text %.40j', (text) => {
    expect(errorOf(() => parse(text)).problem).toBe('unreadable');
  });

  test.each([7, null, [], {}, true, 'a b', '-a.ts.net', 'a..ts.net', '\u001b]0;x', 'a/../b', 'x'.repeat(300), 'ä.net'])(
    'the suffix %j is ignored',
    (suffix) => {
      expect(parse(document({ CurrentTailnet: { MagicDNSSuffix: suffix } })).suffix).toBe('');
    },
  );
});

describe('hostile and broken peers', () => {
  const good = { DNSName: 'tka.example.ts.net.', TailscaleIPs: ['100.64.0.2'], Tags: ['tag:tka'], Online: true };

  test.each([
    undefined,
    null,
    7,
    [],
    {},
    '',
    '.',
    '..',
    '../../etc/passwd',
    'a b.example.ts.net.',
    'a\u001b[2J.example.ts.net.',
    'a\n.example.ts.net.',
    'tka..example.ts.net.',
    '-tka.example.ts.net.',
    'tka-.example.ts.net.',
    'tkа.example.ts.net.', // a Cyrillic letter
    'tka%00.example.ts.net',
    'user:password@tka.example.ts.net',
    'tka.example.ts.net:443',
    `${'x'.repeat(64)}.example.ts.net.`,
    `${'x.'.repeat(200)}example.ts.net.`,
  ])('a peer with the DNS name %j is left out', (name) => {
    expect(peer({ ...good, DNSName: name })).toBeUndefined();
  });

  test.each([null, 7, 'x', [], [good]])('%j is not a peer', (value) => {
    expect(peer(value)).toBeUndefined();
  });

  test.each<[unknown, string[]]>([
    [
      ['100.64.0.2', 'FD7A:115C:A1E0:0:0::2'],
      ['100.64.0.2', 'fd7a:115c:a1e0::2'],
    ],
    [['100.127.255.255', '100.128.0.0', '100.63.255.255'], ['100.127.255.255']],
    [['10.0.0.1', '169.254.169.254', '8.8.8.8', '0.0.0.0', 'fd7a:115c:a1e1::1', '2001:db8::1', '::'], []],
    [['127.0.0.1', '::1', '127.255.255.255'], []],
    [['::ffff:100.64.0.2', '::ffff:6440:2', 'fd7a:115c:a1e0::2%eth0', '100.64.0.2/32', '100.64.2', '0x64.64.0.2'], []],
    [['tka.example.ts.net', '', ' 100.64.0.2', '100.64.0.2\n', '100.64.0.02'], []],
    [[7, null, {}, ['100.64.0.2']], []],
    ['100.64.0.2', []],
    [{ 0: '100.64.0.2', length: 1 }, []],
    [null, []],
  ])('the addresses %j become %j', (addresses, kept) => {
    expect(peer({ ...good, TailscaleIPs: addresses })?.addresses).toEqual(kept);
  });

  test('addresses of this machine are kept only if allowed', () => {
    const addresses = ['127.0.0.11', '::1', '10.0.0.1', '100.64.0.2'];
    expect(peer({ ...good, TailscaleIPs: addresses }, true)?.addresses).toEqual(['127.0.0.11', '::1', '100.64.0.2']);
    expect(peer({ ...good, TailscaleIPs: addresses }, false)?.addresses).toEqual(['100.64.0.2']);
  });

  test('thousands of addresses and tags are cut', () => {
    const many = (item: string) => Array(1000).fill(item);
    const cut = peer({ ...good, TailscaleIPs: many('100.64.0.2'), Tags: many('tag:tka') });
    expect(cut?.addresses).toHaveLength(16);
    expect(cut?.tags).toHaveLength(64);
  });

  test.each<[unknown, string[]]>([
    [
      ['tag:tka', 'tka', 'tag:', 'tag:1', 'tag:a b', 'TAG:tka', 'tag:tka\n', 'tag:tka\u001b[0m', 'tag:tká'],
      ['tag:tka'],
    ],
    [[7, null, ['tag:tka'], 'tag:x-1'], ['tag:x-1']],
    ['tag:tka', []],
    [{ 'tag:tka': true }, []],
    [null, []],
  ])('the tags %j become %j', (tags, kept) => {
    expect(peer({ ...good, Tags: tags })?.tags).toEqual(kept);
  });

  test.each(['tka.other.ts.net.', 'tka.example.ts.net.evil.net.', 'tkaexample.ts.net.', 'example.ts.net.', 'tka.'])(
    'tags of %s are ignored, since it is not of this tailnet',
    (DNSName) => {
      expect(peer({ ...good, DNSName })).toMatchObject({ tags: [], addresses: ['100.64.0.2'] });
    },
  );

  test('without a suffix all tags are ignored', () => {
    const status = parse(document({ CurrentTailnet: null, Peer: { k: good } }));
    expect(status.peers.flatMap(({ tags }) => tags)).toEqual([]);
  });

  test.each([
    [{ Online: 'yes' }, false],
    [{ Online: 1 }, false],
    [{ Online: null }, false],
    [{ Expired: true }, false],
    [{ Expired: 'no' }, true],
  ])('with %j a peer is online: %s', (fields, online) => {
    expect(peer({ ...good, ...fields })?.online).toBe(online);
  });

  test('a peer that is only a sharee is left out', () => {
    expect(peer({ ...good, ShareeNode: true })).toBeUndefined();
  });

  test('20,000 peers are read quickly', async () => {
    const peers = Object.fromEntries(
      Array.from({ length: 20_000 }, (_, i) => [`nodekey:${i}`, { ...good, DNSName: `host-${i}.example.ts.net.` }]),
    );
    const text = JSON.stringify(document({ Peer: peers }));
    expect(parse(text).peers).toHaveLength(20_001);
    expect(await cpuTime(() => parse(text), 2000)).toBeLessThan(2000);
  });
});
