import { describe, expect, it } from 'vitest';
import { contextNames, shortName } from '../../src/discovery/clusters.ts';

describe('context names', () => {
  it.each([
    ['https://tka-prod-us.example.ts.net', '', 'tka-prod-us'],
    ['https://tka.corp.example.com', 'corp.example.com', 'tka'],
    ['https://tka.corp.example.com', '', 'tka.corp.example.com'],
    ['http://127.0.0.11:8123', 'example.ts.net', '127.0.0.11'],
    ['http://[fd7a:115c:a1e0::1]:8123', '', 'fd7a:115c:a1e0::1'],
    ['https://tka.example.ts.net/clusters/site-1', '', 'site-1'],
  ])('%s on %j is %s', (server, tailnet, name) => expect(shortName(server, tailnet)).toBe(name));

  it('use the cluster’s name first, if known', () => {
    expect(contextNames('http://127.0.0.1:8123', '', 'prod-us').slice(0, 2)).toEqual(['prod-us', '127.0.0.1']);
    expect(contextNames('https://tka-a.example.ts.net', '', 'prod-us').slice(0, 2)).toEqual(['prod-us', 'tka-a']);
    expect(contextNames('https://prod-us.example.ts.net', '', 'prod-us')[1]).toBe('prod-us.example.ts.net');
  });

  it('of a joined cluster say through which login server', () => {
    const names = ['tka', 'tka.one.ts.net', 'tka.one.ts.net-8443', 'https-tka.one.ts.net-8443'];
    const through = names.map((by) => `site-1-through-${by}`);
    const server = 'https://tka.one.ts.net:8443/clusters/site-1';
    expect(contextNames(server, '')).toEqual(['site-1', ...through]);
    expect(contextNames(server, '', 'site-1-through-hub', 'hub')).toEqual(['site-1-through-hub', 'site-1', ...through]);
    expect(contextNames(server, '', 'site-1', 'hub').slice(0, 3)).toEqual(['site-1', 'site-1-through-hub', through[0]]);
  });

  it('continue with longer forms until two servers differ', () => {
    expect(contextNames('https://tka.one.ts.net:8443', '')).toEqual([
      'tka',
      'tka.one.ts.net',
      'tka.one.ts.net-8443',
      'https-tka.one.ts.net-8443',
    ]);
  });
});
