import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Cluster } from '../../src/discovery/clusters.ts';
import { ListMemory, type RememberedList } from '../../src/discovery/memory.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { memberOf } from './stand-in.ts';

const seed = 'https://tka.example.ts.net';
const now = Math.floor(Date.now() / 1000) * 1000;
const list = (
  provenance: 'stated' | 'known' | 'tailnet',
  server: string | null = 'https://a.example.ts.net',
): RememberedList => ({
  at: now,
  html: false,
  members: [
    {
      ...memberOf('https://api.example.com'),
      name: 'a',
      server,
      listed: now,
      tried: 0,
      since: now,
      provenance,
      labels: new Map([['env', 'x']]),
    },
  ],
});

describe('ListMemory', () => {
  it.each([
    ['stated', 'stated'],
    ['tailnet', 'tailnet'],
    // Only the user's own words make a server known.
    ['known', 'stated'],
  ] as const)('stores a server that is %s as %s', (provenance, remembered) => {
    const memory = new ListMemory(testFolder());
    memory.write(seed, list(provenance));
    expect(memory.read(seed)).toEqual(list(remembered));
    expect(memory.all()).toEqual([list(remembered)]);
  });

  it('stores the cluster names on a separate line, in a file that older versions read', () => {
    const state = testFolder();
    const memory = new ListMemory(state);
    const clusters = [
      { name: 'prod', servers: [{ server: 'https://a' }, { server: null }, { server: 'https://b' }] },
      { name: 'dev', servers: [] },
    ];
    const labels = new Map([
      ['env', 'x'],
      ['tier', '$(touch x)'],
      ['zone', ''],
    ]);
    memory.write(seed, list('stated'), clusters.map((cluster) => ({ ...cluster, labels })) as unknown as Cluster[]);
    expect(memory.names(seed)).toEqual(['prod\thttps://a https://b\tenv=x,zone=', 'dev\t\tenv=x,zone=']);
    expect(memory.read(seed)).toEqual(list('stated'));
    const file = path.join(state, 'clusters', 'https+tka.example.ts.net.json');
    const text = fs.readFileSync(file, 'utf8');
    expect(JSON.parse(text)).toMatchObject({
      at: now,
      html: false,
      members: [{ name: 'a' }],
      times: [[now, 0, 'stated', now]],
    });
    for (const damaged of [text.slice(0, 20), text.replace('{"names":"', '{"names":'), '', '{"names":3\n}']) {
      fs.writeFileSync(file, damaged);
      expect(memory.names(seed)).toBeUndefined();
    }
    memory.write(seed, list('stated'));
    expect(memory.names(seed)).toBeUndefined();
    expect(new ListMemory(testFolder()).names(seed)).toBeUndefined();
  });

  it.each([
    ['no provenance, as in an early version', [now, 0], 'tailnet'],
    ['an unknown provenance', [now, 0, 'trusted'], 'tailnet'],
    ['"known", which version 0.1.0 also wrote for servers that a list had stated', [now, 0, 'known'], 'stated'],
  ])('reads an old file with %s', (_, times, provenance) => {
    const state = testFolder();
    const memory = new ListMemory(state);
    memory.write(seed, list('stated'));
    const file = path.join(state, 'clusters', 'https+tka.example.ts.net.json');
    const text = JSON.parse(fs.readFileSync(file, 'utf8'));
    fs.writeFileSync(file, JSON.stringify({ ...text, times: [times] }));
    expect(memory.read(seed)?.members.map((member) => member.provenance)).toEqual([provenance]);
  });

  it.each([
    ['not JSON', '{'],
    ['another shape', '[]'],
    [
      'fewer times than members',
      JSON.stringify({ at: now, html: false, members: [{ apiEndpoint: 'https://a' }], times: [] }),
    ],
    [
      'a member that no server may send',
      JSON.stringify({ at: now, html: false, members: [{ apiEndpoint: 'ftp://a' }], times: [[now, 0]] }),
    ],
  ])('ignores a file with %s', (_, text) => {
    const state = testFolder();
    const memory = new ListMemory(state);
    memory.write(seed, list('stated'));
    fs.writeFileSync(path.join(state, 'clusters', 'https+tka.example.ts.net.json'), text);
    expect(memory.read(seed)).toBeUndefined();
  });

  it('reads a time in the future as now', () => {
    const memory = new ListMemory(testFolder());
    memory.write(seed, { ...list('stated'), at: Date.now() + 86_400_000 });
    expect(memory.read(seed)?.at).toBeLessThanOrEqual(Date.now());
  });

  it('forgets the server of a member, in every list', () => {
    const memory = new ListMemory(testFolder());
    memory.write(seed, list('stated'));
    memory.write('http://127.0.0.1:8080', list('tailnet'));
    memory.forget('https://api.example.com', 'https://a.example.ts.net');
    expect(memory.all().flatMap(({ members }) => members.map(({ server }) => server))).toEqual([null, null]);
  });

  it('stores through whom a joined cluster is reached, and drops it with its server', () => {
    const memory = new ListMemory(testFolder());
    const server = 'https://tka.example.ts.net/clusters/site-1';
    const { members, ...rest } = list('stated', server);
    const joined = {
      ...rest,
      members: members.map((each) => ({ ...each, cluster: 'site-1', through: 'hub', direct: true })),
    };
    memory.write(seed, joined);
    // The list of a joined cluster itself is another file.
    memory.write(server, list('stated'));
    expect(memory.read(seed)).toEqual(joined);
    expect(memory.seeds().sort()).toEqual([seed, server]);
    memory.forget('https://api.example.com', server);
    expect(memory.read(seed)?.members).toEqual([]);
    expect(memory.read(server)?.members).toHaveLength(1);
  });

  it('returns nothing without a state folder', () => {
    const memory = new ListMemory(undefined);
    memory.write(seed, list('stated'));
    expect(memory.read(seed)).toBeUndefined();
    expect(memory.all()).toEqual([]);
  });
});
