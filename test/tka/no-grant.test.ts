// A refusal without a grant: what the server says about it is untrusted, and the grant to paste is valid JSON.
import { expect, it } from 'vitest';
import { missingGrant, NoGrant, noGrantIn } from '../../src/tka/no-grant.ts';
import { refusal } from '../../src/tka/raw-answer.ts';

const server = 'https://tka.example.ts.net';
const refused = (body: object) => refusal({ status: 403, headers: {}, body: JSON.stringify(body) }, server, 'it');
const about = { server, capability: 'specht-labs.de/cap/tka', login: 'alice@example.com', tags: [] };

it.each<[name: string, body: object, expected: object | undefined]>([
  ['the Go server', { message: 'User not authorized' }, { ...about, login: '' }],
  [
    'the Go server, before it had a capability map',
    { error: 'User not authorized in tailscale ACL' },
    { ...about, login: '' },
  ],
  ['a version of our server without the fields', { message: 'No grant found for user' }, { ...about, login: '' }],
  [
    'our server',
    { message: 'x', capability: 'a.example/cap', login: 'al' },
    { ...about, capability: 'a.example/cap', login: 'al' },
  ],
  [
    'our server, to a device',
    { message: 'x', capability: 'c', tags: ['tag:ci'] },
    { ...about, capability: 'c', login: '', tags: ['tag:ci'] },
  ],
  ['fields of other types', { message: 'x', capability: {}, login: [], tags: 'tag:ci' }, undefined],
  [
    'a login server, for a joined cluster',
    { message: 'x', capability: 'c', cluster: 'a' },
    { ...about, capability: 'c', login: '' },
  ],
  ['another refusal', { message: 'Unauthorized request from Funnel' }, undefined],
])('%s', (_, body, expected) => {
  const error = refused(body);
  expect(error instanceof NoGrant ? error.about : undefined).toEqual(expected);
});

it('cleans and cuts the texts of the server', () => {
  const evil = 'a\u001b[31m\u202e\n"b';
  const error = refused({
    message: 'x',
    capability: evil.repeat(1000),
    login: evil,
    tags: [evil, 'tag:ok', ...Array(99).fill('tag:x')],
  });
  expect((error as NoGrant).about.login).toBe('a [31m "b');
  expect((error as NoGrant).about.tags).toHaveLength(15);
  expect(error.message.length).toBeLessThan(1000);
  expect(error.message).not.toMatch(/[\u0000-\u001f\u202e]/);
});

it('keeps the advice of the server, and names the command that prints the grant', () => {
  const words = { message: 'User not authorized', advice: ['ask Bob'] };
  expect(noGrantIn({}, server, words)?.hints).toEqual([
    'ask Bob',
    `see which grant is missing: kubectl tka doctor ${server}`,
  ]);
});

it.each<[name: string, change: object, tag: string, grant: object]>([
  ['a person', {}, 'tag:tka', {}],
  ['another tag of the servers', {}, 'tag:k8s', { dst: ['tag:k8s'] }],
  [
    'another capability',
    { capability: 'a.example/b' },
    'tag:tka',
    { app: { 'a.example/b': [{ role: 'view', period: '8h' }] } },
  ],
  ['an unknown login', { login: '' }, 'tag:tka', { src: ['you@example.com'] }],
  ['plain http on a port of its own', { server: 'http://tka:8123' }, 'tag:tka', { ip: ['tcp:8123'] }],
  ['plain http', { server: 'http://tka' }, 'tag:tka', { ip: ['tcp:80'] }],
  [
    'a tagged device',
    { login: '', tags: ['tag:ci', 'tag:x'] },
    'tag:tka',
    { src: ['tag:ci'], app: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h' }] } },
  ],
  [
    'a joined cluster',
    { server: `${server}/clusters/site-1`, capability: 'specht-labs.de/cap/tka-federation' },
    'tag:tka',
    { app: { 'specht-labs.de/cap/tka-federation': [{ role: 'view', period: '8h', clusters: ['site-1'] }] } },
  ],
  ['a login with quotes', { login: '"\\\n' }, 'tag:tka', { src: ['"\\\n'] }],
])('the grant for %s is one line of JSON', (_, change, tag, grant) => {
  const line = missingGrant({ ...about, ...change }, tag);
  expect(line).not.toContain('\n');
  expect(JSON.parse(line)).toEqual({
    src: ['alice@example.com'],
    dst: ['tag:tka'],
    ip: ['tcp:443'],
    app: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '8h' }] },
    ...grant,
  });
});

it('names a joined cluster, and its login server’s capability if the answer has none', () => {
  const joined = `${server}/clusters/site-1`;
  const body = JSON.stringify({ message: 'User not authorized' });
  const error = refusal({ status: 403, headers: {}, body }, joined, 'it') as NoGrant;
  expect(error.about).toMatchObject({ server: joined, capability: 'specht-labs.de/cap/tka-federation' });
  expect(error.message).toBe(
    `no grant for you on cluster site-1 through login server ${server}: the tailnet policy does not give the capability specht-labs.de/cap/tka-federation there (HTTP 403)`,
  );
});
