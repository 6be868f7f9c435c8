// What a joined server accepts as the word of its login server, and what it does not.
import { createHmac, randomBytes } from 'node:crypto';
import { SignJWT, UnsecuredJWT } from 'jose';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  type Assertion,
  AssertionError,
  type AssertionProblem,
  AssertionVerifier,
  assertionLimit,
  signAssertion,
} from '../../../src/server/federation/assertion.ts';
import { evictedPath } from '../../../src/server/federation/contract.ts';
import { keyHash, newKey } from '../../../src/server/federation/keys.ts';
import { type Caller, deviceLogin, Refusal } from '../../../src/server/http/contract.ts';

// The clock stands still, so that a slow machine changes nothing.
const now = Math.floor(Date.now() / 1000);
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], now: now * 1000 + 250 }));
afterEach(() => void vi.useRealTimers());

const key = newKey();
const stranger = newKey();
const alice: Caller = {
  username: 'alice',
  login: 'alice@example.com',
  device: 'nBLYviWLGB11DEVEL',
  role: 'view',
  periodMs: 3_600_000,
};
const machine: Caller = {
  username: 'n7CNTRL',
  login: deviceLogin('n7CNTRL'),
  device: 'n7CNTRL',
  tagged: { node: 'ci-7.example.ts.net', tags: ['tag:ci', 'tag:arm'] },
  role: 'deploy',
  periodMs: 3_600_000,
};
const tunnel = { id: 'dHVubmVsLW9uZQ', cluster: 'edge-1', primary: 'eu', keys: [key.publicKey], clockOffsetMs: 0 };
const request = { method: 'POST', path: '/api/v1alpha1/login' };
const about: Assertion = { issuer: 'eu', cluster: 'edge-1', tunnel: tunnel.id, ...request, caller: alice };
const eviction = { method: 'POST', path: evictedPath };

const problemOf = async (work: Promise<unknown>): Promise<AssertionProblem> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof AssertionError) return error.problem;
  throw new Error(`not refused as an assertion: ${error}`);
};

/** Returns the problem of an assertion at a new verifier. */
const judged = (assertion: string, asked = request, at = tunnel) =>
  problemOf(new AssertionVerifier().verify(assertion, asked, at));

/** Returns what the login server signs, with other claims, another header or another key. */
function forged(claims: object = {}, header: object = {}, by = key.key) {
  const usual = {
    iss: 'eu',
    aud: `edge-1/${tunnel.id}`,
    jti: randomBytes(16).toString('base64url'),
    iat: now,
    exp: now + 30,
    ...request,
    sub: alice.login,
    device: alice.device,
    role: 'view',
    period_ms: 3_600_000,
  };
  return new SignJWT({ ...usual, ...claims })
    .setProtectedHeader({ alg: 'Ed25519', typ: 'tka-assertion+jwt', kid: keyHash(key.publicKey), ...header })
    .sign(by);
}

