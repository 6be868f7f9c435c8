// Hostile memberlists: the output is plain text of the documented shape, invalid members are left out, and only servers
// that confirm their cluster get a context.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe } from 'vitest';
import { parse } from 'yaml';
import { type ClusterRow, checkClusterRows, checkFailure, checkTable } from './checks.ts';
import { type Fixture, hostileTest } from './fixture.ts';
import { damagedJson, evilTexts, randomCases, wrongTypes } from './junk.ts';

const test = hostileTest();

type Row = Record<string, unknown>;
const tell = (fixture: Fixture, body: unknown, contentType?: string) => {
  const raw = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  fixture.cluster.faults.memberlist = contentType === undefined ? { raw } : { raw, contentType };
};
const good = (fixture: Fixture): Row => ({
  apiEndpoint: fixture.cluster.apiServer,
  apiPort: 443,
  labels: { lane: fixture.cluster.name },
  name: fixture.cluster.name,
  server: fixture.cluster.server,
  state: 'healthy',
  lastSeen: new Date().toISOString(),
});
let hosts = 0;
const other = (fields: Row = {}): Row => ({
  apiEndpoint: `https://k${hosts++}.example:6443`,
  apiPort: 6443,
  labels: null,
  name: `other-${hosts}`,
  server: `https://tka-${hosts}.example`,
  state: 'dead',
  ...fields,
});

const heading =
  /^CURRENT +NAME +STATE +CONTEXT +SESSION +LABELS(?: +SERVERS +TKA SERVER +API ENDPOINT +LAST SEEN +THROUGH)?$/;

/** Runs `clusters -o json`, with checks, and the same list in the other given formats. */
async function listed(fixture: Fixture, formats: readonly string[] = []): Promise<ClusterRow[]> {
  const list = (format: string) =>
    // The servers answer at once: only a busy machine needs this long.
    fixture.run(['clusters', ...(format === 'table' ? [] : ['-o', format])], {
      may: fixture.remembered,
      timeout: '60s',
    });
  const json = await list('json');
  assert.equal(json.status, 0, json.stderr);
  const rows = checkClusterRows(json.stdout);
  for (const format of formats) {
    const { status, stdout, stderr } = await list(format);
    assert.equal(status, 0, stderr);
    if (format === 'name')
      assert.deepEqual(
        stdout.split('\n').slice(0, -1),
        rows.map(({ name }) => name),
      );
    else if (format === 'yaml') assert.deepEqual(untimed(parse(stdout, { version: '1.1' })), untimed(rows));
    else checkTable(stdout, heading, rows.length);
  }
  return rows;
}

const untimed = (rows: ClusterRow[]) => rows.map((row) => ({ ...row, lastSeen: null }));

const formats = ['table', 'wide', 'name', 'yaml'];
const everywhere = { timeout: '2s' };

test.concurrent('control: a correct list', async ({ fixture }) => {
  const rows = await listed(fixture, formats);
  assert.deepEqual(
    rows.map(({ name, state, labels }) => [name, state, labels]).sort(),
    [0, 1, 2, 3, 4, 5, 6, 7].map((i) => [`c${i}`, 'healthy', { lane: `${i}` }]),
  );
  const ran = await fixture.edit('login --all-contexts');
  assert.equal(ran.status, 0, ran.stderr);
  assert.ok(ran.changed);
  assert.match(ran.stdout, /\bc0, c1, c2, c3, c4, c5, c6, c7\b/);
});

