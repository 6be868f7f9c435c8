import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { login } from '../../../src/cli/commands/login.ts';
import { assignNames, candidateNames, parseTemplate } from '../../../src/cli/sync/names.ts';
import type { ResolvedCluster } from '../../../src/discovery/clusters.ts';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../../src/sandbox/mesh.ts';
import { UsageError } from '../../../src/util/errors.ts';
import { Fixture } from './fixture.ts';

const cluster = (server: string, name: string, labels: Record<string, string> = {}): ResolvedCluster => ({
  name,
  server,
  apiEndpoint: 'https://api.example.com',
  state: 'healthy',
  reason: null,
  lastSeen: null,
  version: null,
  provenance: 'stated',
  labels: new Map(Object.entries(labels)),
  through: null,
  servers: [],
});

interface NamingOptions {
  readonly template?: string;
  readonly tailnet?: string;
  readonly kept?: Readonly<Record<string, string>>;
  readonly taken?: readonly string[];
}

function naming(clusters: readonly ResolvedCluster[], options: NamingOptions = {}): Record<string, string> {
  const template = options.template === undefined ? undefined : parseTemplate(options.template);
  const { tailnet = 'example.ts.net', kept = {}, taken = [] } = options;
  const candidates = new Map(clusters.map((one) => [one.server, candidateNames(one, { tailnet, template })]));
  return Object.fromEntries(
    assignNames(candidates, new Map(Object.entries(kept)), new Set([...taken, ...Object.values(kept)])),
  );
}

const [a, b, c] = ['https://tka-a.example.ts.net', 'https://tka-b.example.ts.net', 'https://tka-c.example.ts.net'];
const digest = (server: string) => createHash('sha256').update(server).digest('hex').slice(0, 10);
const west = { environment: 'production', region: 'us-west-2' };

describe('names', () => {
  const rows: readonly [string, readonly ResolvedCluster[], NamingOptions, Record<string, string>][] = [
    [
      'are the cluster’s',
      [cluster(a, 'x'), cluster('http://100.64.0.1', 'prod')],
      {},
      { [a]: 'x', 'http://100.64.0.1': 'prod' },
    ],
    [
      'are the host’s, without the tailnet, if two clusters have the same name',
      [cluster(a, 'x'), cluster(b, 'x')],
      {},
      { [a]: 'tka-a', [b]: 'tka-b' },
    ],
    [
      'are both longer if two would be the same',
      [cluster('https://tka.one.ts.net', 'x'), cluster('https://tka.two.ts.net', 'x'), cluster(c, 'x')],
      {},
      { 'https://tka.one.ts.net': 'tka.one.ts.net', 'https://tka.two.ts.net': 'tka.two.ts.net', [c]: 'tka-c' },
    ],
    [
      'are even longer if two hosts are the same',
      [cluster('http://100.64.0.1:81', 'prod'), cluster('http://100.64.0.1:82', 'prod')],
      {},
      { 'http://100.64.0.1:81': '100.64.0.1-81', 'http://100.64.0.1:82': '100.64.0.1-82' },
    ],
    [
      'differ at least by scheme',
      [cluster('http://100.64.0.1', 'prod'), cluster('https://100.64.0.1', 'prod')],
      {},
      { 'http://100.64.0.1': 'http-100.64.0.1', 'https://100.64.0.1': 'https-100.64.0.1' },
    ],
    [
      'are longer if one’s longer name is another’s short one',
      [
        cluster('http://100.64.0.1:81', 'p'),
        cluster('http://100.64.0.1:82', 'p'),
        cluster('http://100.64.0.2', '100.64.0.1-81'),
      ],
      {},
      {
        'http://100.64.0.1:81': 'http-100.64.0.1-81',
        'http://100.64.0.1:82': '100.64.0.1-82',
        'http://100.64.0.2': '100.64.0.2',
      },
    ],
    [
      'end in a digest if everything else is the same',
      [cluster('https://h.test', 'x'), cluster('http://h.test:81', 'x'), cluster('http://h.test-81', 'x')],
      {},
      {
        'https://h.test': 'https-h.test',
        'http://h.test:81': `x-${digest('http://h.test:81')}`,
        'http://h.test-81': `x-${digest('http://h.test-81')}`,
      },
    ],
    [
      'follow a template',
      [cluster(a, 'x', west)],
      { template: '{labels.environment}-{labels.region}' },
      { [a]: 'production-us-west-2' },
    ],
    [
      'follow a template with the name',
      [cluster(a, 'x', west)],
      { template: 'work/{name}@{labels.region}' },
      { [a]: 'work/x@us-west-2' },
    ],
    [
      'from a template both name the member if two would be the same',
      [cluster(a, 'x', west), cluster(b, 'y', west), cluster(c, 'z', { ...west, region: 'eu' })],
      { template: '{labels.environment}-{labels.region}' },
      { [a]: 'production-us-west-2-x', [b]: 'production-us-west-2-y', [c]: 'production-eu' },
    ],
    [
      'from a template name the host if the members are the same too',
      [cluster(a, 'x', west), cluster(b, 'x', west)],
      { template: '{name}' },
      { [a]: 'x-tka-a', [b]: 'x-tka-b' },
    ],
    [
      'of a known server stay',
      [cluster(a, 'x'), cluster(b, 'y')],
      { kept: { [a]: 'mine' } },
      { [a]: 'mine', [b]: 'y' },
    ],
    ['of another server are not used', [cluster(a, 'x')], { taken: ['x'] }, { [a]: 'tka-a' }],
    [
      'of a new cluster are longer if the short one is taken',
      [cluster('http://100.64.0.1', 'prod'), cluster('http://100.64.0.2', 'prod')],
      { kept: { 'http://100.64.0.1': 'prod' } },
      { 'http://100.64.0.1': 'prod', 'http://100.64.0.2': '100.64.0.2' },
    ],
    [
      'of a new cluster are those of a single run, even if the other was named first',
      [cluster('http://100.64.0.1', 'prod'), cluster('http://100.64.0.2', 'prod')],
      { kept: { 'http://100.64.0.1': '100.64.0.1' } },
      { 'http://100.64.0.1': '100.64.0.1', 'http://100.64.0.2': '100.64.0.2' },
    ],
  ];
  it.each(rows)('%s', (_, clusters, options, expected) => {
    const names = naming(clusters, options);
    expect(names).toEqual(expected);
    expect(new Set(Object.values(names)).size).toBe(Object.keys(names).length);
    expect(naming(clusters.toReversed(), options)).toEqual(names);
  });

  it('are the same in one run, in two, and in any order', () => {
    const servers = Array.from({ length: 60 }, (_, i) => `http://100.64.${i % 7}.${i % 5}:${8000 + (i % 11)}`);
    const clusters = [...new Set(servers)].map((server, i) => cluster(server, `m${i % 4}`, { region: `r${i % 3}` }));
    for (const template of [undefined, '{name}', '{labels.region}', '{name}-{labels.region}']) {
      const options = { ...(template !== undefined && { template }) };
      const once = naming(clusters, options);
      expect(Object.keys(once)).toHaveLength(clusters.length);
      for (const step of [2, 3, 7]) {
        const first = Object.entries(once).filter((_, i) => i % step === 0);
        expect(naming(clusters.toReversed(), { ...options, kept: Object.fromEntries(first) })).toEqual(once);
      }
    }
  });
});

