import * as fs from 'node:fs';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { obtain, type SignInClient } from '../../src/session/obtain.ts';
import { SessionStore } from '../../src/session/store.ts';
import { TkaClient } from '../../src/tka/client.ts';
import { failure, fileMesh, type Machine, newMachine } from './fixture.ts';

const mesh = fileMesh();
let machine: Machine;
let cluster: SandboxCluster;

beforeEach(async () => {
  machine = await newMachine(mesh());
  ({ cluster } = machine);
});

describe('signing out', () => {
  it('revokes, deletes, and lasts until the next login', async () => {
    const { token } = await machine.call();
    expect(await machine.signOut()).toBe(true);
    expect(cluster.signIn()).toBeUndefined();
    expect(machine.files).toEqual([]);
    const error = await failure(machine.call());
    expect(error.message).toBe(`signed out of ${cluster.server}`);
    expect(error.hints).toEqual([`kubectl tka login ${cluster.server}`]);
    // A cleaner empties the cache: still signed out.
    fs.rmSync(machine.cache, { recursive: true });
    await failure(machine.call());
    expect(await machine.signOut()).toBe(false);
    const { session, previous } = await machine.signIn();
    expect(session.token).not.toBe(token);
    expect(previous).toEqual({ username: cluster.user?.username, role: 'viewer' });
    await machine.call();
  });

  it('happens locally even if the server is unreachable', async () => {
    await machine.call();
    await cluster.stop();
    const error = await failure(machine.signOut());
    expect(error.message).toMatch(/^signed out on this machine, but not on the server: .*connection refused/);
    expect(machine.files).toEqual([]);
    expect((await failure(machine.call())).message).toMatch(/^signed out of/);
  });

  it('and in again at once gives a token that works', async () => {
    await machine.call();
    cluster.faults.logoutRaceMs = 800;
    await machine.signOut();
    const { session } = await machine.signIn();
    expect(cluster.signIn()?.username).toBe(session.username);
    expect((await machine.call({ parent: 1 })).token).toBe(session.token);
    expect((await machine.call({ parent: 1 })).token).toBe(session.token);
    expect(cluster.counts.tokensRefused).toBe(0);
  });

  it('and in again at once does not pause if the server says that its logout is complete', async () => {
    await machine.call();
    cluster.faults.routes.logout = { headers: { 'Tka-Logout': 'complete' } };
    await machine.signOut();
    cluster.resetCounts();
    await machine.signIn();
    // After a pause it would have asked again.
    expect(cluster.counts.kubeconfig).toBe(1);
  });

  it('and in again does not wait longer because of a mark from the future', async () => {
    await machine.call();
    await machine.signOut();
    fs.utimesSync(path.join(machine.folder, 'state', 'signed-out', machine.entryName), 4e9, 4e9);
    const started = performance.now();
    await machine.signIn({ timeout: 20_000 });
    // Less than the whole timeout.
    expect(performance.now() - started).toBeLessThan(15_000);
  });

  it('wins over a pending sign-in', async () => {
    cluster.faults.routes.kubeconfig = { latencyMs: 500 };
    const pending = failure(machine.call());
    await cluster.seen('kubeconfig', 1);
    const out = machine.signOut();
    expect((await pending).message).toMatch(/^signed out of/);
    await out;
    expect(machine.files).toEqual([]);
    expect(cluster.signIn()).toBeUndefined();
  });

  it('wins over a pending login', async () => {
    cluster.faults.routes.kubeconfig = { latencyMs: 700, times: 1 };
    const login = failure(machine.signIn());
    await cluster.seen('kubeconfig', 1);
    const out = machine.signOut();
    expect((await login).message).toMatch(/^signed out of .* meanwhile$/);
    expect(await out).toBe(true);
    expect(cluster.signIn()).toBeUndefined();
    expect((await failure(machine.call())).message).toMatch(/^signed out of/);
  });

  it('is not undone on the server by a call that waits for its token', async () => {
    cluster.faults.pending = { forever: true, retryAfter: 1 };
    const pending = failure(machine.call({ timeout: 20_000 }));
    await cluster.seen('kubeconfig', 2);
    // The lock is held: after a while the logout continues without it.
    await machine.signOut();
    expect((await pending).message).toMatch(/^signed out of/);
    expect(cluster.counts.login).toBe(1);
    expect(cluster.signIn()).toBeUndefined();
  });

  it('revokes even if the cache and the state cannot be changed', async () => {
    await machine.call();
    const store = new SessionStore({ cache: '/dev/null/cache', state: '/dev/null/state' });
    const broken = machine.sessions(3000, store);
    expect((await failure(broken.signOut(cluster.server))).message).toMatch(/ENOTDIR|not a folder/);
    expect(cluster.counts.logout).toBe(1);
    expect(cluster.signIn()).toBeUndefined();
    expect(machine.said).toEqual([]);
  });

  it('counts its settling time from the server’s logout', async () => {
    await machine.call();
    cluster.faults.logoutRaceMs = 1000;
    cluster.faults.routes.logout = { latencyMs: 1200, times: 1 };
    await machine.signOut();
    const { session } = await machine.signIn();
    expect((await machine.call({ parent: 1 })).token).toBe(session.token);
    await machine.call({ parent: 1 });
    expect(cluster.counts.tokensRefused).toBe(0);
    expect(cluster.signIn()).toBeDefined();
  });

  it('and in again does not store a token that was requested before the settling time was over', async () => {
    await machine.call();
    cluster.faults.logoutRaceMs = 300;
    await machine.signOut();
    const settled = Date.now() + 600;
    const client = new TkaClient(cluster.server);
    const slow: SignInClient = {
      server: client.server,
      clockOffset: 0,
      login: (ask) => client.login(ask),
      kubeconfig: async (ask) => {
        const answer = await client.kubeconfig(ask);
        // The answer is in transit, or this process is not scheduled.
        if (answer.access !== 'pending') await delay(settled - Date.now() + 20);
        return answer;
      },
    };
    await obtain(slow, { deadline: performance.now() + 10_000, settled, log: () => {} });
    await client.close();
    expect(cluster.signIn()).toBeDefined();
  });

  it('survives a `forget`, which removes it from the lists', async () => {
    await machine.call();
    await machine.signOut();
    machine.store.forget(cluster.server);
    expect(machine.store.signedOut.list()).toEqual([]);
    expect((await failure(machine.call())).message).toMatch(/^signed out of/);
    await machine.signIn();
    await machine.call();
  });

  it('counts any file in place of the mark as a mark', async () => {
    await machine.signOut();
    const mark = path.join(machine.folder, 'state', 'signed-out', machine.entryName);
    fs.rmSync(mark);
    fs.mkdirSync(mark);
    expect((await failure(machine.call())).message).toMatch(/^signed out of/);
    await machine.signIn();
    await machine.call();
  });
});

