// Large answers: above the limits they are an error, below they are read in little time and memory.
import assert from 'node:assert/strict';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, describe } from 'vitest';
import { checkClusterRows, checkFailure, checkTable } from './checks.ts';
import { type Fixture, hostileTest } from './fixture.ts';

const test = hostileTest(2);
const budget = { timeout: '10s', memory: 300 };
/** Milliseconds for one call on a busy machine. */
const longest = 30_000;

const measured: string[] = [];
afterAll(() => {
  if (process.env.TKA_HOSTILE_TELL) process.stdout.write(`${measured.join('\n')}\n`);
});

async function call(fixture: Fixture, args: string, what: string, lines?: number) {
  const options = { ...budget, ...(lines !== undefined && { lines }), may: fixture.loginMay };
  let ran = await fixture.run(args, options);
  // The program waits no longer than that for a list, even on a busy machine.
  if (/no answer within 2 s/.test(ran.stderr)) ran = await fixture.run(args, options);
  measured.push(`${what} (${args}): ${Math.round(ran.took)} ms, ${Math.round(ran.memory ?? 0)} MiB`);
  assert.ok(ran.took < longest, `took ${Math.round(ran.took)} ms`);
  return ran;
}

const tell = (fixture: Fixture, raw: string | Buffer) => {
  fixture.cluster.faults.memberlist = { raw };
};
const rows = (count: number, row: (i: number) => object) =>
  JSON.stringify(Array.from({ length: count }, (_, i) => row(i)));
const endpoint = (i: number) => `https://k${i}.example:6443`;

describe('lists that are large but allowed', () => {
  const lists: Readonly<Record<string, [body: () => string, shown: number]>> = {
    'control: one member': [() => rows(1, (i) => ({ apiEndpoint: endpoint(i), labels: { a: 'b' } })), 1],
    '100,000 members, of which 10,000 are read': [
      () =>
        rows(100_000, (i) => ({
          apiEndpoint: endpoint(i),
          name: `n${i}`,
          server: `https://t${i}.example`,
          labels: { a: 'b' },
        })),
      10_000,
    ],
    '100,000 members without names': [
      () => rows(100_000, (i) => ({ apiEndpoint: endpoint(i), apiPort: 6443, labels: null })),
      10_000,
    ],
    '100,000 members of one host': [
      () => rows(100_000, (i) => ({ apiEndpoint: `https://k.example:${1 + (i % 60_000)}` })),
      10_000,
    ],
    '100,000 members of one endpoint and name': [
      () => rows(100_000, () => ({ apiEndpoint: endpoint(0), name: 'same', state: 'dead' })),
      1,
    ],
    '100,000 invalid members': [() => rows(100_000, (i) => ({ apiEndpoint: i })), 0],
    '10,000 members with 32 labels': [
      () =>
        rows(10_000, (i) => ({
          apiEndpoint: endpoint(i),
          labels: Object.fromEntries(Array.from({ length: 32 }, (_, n) => [`k${n}`, 'value'])),
        })),
      10_000,
    ],
    'a label of 5 MB': [
      () =>
        rows(1, (i) => ({
          apiEndpoint: endpoint(i),
          labels: { a: 'x'.repeat(5_000_000), ['k'.repeat(5_000_000)]: 'b' },
        })),
      1,
    ],
    'a label of 5 MB of escapes': [
      () =>
        rows(1, (i) => ({
          apiEndpoint: endpoint(i),
          labels: { a: '\u001b'.repeat(800_000), b: '\u202e'.repeat(800_000) },
        })),
      1,
    ],
    '500,000 labels of one member': [
      () =>
        rows(1, (i) => ({
          apiEndpoint: endpoint(i),
          labels: Object.fromEntries(Array.from({ length: 500_000 }, (_, n) => [`k${n}`, 'v'])),
        })),
      1,
    ],
    'a name of 10 MB': [
      () =>
        rows(1, (i) => ({
          apiEndpoint: endpoint(i),
          name: 'n'.repeat(10_000_000),
          server: `https://${'s'.repeat(100_000)}`,
        })),
      1,
    ],
    'a field of 100,000 lists in lists': [
      () => `[{"apiEndpoint":"${endpoint(0)}","labels":{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}}]`,
      1,
    ],
  };
  for (const [i, [name, [body, shown]]] of Object.entries(lists).entries()) {
    test.concurrent(name, async ({ fixture }) => {
      tell(fixture, body());
      if (i % 2 === 0) {
        const ran = await call(fixture, 'clusters -o json', name);
        assert.equal(ran.status, 0, ran.stderr);
        assert.equal(checkClusterRows(ran.stdout).length, shown);
      } else {
        const ran = await call(fixture, 'clusters -q', name);
        assert.equal(ran.status, 0, ran.stderr);
        checkTable(ran.stdout, /^CURRENT +NAME +STATE/, shown);
      }
    });
  }

  test.concurrent('a name among 100,000', async ({ fixture }) => {
    tell(
      fixture,
      rows(100_000, (i) => ({ apiEndpoint: endpoint(i), name: `n${i}` })),
    );
    checkFailure(await call(fixture, 'login n7777', 'a name among 100,000'));
  });
  test.concurrent('3,000 members that cannot become contexts', async ({ fixture }) => {
    tell(
      fixture,
      rows(3000, (i) => ({ apiEndpoint: endpoint(i), name: `n${i}` })),
    );
    const ran = await call(fixture, 'login --all-contexts', '3,000 contexts that cannot be', 3100);
    assert.equal(ran.status, 1);
  });
});