describe('a template', () => {
  it.each([
    '',
    '  ',
    'fixed',
    '{}',
    '{nam}',
    '{name',
    'name}',
    '{name}}',
    '{{name}}',
    '{labels.}',
    '{labels}',
    '{name}\n',
    '\u001b[1m{name}',
    ' {name}',
    '{constructor}',
    `{name}${'x'.repeat(300)}`,
  ])('is a usage error as %j', (text) => expect(() => parseTemplate(text)).toThrow(UsageError));

  it.each([
    ['an absent label', {}, 'it has no label region, which the context template uses'],
    ['an inherited one', { constructor: 'x' }, 'it has no label region, which the context template uses'],
    ['an empty one', { region: '' }, 'its label region cannot be part of a name: ""'],
    ['white space', { region: 'a b' }, 'its label region cannot be part of a name: "a b"'],
    ['an option', { region: '-n' }, 'its label region cannot be part of a name: "-n"'],
    ['a path', { region: '../../x' }, 'its label region cannot be part of a name: "../../x"'],
    ['YAML syntax', { region: 'a: {b' }, 'its label region cannot be part of a name: "a: {b"'],
    ['shell syntax', { region: '$(id)' }, 'its label region cannot be part of a name: "$(id)"'],
    ['another placeholder', { region: '{name}' }, 'its label region cannot be part of a name: "{name}"'],
    ['look-alike letters', { region: 'рrod' }, 'its label region cannot be part of a name: "рrod"'],
    [
      'a value that is too long',
      { region: 'x'.repeat(64) },
      `its label region cannot be part of a name: "${'x'.repeat(64)}"`,
    ],
  ])('gives no name for %s', (_, labels, message) => {
    const template = parseTemplate('{labels.region}');
    expect(() => template(cluster(a, 'x', labels))).toThrow(message);
  });

  it('gives no name that is too long, and accepts keys with dots and slashes', () => {
    const long = parseTemplate('{labels.a}'.repeat(5));
    expect(() => long(cluster(a, 'x', { a: 'x'.repeat(63) }))).toThrow('the context template gives an invalid name');
    const zone = parseTemplate('{labels.topology.kubernetes.io/zone}');
    expect(zone(cluster(a, 'x', { 'topology.kubernetes.io/zone': 'b' }))).toBe('b');
  });
});

