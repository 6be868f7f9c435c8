// Which servers are trusted, case by case.
import { describe, expect, it } from 'vitest';
import type { Cluster, Provenance } from '../../src/discovery/clusters.ts';
import { isBareWord, judge, type Origin, TrustPolicy } from '../../src/discovery/trust.ts';
import { peerOf } from './stand-in.ts';

const noTailscaled = async () => ({ peers: [], problem: 'no tailscaled' });

const yes = true;
const no = false;
const unknown = undefined;

describe('judge', () => {
  it.each<[origin: Origin, tagged: boolean | undefined, accepted: boolean, used: boolean, verdict: string]>([
    // The tag is proof, wherever the server came from.
    ['tailnet', yes, no, no, 'use'],
    ['stated', yes, no, no, 'use'],
    ['known', yes, no, no, 'use'],
    ['named', yes, no, no, 'use'],
    ['typed', yes, no, no, 'use'],
    // Inferred from a tag: without the tag only the user can accept it.
    ['tailnet', no, no, no, 'refuse'],
    ['tailnet', no, no, yes, 'refuse'],
    ['tailnet', unknown, no, no, 'refuse'],
    ['tailnet', unknown, no, yes, 'refuse'],
    ['tailnet', no, yes, no, 'use'],
    ['tailnet', unknown, yes, no, 'use'],
    // Stated by a list: needs the tag if tailscaled is available, even after an earlier sign-in.
    ['stated', no, no, no, 'refuse'],
    ['stated', no, no, yes, 'refuse'],
    ['stated', no, yes, no, 'use'],
    ['stated', unknown, no, no, 'use'],
    // Configured, or the server of a context.
    ['known', no, no, no, 'warn'],
    ['known', no, no, yes, 'use'],
    ['known', no, yes, no, 'use'],
    ['known', unknown, no, no, 'use'],
    // Named by a URL: the first sign-in prints a warning.
    ['named', no, no, no, 'warn'],
    ['named', unknown, no, no, 'warn'],
    ['named', no, no, yes, 'use'],
    ['named', no, yes, no, 'use'],
    // Named by a bare word, which may be a typo.
    ['typed', no, no, no, 'ask'],
    ['typed', unknown, no, no, 'ask'],
    ['typed', no, no, yes, 'use'],
    ['typed', no, yes, no, 'use'],
  ])('%s, tagged %s, accepted %s, used %s: %s', (origin, tagged, accepted, used, verdict) =>
    expect(judge({ origin, tagged, accepted, used })).toBe(verdict),
  );
});

it.each([
  ['prod-us', true],
  ['localhost', true],
  ['tka.example.ts.net', false],
  ['tka:8080', false],
  ['http://tka', false],
  ['[::1]', false],
  ['fd7a::1', false],
])('%s is a bare word: %s', (name, bare) => expect(isBareWord(name)).toBe(bare));

describe('isTagged', () => {
  const peers = [peerOf('tka-us', { addresses: ['100.64.0.1', 'fd7a:115c:a1e0::1'] })];
  it.each([
    ['https://tka-us.example.ts.net', true],
    ['http://tka-us.example.ts.net:8080', true],
    ['http://100.64.0.1:8080', true],
    ['http://[fd7a:115c:a1e0::1]:8080', true],
    ['http://100.64.0.2', false],
    ['https://tka-us', false],
    ['https://tka-us.example.com', false],
    ['https://xtka-us.example.ts.net', false],
  ])('%s: %s', async (server, tagged) =>
    expect(await trust({ tagged: async () => ({ peers }) }).isTagged(server)).toBe(tagged),
  );

  it('is undefined if tailscaled cannot be asked', () =>
    expect(trust({ tagged: noTailscaled }).isTagged(us)).resolves.toBeUndefined());
});

const us = 'https://tka-us.example.ts.net';
const laptop = 'http://laptop.example.ts.net';

function trust(options: Partial<ConstructorParameters<typeof TrustPolicy>[0]> = {}): TrustPolicy {
  return new TrustPolicy({
    tag: 'tag:tka',
    tagged: async () => ({ peers: [peerOf('tka-us')] }),
    accepted: () => false,
    used: () => false,
    namedAs: () => undefined,
    ...options,
  });
}

const cluster = (server: string, provenance: Provenance): Cluster & { server: string } => ({
  ...{ name: 'prod-us', server, provenance, apiEndpoint: 'https://api.us.example.com', state: 'healthy', reason: null },
  ...{ lastSeen: null, version: null, labels: new Map(), through: null, servers: [] },
});

describe('Trust', () => {
  it('asks for the tags once', async () => {
    let asked = 0;
    const judged = trust({
      tagged: async () => {
        asked++;
        return { peers: [peerOf('tka-us')] };
      },
    });
    expect(await judged.isTagged(us)).toBe(true);
    expect(await judged.isTagged(laptop)).toBe(false);
    expect(asked).toBe(1);
  });

  it('accepts the configured server without a tag if a list states it', async () => {
    const judged = trust({ namedAs: (server) => (server === laptop ? 'known' : undefined) });
    expect(await judged.allows(laptop, 'stated')).toBe(true);
    expect(await judged.allows('http://other.example.ts.net', 'stated')).toBe(false);
  });

  it('asks before it uses a server named by a bare word, even if a list states it', async () => {
    const judged = trust({ namedAs: (server) => (server === laptop ? 'typed' : undefined) });
    for (const provenance of ['stated', 'known', 'tailnet'] as const) {
      expect(await judged.verdict(laptop, provenance)).toBe('ask');
      expect(await judged.allows(laptop, provenance)).toBe(false);
    }
    judged.accept(laptop);
    expect(await judged.allows(laptop, 'stated')).toBe(true);
  });

  it('reports why a server is not used, with a hint', async () => {
    const refused = (judged: TrustPolicy, provenance: Provenance) =>
      judged.require(cluster(laptop, provenance)).catch((error) => error);
    const hints = [`if you trust it, sign in once by its URL: kubectl tka login ${laptop}`];
    expect(await refused(trust(), 'stated')).toMatchObject({
      message: `cannot use the TKA server of prod-us: ${laptop} is not tagged tag:tka`,
      hints,
    });
    const away = trust({ tagged: noTailscaled });
    expect(await refused(away, 'tailnet')).toMatchObject({
      message: `cannot use the TKA server of prod-us: cannot check whether ${laptop} is tagged tag:tka: no tailscaled`,
      hints,
    });
    expect(await refused(away, 'stated')).toBeUndefined();
  });
});
