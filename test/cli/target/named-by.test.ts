import { describe, expect, it } from 'vitest';
import { byUser, listedBefore } from '../../../src/cli/target/named-by.ts';
import type { OurContext } from '../../../src/kubeconfig/index.ts';

const entry = 'https://tka.example.ts.net';
const member = (server: string | null, more: object = {}) => ({
  server,
  state: 'healthy' as const,
  lastSeen: '2026-11-21T09:00:00Z',
  ...more,
});
const context = (server: string, namedBy?: string): OurContext => ({
  ...{ name: server, cluster: server, user: server, file: '/config', server, namedBy },
  ...{ apiServer: undefined, command: undefined, caData: undefined, insecureSkipTlsVerify: false },
});

describe('whether an earlier list of the same mesh had the server of a context', () => {
  const [a, gone] = [context('https://a', entry), context('https://gone', entry)];
  it.each([
    ['it did', true, entry, [member('https://a')], [a, gone]],
    ['only the list’s own server is in common', true, entry, [member(entry)], [gone]],
    ['the lists of the tailnet did', true, 'x.ts.net', [member('https://a')], [context('https://a', 'x.ts.net')]],
    ['nothing is in common: another mesh with the same name', false, entry, [member('https://b')], [a, gone]],
    ['only a missing member is in common', false, entry, [member('https://a', { state: 'missing' })], [a, gone]],
    ['gossip is off: no member has a time', false, entry, [member('https://a', { lastSeen: null })], [a, gone]],
    ['the list is of another server', false, 'https://other.example.ts.net', [member('https://a')], [a, gone]],
    ['the list’s server is unknown', false, undefined, [member('https://a')], [a, gone]],
    ['the list is empty', false, entry, [], [a, gone]],
  ])('%s: %s', (_, expected, list, servers, ours) => {
    const wasListed = listedBefore(list, servers, { ours });
    expect(wasListed(context('https://gone', list === 'x.ts.net' ? list : entry))).toBe(expected);
    expect(wasListed(context('https://gone', byUser))).toBe(false);
    expect(wasListed(context('https://gone', undefined))).toBe(false);
  });
});
