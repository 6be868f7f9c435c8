import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { login } from '../../../src/cli/commands/login.ts';
import { askAll } from '../../../src/cli/sync/ask.ts';
import { readKubeconfig } from '../../../src/kubeconfig/index.ts';
import { demoClusters, type SandboxCluster, type SandboxMesh, startMesh } from '../../../src/sandbox/mesh.ts';
import { SessionStore } from '../../../src/session/store.ts';
import { Fixture } from './fixture.ts';

let mesh: SandboxMesh;
let fixture: Fixture;
let us: SandboxCluster;
let eu: SandboxCluster;
let staging: SandboxCluster;

beforeEach(async () => {
  mesh = await startMesh();
  [us, eu, staging] = [mesh.cluster('prod-us'), mesh.cluster('prod-eu'), mesh.cluster('staging')];
  fixture = new Fixture(us.server);
});
afterEach(async () => {
  fixture.remove();
  await mesh.close();
});

const all = ['prod-eu', 'prod-us', 'staging'];
const moveApi = (cluster: SandboxCluster, apiEndpoint: string) => {
  cluster.gossip.apiEndpoint = apiEndpoint;
  cluster.faults.clusterInfo = { server_url: apiEndpoint };
};
const otherCa = Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n').toString('base64');
const foreign = (name: string) => `apiVersion: v1
kind: Config
# mine
clusters:
- cluster: {server: "https://mine.example.com"}
  name: ${name}
contexts:
- context: {cluster: ${name}, user: ${name}}
  name: ${name}
current-context: ${name}
users:
- name: ${name}
  user:
    token: verysecret-verysecret
`;

describe('a sync', () => {
  it('writes a context for every cluster without a sign-in; a second run changes no byte', async () => {
    const first = await fixture.sync();
    expect(first).toEqual({ stdout: '3 added: prod-eu, prod-us, staging.\n', stderr: '', error: undefined });
    expect((await fixture.ours()).map(({ server, apiServer, caData }) => ({ server, apiServer, caData }))).toEqual(
      [eu, us, staging].map(({ server, apiServer, caData }) => ({ server, apiServer, caData })),
    );
    for (const cluster of mesh.clusters) expect(cluster.counts).toMatchObject({ clusterInfo: 1, login: 0 });
    const before = fixture.stamp();
    expect(await fixture.sync()).toEqual({ stdout: '3 unchanged.\n', stderr: '', error: undefined });
    expect(fixture.stamp()).toBe(before);
  });

  it('keeps foreign entries and the current context', async () => {
    fixture.write(foreign('mine'));
    await fixture.sync();
    const text = fixture.read();
    expect(text).toContain('current-context: mine\n');
    for (const line of foreign('mine').split('\n')) expect(text).toContain(line);
    expect(await fixture.names()).toEqual(all);
  });

  it('syncs only what the selector matches, and fails if that is nothing', async () => {
    expect((await fixture.sync({ selector: 'environment=production' })).stdout).toBe('2 added: prod-eu, prod-us.\n');
    expect((await fixture.sync({ selector: 'environment=none' })).error).toMatchObject({
      message: 'no cluster matches the selector',
      exitCode: 1,
    });
    expect((await fixture.sync({ selector: 'a=b=c' })).error?.exitCode).toBe(2);
  });

  it('repairs a managed entry, and reports it', async () => {
    await fixture.sync();
    fixture.write(fixture.read().replace('command: "/bin/sh"', 'command: "/nowhere/kubectl-tka"'));
    expect((await fixture.sync()).stdout).toBe('1 updated: prod-eu. 2 unchanged.\n');
    fixture.write(fixture.read().replace('interactiveMode: "Never"', 'interactiveMode: "Always"'));
    expect((await fixture.sync()).stdout).toBe('3 unchanged, except for details that were repaired.\n');
    const before = fixture.stamp();
    await fixture.sync();
    expect(fixture.stamp()).toBe(before);
  });

  it('is the same as login --all-contexts', async () => {
    const said = await fixture.run((context) => login(context, [], { allContexts: true }));
    expect(said.stdout).toBe(
      '3 added: prod-eu, prod-us, staging.\nThe current context is still none. kubectl signs in to each cluster on first use.\n',
    );
    expect(await fixture.names()).toEqual(all);
  });
});