describe('hostile text in every field', () => {
  for (const [i, [name, text]] of Object.entries(evilTexts).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      const labels = { [text]: text, plain: text, other: 'as it should be' };
      tell(fixture, [
        good(fixture),
        other({ name: text, cluster: text, labels }),
        other({ state: text, lastSeen: text, version: text, apiPort: text }),
        other({ server: text }),
        { ...other(), apiEndpoint: text },
      ]);
      const rows = await listed(fixture, i % 2 === 0 ? [formats[(i / 2) % 4] as string] : []);
      assert.equal(rows.length, 4);
      assert.ok(rows.some((row) => row.labels.other === 'as it should be'));
      assert.ok(rows.some((row) => row.name === fixture.cluster.name && row.state === 'healthy'));
    });
  }

  test.concurrent('all hostile texts at once, in all formats, and as contexts', async ({ fixture }) => {
    const rows = Object.values(evilTexts).flatMap((text) => [
      { ...good(fixture), name: text, labels: { [text]: text }, lastSeen: text },
      other({ name: text, server: text }),
    ]);
    tell(fixture, rows);
    const found = await listed(fixture, formats);
    // Half of them state the same endpoint and form one cluster.
    assert.equal(found.length, rows.length / 2 + 1);
    const ran = await fixture.edit('login --all-contexts', everywhere);
    assert.ok(ran.status === 0 || ran.status === 1);
  });
});

describe('fields of other types', () => {
  const fields = ['name', 'cluster', 'server', 'state', 'lastSeen', 'labels', 'apiPort', 'version'];
  for (const [i, field] of fields.entries()) {
    test.concurrent(`${field}: ${Object.keys(wrongTypes).join(', ')}`, async ({ fixture }) => {
      tell(fixture, [good(fixture), ...Object.values(wrongTypes).map((value) => other({ [field]: value }))]);
      const rows = await listed(fixture, [formats[i % 4] as string]);
      assert.equal(rows.length, 1 + Object.keys(wrongTypes).length);
    });
  }
  test.concurrent('rows and labels that are not maps, and API endpoints that are not text', async ({ fixture }) => {
    const values = Object.values(wrongTypes);
    tell(fixture, [
      good(fixture),
      ...values,
      ...values.map((value) => other({ apiEndpoint: value })),
      ...values.map((value) => other({ labels: { a: value, b: 'c' } })),
    ]);
    const rows = await listed(fixture, formats);
    assert.equal(rows.length, 1 + values.length);
    for (const row of rows.slice(1)) assert.equal(row.labels.b, 'c');
  });
  test.concurrent('prototype keys and duplicate keys', async ({ fixture }) => {
    const row = JSON.stringify(other({ labels: { constructor: 'a', toString: 'b' } })).replace(
      '"constructor"',
      '"__proto__":"x","constructor"',
    );
    const twice = JSON.stringify(other()).replace(
      '{',
      '{"name":"first","apiEndpoint":7,"__proto__":{"server":"https://evil.example"},',
    );
    tell(fixture, `[${row},${twice}]`);
    const rows = await listed(fixture, formats);
    assert.equal(rows.length, 2);
    const labels = rows.find((one) => Object.hasOwn(one.labels, 'constructor'))?.labels ?? {};
    assert.deepEqual(Object.entries(labels), [
      ['__proto__', 'x'],
      ['constructor', 'a'],
      ['toString', 'b'],
    ]);
  });
});

/** Invalid server URLs, which must be neither shown nor connected to. */
const noServers = [
  'javascript:alert(1)',
  'file:///etc/passwd',
  'data:text/html,x',
  'ftp://tka.example',
  'ws://tka.example',
  'https://user:password@tka.example',
  'https://user@tka.example',
  'https://tka.example/evil',
  'https://tka.example/api/v1alpha1/../../evil',
  'https://tka.example?x=1',
  'https://tka.example#x',
  'https://tka.example\r\nHost: evil.example',
  'https://tka.\nexample',
  ' https://tka.example',
  'https://tka.example\u0000',
  'https://tka.\u202eexample',
  'https://tka.example\u001b[31m',
  'https://',
  'https://.',
  'https://-a.example',
  'https://a b.example',
  'https://$(touch pwned).example',
  'https://a"b.example',
  'https://a;b.example',
  'https://[::1',
  'https://[fe80::1%25eth0]',
  'https://tka.example:99999',
  '//tka.example',
  'tka.example',
  `https://${'a'.repeat(5000)}.example`,
];

