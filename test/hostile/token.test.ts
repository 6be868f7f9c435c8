// Hostile answers to GET /kubeconfig: either a verified token reaches kubectl and the kubeconfig, and nothing else of
// the answer, or nothing does.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { describe } from 'vitest';
import { parse } from 'yaml';
import { checkCalm, checkCredential, checkFailure } from './checks.ts';
import { answering, behaving, type Fixture, hostileTest, makeToken } from './fixture.ts';
import { damagedJson, evilTexts, fewTypes, randomCases, wrongTypes } from './junk.ts';

const test = hostileTest();

// biome-ignore lint/suspicious/noExplicitAny: a case may make anything of it
type Answer = any;
type Make = (fixture: Fixture) => void;
const change = (make: (answer: Answer) => unknown) => answering('kubeconfig', { change: make });
/** Returns the answer with edited parts. */
const edited = (edit: (parts: { cluster: Answer; user: Answer; context: Answer; answer: Answer }) => void): Make =>
  change((answer) => {
    const [cluster] = Object.values(answer.clusters);
    const [user] = Object.values(answer.users);
    const [context] = Object.values(answer.contexts);
    edit({ cluster, user, context, answer });
    return answer;
  });
const laidOver = (part: 'cluster' | 'user' | 'context' | 'answer', fields: object): Make =>
  edited((parts) => Object.assign(parts[part], fields));
const withToken = (token: unknown): Make => laidOver('user', { token });
const claims = (payload: string): Make => withToken(makeToken({}, payload));
const inAnHour = Math.floor(Date.now() / 1000) + 3600;
const raw = (body: string | Buffer, contentType = 'application/json; charset=utf-8', status = 200): Make =>
  answering('kubeconfig', { answer: { status, body, contentType } });
const pem = (inner: string) =>
  Buffer.from(`-----BEGIN CERTIFICATE-----\n${inner}\n-----END CERTIFICATE-----\n`).toString('base64');

test.concurrent('control: a correct answer', async ({ fixture }) => {
  const ran = await fixture.edit('login');
  assert.equal(ran.status, 0, ran.stderr);
  assert.ok(ran.changed);
  const { clusters } = parse(fs.readFileSync(fixture.home.kubeconfig, 'utf8'));
  const ours = clusters.find(
    (item: { cluster: { server: string } }) => item.cluster.server === fixture.cluster.apiServer,
  ).cluster;
  assert.equal(ours['certificate-authority-data'], fixture.cluster.caData);
});