describe('members that do not answer', () => {
  it.each([
    ['dead', 'dead', 0],
    ['suspected', 'suspected', 0],
    ['healthy', 'healthy', 1],
  ] as const)('a %s one keeps its entry unchanged', async (_, state, exit) => {
    await fixture.sync();
    const before = fixture.stamp();
    eu.gossip.state = state;
    eu.faults.routes.clusterInfo = { reset: 'before' };
    const said = await fixture.sync({ prune: true });
    expect(said.stderr).toMatch(/^warning: prod-eu: cannot reach http:\S+: .*; context prod-eu is unchanged$/m);
    expect(said.stdout).toBe('1 kept unchanged: prod-eu. 2 unchanged.\n');
    expect(said.error?.exitCode ?? 0).toBe(exit);
    expect(fixture.stamp()).toBe(before);
  });

  it('asks the others without waiting for one, and writes those that answered', async () => {
    eu.gossip.state = 'dead';
    eu.faults.routes.clusterInfo = { silent: true };
    const said = await fixture.sync();
    expect(said.stdout).toBe('2 added: prod-us, staging.\n');
    expect(said.stderr).toMatch(/^warning: prod-eu: .*no answer within 2 s; no context is written$/m);
    expect(said.error).toBeUndefined();
  });

  it('refuses a server with another API endpoint than its member, dead or not', async () => {
    eu.gossip.state = 'dead';
    eu.faults.clusterInfo = { server_url: 'https://evil.example.com' };
    const said = await fixture.sync();
    expect(said.stdout).toBe('2 added: prod-us, staging.\n');
    expect(said.error).toMatchObject({ message: '1 of 3 clusters could not be synced: prod-eu', exitCode: 1 });
    expect(fixture.read()).not.toContain('evil');
  });

  it.each([
    ['healthy', 1],
    ['dead', 0],
  ] as const)('an unresolved %s one is reported', async (state, exit) => {
    const rows = [
      { apiEndpoint: us.apiServer, name: 'prod-us', server: us.server, state: 'healthy', labels: null },
      { apiEndpoint: 'https://far.example.com', name: 'far', state, labels: null },
    ];
    us.faults.memberlist = { raw: JSON.stringify(rows) };
    const said = await fixture.sync();
    expect(said.stdout).toBe('1 added: prod-us.\n');
    expect(said.stderr).toMatch(/^warning: far: no known TKA server: (?!.*\bfar\b).*; no context is written$/m);
    expect(said.error?.exitCode ?? 0).toBe(exit);
  });

  it('does not say that there is nothing to do if nothing could be done', async () => {
    const rows = [{ apiEndpoint: 'https://far.example.com', name: 'far', state: 'healthy', labels: null }];
    us.faults.memberlist = { raw: JSON.stringify(rows) };
    const said = await fixture.sync();
    expect(said).toMatchObject({ stdout: '', error: { message: '1 of 1 clusters could not be synced: far' } });
    const dry = await fixture.sync({ dryRun: true });
    expect(dry.stdout).toBe('Plan: no context changes; 1 of 1 clusters failed.\n');
    expect(dry.stderr).toMatch(/^dry run: nothing is written$/m);
    us.faults.memberlist = { raw: '[]' };
    expect((await fixture.sync()).stdout).not.toMatch(/added/);
  });

  it('changes and prunes nothing if no server answers, with a message', async () => {
    await fixture.sync();
    staging.gossip.listed = false;
    fixture.forgetMissing();
    await fixture.sync();
    const before = fixture.stamp();
    for (const cluster of mesh.clusters) await cluster.stop();
    const said = await fixture.sync({ prune: true });
    expect(said.stderr).toContain('warning: no TKA server answered, so nothing is removed\n');
    expect(said.stdout).toBe('2 kept unchanged: prod-eu, prod-us.\n');
    expect(said.error?.exitCode).toBe(1);
    expect(fixture.stamp()).toBe(before);
  });
});