describe('the caller of an assertion', () => {
  const problem = new Refusal(403, { message: 'No grant found for user', capability: 'x', cause: { message: 'why' } });
  test.each<[string, Caller]>([
    ['a person', alice],
    ['a person whose device is unknown', { username: 'bob', login: 'bob@github', role: 'view', periodMs: 0 }],
    ['a person with a name in another script', { ...alice, username: 'jürgen', login: 'jürgen@example.com' }],
    ['a tagged device', machine],
    ['a person without a grant', { ...alice, role: '', periodMs: 0, problem, revoked: true }],
    ['a tagged device without a grant', { ...machine, role: '', periodMs: 0, problem, revoked: true }],
    ['a person whose rules cannot be read', { ...alice, role: '', periodMs: 0, problem }],
    ['a person whose period cannot be read', { ...alice, periodMs: 0, problem }],
  ])('is the one that was signed: %s', async (_, caller) => {
    const assertion = await signAssertion(key, { ...about, caller });
    const read = await new AssertionVerifier().verify(assertion, request, tunnel);
    const { problem: told, revoked, ...rest } = caller;
    expect(read).toMatchObject({ ...rest, through: 'eu' });
    expect(read?.ownDomain).toBeUndefined();
    expect(read?.revoked ?? false).toBe(revoked === true);
    expect(read?.problem?.status).toBe(told === undefined ? undefined : 403);
    expect(read?.problem?.message).toBe(told === undefined ? undefined : 'No grant found for user: why');
  });

  test('is never of the joined cluster’s own domain, whatever the login server thinks', async () => {
    const assertion = await signAssertion(key, {
      ...about,
      caller: { ...alice, ownDomain: true, through: 'elsewhere' },
    });
    const read = await new AssertionVerifier().verify(assertion, request, tunnel);
    expect(read).toEqual({ ...alice, through: 'eu' });
  });

  test('is nobody for an eviction', async () => {
    const { caller: _, ...rest } = about;
    const assertion = await signAssertion(key, { ...rest, ...eviction });
    expect(await new AssertionVerifier().verify(assertion, eviction, tunnel)).toBeUndefined();
    // A sign-in needs one.
    expect(await judged(await signAssertion(key, { ...rest, ...request }))).toBe('claims');
  });

  test('with many tags and a long problem still fits', async () => {
    // Longer than Tailscale allows them, and characters of four bytes.
    const tags = Array.from({ length: 200 }, (_, i) => `tag:${'x'.repeat(100)}-${i}`);
    const told = new Refusal(403, { message: '😀'.repeat(5_000) });
    const tagged = { node: `${'x'.repeat(240)}.ts.net`, tags };
    const caller = { ...machine, tagged, role: '', problem: told, revoked: true };
    const assertion = await signAssertion(key, { ...about, caller });
    expect(assertion.length).toBeLessThan(assertionLimit);
    expect((await new AssertionVerifier().verify(assertion, request, tunnel))?.tagged?.tags).toHaveLength(32);
  });
});