const harmless: Readonly<Record<string, Make>> = {
  'certificate-authority: a file': laidOver('cluster', { 'certificate-authority': '/etc/passwd' }),
  'a proxy': laidOver('cluster', { 'proxy-url': 'http://evil.example:3128' }),
  'another name for TLS': laidOver('cluster', { 'tls-server-name': 'evil.example' }),
  'extensions and compression': laidOver('cluster', {
    extensions: { 'tka.specht-labs.de': { server: 'https://evil.example' } },
    'disable-compression': 'x',
  }),
  'an exec user': laidOver('user', {
    exec: { command: 'touch', args: ['pwned'], apiVersion: 'client.authentication.k8s.io/v1' },
  }),
  'an auth provider': laidOver('user', {
    'auth-provider': { name: 'oidc', config: { 'idp-issuer-url': 'https://evil.example' } },
  }),
  'a token file, a password, a client key and an impersonated user': laidOver('user', {
    tokenFile: '/etc/passwd',
    username: 'mallory',
    password: 'x',
    'client-certificate': '/etc/passwd',
    'client-key-data': 'eA==',
    as: 'system:admin',
    'as-groups': ['system:masters'],
  }),
  'a namespace': laidOver('context', { namespace: 'kube-system' }),
  'preferences, and more contexts': edited(({ answer }) => {
    answer.preferences = { colors: '\u001b[31m' };
    answer.contexts['\u001b]52;c;eA==\u0007'] = { cluster: '../x', user: '$(touch pwned)' };
    answer.clusters.evil = { server: 'https://evil.example' };
    answer.users.evil = { token: makeToken({ sub: 'evil' }) };
  }),
  'names that are hostile': change((answer) => {
    const name = evilTexts['a forged error'] as string;
    const [cluster] = Object.values(answer.clusters);
    const [user] = Object.values(answer.users);
    return {
      clusters: { [name]: cluster },
      users: { '../x': user },
      contexts: { '$(x)': { cluster: name, user: '../x' } },
      'current-context': '$(x)',
    };
  }),
  'a cluster named __proto__': change((answer) =>
    JSON.stringify(answer).replaceAll('tka-cluster', '__proto__').replaceAll('tka-context-alice', 'constructor'),
  ),
  'duplicate keys, the last of which count': change((answer) =>
    JSON.stringify(answer).replace('{', '{"users":{},"clusters":7,'),
  ),
  'another kind and version': laidOver('answer', { kind: 'Secret', apiVersion: 'v9' }),
  'a CA with line breaks': edited(({ cluster }) => {
    cluster['certificate-authority-data'] = cluster['certificate-authority-data'].replace(/.{64}/g, '$&\r\n');
  }),
  'an API server in another spelling': edited(({ cluster }) => {
    cluster.server = `${cluster.server.toUpperCase()}/`;
  }),
  'a CA that is null': laidOver('cluster', { 'certificate-authority-data': null }),
  'a million more keys': change((answer) =>
    JSON.stringify(answer).replace('{', `{${Array.from({ length: 60_000 }, (_, i) => `"k${i}":1,`).join('')}`),
  ),
  'a wrong content type': answering('kubeconfig', { headers: { 'Content-Type': 'text/html' } }),
  'an invalid Retry-After, then the answer': behaving({ pending: { requests: 2, retryAfter: '\u00fegarbage' } }),
  'a Retry-After of a year, then the answer': behaving({ pending: { requests: 3, retryAfter: 31_536_000 } }),
  'a Retry-After in the past, then the answer': behaving({ pending: { requests: 3, retryAfter: -5 } }),
  'a Retry-After that is a date, then the answer': behaving({
    pending: { requests: 3, retryAfter: 'Thu, 01 Jan 2099 00:00:00 GMT' },
  }),
  'an empty Retry-After, then the answer': behaving({ pending: { requests: 3, retryAfter: '0' } }),
};

describe('uses only the token and the API server', () => {
  for (const [i, [name, make]] of Object.entries(harmless).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      make(fixture);
      if (i % 3 === 2) {
        assert.equal((await fixture.freshCredential()).stderr, '');
        return;
      }
      const ran = await fixture.edit('login');
      assert.equal(ran.status, 0, ran.stderr);
      assert.ok(ran.changed);
      checkCalm(ran.stderr);
      const text = fs.readFileSync(fixture.home.kubeconfig, 'utf8');
      assert.doesNotMatch(text, /evil|passwd|pwned|mallory|oidc|proxy-url|tls-server|kube-system|impersonate|password/);
    });
  }

  const expiries: Readonly<Record<string, Make>> = {
    'an exp with a fraction': claims(`{"exp":${inAnHour}.75}`),
    'an exp in the year 9999': claims('{"exp":253402300799}'),
    'an exp that is too large': claims('{"exp":1e300}'),
    'an exp as an exponent': claims('{"exp":4.0e9}'),
    'a duplicate exp, the last of which counts': claims(`{"exp":1,"exp":${inAnHour}}`),
    'an invalid iat and nbf': claims(`{"exp":${inAnHour},"iat":"x","nbf":{}}`),
    'a prototype with an exp': claims(`{"__proto__":{"exp":1},"exp":${inAnHour}}`),
    'names with escapes': claims(JSON.stringify({ exp: inAnHour, sub: evilTexts['an OSC 52 clipboard'] })),
    'a token of 16,000 letters': claims(JSON.stringify({ exp: inAnHour, x: 'x'.repeat(11_000) })),
  };
  test.concurrent.for(Object.entries(expiries))(
    'a token with %s ends with its sign-in',
    async ([, make], { fixture }) => {
      make(fixture);
      const ran = await fixture.run(fixture.credentialArgs(), { may: fixture.ownCache });
      checkCredential(ran);
      const end = Date.parse(JSON.parse(ran.stdout).status.expirationTimestamp);
      assert.ok(end <= Date.now() + 31 * 60_000, 'it outlives the sign-in');
    },
  );
});