describe('invalid servers and API endpoints', () => {
  test.concurrent('invalid servers are unknown', async ({ fixture }) => {
    tell(fixture, [good(fixture), ...noServers.map((server) => other({ server }))]);
    const rows = await listed(fixture, ['table', 'wide']);
    assert.equal(rows.length, 1 + noServers.length);
    for (const row of rows)
      assert.equal(row.server, row.name === fixture.cluster.name ? fixture.cluster.server : null, row.name);
  });
  test.concurrent('members without an API endpoint are left out and counted', async ({ fixture }) => {
    // With a path it is still an API endpoint.
    const bad = noServers.filter((url) => !/^https:\/\/tka\.example\/\w/.test(url));
    tell(fixture, [
      good(fixture),
      ...bad.map((apiEndpoint) => other({ apiEndpoint })),
      other({ apiEndpoint: 'http://k.example:6443' }),
    ]);
    const ran = await fixture.run('clusters -o name', { may: fixture.remembered });
    assert.equal(ran.stdout, `${fixture.cluster.name}\n`);
    assert.match(
      ran.stderr,
      new RegExp(
        `^warning: http:\\S+ lists ${bad.length + 1} members without a valid API endpoint or server, which are skipped\n$`,
      ),
    );
  });
  test.concurrent('an API endpoint whose path contains shell syntax', async ({ fixture }) => {
    const paths = ["/$(touch pwned)/';touch pwned;'", '/%0d%0aX:y', '/a b', '/"x"', '/\\..\\x', '/*', "/'"];
    tell(
      fixture,
      paths.map((path) => other({ apiEndpoint: `https://k.example${path}` })),
    );
    for (const row of await listed(fixture, ['wide'])) assert.match(row.apiEndpoint, /^https:\/\/[!-~]+$/);
  });
  test.concurrent('joined clusters with invalid names are left out, and valid ones are clusters of their own', async ({
    fixture,
  }) => {
    const at = (name: string) => `${fixture.cluster.server}/clusters/${name}`;
    const bad = [
      ...['', '.', '..', '../..', '%2e%2e', '%73ite', 'a/b', 'a%2fb', 'A', '-a', 'a-', 'a.b', 'a_b', 'a b', '*', 'é'],
      ...[
        'a\u0000',
        'a\u001b[31m',
        'a\n',
        'a\u202eb',
        '$(id)',
        'a?x',
        'a#x',
        'a\\..',
        'a'.repeat(64),
        'a'.repeat(5000),
      ],
    ];
    const rows = [
      ...[good(fixture), other({ server: at('site'), cluster: 'another', name: fixture.cluster.name, through: 'hub' })],
      ...[...bad.map(at), 'https://tka.example', null, 7].map((server) =>
        other({ server, through: 'hub', direct: true }),
      ),
      other({ server: at('b'), through: '\u001b[31m', direct: 'yes' }),
      // It claims the cluster's name and its endpoint.
      { ...good(fixture), server: at(fixture.cluster.name), cluster: fixture.cluster.name, through: 'hub' },
    ];
    tell(fixture, rows);
    const found = await listed(fixture, formats);
    const own = fixture.cluster.name;
    assert.deepEqual(
      found.map(({ name, server, through }) => [name, server, through]).sort(),
      [
        [own, fixture.cluster.server, null],
        [`${own}-through-hub`, at(own), 'hub'],
        ['site', at('site'), 'hub'],
        ['b', at('b'), new URL(fixture.cluster.server).hostname],
      ].sort(),
    );
    const ran = await fixture.run('clusters -o name', { may: fixture.remembered });
    assert.match(ran.stderr, new RegExp(`lists ${bad.length + 3} members without a valid API endpoint or server, `));
  });
  test.concurrent('a thousand joined clusters that claim one endpoint', async ({ fixture }) => {
    const rows = Array.from({ length: 1000 }, (_, i) => ({
      ...good(fixture),
      ...{ name: undefined, cluster: `s${i}`, server: `${fixture.cluster.server}/clusters/s${i}`, through: 'hub' },
    }));
    tell(fixture, [good(fixture), ...rows]);
    const found = await listed(fixture, ['name', 'wide']);
    assert.equal(found.length, 1001);
    assert.equal(found.filter(({ through }) => through === 'hub').length, 1000);
    const ran = await fixture.edit(`login ${fixture.cluster.name}`);
    assert.equal(ran.status, 0, ran.stderr);
    assert.equal(fixture.cluster.requests.filter(({ path }) => path.startsWith('/clusters/')).length, 0);
  });
  test.concurrent('spellings of one server and of Unicode hosts are shown in one form', async ({ fixture }) => {
    const servers = [
      'HTTPS://TKA.Example.:443/',
      'https://tka.example/api/v1alpha1/',
      'https://tká.example',
      'https://TKÁ.example:443',
      'https://0x7f.1',
      'https://２.example',
    ];
    tell(
      fixture,
      servers.map((server) => other({ server })),
    );
    const found = (await listed(fixture, ['wide'])).map(({ server }) => server);
    assert.ok(found.filter((server) => server === 'https://tka.example').length === 2);
    for (const server of found) assert.match(server ?? 'https://none', /^https:\/\/[a-z0-9.:-]+$/);
  });

  test.concurrent('a server of another cluster gets no sign-in and no context', async ({ fixture }) => {
    const seen: string[] = [];
    const trap = createServer((request, response) => {
      seen.push(`${request.method} ${request.url} ${request.headers.authorization ?? 'no authorization'}`);
      response.setHeader('Content-Type', 'application/json');
      response.end(
        JSON.stringify({
          server_url: 'https://evil.example',
          insecure_skip_tls_verify: false,
          ca_data: '',
          labels: {},
        }),
      );
    });
    await new Promise<void>((done) => trap.listen(0, '127.0.0.1', done));
    try {
      const server = `http://127.0.0.1:${(trap.address() as AddressInfo).port}`;
      tell(fixture, [good(fixture), other({ name: 'lookalike', server })]);
      const one = await fixture.run('login lookalike', { may: fixture.remembered });
      checkFailure(one);
      assert.match(
        one.stderr,
        /^error: http:\S+ is not the TKA server of lookalike: it serves https:\/\/evil\.example, not https:\S+\n/,
      );
      const all = await fixture.edit('login --all-contexts');
      assert.equal(all.status, 1);
      assert.doesNotMatch(fs.readFileSync(fixture.home.kubeconfig, 'utf8'), /evil|lookalike/);
      assert.equal(fixture.cluster.counts.login, 0);
      // A server that claims to be of a good cluster comes after the older server.
      tell(fixture, [good(fixture), { ...good(fixture), name: '0', server }]);
      const cluster = await fixture.edit('login 0');
      assert.equal(cluster.status, 0, cluster.stderr);
      assert.equal(fixture.cluster.counts.login, 1);
      assert.doesNotMatch(fs.readFileSync(fixture.home.kubeconfig, 'utf8'), new RegExp(`evil|${server}`));
      // The last request asks whether the server is of the good cluster, before it is stored as a server of it.
      assert.deepEqual(seen, Array(3).fill('GET /api/v1alpha1/cluster-info no authorization'));
    } finally {
      trap.close();
      trap.closeAllConnections();
    }
  });
  test.concurrent('refuses plain http to an unknown host', async ({ fixture }) => {
    tell(
      fixture,
      ['http://192.0.2.1', 'http://10.0.0.1:8080', 'http://tka.invalid', 'http://[2001:db8::1]'].map((server, i) =>
        other({ name: `far-${i}`, server }),
      ),
    );
    const ran = await fixture.run('login --all-contexts', { ...everywhere, may: fixture.remembered });
    assert.equal(ran.status, 1);
    assert.match(ran.stderr, /^warning: far-0: http:\/\/192\.0\.2\.1 is neither on this machine nor on the tailnet/m);
  });
  test.concurrent('a name of many clusters is ambiguous, with few hints', async ({ fixture }) => {
    tell(
      fixture,
      Array.from({ length: 500 }, () => other({ name: 'same' })),
    );
    const ran = await fixture.run('login same', { may: fixture.remembered });
    checkFailure(ran, 2);
    assert.ok(ran.stderr.split('\n').length <= 25);
  });
  test.concurrent('a server with many names gets one context', async ({ fixture }) => {
    tell(
      fixture,
      ['a', 'b', 'c', 'a', 'Work', 'work'].map((name) => ({ ...good(fixture), name })),
    );
    const ran = await fixture.edit('login --all-contexts');
    assert.ok(ran.status === 0 || ran.status === 1, ran.stderr);
    const { contexts } = parse(fs.readFileSync(fixture.home.kubeconfig, 'utf8'));
    assert.ok(contexts.length <= 3, `${contexts.length} contexts`);
    const names = contexts.map(({ name }: { name: string }) => name);
    assert.equal(new Set(names).size, names.length);
  });
  test.concurrent('a cluster with the name of another context does not replace it', async ({ fixture }) => {
    tell(fixture, [{ ...good(fixture), name: 'work' }]);
    const ran = await fixture.edit('login work');
    assert.equal(ran.status, 0, ran.stderr);
    assert.match(ran.stderr, /^context "work" already exists and is not managed by kubectl-tka; using "tka-work"\n$/);
  });
});

