import * as fs from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { type RouteFault, type SandboxCluster, startMesh, type TokenFault } from '../../src/sandbox/mesh.ts';
import { timeLeft } from '../../src/session/session.ts';
import { failure, fileMesh, type Machine, newMachine } from './fixture.ts';

const mesh = fileMesh();
let machine: Machine;
let cluster: SandboxCluster;

beforeEach(async () => {
  machine = await newMachine(mesh());
  ({ cluster } = machine);
});

describe('a token about to expire', () => {
  beforeEach(async () => {
    // Valid for 50 s: too short to be fresh, long enough to be served.
    cluster.faults.token = { expOffsetMs: 50_000 };
    await machine.call();
    cluster.faults.token = undefined;
    cluster.resetCounts();
    machine.said.length = 0;
  });

  it('is refreshed', async () => {
    const session = await machine.call();
    expect(cluster.counts.login).toBe(1);
    expect(timeLeft(session)).toBeGreaterThan(600_000);
    expect(machine.said).toEqual([]);
  });

  const all = (fault: RouteFault) => {
    cluster.faults.routes.all = fault;
  };
  const token = (fault: TokenFault) => {
    cluster.faults.token = fault;
  };
  it.each([
    ['refuses connections', () => cluster.stop()],
    ['resets', () => all({ reset: 'before' })],
    ['fails', () => all({ answer: { status: 500, body: { message: 'no' } } })],
    ['answers a proxy’s 404 page', () => all({ answer: { status: 404, body: '<html>', contentType: 'text/html' } })],
    ['speaks another protocol', () => all({ notJson: true })],
    ['has reached its limit', () => all({ answer: { status: 429, headers: { 'Retry-After': '10' } } })],
    ['has an error in its policy', () => all({ answer: { status: 422, body: { message: 'no period' } } })],
    [
      'is a joined cluster in conflict with another one',
      () => all({ answer: { status: 409, body: { message: 'it conflicts with another cluster' } } }),
    ],
    ['gives an empty token', () => token({ empty: true })],
    ['gives an expired token', () => token({ expOffsetMs: -1 })],
  ])('is served with one warning if the server %s, and for the next 30 s without a retry', async (_, misbehave) => {
    const old = machine.kept();
    await misbehave();
    expect((await machine.call()).token).toBe(old?.token);
    expect(machine.said).toHaveLength(1);
    expect(machine.said[0]).toMatch(/: using the cached token, valid until /);
    const { login } = cluster.counts;
    expect((await machine.call()).token).toBe(old?.token);
    expect(machine.said).toHaveLength(1);
    expect(cluster.counts.login).toBe(login);
    const fresh = machine.kept()?.freshUntil ?? 0;
    expect(fresh - Date.now() / 1000).toBeGreaterThan(15);
    expect(fresh - Date.now() / 1000).toBeLessThan(32);
  });

  it('is served within 5 s if the server is silent, also to waiting callers', async () => {
    cluster.faults.routes.all = { silent: true };
    const started = performance.now();
    const all = await Promise.all([
      machine.call({ timeout: 30_000 }),
      machine.call({ timeout: 30_000 }),
      machine.call({ timeout: 30_000 }),
    ]);
    // Less than the whole timeout.
    expect(performance.now() - started).toBeLessThan(20_000);
    expect(new Set(all.map((s) => s.token)).size).toBe(1);
    expect(machine.said.length).toBeGreaterThanOrEqual(1);
  });

  it('is not served if the server refuses in the protocol’s own form', async () => {
    cluster.user = null;
    const error = await failure(machine.call());
    expect(error.message).toContain('no grant for ');
    expect(machine.kept()).toBeUndefined();
  });

  it('is not served if it is valid for less than 30 s', async () => {
    cluster.faults.token = { expOffsetMs: 20_000 };
    await machine.signIn();
    await cluster.stop();
    expect((await failure(machine.call())).message).toMatch(/connection refused/);
  });
});