describe('answers that are too large', () => {
  test.concurrent('a memberlist of 50 MB', async ({ fixture }) => {
    tell(
      fixture,
      rows(400_000, (i) => ({
        apiEndpoint: endpoint(i),
        name: `n${i}`,
        labels: { environment: 'production', region: 'us-west-2' },
      })),
    );
    const ran = await call(fixture, 'clusters', 'a memberlist of 50 MB');
    checkFailure(ran);
    assert.match(ran.stderr, /^error: http:\S+ answered with more than 16 MiB\n/);
  });
  const routes = {
    login: 'credential',
    kubeconfig: 'credential',
    memberlist: 'clusters',
    clusterInfo: 'login --all-contexts',
  } as const;
  for (const [route, args] of Object.entries(routes)) {
    test.concurrent(`50 MiB of ${route}`, async ({ fixture }) => {
      fixture.cluster.faults.routes[route as keyof typeof routes] = { oversizeMiB: 50 };
      if (route === 'clusterInfo')
        fixture.cluster.faults.routes.memberlist = {
          change: (all: { name: string }[]) => all.filter(({ name }) => name === fixture.cluster.name),
        };
      const words = args === 'credential' ? fixture.credentialArgs().join(' ') : args;
      const ran = await call(fixture, words, `50 MiB of ${route}`);
      assert.equal(ran.status, 1);
      assert.equal(fixture.cluster.counts[route as keyof typeof routes] >= 1, true);
    });
  }
  test.concurrent('a refusal of 50 MB', async ({ fixture }) => {
    fixture.cluster.faults.routes.login = { answer: { status: 403, body: { message: 'x'.repeat(50_000_000) } } };
    checkFailure(await call(fixture, fixture.credentialArgs().join(' '), 'a refusal of 50 MB'));
  });
});

/** A server on all addresses of loopback, each of which is another member's TKA server with a CA of its own. */
async function manyServers(ca: Buffer): Promise<{ members: (count: number) => string; close: () => void }> {
  const rest = Buffer.from(`","ca_data":"${ca.toString('base64')}"}`);
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    response.write(`{"server_url":"https://${String(request.headers.host).split(':')[0]}:6443`);
    response.end(rest);
  });
  await new Promise<void>((done) => server.listen(0, '0.0.0.0', done));
  const { port } = server.address() as AddressInfo;
  const host = (i: number) => `127.77.${1 + (i >> 7)}.${1 + (i & 127)}`;
  return {
    members: (count) =>
      rows(count, (i) => ({
        apiEndpoint: `https://${host(i)}:6443`,
        name: `n${i}`,
        server: `http://${host(i)}:${port}`,
      })),
    close: () => server.close(),
  };
}

describe.skipIf(process.platform !== 'linux')('CAs (needs loopback addresses that only Linux has)', () => {
  const begins = (bytes: number) => Buffer.from('-----BEGIN CERTIFICATE-----'.repeat(bytes / 27));
  const certificate = (bytes: number) =>
    Buffer.from(`-----BEGIN CERTIFICATE-----\n${'A'.repeat(bytes - 60)}\n-----END CERTIFICATE-----\n`);

  test.concurrent('a CA that never ends does not delay a credential', async ({ fixture }) => {
    const ca = { 'certificate-authority-data': begins(700_000).toString('base64') };
    fixture.cluster.faults.kubeconfig = (normal) => ({
      ...normal,
      clusters: Object.fromEntries(
        Object.entries(normal.clusters).map(([name, cluster]) => [name, { ...cluster, ...ca }]),
      ),
    });
    const ran = await call(fixture, fixture.credentialArgs().join(' '), 'a CA that begins without end');
    checkFailure(ran);
    assert.match(ran.stderr, /the CA is larger than 64 KiB/);
  });
  for (const [count, name, ca, contexts] of [
    [100, '700 KiB of beginnings', begins(700 * 1024), 0],
    [400, '64 KiB', certificate(64 * 1024), 0],
    [40, '4 KiB', certificate(4096), 40],
  ] as const) {
    test.concurrent(`${count} members with a CA of ${name} each`, async ({ fixture }) => {
      const many = await manyServers(ca);
      try {
        tell(fixture, many.members(count));
        const ran = await fixture.edit('sync', { ...budget, lines: 900 });
        measured.push(`sync, CAs of ${name}: ${Math.round(ran.took)} ms, ${Math.round(ran.memory ?? 0)} MiB`);
        assert.equal(ran.status, contexts > 0 ? 0 : 1, ran.stderr.slice(0, 500));
        assert.equal(Number(/^(\d+) added: /.exec(ran.stdout)?.[1] ?? 0), contexts, ran.stdout.slice(0, 500));
      } finally {
        many.close();
      }
    });
  }
});

describe('lists just below the limit that need much memory', () => {
  const size = 15 * 1024 * 1024;
  const bodies: Readonly<Record<string, () => string>> = {
    'empty maps': () => `[${'{},'.repeat(size / 3)}{}]`,
    'empty lists': () => `[${'[],'.repeat(size / 3)}[]]`,
    'lists in lists': () => `${'['.repeat(size / 2)}${']'.repeat(size / 2)}`,
    'maps in maps': () => `[${'{"a":'.repeat(size / 6)}1${'}'.repeat(size / 6)}]`,
    numbers: () => `[${'1,'.repeat(size / 2)}1]`,
    'short texts': () => `[${'"a",'.repeat(size / 4)}"a"]`,
    'keys that are all different': () => `[{${Array.from({ length: size / 13 }, (_, i) => `"k${i}":1`).join(',')}}]`,
  };
  test.concurrent.for(Object.entries(bodies))('%s', async ([name, body], { fixture }) => {
    tell(fixture, body());
    const ran = await call(fixture, 'clusters -o json', `15 MiB of ${name}`);
    if (ran.status === 0) assert.deepEqual(checkClusterRows(ran.stdout), []);
    else checkFailure(ran);
  });
});
