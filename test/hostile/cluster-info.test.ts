// Hostile answers to GET /cluster-info: they make a context only if they are whole and name the right cluster, and that
// context contains only its documented fields.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { describe } from 'vitest';
import { parse } from 'yaml';
import { checkCalm, checkClusterRows, checkFailure } from './checks.ts';
import { type Fixture, hostileTest } from './fixture.ts';
import { damagedJson, evilTexts, fewTypes, randomCases, wrongTypes } from './junk.ts';

const test = hostileTest();

/** The server lists only itself. */
function alone(fixture: Fixture): void {
  fixture.cluster.faults.routes.memberlist = {
    change: (rows: { name: string }[]) => rows.filter(({ name }) => name === fixture.cluster.name),
  };
}

const writeAll = (fixture: Fixture) => {
  alone(fixture);
  return fixture.edit('login --all-contexts', { timeout: '2s' });
};

/** `clusters` with a server that keeps no memberlist: the answer describes its only cluster. */
const listOne = (fixture: Fixture) => {
  fixture.cluster.faults.memberlist = 'absent-404';
  return fixture.run('clusters -o json', { timeout: '2s', may: fixture.remembered });
};

test.concurrent('control: a correct answer', async ({ fixture }) => {
  const ran = await writeAll(fixture);
  assert.equal(ran.status, 0, ran.stderr);
  assert.ok(ran.changed);
  checkCalm(ran.stderr);
  const [row] = checkClusterRows((await listOne(fixture)).stdout);
  assert.equal(row?.context, fixture.cluster.name);
  assert.deepEqual(row?.labels, fixture.cluster.labels);
});

// biome-ignore lint/suspicious/noExplicitAny: a case may make anything of it
type Make = (info: any) => unknown;
const laidOver =
  (fields: object): Make =>
  (info) => ({ ...info, ...fields });

const harmless: Readonly<Record<string, Make>> = {
  'more fields': laidOver({
    'proxy-url': 'http://evil.example',
    'certificate-authority': '/etc/passwd',
    exec: { command: 'x' },
  }),
  'keys of a prototype': (info) =>
    JSON.stringify(info).replace('{', '{"__proto__":{"server_url":"https://evil.example"},"constructor":1,'),
  'duplicate keys, the last of which count': (info) =>
    JSON.stringify(info).replace('{', '{"server_url":"https://evil.example",'),
  'another spelling of the API server': (info) => ({ ...info, server_url: `${info.server_url.toUpperCase()}/` }),
  'labels that are null': laidOver({ labels: null }),
  'labels that are text': laidOver({ labels: evilTexts['an ANSI colour'] }),
  'labels of all types': laidOver({ labels: wrongTypes }),
  'labels of hostile text': laidOver({
    labels: Object.fromEntries(Object.values(evilTexts).map((text) => [text, text])),
  }),
  '100,000 labels': laidOver({ labels: Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`k${i}`, 'v'])) }),
  'no labels': ({ labels: _, ...info }) => info,
  'a CA with line breaks': (info) => ({ ...info, ca_data: info.ca_data.replace(/.{76}/g, '$&\n') }),
  ...Object.fromEntries(
    [...Object.entries(fewTypes), ['an ANSI colour', evilTexts['an ANSI colour']] as const].map(([name, value]) => [
      `a cluster and a store that are ${name}`,
      laidOver({ cluster: value, sign_in_store: value }),
    ]),
  ),
  'a cluster and a store that are too long': laidOver({
    cluster: 'x'.repeat(100_000),
    sign_in_store: 'x'.repeat(100_000),
  }),
  'an empty CA': laidOver({ ca_data: '' }),
  'a CA that is null': laidOver({ ca_data: null }),
  'insecure that is null': laidOver({ insecure_skip_tls_verify: null }),
};

describe('harmless parts are used, and nothing else', () => {
  for (const [i, [name, make]] of Object.entries(harmless).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      fixture.cluster.faults.clusterInfo = make;
      if (i % 2 === 0 || name.includes('label')) {
        const ran = await listOne(fixture);
        assert.equal(ran.status, 0, ran.stderr);
        const rows = checkClusterRows(ran.stdout);
        assert.deepEqual(
          rows.map(({ server, apiEndpoint }) => [server, apiEndpoint]),
          [[fixture.cluster.server, fixture.cluster.apiServer]],
        );
        assert.ok(Object.keys(rows[0]?.labels ?? {}).length <= 64);
        return;
      }
      const ran = await writeAll(fixture);
      assert.equal(ran.status, 0, ran.stderr);
      assert.ok(ran.changed);
      checkCalm(ran.stderr);
      const { contexts } = parse(fs.readFileSync(fixture.home.kubeconfig, 'utf8'));
      assert.equal(contexts.at(-1).name, fixture.cluster.name);
    });
  }
});

const pem = (label: string, inner: string) =>
  Buffer.from(`-----BEGIN ${label}-----\n${inner}\n-----END ${label}-----\n`).toString('base64');

