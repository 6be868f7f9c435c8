import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Unavailable } from '../../src/network/failure.ts';
import { parseClusterInfo, parseKubeconfig, parseSignIn } from '../../src/tka/answers.ts';
import { decoded } from '../../src/tka/client.ts';
import { NotSignedIn, Refused } from '../../src/tka/errors.ts';
import { parseMemberlist } from '../../src/tka/memberlist.ts';
import { NoGrant } from '../../src/tka/no-grant.ts';
import { errorWords, type RawAnswer, refusal, retryAfter, serverTime } from '../../src/tka/raw-answer.ts';

const folder = path.join(import.meta.dirname, '../samples');
const who = 'https://tka.example.ts.net';

/** Reads a captured answer as the HTTP client would return it. */
async function sample(name: string): Promise<RawAnswer> {
  const text = fs.readFileSync(path.join(folder, name), 'utf8');
  const split = text.indexOf('\n\n');
  const [status = '', ...lines] = text.slice(0, split).split('\n');
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
  return decoded({ status: Number(status.split(' ')[1]), headers, body: text.slice(split + 2) });
}

function thrown(act: () => unknown): { kind: unknown; message: string; hints: readonly string[] } {
  try {
    act();
  } catch (error) {
    const { message, hints } = error as Refused;
    return { kind: (error as Refused).constructor, message, hints };
  }
  throw new Error('nothing was thrown');
}

const alice = { username: 'alice', role: 'viewer', until: Date.parse('2026-11-21T01:46:03Z') };