describe('signing in', () => {
  it('always asks the server, and returns the previous user', async () => {
    await machine.call();
    machine.changeRole('cluster-admin', 3_600_000);
    cluster.resetCounts();
    const { session, previous } = await machine.signIn();
    expect(cluster.counts).toMatchObject({ login: 1, logout: 0 });
    expect(previous?.role).toBe('viewer');
    expect(session.role).toBe('cluster-admin');
  });

  const signIn = async () => (await machine.signIn()).session;

  it('reports the former role while it may still apply, until a logout', async () => {
    await machine.call();
    machine.changeRole('cluster-admin');
    expect(await signIn()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    expect(await signIn()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    machine.changeRole('editor');
    expect(await signIn()).toMatchObject({ role: 'editor', formerRole: 'viewer' });
    machine.changeRole('viewer');
    expect((await signIn()).formerRole).toBeUndefined();
    machine.changeRole('editor');
    await machine.signOut();
    expect((await signIn()).formerRole).toBeUndefined();
    expect(machine.said).toEqual([]);
  });

  it('reports no former role for a server that applies roles, another user, or an ended sign-in', async () => {
    const first = await machine.call();
    machine.changeRole('cluster-admin');
    cluster.faults.routes.login = { headers: { 'Tka-Role': 'applied' } };
    expect((await signIn()).formerRole).toBeUndefined();
    cluster.clearFaults();
    expect((await signIn()).formerRole).toBeUndefined();
    machine.store.write({ ...first, username: 'somebody-else' }, undefined);
    expect((await signIn()).formerRole).toBeUndefined();
    machine.store.write({ ...first, until: '2020-01-01T00:00:00Z' }, undefined);
    expect((await signIn()).formerRole).toBeUndefined();
  });

  it('is compared by `credential` too, which prints it in one line', async () => {
    cluster.faults.token = { expOffsetMs: 50_000 };
    await machine.call();
    machine.changeRole('cluster-admin');
    cluster.faults.token = undefined;
    expect(await machine.call()).toMatchObject({ role: 'cluster-admin', formerRole: 'viewer' });
    expect(machine.said).toEqual([
      'your role is now cluster-admin (was viewer). some servers apply a new role only after a logout: ' +
        `kubectl tka logout ${cluster.server} && kubectl tka login ${cluster.server}`,
    ]);
    machine.said.length = 0;
    await machine.call();
    expect(machine.said).toEqual([]);
  });
});