describe('an assertion is refused', () => {
  test.each<[string, claims: object, AssertionProblem]>([
    ['of another login server', { iss: 'us' }, 'claims'],
    ['without a login server', { iss: undefined }, 'claims'],
    ['for another tunnel', { aud: 'edge-1/YW5vdGhlcg' }, 'claims'],
    ['for another cluster', { aud: `edge-2/${tunnel.id}` }, 'claims'],
    ['for several tunnels', { aud: [`edge-1/${tunnel.id}`, 'edge-1/YW5vdGhlcg'] }, 'claims'],
    ['for the tunnel as a list', { aud: [`edge-1/${tunnel.id}`] }, 'claims'],
    ['for no tunnel', { aud: undefined }, 'claims'],
    ['with another method', { method: 'GET' }, 'claims'],
    ['with another path', { path: '/api/v1alpha1/logout' }, 'claims'],
    ['without a method', { method: undefined }, 'claims'],
    ['without a path', { path: undefined }, 'claims'],
    ['without an ID', { jti: undefined }, 'claims'],
    ['with an ID that is no text', { jti: 7 }, 'claims'],
    ['with a short ID', { jti: 'x' }, 'claims'],
    ['with a long ID', { jti: 'x'.repeat(65) }, 'claims'],
    ['that has expired', { iat: now - 60, exp: now - 30 }, 'clock'],
    ['that is from the future', { iat: now + 60, exp: now + 90 }, 'clock'],
    ['that is valid for 31 s', { exp: now + 31 }, 'claims'],
    ['that is valid for a day', { exp: now + 86_400 }, 'claims'],
    ['that ends before it begins', { iat: now + 5, exp: now + 4 }, 'claims'],
    ['without an end', { exp: undefined }, 'claims'],
    ['without a time', { iat: undefined }, 'claims'],
    ['with a time that is no number', { iat: String(now) }, 'claims'],
    ['without a login', { sub: undefined }, 'claims'],
    ['with an empty login', { sub: '' }, 'claims'],
    ['with a login without a name', { sub: '@example.com' }, 'claims'],
    ['with a login that is no text', { sub: 7 }, 'claims'],
    ['with a login in two lines', { sub: 'alice@example.com\nbob' }, 'claims'],
    ['with a login that hides text', { sub: 'alice\u202e@example.com' }, 'claims'],
    ['with a long login', { sub: `${'a'.repeat(320)}@example.com` }, 'claims'],
    ['with a person’s login for a device', { sub: 'node:n7CNTRL' }, 'claims'],
    ['with another device', { sub: 'node:n7CNTRL', device: 'n8CNTRL', tagged: { node: '', tags: [] } }, 'claims'],
    ['with tags for a person', { tagged: { node: 'ci', tags: ['tag:ci'] } }, 'claims'],
    ['with an odd device', { device: '../x' }, 'claims'],
    ['with a device that is no text', { device: { id: 1 } }, 'claims'],
    ['with odd tags', { sub: 'node:n7', device: 'n7', tagged: { node: 'ci', tags: ['ci,tag:admin'] } }, 'claims'],
    ['with a tag of two', { sub: 'node:n7', device: 'n7', tagged: { node: 'ci', tags: ['tag:ci,tag:b'] } }, 'claims'],
    [
      'with tags that are not a list',
      { sub: 'node:n7', device: 'n7', tagged: { node: 'ci', tags: 'tag:ci' } },
      'claims',
    ],
    ['with tags that are not an object', { sub: 'node:n7', device: 'n7', tagged: 'tag:ci' }, 'claims'],
    ['with a node that is no text', { sub: 'node:n7', device: 'n7', tagged: { node: 7, tags: [] } }, 'claims'],
    ['without a role', { role: undefined }, 'claims'],
    ['with an empty role and no reason', { role: '' }, 'claims'],
    ['with a role in two lines', { role: 'view\nadmin' }, 'claims'],
    ['with a long role', { role: 'x'.repeat(254) }, 'claims'],
    ['without a period', { period_ms: undefined }, 'claims'],
    ['with a negative period', { period_ms: -1 }, 'claims'],
    ['with an endless period', { period_ms: 1e300 }, 'claims'],
    ['with a period in words', { period_ms: '8h' }, 'claims'],
    ['with a role that is taken away', { refused: { message: 'x', revoked: true } }, 'claims'],
    ['with a refusal without words', { role: '', refused: {} }, 'claims'],
    ['with a refusal that is no object', { role: '', refused: 'no' }, 'claims'],
  ])('%s', async (_, claims, problem) => {
    expect(await judged(await forged(claims))).toBe(problem);
  });

  test.each<[string, header: object, AssertionProblem]>([
    ['of another type', { typ: 'JWT' }, 'claims'],
    ['of the type with its prefix', { typ: 'application/tka-assertion+jwt' }, 'claims'],
    ['of no type', { typ: undefined }, 'claims'],
    ['with the old name of the algorithm', { alg: 'EdDSA' }, 'form'],
    ['with an unknown key', { kid: keyHash(stranger.publicKey) }, 'key'],
    ['with no key', { kid: undefined }, 'key'],
    ['with a key in its header', { jwk: { kty: 'OKP', crv: 'Ed25519', x: stranger.publicKey } }, 'claims'],
    ['with a link to a key', { jku: 'https://attacker.example.com' }, 'claims'],
    ['with an extension', { crit: ['b64'], b64: true }, 'claims'],
  ])('%s', async (_, header, problem) => {
    expect(await judged(await forged({}, header))).toBe(problem);
  });

  test('that another key signed', async () => {
    expect(await judged(await forged({}, {}, stranger.key))).toBe('form');
  });

  test('that is not signed, or signed with the public key as a secret', async () => {
    const [header, payload] = (await forged()).split('.') as [string, string];
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
    expect(await judged(new UnsecuredJWT(claims).encode())).toBe('form');
    const encoded = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const kid = keyHash(key.publicKey);
    for (const alg of ['none', 'None', '', 'HS256', 'RS256', 'ES256']) {
      const head = encoded({ alg, typ: 'tka-assertion+jwt', kid });
      expect(await judged(`${head}.${payload}.`)).toBe('form');
      for (const secret of [key.publicKey, Buffer.from(key.publicKey, 'base64url')]) {
        const mac = createHmac('sha256', secret).update(`${head}.${payload}`).digest('base64url');
        expect(await judged(`${head}.${payload}.${mac}`)).toBe('form');
      }
    }
    expect(await judged(`${header}.${payload}.`)).toBe('form');
  });

  test('if a character of it is changed', async () => {
    const assertion = await forged();
    for (let i = 0; i < assertion.length; i += 7) {
      const other = assertion[i] === 'A' ? 'B' : 'A';
      const changed = `${assertion.slice(0, i)}${other}${assertion.slice(i + 1)}`;
      // The last character of the signature has bits that belong to no byte.
      if (i < assertion.length - 1) expect(['form', 'key']).toContain(await judged(changed));
    }
  });

  test.each([
    ['nothing', ''],
    ['a word', 'assertion'],
    ['dots', '..'],
    ['JSON', '{"alg":"Ed25519"}'],
    ['five parts', 'a.b.c.d.e'],
    ['a megabyte', 'x'.repeat(1_000_000)],
    ['deep JSON', `${Buffer.from('['.repeat(5_000)).toString('base64url')}.e30.x`],
  ])('that is %s', async (_, text) => {
    expect(await judged(text)).toBe('form');
  });

  test('on another tunnel, and for another request', async () => {
    const assertion = await signAssertion(key, about);
    expect(await judged(assertion, request, { ...tunnel, id: 'YW5vdGhlcg' })).toBe('claims');
    expect(await judged(assertion, request, { ...tunnel, cluster: 'edge-2' })).toBe('claims');
    expect(await judged(assertion, request, { ...tunnel, primary: 'us' })).toBe('claims');
    expect(await judged(assertion, { ...request, method: 'GET' })).toBe('claims');
    expect(await judged(assertion, { ...request, path: '/api/v1alpha1/logout' })).toBe('claims');
    expect(await judged(assertion, eviction)).toBe('claims');
  });

  test('without a word of what it says', async () => {
    const assertion = await forged({ sub: 'secret@example.com', aud: 'edge-1/secret', role: 'secret' });
    const error = await new AssertionVerifier().verify(assertion, request, tunnel).catch((reason: Error) => reason);
    expect(error).toBeInstanceOf(AssertionError);
    expect(String(error)).not.toContain('secret');
  });
});