describe('many failures', () => {
  it('with one reason share a line', async () => {
    const gone = Array.from({ length: 6 }, (_, i) => ({
      ...{ name: `gone-${i}`, server: `http://127.0.0.1:${i + 1}`, apiEndpoint: `https://gone-${i}.example.com` },
      ...{ state: 'healthy', labels: null },
    }));
    const row = { name: 'prod-us', server: us.server, apiEndpoint: us.apiServer, state: 'healthy', labels: null };
    us.faults.memberlist = { raw: JSON.stringify([...gone, row]) };
    const said = await fixture.sync();
    expect(said.stdout).toBe('1 added: prod-us.\n');
    expect(said.stderr).toMatch(
      /^warning: 6 clusters: cannot reach its TKA server: .*; no contexts are written: gone-0, gone-1, .*, gone-5$/m,
    );
    expect(said.stderr.match(/^warning: /gm)).toHaveLength(1);
    expect(said.error?.message).toMatch(/^6 of 7 clusters could not be synced: gone-0, /);
    expect((await fixture.sync({ dryRun: true })).stdout).toBe('Plan: 1 unchanged; 6 of 7 clusters failed.\n');
  });
});

describe('lists that request too much', () => {
  const row = (name: string, more: object = {}) => ({
    apiEndpoint: `https://${name}.example.com`,
    apiPort: 1,
    labels: null,
    name,
    server: us.server,
    state: 'healthy',
    ...more,
  });

  it('a server that many members name is asked once', async () => {
    const rows = Array.from({ length: 300 }, (_, i) => row(`fake-${i}`));
    const raw = JSON.stringify([...rows, row('prod-us', { apiEndpoint: us.apiServer })]);
    us.faults.memberlist = { raw };
    const said = await fixture.sync();
    expect(us.counts.clusterInfo).toBe(1);
    expect(said.stdout).toBe('1 added: prod-us.\n');
    expect(said.error?.message).toMatch(/^300 of 301 clusters could not be synced: fake-0, .* and 280 more$/);
    expect(said.stderr.split('\n')).toHaveLength(102);
    expect(said.stderr).toMatch(/^warning: and 200 more$/m);
  });

  it('every cluster that was not asked in time is reported', async () => {
    const context = await fixture.context([[], []]);
    const { allClusters } = await import('../../../src/cli/target/clusters.ts');
    const { trustOf } = await import('../../../src/cli/target/trust.ts');
    const view = await readKubeconfig(context.kubeconfig);
    const list = await allClusters(context, view);
    const trust = trustOf(context, view);
    const none = await askAll(context, list, { first: () => false, trust, budget: 0 });
    expect(none.answers).toEqual([]);
    expect(none.problems.map(({ error }) => error.message)).toEqual(Array(3).fill('not asked in time'));
    expect(us.counts.clusterInfo + eu.counts.clusterInfo).toBe(0);
    const some = await askAll(context, list, { first: ({ name }) => name === 'staging', trust });
    expect(some.answers.map(({ cluster }) => cluster.name)).toEqual(all);
  });
});