const refused: Readonly<Record<string, Make>> = {
  ...Object.fromEntries(
    Object.entries(wrongTypes).map(([name, value]) => [`a token that is ${name}`, withToken(value)]),
  ),
  ...Object.fromEntries(
    Object.entries(fewTypes).flatMap(([name, value]) => [
      [`users that are ${name}`, laidOver('answer', { users: value })],
      [`an API server that is ${name}`, laidOver('cluster', { server: value })],
    ]),
  ),
  'no token': edited(({ user }) => delete user.token),
  'a token with a newline': withToken('eyJhbGciOiJ.x\n.y'),
  'a token with a trailing newline': edited(({ user }) => Object.assign(user, { token: `${user.token}\n` })),
  'a token with a quote': edited(({ user }) => Object.assign(user, { token: `${user.token}"` })),
  'a token with an escape': edited(({ user }) => Object.assign(user, { token: `\u001b[31m${user.token}` })),
  'a token with padding': withToken(`${makeToken()}==`),
  'a token of four parts': withToken(`${makeToken()}.x`),
  'a token of two parts': withToken(makeToken().replace(/\.[^.]*$/, '')),
  'a token with a lone surrogate': withToken(`${makeToken()}\ud800`),
  'a token of a MiB': withToken(`${'a'.repeat(900_000)}.b.c`),
  'a token whose payload is not JSON': claims('{"exp":'),
  'a token whose payload is null': claims('null'),
  'a token whose payload is a list': claims('[4000000000]'),
  'a token whose payload is deeply nested': claims('['.repeat(5000)),
  'a token without exp': claims('{}'),
  'an exp that is text': claims('{"exp":"4000000000"}'),
  'an exp that is null': claims('{"exp":null}'),
  'an exp that is NaN': claims('{"exp":NaN}'),
  'an exp that is infinite': claims('{"exp":1e400}'),
  'an exp that is a list': claims(`{"exp":[${inAnHour}]}`),
  'an exp in a prototype': claims(`{"__proto__":{"exp":${inAnHour}}}`),
  'an exp of 0': claims('{"exp":0}'),
  'an exp before 1970': claims('{"exp":-1}'),
  'an exp that is too small': claims('{"exp":-1e300}'),
  'an exp in the past': claims(`{"exp":${Math.floor(Date.now() / 1000) - 1}}`),
  'lists instead of maps': change((answer) => ({
    ...answer,
    clusters: Object.entries(answer.clusters).map(([name, cluster]) => ({ name, cluster })),
    users: Object.entries(answer.users).map(([name, user]) => ({ name, user })),
    contexts: Object.entries(answer.contexts).map(([name, context]) => ({ name, context })),
  })),
  'a current context that does not exist': laidOver('answer', { 'current-context': 'nothing' }),
  'a current context of the prototype': laidOver('answer', { 'current-context': 'toString' }),
  'a current context that is a list': laidOver('answer', { 'current-context': ['tka-context-alice'] }),
  'no current context': edited(({ answer }) => delete answer['current-context']),
  'no contexts': edited(({ answer }) => delete answer.contexts),
  'no clusters': edited(({ answer }) => delete answer.clusters),
  'a context without a cluster': edited(({ context }) => delete context.cluster),
  'a context of another user': laidOver('context', { user: '__proto__' }),
  'an API server over http': laidOver('cluster', { server: 'http://127.0.0.1:6443' }),
  'an API server that is a script': laidOver('cluster', { server: 'javascript:alert(1)//https://a' }),
  'an API server that is a file': laidOver('cluster', { server: 'file:///etc/passwd' }),
  'an API server with credentials': laidOver('cluster', { server: 'https://user:password@127.0.0.1:6443' }),
  'an API server with a query': laidOver('cluster', { server: 'https://127.0.0.1:6443/?x=1#y' }),
  'an API server with a newline': laidOver('cluster', { server: 'https://127.0.0.1:6443\r\nX: y' }),
  'an API server with an escape': laidOver('cluster', { server: 'https://a\u001b]52;c;eA==\u0007' }),
  'an API server of Unicode look-alikes': laidOver('cluster', { server: 'https://аpi.example。com%2f' }),
  'an API server of 100,000 letters': laidOver('cluster', { server: `https://a/${'x'.repeat(100_000)}` }),
  'an API server without a host': laidOver('cluster', { server: 'https://' }),
  'another API server': laidOver('cluster', { server: 'https://evil.example:6443' }),
  'a CA that is not text': laidOver('cluster', { 'certificate-authority-data': { a: 1 } }),
  'a CA that is not base64': laidOver('cluster', { 'certificate-authority-data': '\u001b[31m' }),
  'a CA that is not PEM': laidOver('cluster', { 'certificate-authority-data': 'aGVsbG8=' }),
  'a CA that is PEM itself': edited(({ cluster }) => {
    cluster['certificate-authority-data'] = Buffer.from(cluster['certificate-authority-data'], 'base64').toString();
  }),
  'a CA that is a private key': edited(({ cluster }) => {
    cluster['certificate-authority-data'] = Buffer.from(
      '-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----',
    ).toString('base64');
  }),
  'a CA whose base64 is truncated': edited(({ cluster }) => {
    cluster['certificate-authority-data'] = `${pem('MIIB').replace(/=+$/, '').slice(0, -4)}A`;
  }),
  'skipped certificate verification': laidOver('cluster', { 'insecure-skip-tls-verify': true }),
  'skipped certificate verification as text': laidOver('cluster', { 'insecure-skip-tls-verify': 'true' }),
  nothing: raw(''),
  null: raw('null'),
  'a list': raw('[]'),
  'a deep list': raw('['.repeat(900_000)),
  HTML: raw('<html>', 'text/html'),
  'a kubeconfig file as YAML': raw(
    'apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {server: "https://a"}\n',
    'application/yaml',
  ),
  'YAML with unknown tags': raw('!evil {clusters: !!js/function "x"}\n', 'application/yaml'),
  'YAML with aliases': raw('clusters: &a {a: *b}\nusers: *a\n', 'application/yaml'),
  'status 204': raw('', 'application/json', 204),
  'status 206 with half an answer': raw('{"kind":"Config"', 'application/json', 206),
  'status 304': raw('', 'application/json', 304),
  'a 202 forever': behaving({ pending: { forever: true, retryAfter: '0' } }),
  'a 401 forever': raw('{"message":"User not signed in"}', 'application/json', 401),
  'a refusal with escapes': raw(
    JSON.stringify({ message: evilTexts['an OSC 8 link'], advice: [evilTexts['a forged error']] }),
    'application/json',
    403,
  ),
};