describe('an assertion is accepted once', () => {
  test('and never again, on no tunnel', async () => {
    const verifier = new AssertionVerifier();
    const assertion = await signAssertion(key, about);
    await verifier.verify(assertion, request, tunnel);
    expect(await problemOf(verifier.verify(assertion, request, tunnel))).toBe('repeated');
    expect(await problemOf(verifier.verify(assertion, request, { ...tunnel }))).toBe('repeated');
  });

  test('also if it comes many times at the same moment', async () => {
    const verifier = new AssertionVerifier();
    const assertion = await signAssertion(key, about);
    const answers = await Promise.allSettled(
      Array.from({ length: 20 }, () => verifier.verify(assertion, request, tunnel)),
    );
    expect(answers.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  test('and a refused one does not count', async () => {
    const verifier = new AssertionVerifier();
    const assertion = await signAssertion(key, about);
    expect(await problemOf(verifier.verify(assertion, { ...request, method: 'GET' }, tunnel))).toBe('claims');
    expect(await verifier.verify(assertion, request, tunnel)).toMatchObject({ login: alice.login });
  });

  test('with limited memory: none is forgotten, more are refused', async () => {
    const verifier = new AssertionVerifier(3);
    const assertions = await Promise.all(Array.from({ length: 4 }, () => signAssertion(key, about)));
    for (const assertion of assertions.slice(0, 3)) await verifier.verify(assertion, request, tunnel);
    expect(await problemOf(verifier.verify(assertions[3] ?? '', request, tunnel))).toBe('busy');
    for (const assertion of assertions.slice(0, 3)) {
      expect(await problemOf(verifier.verify(assertion, request, tunnel))).toBe('repeated');
    }
  });
});

test('an ID is remembered for as long as its assertion can be valid', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: now * 1000 });
  const verifier = new AssertionVerifier();
  const sleep = (seconds: number) => vi.advanceTimersByTime(seconds * 1000);
  // At any moment of a generation of IDs, which begins with the first ID after 60 s.
  for (const passed of [0, 7, 31, 59]) {
    sleep(60);
    await verifier.verify(await signAssertion(key, about), request, tunnel);
    sleep(passed);
    const assertion = await signAssertion(key, about, Date.now() + 15_000);
    await verifier.verify(assertion, request, tunnel);
    for (let second = 0; second < 59; second++) {
      sleep(1);
      expect(await problemOf(verifier.verify(assertion, request, tunnel))).toBe('repeated');
    }
    sleep(1);
    expect(await problemOf(verifier.verify(assertion, request, tunnel))).toBe('clock');
  }
});

