// The rows of joined clusters in a memberlist. test/hostile has lists with everything else that can be wrong.
import { describe, expect, it } from 'vitest';
import { readMembers } from '../../src/tka/memberlist.ts';

const row = { apiEndpoint: 'https://api.example.com', apiPort: 443, labels: null };
const at = (name: string) => `https://tka.example.ts.net/clusters/${name}`;
const read = (more: object) => {
  const { members, unread } = readMembers([{ ...row, ...more }]);
  return unread > 0 ? 'left out' : members[0];
};

describe('the row of a joined cluster', () => {
  it('says through whom, and whether its servers are in the list too', () => {
    const stated = { server: at('site-1'), cluster: 'site-1', through: 'hub' };
    expect(read(stated)).toMatchObject(stated);
    expect(read({ ...stated, direct: true })).toMatchObject({ ...stated, direct: true });
    expect(read({ ...stated, direct: 'true' })).not.toHaveProperty('direct');
  });

  it.each([{ cluster: 'prod' }, { cluster: null }, {}, { cluster: 7 }])(
    'has the name of its path, not %j',
    (stated) => {
      expect(read({ ...stated, server: at('site-1') })).toMatchObject({ cluster: 'site-1' });
    },
  );

  it.each([
    at(''),
    at('..'),
    at('%2e%2e'),
    at('A'),
    at('a'.repeat(64)),
    at('a/b'),
    at('a\u0007'),
    'https://tka.example.ts.net',
    undefined,
    7,
  ])('is left out if its server is %j', (server) => {
    expect(read({ server, cluster: 'prod', through: 'hub' })).toBe('left out');
  });

  it('has no login server that is not a name', () => {
    for (const through of ['\u001b[31m', '', 7, {}, 'a b'])
      expect(read({ server: at('a'), through })).not.toHaveProperty('through');
  });
});

it('a server of the tailnet is not through anyone, and not direct', () => {
  const member = read({ server: 'https://tka.example.ts.net', cluster: 'a', direct: true });
  expect(member).toMatchObject({ server: 'https://tka.example.ts.net', cluster: 'a' });
  expect(member).not.toHaveProperty('direct');
});