describe('uses nothing, and reports an error', () => {
  test.concurrent.for(Object.entries(refused))('%s', async ([name, make], { fixture }) => {
    make(fixture);
    const reached = () => fixture.cluster.counts.kubeconfig >= 1;
    const expiry =
      /^an exp (?:of 0|before|that is too small|in the past)/.test(name) && /the token has already expired/;
    const ran = await fixture.noCredential({ reached, ...(expiry !== false && { told: expiry }) });
    assert.ok(ran.stderr.length < 2000);
  });

  const written: Readonly<Record<string, Make>> = {
    'a CA that is not PEM': refused['a CA that is not PEM'] as Make,
    'a CA whose base64 is truncated': refused['a CA whose base64 is truncated'] as Make,
    'an API server that is a script': refused['an API server that is a script'] as Make,
    'no token': refused['no token'] as Make,
  };
  test.concurrent.for(Object.entries(written))('leaves the kubeconfig unchanged: %s', async ([, make], { fixture }) => {
    make(fixture);
    const ran = await fixture.run('login', { timeout: '700ms', may: fixture.ownCache });
    checkFailure(ran);
    assert.ok(!fs.existsSync(fixture.entry), 'a token is kept all the same');
  });
});

describe('random damage of the kubeconfig answer', () => {
  test.concurrent.for(randomCases(20, 3))('%s', async ([, chance], { fixture }) => {
    let sent = '';
    fixture.cluster.faults.routes.kubeconfig = {
      change: (answer) => {
        sent ||= damagedJson(answer, chance);
        return sent;
      },
    };
    try {
      const ran = await fixture.run(fixture.credentialArgs(), { timeout: '1s', may: fixture.ownCache });
      if (ran.status === 0) assert.ok(fixture.minted.has(checkCredential(ran)) || sent.includes(checkCredential(ran)));
      else checkFailure(ran);
    } catch (error) {
      if (error instanceof Error) error.message += `\nanswer: ${JSON.stringify(sent).slice(0, 4000)}`;
      throw error;
    }
  });
});