describe('invalid lists', () => {
  const bodies: Readonly<Record<string, [body: string | Buffer, contentType?: string]>> = {
    nothing: [''],
    'a text': ['"clusters"'],
    'a number': ['1e999'],
    'a map': ['{"members":[]}'],
    'an error with status 200': ['{"error":"no\\u001b[31m"}'],
    HTML: ['<html><body>Please sign in</body></html>', 'text/html'],
    'HTML labelled as JSON': ['<!doctype html>\n<script>alert(1)</script>'],
    truncated: ['[{"apiEndpoint":"https://a.example:6443","labels":{"a'],
    NULs: [Buffer.alloc(100_000)],
    'gzip bytes': [Buffer.from('1f8b0800000000000003', 'hex')],
    'a BOM': ['\ufeff[]'],
    UTF16: [Buffer.from('[]', 'utf16le')],
    'a list that never ends, deeply nested': ['['.repeat(2_000_000)],
    'a map that never ends, deeply nested': ['{"a":'.repeat(500_000)],
    'two lists': ['[][]'],
    'an extra comma': ['[{"apiEndpoint":"https://a.example"},]'],
    'single quotes': ["[{'apiEndpoint':'https://a.example'}]"],
    'YAML that is empty': ['', 'application/yaml'],
    'YAML with only a comment': ['# none', 'application/yaml'],
    'YAML with a tag and escapes': ['!evil \u001b[31m', 'application/yaml'],
    'YAML with unknown directives': ['%EVIL x\n---\n7\n', 'text/yaml'],
  };
  for (const [i, [name, [body, contentType]]] of Object.entries(bodies).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      tell(fixture, body, contentType);
      const args = [['login', '--all-contexts'], ['clusters'], ['clusters', '-o', 'json']][i % 3] as string[];
      const ran = await fixture.run(args, { ...everywhere, may: fixture.remembered });
      checkFailure(ran, 1);
      assert.match(ran.stderr, /^error: http:\S+ answered the memberlist with something that is not the TKA protocol/);
    });
  }

  const empty: Readonly<Record<string, string>> = {
    'an empty list': '[]',
    null: 'null',
    'a list of nulls': '[null,null,{},[],7,"x"]',
  };
  test.concurrent.for(Object.entries(empty))('no clusters: %s', async ([, body], { fixture }) => {
    tell(fixture, body);
    assert.deepEqual(await listed(fixture, ['table', 'name']), []);
    const ran = await fixture.edit('login --all-contexts');
    assert.ok(!ran.changed);
  });

  const statuses = [204, 205, 206, 301, 304, 400, 401, 403, 404, 418, 429, 500, 503, 599];
  for (const [i, status] of statuses.entries()) {
    test.concurrent(`HTTP ${status} with a list`, async ({ fixture }) => {
      const body =
        status === 204 || status === 304
          ? ''
          : JSON.stringify(
              i % 2 === 0
                ? [good(fixture)]
                : { message: evilTexts['a forged error'], advice: [evilTexts['an OSC 8 link']] },
            );
      fixture.cluster.faults.routes.memberlist = { answer: { status, body, contentType: 'application/json' } };
      const ran = await fixture.run('clusters', { ...everywhere, may: fixture.remembered });
      checkFailure(ran);
    });
  }
});