describe('a token that the API server refuses', () => {
  it('is replaced at the second call of the same process', async () => {
    const first = await machine.call({ parent: 1 });
    cluster.deleteServiceAccount();
    expect((await machine.call({ parent: 2 })).token).toBe(first.token);
    cluster.resetCounts();
    const healed = await machine.call({ parent: 2 });
    expect(healed.token).not.toBe(first.token);
    expect(cluster.counts).toMatchObject({ login: 1, tokensRefused: 1 });
    cluster.resetCounts();
    expect((await machine.call({ parent: 3 })).token).toBe(healed.token);
    expect(cluster.counts).toMatchObject({ login: 0, api: 0 });
  });

  /** As if the last check at the API server were a minute ago. */
  const minuteLater = () => fs.rmSync(machine.entry('+checked'), { force: true });

  it('is checked only then, and served unchanged if the API server accepts it or does not answer', async () => {
    const { token } = await machine.call({ parent: 1 });
    expect(cluster.counts.api).toBe(0);
    expect((await machine.call({ parent: 1 })).token).toBe(token);
    expect(cluster.counts).toMatchObject({ api: 1, tokensRefused: 0, login: 1 });
    for (const fault of [
      { answer: { status: 500 } },
      { answer: { status: 403 } },
      { reset: 'before' as const },
      { silent: true },
    ]) {
      minuteLater();
      cluster.faults.routes.api = fault;
      expect((await machine.call({ parent: 1 })).token).toBe(token);
    }
    expect(cluster.counts).toMatchObject({ api: 5, login: 1 });
  });

  it('is checked once a minute, however often one process asks (kube-rs asks three times per client)', async () => {
    await machine.call({ parent: 1 });
    for (let i = 0; i < 5; i++) await machine.call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 1, login: 1 });
    minuteLater();
    await machine.call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 2, login: 1 });
  });

  it('is replaced if several processes ask in turn (k9s and Lens)', async () => {
    const { token } = await machine.call({ parent: 1 });
    await machine.call({ parent: 2 });
    cluster.deleteServiceAccount();
    await machine.call({ parent: 3 });
    expect((await machine.call({ parent: 1 })).token).not.toBe(token);
    expect(cluster.counts).toMatchObject({ login: 2, tokensRefused: 1 });
  });

  it('is replaced once if several callers ask again at the same time', async () => {
    const parents = [1, 2, 3, 4];
    for (const parent of parents) await machine.call({ parent });
    cluster.deleteServiceAccount();
    cluster.resetCounts();
    cluster.faults.routes.login = { latencyMs: 200 };
    const all = await Promise.all(parents.map((parent) => machine.call({ parent })));
    expect(new Set(all.map(({ token }) => token)).size).toBe(1);
    expect(cluster.counts).toMatchObject({ login: 1, tokensRefused: 1 });
  });

  it('is checked after a failed refresh too', async () => {
    // Too short to be fresh.
    cluster.faults.token = { expOffsetMs: 50_000 };
    await machine.call({ parent: 1 });
    cluster.faults.routes.login = { answer: { status: 422, body: { message: 'no period' } } };
    // The same token is stored again to spare the server.
    const { token } = await machine.call({ parent: 2 });
    expect(cluster.counts.api).toBe(0);
    expect((await machine.call({ parent: 1 })).token).toBe(token);
    expect(cluster.counts.api).toBe(1);
  });

  it('is not checked if one process asks again after a long time', async () => {
    await machine.call({ parent: 1 });
    fs.utimesSync(machine.entry('+served'), Date.now() / 1000 - 3600, Date.now() / 1000 - 3600);
    await machine.call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 0, login: 1 });
  });

  it('is not checked if a new one is due anyway', async () => {
    const session = await machine.call({ parent: 1 });
    machine.store.write({ ...session, freshUntil: Math.floor(Date.now() / 1000) - 1 }, undefined);
    expect(machine.files).toContain(`${machine.entryName}+served`);
    await machine.call({ parent: 1 });
    expect(cluster.counts).toMatchObject({ api: 0, login: 2 });
  });

  it('is not checked because of its predecessor’s callers', async () => {
    await machine.call({ parent: 1 });
    await machine.call({ parent: 1 });
    expect(cluster.counts.api).toBe(1);
    await machine.signIn();
    expect(machine.files).toEqual([machine.entryName]);
    await machine.call({ parent: 1 });
    expect(cluster.counts.api).toBe(1);
    // Its own minute has not started.
    await machine.call({ parent: 1 });
    expect(cluster.counts.api).toBe(2);
  });

  it('is not sent to another server at the API server’s address', async () => {
    const { token, ...session } = await machine.call({ parent: 1 });
    // Another CA beside the entry: it did not sign the certificate at that address.
    const strange = await startMesh({ clusters: [{ name: 'strange' }] });
    try {
      machine.store.write({ ...session, token, caData: strange.clusters[0]?.caData ?? '' }, undefined);
      cluster.resetCounts();
      expect((await machine.call({ parent: 1 })).token).toBe(token);
      expect((await machine.call({ parent: 1 })).token).toBe(token);
      expect(cluster.counts.api).toBe(0);
    } finally {
      await strange.close();
    }
  });
});