const refused: Readonly<Record<string, Make>> = {
  ...Object.fromEntries(
    Object.entries(wrongTypes).map(([name, value]) => [
      `an API server that is ${name}`,
      laidOver({ server_url: value }),
    ]),
  ),
  ...Object.fromEntries(
    Object.entries(fewTypes).flatMap(([name, value]) => [
      [`a CA that is ${name}`, laidOver({ ca_data: value })],
      [`insecure that is ${name}`, laidOver({ insecure_skip_tls_verify: value })],
    ]),
  ),
  'skipped certificate verification': laidOver({ insecure_skip_tls_verify: true }),
  'skipped certificate verification as text': laidOver({ insecure_skip_tls_verify: 'true' }),
  'no API server': ({ server_url: _, ...info }) => info,
  'another API server': laidOver({ server_url: 'https://evil.example:6443' }),
  'an API server over http': laidOver({ server_url: 'http://127.0.0.1:6443' }),
  'an API server that is a script': laidOver({ server_url: 'javascript:alert(1)' }),
  'an API server that is a file': laidOver({ server_url: 'file:///etc/passwd' }),
  'an API server with credentials': laidOver({ server_url: 'https://a:b@127.0.0.1:6443' }),
  'an API server with CR and LF': laidOver({ server_url: 'https://127.0.0.1:6443/\r\nX: y' }),
  'an API server with an OSC 52 clipboard': laidOver({ server_url: `https://${evilTexts['an OSC 52 clipboard']}` }),
  'an API server with a bidirectional override': laidOver({ server_url: 'https://a\u202eb.example' }),
  'an API server with another path': (info) => ({
    ...info,
    server_url: `${info.server_url}/k8s/clusters/../..//x`,
  }),
  'a CA that is not base64': laidOver({ ca_data: '!!!' }),
  'a CA of base64 for URLs': (info) => ({
    ...info,
    ca_data: `${info.ca_data.slice(0, 40)}-_${info.ca_data.slice(42)}`,
  }),
  'a truncated CA': (info) => ({ ...info, ca_data: info.ca_data.slice(0, 101) }),
  'a CA that is not PEM': laidOver({ ca_data: 'eA==' }),
  'a CA that is a private key': laidOver({ ca_data: pem('PRIVATE KEY', 'AAAA') }),
  'a CA that is PEM itself': (info) => ({ ...info, ca_data: Buffer.from(info.ca_data, 'base64').toString() }),
  nothing: () => '',
  null: () => 'null',
  'a list': () => '[]',
  'a deep list': () => '['.repeat(500_000),
  HTML: () => '<html>',
  truncated: (info) => JSON.stringify(info).slice(0, 60),
};

describe('an invalid answer is refused, and no context is written', () => {
  for (const [i, [name, make]] of Object.entries(refused).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      fixture.cluster.faults.clusterInfo = make;
      // Another API endpoint is only wrong if the memberlist states a different one.
      if (i % 2 === 0 && !/another|skipped/.test(name)) {
        const ran = await listOne(fixture);
        assert.ok(fixture.cluster.counts.clusterInfo >= 1);
        if (ran.status === 0) assert.deepEqual(checkClusterRows(ran.stdout), []);
        else checkFailure(ran);
        return;
      }
      const ran = await writeAll(fixture);
      assert.ok(fixture.cluster.counts.clusterInfo >= 1);
      assert.equal(ran.status, 1, ran.stdout);
      assert.ok(!ran.changed);
      assert.match(ran.stderr, /^warning: c\d: \S/m);
    });
  }

  test.concurrent.for([204, 302, 400, 401, 403, 404, 500])('HTTP %s with escapes', async (status, { fixture }) => {
    const body = {
      message: evilTexts['a forged error'],
      advice: [evilTexts['an OSC 8 link'], evilTexts['a bidirectional override']],
    };
    fixture.cluster.faults.routes.clusterInfo = {
      answer: { status, body: status === 204 ? '' : body, headers: { Location: 'https://evil.example/' } },
    };
    const ran = await writeAll(fixture);
    assert.equal(ran.status, 1);
    assert.ok(!ran.changed);
  });
});

describe('random damage of the cluster-info answer', () => {
  test.concurrent.for(randomCases(12, 5))('%s', async ([, chance], { fixture }) => {
    let sent = '';
    fixture.cluster.faults.clusterInfo = (info) => {
      sent ||= damagedJson(info, chance);
      return sent;
    };
    try {
      if (chance() < 0.5) {
        const ran = await writeAll(fixture);
        assert.ok(ran.status === 0 || (ran.status === 1 && !ran.changed));
      } else {
        const ran = await listOne(fixture);
        if (ran.status === 0) checkClusterRows(ran.stdout);
        else checkFailure(ran);
      }
    } catch (error) {
      if (error instanceof Error) error.message += `\nanswer: ${JSON.stringify(sent).slice(0, 4000)}`;
      throw error;
    }
  });
});