describe('the Go server’s page', () => {
  const bare = (fixture: Fixture) => [
    { apiEndpoint: fixture.cluster.apiServer, apiPort: 6443, labels: null },
    { apiEndpoint: 'https://k.example:6443', apiPort: 6443, labels: { a: 'b' } },
  ];
  const page = (fixture: Fixture, change: (html: string) => string) => {
    const cell = (text: string) => `<td>${text}</td>`;
    const row = `<tr>${cell('lejHRrwo2CU8N7ll0rIBbA==')}${cell('127.0.0.1:7946')}<td><dl><dt>API Endpoint</dt><dd>https://k.example:6443</dd><dt>Labels</dt><dd><ul><li><strong>a:</strong> b</li></ul></dd></dl></td>${cell('PEER_STATE_HEALTHY')}${cell('12s ago')}${cell('false')}</tr>`;
    const heads = ['ID', 'Address', 'State', 'Peer State', 'Last Seen', 'Is Local']
      .map((head) => `<th>${head}</th>`)
      .join('');
    const html = `<!DOCTYPE html><html><head><title>TKA Cluster Memberlist</title></head><body><h1>x</h1><table><thead><tr>${heads}</tr></thead><tbody>${row}</tbody></table></body></html>`;
    fixture.cluster.faults.routes.memberlist = [
      { times: 1, answer: { status: 200, body: bare(fixture) } },
      { answer: { status: 200, body: change(html), contentType: 'text/html; charset=utf-8' } },
    ];
  };
  const pages: Readonly<Record<string, (html: string) => string>> = {
    'control: unchanged': (html) => html,
    'a label with escapes': (html) => html.replace(' b<', ' \u001b[31m&#27;]52;c;eA==&#7;&#155;31m<'),
    'a label that forges a row': (html) => html.replace(' b<', ' &lt;/td&gt;&lt;tr&gt;\n\nerror: forged<'),
    'an endpoint that is a script': (html) => html.replace('https://k.example:6443', 'javascript:alert(1)'),
    'an endpoint with an escape': (html) => html.replace('k.example', 'k&#27;[31m.example'),
    'a script between the rows': (html) => html.replace('<tbody>', '<tbody><script>alert(1)</script>'),
    'deep elements': (html) => html.replace('<h1>x', `<h1>${'<b>'.repeat(50_000)}x`),
    truncated: (html) => html.slice(0, html.length / 2),
    'a duplicate table': (html) => html.replace(/<table>.*<\/table>/, '$&$&'),
    'a time that is too long': (html) => html.replace('12s ago', '999999999999h12s ago'),
    'a local row of an unknown server': (html) => html.replace('<td>false', '<td>true'),
    'entities without an end': (html) => html.replace(' b<', ` ${'&amp;'.repeat(100_000)}<`),
    'an attribute without an end': (html) => html.replace('<table>', `<table a="${'x'.repeat(1_000_000)}`),
    'a million open comments': (html) => html.replace('<table>', '<!--'.repeat(250_000)),
  };
  test.concurrent.for(Object.entries(pages))('%s', async ([, change], { fixture }) => {
    page(fixture, change);
    const ran = await fixture.run('clusters -o json', { ...everywhere, may: fixture.remembered });
    assert.equal(ran.status, 0, ran.stderr);
    const rows = checkClusterRows(ran.stdout);
    assert.ok(rows.length <= 3);
    assert.ok(rows.every(({ apiEndpoint }) => /^https:/.test(apiEndpoint)));
  });
});