describe('on the mesh', () => {
  let mesh: SandboxMesh;
  let fixture: Fixture;
  let us: SandboxCluster;
  beforeEach(async () => {
    mesh = await startMesh();
    us = mesh.cluster('prod-us');
    fixture = new Fixture(us.server);
  });
  afterEach(async () => {
    fixture.remove();
    await mesh.close();
  });
  const template = '{labels.environment}-{labels.region}';
  const byTemplate = ['production-eu-central-1', 'production-us-west-2', 'staging-us-west-2'];

  it('new contexts follow the template, and keep their names without one', async () => {
    await fixture.sync({ contextTemplate: template });
    expect(await fixture.names()).toEqual(byTemplate);
    const before = fixture.stamp();
    expect((await fixture.sync()).stdout).toBe('3 unchanged.\n');
    expect((await fixture.sync({ contextTemplate: template })).stdout).toBe('3 unchanged.\n');
    expect(fixture.stamp()).toBe(before);
  });

  it('existing contexts are renamed only with a template, and the current one stays current', async () => {
    await fixture.sync();
    fixture.write(
      fixture
        .read()
        .replace(/^current-context: .*\n/m, '')
        .concat('current-context: prod-us\n'),
    );
    const said = await fixture.sync({ contextTemplate: template });
    expect(said.stdout).toBe(
      '3 renamed: prod-eu to production-eu-central-1, prod-us to production-us-west-2, staging to staging-us-west-2.\n',
    );
    expect(await fixture.names()).toEqual(byTemplate);
    expect(fixture.read()).toMatch(/^current-context: "?production-us-west-2"?$/m);
    expect(fixture.read()).not.toContain('name: "prod-us"');
  });

  it('a context with a namespace of the user is not rewritten', async () => {
    await fixture.sync();
    fixture.write(fixture.read().replace(/(- context:\n)( +)/, '$1$2namespace: "mine"\n$2'));
    const before = fixture.read();
    const said = await fixture.sync({ contextTemplate: template, selector: 'region=eu-central-1' });
    expect(said.stdout).toBe('1 unchanged.\n');
    expect(said.stderr).toBe(
      'context "prod-eu" keeps its name instead of "production-eu-central-1": it has settings of yours, such as a namespace\nhint: kubectl config rename-context prod-eu production-eu-central-1\n',
    );
    expect(fixture.read()).toBe(before);
  });

  it('a context that the user named stays beside one that fits the template', async () => {
    await fixture.sync({ contextTemplate: template });
    await fixture.run((context) => login(context, [us.server], { context: 'mine', switch: true }));
    expect((await fixture.sync({ contextTemplate: template })).stdout).toBe('4 unchanged.\n');
  });

  it('a new cluster that claims another’s labels changes no other name', async () => {
    await fixture.sync({ contextTemplate: template });
    mesh.cluster('staging').gossip.labels = us.labels;
    const staging = mesh.cluster('staging').server;
    await fixture.run((context) => login(context, ['staging'], { switch: false }));
    const said = await fixture.sync({ contextTemplate: template });
    expect(said.stdout).toBe('1 renamed: staging-us-west-2 to production-us-west-2-staging. 2 unchanged.\n');
    expect(said.stderr).toBe(
      'staging: the name "production-us-west-2" is taken; its context is "production-us-west-2-staging"\n',
    );
    const names = (await fixture.ours()).map(({ name, server }) => [name, server]);
    expect(names).toContainEqual(['production-us-west-2', us.server]);
    expect(names).toContainEqual(['production-us-west-2-staging', staging]);
  });

  it('swapped labels move no context to another cluster', async () => {
    await fixture.sync({ contextTemplate: '{labels.region}', selector: 'environment=production' });
    const eu = mesh.cluster('prod-eu');
    us.gossip.labels = eu.labels;
    eu.gossip.labels = us.labels;
    const said = await fixture.sync({ contextTemplate: '{labels.region}', selector: 'environment=production' });
    expect(said.error).toBeUndefined();
    for (const { name, server } of await fixture.ours()) expect(name).toMatch(server === us.server ? /us$/ : /eu/);
    const before = fixture.stamp();
    await fixture.sync({ contextTemplate: '{labels.region}', selector: 'environment=production' });
    expect(fixture.stamp()).toBe(before);
  });

  it('a member without the label is reported, and the others are synced', async () => {
    mesh.cluster('prod-eu').gossip.labels = { environment: 'production' };
    const said = await fixture.sync({ contextTemplate: template });
    expect(said.stdout).toBe('2 added: production-us-west-2, staging-us-west-2.\n');
    expect(said.stderr).toBe(
      'warning: prod-eu: it has no label region, which the context template uses; no context is written\n',
    );
    expect(said.error).toMatchObject({
      exitCode: 1,
      hints: expect.arrayContaining(['select the clusters that have it: -l environment,region']),
    });
  });

  it.each(['\u001b]0;x\u0007', 'a\nb: c', '"; rm -rf ~ #', '../../etc', '-x', 'x'.repeat(5_000), '{name}'])(
    'a label like %j adds nothing to the kubeconfig',
    async (value) => {
      mesh.cluster('staging').gossip.labels = { environment: value, region: 'us-west-2' };
      const said = await fixture.sync({ contextTemplate: template });
      expect(said.error?.message).toBe('1 of 3 clusters could not be synced: staging');
      expect(await fixture.names()).toEqual(byTemplate.slice(0, 2));
      expect(said.stderr.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
      expect(said.stderr.length).toBeLessThan(1000);
    },
  );
});