describe('changed access', () => {
  it('of the API server is shown and needs --accept-changes; the others are synced', async () => {
    await fixture.sync({ selector: 'environment=production' });
    const old = us.apiServer;
    moveApi(us, 'https://new.example.com:6443');
    const said = await fixture.sync();
    expect(said.stdout).toBe('1 added: staging. 1 kept unchanged: prod-us. 1 unchanged.\n');
    expect(said.stderr).toBe(
      `warning: prod-us: its API server has changed: ${old} → https://new.example.com:6443; context prod-us is unchanged\n`,
    );
    expect(said.error).toMatchObject({
      message: '1 of 3 clusters could not be synced: prod-us',
      hints: ['if these changes are expected: kubectl tka sync --accept-changes'],
      exitCode: 1,
    });
    expect(fixture.read()).not.toContain('new.example.com');

    const accepted = await fixture.sync({ acceptChanges: true });
    expect(accepted.error).toBeUndefined();
    expect(accepted.stdout).toBe('1 updated: prod-us. 2 unchanged.\n');
    expect(accepted.stderr).toContain(`prod-us: its API server has changed: ${old} → https://new.example.com:6443`);
    expect(fixture.read()).not.toContain(old);
    expect(await fixture.sync()).toEqual({ stdout: '3 unchanged.\n', stderr: '', error: undefined });
  });

  it.each([
    ['to another', otherCa, /its CA has changed: sha256 [0-9a-f]{64} → sha256 of the file [0-9a-f]{64};/],
    ['to none', '', /its CA has changed: sha256 [0-9a-f]{64} → the system's CAs;/],
  ])('of the CA %s', async (_, ca_data, line) => {
    await fixture.sync();
    const before = fixture.stamp();
    eu.faults.clusterInfo = { ca_data };
    const said = await fixture.sync();
    expect(said.stderr).toMatch(line);
    expect(said.error?.exitCode).toBe(1);
    expect(fixture.stamp()).toBe(before);
    expect((await fixture.sync({ acceptChanges: true })).stdout).toBe('1 updated: prod-eu. 2 unchanged.\n');
    expect((await fixture.ours())[0]?.caData ?? '').toBe(ca_data);
  });

  it('of the TKA server too: the context stays the cluster’s, with its name', async () => {
    await fixture.sync();
    const eu = mesh.cluster('prod-eu');
    const { server } = eu;
    await eu.stop();
    await eu.start(0);
    // As after a minute, without the cached list.
    fixture.forgetMissing();
    const before = fixture.stamp();
    const shown = await fixture.sync({ prune: true });
    expect(shown.stderr).toBe(
      `warning: prod-eu: its TKA server has changed: ${server} → ${eu.server}; context prod-eu is unchanged\n`,
    );
    expect(shown.error).toMatchObject({ exitCode: 1, hints: [expect.stringContaining('--accept-changes')] });
    expect(fixture.stamp()).toBe(before);
    const taken = await fixture.sync({ acceptChanges: true });
    expect(taken).toMatchObject({ error: undefined, stdout: '1 updated: prod-eu. 2 unchanged.\n' });
    expect((await fixture.ours()).find(({ name }) => name === 'prod-eu')?.server).toBe(eu.server);
    expect(await fixture.names()).toEqual(['prod-eu', 'prod-us', 'staging']);
    expect((await fixture.sync()).stdout).toBe('3 unchanged.\n');
  });

  it('from no CA to one is a change too, white space in it is not', async () => {
    eu.faults.clusterInfo = { ca_data: '' };
    await fixture.sync();
    eu.faults.clusterInfo = undefined;
    expect((await fixture.sync()).stderr).toContain("its CA has changed: the system's CAs → sha256 ");
    await fixture.sync({ acceptChanges: true });
    eu.faults.clusterInfo = { ca_data: eu.caData.replace(/.{64}/g, '$&\n') };
    expect((await fixture.sync()).stdout).toBe('3 unchanged.\n');
  });

  it('does not change contexts for the cluster’s other servers, which keep their server and remember the others', async () => {
    await using many = await startMesh({ clusters: demoClusters });
    const [first, second] = [many.cluster('prod-us').server, many.cluster('prod-us-1').server];
    const at = { server: first };
    await fixture.run((context) => login(context, [second], { context: 'mine', switch: false }), at);
    fixture.write(fixture.read().replace(/^ +(?:cluster: "prod-us"|servers:|- "http:.*|signInStore: .*)\n/gm, ''));
    expect((await fixture.ours()).map(({ siblings }) => siblings)).toEqual([undefined]);
    await fixture.sync({ selector: 'region=us-west-2,environment=production' }, at);
    const [mine] = await fixture.ours();
    expect(mine).toMatchObject({ name: 'mine', server: second, siblings: { servers: [first] } });
  });

  it('changes all contexts of the cluster or none', async () => {
    await fixture.sync();
    await fixture.run((context) => login(context, [us.server], { context: 'mine', switch: false }));
    moveApi(us, 'https://new.example.com');
    expect((await fixture.sync()).stdout).toBe('2 kept unchanged: prod-us, mine. 2 unchanged.\n');
    expect((await fixture.sync({ acceptChanges: true })).stdout).toBe('2 updated: prod-us, mine. 2 unchanged.\n');
  });
});

describe('an API server without a certificate to check', () => {
  it('needs consent, which login gives for one cluster', async () => {
    eu.faults.clusterInfo = { insecure_skip_tls_verify: true };
    const refused = await fixture.sync();
    expect(refused.stdout).toBe('2 added: prod-us, staging.\n');
    expect(refused.error).toMatchObject({
      exitCode: 1,
      hints: [`if you accept that: kubectl tka login ${eu.server} --no-switch --insecure-skip-tls-verify`],
    });
    expect(fs.existsSync(path.join(fixture.state, 'insecure'))).toBe(false);
    new SessionStore({ cache: undefined, state: fixture.state }).consents.write(eu.server, eu.apiServer);
    const agreed = await fixture.sync();
    expect(agreed.stdout).toBe('1 added: prod-eu. 2 unchanged.\n');
    expect(agreed.error).toBeUndefined();
  });

  it('is a change for a cluster that was known with one', async () => {
    await fixture.sync();
    const before = fixture.stamp();
    eu.faults.clusterInfo = { insecure_skip_tls_verify: true };
    new SessionStore({ cache: undefined, state: fixture.state }).consents.write(eu.server, eu.apiServer);
    const said = await fixture.sync();
    expect(said.stderr).toMatch(/its CA has changed: sha256 \S+ → TLS verification skipped/);
    expect(fixture.stamp()).toBe(before);
  });
});

describe('--prune', () => {
  it('keeps a missing member’s context, and removes it when the member is no longer listed', async () => {
    await fixture.sync();
    eu.gossip.listed = false;
    const missing = await fixture.sync({ prune: true });
    expect(missing.stdout).toBe('3 unchanged.\n');
    await eu.stop();
    const silent = await fixture.sync({ prune: true });
    expect(silent.stdout).toBe('1 kept unchanged: prod-eu. 2 unchanged.\n');
    expect(silent.error).toBeUndefined();
    fixture.forgetMissing();
    expect((await fixture.sync()).stdout).toBe('2 unchanged.\n');
    expect(await fixture.names()).toEqual(all);
    expect(await fixture.sync({ prune: true })).toEqual({
      stdout: '1 removed: prod-eu. 2 unchanged.\n',
      stderr: '',
      error: undefined,
    });
    expect(fixture.read()).not.toContain('prod-eu');
  });

  it('does not prune clusters that the selector excludes', async () => {
    await fixture.sync();
    expect((await fixture.sync({ prune: true, selector: 'environment=staging' })).stdout).toBe('1 unchanged.\n');
    expect(await fixture.names()).toEqual(all);
  });

  it('keeps contexts for servers that no memberlist ever named, and foreign ones', async () => {
    await using other = await startMesh({ clusters: [{ name: 'elsewhere' }] });
    const { server } = other.cluster('elsewhere');
    fixture.write(foreign('mine'));
    await fixture.run((context) => login(context, [server], { context: 'by-url', switch: false }));
    await fixture.sync();
    const said = await fixture.sync({ prune: true });
    expect(said.stdout).toBe('3 unchanged.\n');
    expect(said.stderr).toContain('not removed, because no known memberlist has listed their servers: by-url\n');
    expect(await fixture.names()).toEqual(['by-url', ...all]);
    expect(fixture.read()).toContain('name: mine');
  });

  it('keeps another mesh’s contexts, in whatever order they were synced', async () => {
    await using other = await startMesh({ clusters: [{ name: 'a' }, { name: 'b' }] });
    const there = { server: other.cluster('a').server };
    await fixture.sync({}, there);
    await fixture.sync({ prune: true });
    await fixture.sync({ prune: true }, there);
    expect(await fixture.names()).toEqual(['a', 'b', ...all]);
  });

  it('removes the context of a cluster that the user named by its name, but not of one named by its address', async () => {
    const named = (context: string, name: string) =>
      fixture.run((each) => login(each, [name], { context, switch: false }));
    await named('by-name', 'prod-eu');
    await named('by-url', staging.server);
    await fixture.sync({ selector: 'environment=production' });
    for (const cluster of [eu, staging]) cluster.gossip.listed = false;
    fixture.forgetMissing();
    const said = await fixture.sync({ prune: true });
    expect(said.stdout).toBe('1 removed: by-name. 1 unchanged.\n');
    expect(said.stderr).toContain('listed their servers: by-url\n');
    expect(await fixture.names()).toEqual(['by-url', 'prod-us']);
  });

  it('keeps a context for a server that was named by its address, also after it was renamed', async () => {
    await fixture.run((each) => login(each, [staging.server], { switch: false }));
    const said = await fixture.sync({
      contextTemplate: '{labels.environment}-{name}',
      selector: 'environment=staging',
    });
    expect(said.stdout).toMatch(/^1 renamed: \S+ to staging-staging\./);
    await fixture.sync();
    staging.gossip.listed = false;
    fixture.forgetMissing();
    expect((await fixture.sync({ prune: true })).stderr).toContain('listed their servers: staging-staging\n');
    expect(await fixture.names()).toContain('staging-staging');
  });

  it('keeps contexts of version 0.1.0, which do not say what named their servers', async () => {
    await fixture.sync();
    fixture.write(fixture.read().replace(/^ +namedBy: .*\n/gm, ''));
    const before = fixture.stamp();
    eu.gossip.listed = false;
    fixture.forgetMissing();
    const said = await fixture.sync({ prune: true });
    expect(said.stdout).toBe('2 unchanged.\n');
    expect(said.stderr).toContain('listed their servers: prod-eu\n');
    expect(fixture.stamp()).toBe(before);
  });

  it('does not treat servers without gossip as a shrunken mesh', async () => {
    await fixture.sync();
    for (const cluster of mesh.clusters) cluster.faults.memberlist = 'gossip-503';
    await staging.stop();
    fixture.forgetMissing();
    await fixture.sync({ prune: true });
    expect(await fixture.names()).toEqual(all);
  });

  it('reports the removal of the current context', async () => {
    await fixture.sync();
    fixture.write(`${fixture.read()}current-context: prod-eu\n`.replace(/^current-context: ""\n/m, ''));
    eu.gossip.listed = false;
    fixture.forgetMissing();
    const said = await fixture.sync({ prune: true });
    expect(said.stderr).toContain('no current context any more (was "prod-eu")\n');
  });
});

describe('names that are taken', () => {
  it('because our contexts are mixed up', async () => {
    await fixture.sync();
    fixture.write(fixture.read().replace('    cluster: "prod-us"', '    cluster: "prod-eu"'));
    const said = await fixture.sync({ acceptChanges: true });
    expect(said.stdout).toBe('1 kept unchanged: prod-us. 2 unchanged.\n');
    expect(said.stderr).toContain('prod-us: cluster "prod-eu" is in use by context "prod-eu" for another server;');
    expect(said.error?.exitCode).toBe(1);
  });

  it('fails once, and changes nothing, if the file itself cannot be edited', async () => {
    const text = 'apiVersion: v1\nkind: Config\nx: &a []\ncontexts: *a\nclusters: *a\nusers: *a\n';
    fixture.write(text);
    const said = await fixture.sync();
    expect(said.error).toBeDefined();
    expect(said.stdout).toBe('');
    expect(fixture.read()).toBe(text);
  });
});