describe('a damaged last list', () => {
  const whole = (fixture: Fixture, change: Row = {}) =>
    JSON.stringify({
      at: Date.now() - 60_000,
      html: false,
      members: [{ ...good(fixture), name: 'kept' }],
      times: [[Date.now() - 60_000, 0]],
      ...change,
    });
  const put = (fixture: Fixture, text: string | Buffer) => {
    const [name] = fixture.entry.split('/').slice(-1);
    fixture.home.write(`${fixture.home.state}/clusters/${name}.json`, '', 0o600);
    fs.writeFileSync(`${fixture.home.state}/clusters/${name}.json`, text);
    fs.chmodSync(`${fixture.home.state}/clusters`, 0o700);
  };
  test.concurrent('control: a whole list replaces a server that is down', async ({ fixture }) => {
    put(fixture, whole(fixture));
    fixture.cluster.faults.routes.memberlist = { reset: 'before' };
    const ran = await fixture.run('clusters -o name', { ...everywhere, may: fixture.remembered });
    assert.equal(ran.stdout, 'kept\n');
    assert.match(ran.stderr, /^warning: /m);
  });
  const damages: Readonly<Record<string, (fixture: Fixture) => string | Buffer>> = {
    empty: () => '',
    'half-written': (fixture) => whole(fixture).slice(0, 100),
    NULs: () => Buffer.alloc(5000),
    'a list': () => '[]',
    deep: () => '['.repeat(1_000_000),
    'a time that is too large': (fixture) => whole(fixture, { at: 1e300 }),
    'a time that is too small': (fixture) => whole(fixture, { at: -1e300 }),
    'a time that is text': (fixture) => whole(fixture, { at: 'yesterday' }),
    'members listed at a time that is too large': (fixture) => whole(fixture, { times: [[1e300, 1e300]] }),
    'members listed at a time that is too small': (fixture) => whole(fixture, { times: [[-1e300, -1e300]] }),
    'times that are not a list': (fixture) => whole(fixture, { times: { length: 1 } }),
    'members of hostile text': (fixture) =>
      whole(fixture, {
        members: [
          { ...good(fixture), name: evilTexts['a forged error'], labels: { a: evilTexts['an OSC 52 clipboard'] } },
        ],
      }),
    'a member with a hostile server': (fixture) =>
      whole(fixture, { members: [{ ...good(fixture), server: 'javascript:alert(1)' }] }),
    'an invalid member': (fixture) => whole(fixture, { members: [null] }),
    'an endpoint that is no longer listed, since long ago': (fixture) =>
      whole(fixture, { members: [other()], times: [[-8.64e15, 0]] }),
    'an endpoint that is no longer listed, since a time in the future': (fixture) =>
      whole(fixture, { members: [other()], times: [[8.65e15, 0]] }),
  };
  for (const [i, [name, damage]] of Object.entries(damages).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      put(fixture, damage(fixture));
      if (i % 2 === 0) await listed(fixture);
      put(fixture, damage(fixture));
      fixture.cluster.faults.routes.memberlist = { reset: 'before' };
      const ran = await fixture.run('clusters -o json', { ...everywhere, may: fixture.remembered });
      if (ran.status === 0) checkClusterRows(ran.stdout);
      else checkFailure(ran);
    });
  }
});

describe('random damage of the memberlist', () => {
  test.concurrent.for(randomCases(15, 4))('%s', async ([, chance], { fixture }) => {
    const rows = [good(fixture), other({ labels: { a: 'b', c: 'd' } }), other({ server: fixture.cluster.server })];
    const sent = damagedJson(rows, chance);
    tell(fixture, sent);
    try {
      const args = chance() < 0.7 ? ['clusters', '-o', 'json'] : ['login', '--all-contexts'];
      const ran =
        args[0] === 'login'
          ? await fixture.edit(args, everywhere)
          : await fixture.run(args, { ...everywhere, may: fixture.remembered });
      if (ran.status !== 0) assert.ok(args[0] === 'login' || ran.stdout === '');
      else if (args[0] === 'clusters') checkClusterRows(ran.stdout);
    } catch (error) {
      if (error instanceof Error) error.message += `\nlist: ${JSON.stringify(sent).slice(0, 4000)}`;
      throw error;
    }
  });
});