describe('each captured answer of the Go server', () => {
  it.each(['login.http', 'login-get.http', 'logout.http'])('%s is a sign-in', async (name) => {
    expect(parseSignIn(await sample(name), who)).toEqual(alice);
  });

  it('login-get-not-ready.http is a sign-in that is not provisioned yet', async () => {
    const answer = await sample('login-get-not-ready.http');
    expect(parseSignIn(answer, who)).toMatchObject({ username: 'u40', role: 'viewer' });
    expect(retryAfter(answer)).toBe(1000);
  });

  it.each(['kubeconfig-json.http', 'kubeconfig-yaml.http'])('%s contains a token for the cluster', async (name) => {
    const answer = await sample(name);
    const access = parseKubeconfig(answer, who, Date.now());
    expect(access).toMatchObject({
      apiServer: 'https://127.0.0.11:6443',
      insecureSkipTlsVerify: false,
      claims: { expires: Date.parse('2026-11-21T01:46:02Z') },
    });
    expect(access).toHaveProperty('token', expect.stringMatching(/^eyJ[\w-]+\.[\w-]+\.[\w-]+$/));
    expect(access).toHaveProperty('caData', expect.stringMatching(/^LS0t/));
    // Uses the server's clock: by ours, the token expired long ago.
    expect(serverTime(answer)).toBe(Date.parse('2026-11-21T01:16:05Z'));
    const dateless = { ...answer, headers: { ...answer.headers, date: undefined } };
    expect(() => parseKubeconfig(dateless, who, Date.parse('2027-01-01T00:00:00Z'))).toThrow('expired');
  });

  it('kubeconfig-not-ready.http is pending', async () => {
    expect(parseKubeconfig(await sample('kubeconfig-not-ready.http'), who, Date.now())).toBe('pending');
  });

  it('cluster-info.http describes the cluster', async () => {
    const { labels, ...info } = parseClusterInfo(await sample('cluster-info.http'), who);
    expect(info).toMatchObject({ apiServer: 'https://127.0.0.11:6443', insecureSkipTlsVerify: false });
    expect(Object.fromEntries(labels)).toEqual({ environment: 'production', region: 'us-west-2' });
  });

  it('memberlist-json.http lists three members without servers', async () => {
    const list = parseMemberlist(await sample('memberlist-json.http'), who);
    expect(list).toMatchObject({ cut: 0, unread: 0 });
    expect(list?.members.map((m) => m.apiEndpoint)).toEqual([12, 11, 13].map((n) => `https://127.0.0.${n}:6443`));
    expect(list?.members.every((m) => m.server === null && m.name === null && m.state === null)).toBe(true);
  });

  it('memberlist-absent.http is a server without a memberlist', async () => {
    expect(parseMemberlist(await sample('memberlist-absent.http'), who)).toBeUndefined();
  });

  it.each(['memberlist-html.http', 'memberlist-html-suspected.http'])('%s is not the requested JSON', async (name) => {
    const answer = await sample(name);
    expect(thrown(() => parseMemberlist(answer, who)).kind).toBe(Unavailable);
  });

  it.each([
    ['kubeconfig-not-signed-in.http', 'kubeconfig'],
    ['login-get-not-signed-in.http', 'login'],
  ])('%s means that nobody is signed in', async (name, route) => {
    const answer = await sample(name);
    const error = thrown(() =>
      route === 'login' ? parseSignIn(answer, who) : parseKubeconfig(answer, who, Date.now()),
    );
    expect(error.kind).toBe(NotSignedIn);
    expect(error.hints).toEqual(["run 'tka login' to sign in first"]);
  });

  it.each([
    [
      'login-no-grant.http',
      NoGrant,
      `no grant for you on ${who}: the tailnet policy does not give the capability specht-labs.de/cap/tka there`,
      [`see which grant is missing: kubectl tka doctor ${who}`],
    ],
    [
      'logout-not-signed-in.http',
      Refused,
      'User not signed in: TkaSignin.tka.specht-labs.de "tka-user-alice" not found',
      ["run 'tka login' to sign in first"],
    ],
    [
      'login-period-too-short.http',
      Refused,
      '`period` may not specify a duration less than 10 minutes',
      [/^Specify a period greater than 10 minutes/, /^ask a maintainer of the tailnet policy/],
    ],
    [
      'login-period-invalid.http',
      Refused,
      'Error parsing duration: time: invalid duration "abc"',
      [/^ask a maintainer of the tailnet policy; .*\/docs\/policy\.md$/],
    ],
    [
      'login-name-invalid.http',
      Unavailable,
      'metadata.name: Invalid value: "tka-user-Bad_Name!"',
      [/^check Kubernetes connectivity/],
    ],
    [
      'login-api-server-down.http',
      Unavailable,
      'dial tcp 127.0.0.13:6443: connect: connection refused',
      [/^check Kubernetes connectivity/],
    ],
    ['no-such-route.http', Unavailable, 'HTTP 404', [/TKA server/]],
  ])('%s is an error with the server’s message', async (name, kind, words, hints) => {
    const answer = await sample(name);
    const error = thrown(() => parseSignIn(answer, who));
    expect(error.kind).toBe(kind);
    expect(error.message).toContain(words);
    expect(error.message).toContain(who);
    expect(error.hints).toEqual(hints.map((hint) => expect.stringMatching(hint)));
  });

  it.each([
    [409, 'cluster "edge" cannot be used: it conflicts with another cluster', Refused],
    [409, 'the object has been modified', Unavailable],
    [503, 'cluster "edge" is not connected to this login server', Unavailable],
  ])('HTTP %i with "%s" is refused at once, or tried again', (status, message, kind) => {
    const body = JSON.stringify({ message, cause: { message: 'the name is taken' }, advice: ['ask the operator'] });
    const error = refusal({ status, headers: {}, body }, `${who}/clusters/edge`, 'the login');
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toContain(`${message}: the name is taken (HTTP ${status})`);
    expect(error.hints).toEqual(['ask the operator']);
  });

  it('kubeconfig-api-server-down.http shows the innermost cause and all advice', async () => {
    const answer = await sample('kubeconfig-api-server-down.http');
    const error = thrown(() => parseKubeconfig(answer, who, Date.now()));
    expect(error.kind).toBe(Unavailable);
    expect(error.message).toMatch(
      /Failed to generate token: Get "https:\/\/127.0.0.13:6443\/version\?timeout=32s": dial tcp/,
    );
    expect(error.hints).toEqual([
      'check that the service account exists and Kubernetes has token generation enabled',
      'check cluster connectivity and API server availability',
    ]);
    expect(retryAfter(answer)).toBe(1000);
  });

  it('has a test', () => {
    const here = fs.readFileSync(import.meta.filename, 'utf8');
    const missing = fs
      .readdirSync(folder)
      .filter((name) => name.endsWith('.http') && !here.includes(`'${name}'`) && !here.includes(`${name} `));
    expect(missing).toEqual([]);
  });
});

describe('the message of an error body', () => {
  it.each([
    [{ message: '', error: 'told by error' }, 'told by error'],
    [{ message: 7, error: 'told by error' }, 'told by error'],
    [{ message: ' \u0000', error: 'told by error' }, 'told by error'],
    [{ message: 'told by message', error: 'not this' }, 'told by message'],
  ])('%j', (body, message) => expect(errorWords(JSON.stringify(body))?.message).toBe(message));

  it('includes up to 64 lines of advice, and the number of further lines', () => {
    const advice = Array.from({ length: 70 }, (_, i) => `${i} ${'x'.repeat(990)}`);
    const body = { message: 'no', advice: advice.slice(0, 40), cause: { message: 'why', advice: advice.slice(40) } };
    expect(errorWords(JSON.stringify(body))?.advice).toEqual([...advice.slice(0, 64), 'and 6 more']);
    expect(errorWords(JSON.stringify({ ...body, cause: { advice: advice.slice(40, 64) } }))?.advice).toEqual(
      advice.slice(0, 64),
    );
  });
});