test('the memory of IDs is free again after two minutes', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: now * 1000 });
  const verifier = new AssertionVerifier(1);
  for (let i = 0; i < 3; i++) {
    await verifier.verify(await signAssertion(key, about), request, tunnel);
    expect(await problemOf(verifier.verify(await signAssertion(key, about), request, tunnel))).toBe('busy');
    vi.advanceTimersByTime(120_000);
  }
});

describe('the keys of a tunnel', () => {
  test('may be several: while the login server changes its key, both count', async () => {
    const [old, fresh] = [newKey(), newKey()];
    const both = { ...tunnel, keys: [fresh.publicKey, old.publicKey] };
    for (const one of [old, fresh]) {
      const caller = await new AssertionVerifier().verify(await signAssertion(one, about), request, both);
      expect(caller?.login).toBe(alice.login);
    }
    // The key was taken out of the list.
    const after = { ...tunnel, keys: [fresh.publicKey] };
    expect(await judged(await signAssertion(old, about), request, after)).toBe('key');
  });

  test('are not another tunnel’s', async () => {
    const assertion = await signAssertion(key, about);
    expect(await judged(assertion, request, { ...tunnel, keys: [stranger.publicKey] })).toBe('key');
    expect(await judged(assertion, request, { ...tunnel, keys: [] })).toBe('key');
  });
});

describe('the clocks', () => {
  const minute = 60_000;
  test.each([-5 * minute, -minute, 0, minute, 5 * minute])(
    'may differ by %i ms, as the handshake measured it',
    async (clockOffsetMs) => {
      const at = { ...tunnel, clockOffsetMs };
      const theirs = Date.now() + clockOffsetMs;
      const accepted = async (now: number) =>
        await new AssertionVerifier().verify(await signAssertion(key, about, now), request, at).then(
          () => 'accepted',
          (error: AssertionError) => error.problem,
        );
      // Within its lifetime, and 15 s more, because clocks drift.
      for (const ms of [0, -30_000, -44_000, 15_000]) expect(await accepted(theirs + ms)).toBe('accepted');
      for (const ms of [-45_000, -90_000, 16_000, 90_000]) expect(await accepted(theirs + ms)).toBe('clock');
    },
  );

  test('count as the handshake measured them, and not as they are here', async () => {
    const ahead = await signAssertion(key, about, Date.now() + 5 * minute);
    expect(await judged(ahead)).toBe('clock');
    expect(await judged(ahead, request, { ...tunnel, clockOffsetMs: -5 * minute })).toBe('clock');
  });
});
