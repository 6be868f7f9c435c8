// The number of calls to the API server for a sign-in, a repeated one and a logout, by the receiving replica and the
// leader together. `npm run bench` measures their other costs.
import { expect, vi } from 'vitest';
import { hooked } from './hook.ts';
import { startReplica } from './replica.ts';
import { led, sentinel } from './replicas.ts';
import { absent, Person, statusFor, test } from './support.ts';

test.skipIf(absent !== undefined)(
  'a new sign-in takes at most 7 calls, a repeated one 3, a logout 5, plus one Event for each sign-in',
  async ({ fixture, role }) => {
    let calls: string[] = [];
    const proxy = await hooked(fixture.access, ({ method, path, status }) => {
      if (status !== undefined || path.includes('/leases') || path.includes('sentinel')) return;
      // A list, or a restarted watch.
      if (method === 'GET' && /\/(?:tkasignins|serviceaccounts|clusterrolebindings)$/.test(path)) return;
      // Events are written in the background: no answer waits for them.
      if (!path.endsWith('/events')) calls.push(`${method} ${path}`);
    });
    const leader = await startReplica(fixture.replicaOptions({ identity: 'leader', access: proxy.access }));
    await led(fixture, 'leader');
    const replica = await startReplica(fixture.replicaOptions({ identity: 'asked', access: proxy.access }));
    const alice = new Person(replica.url, { role, device: 'laptop' });
    const nextSecond = (): Promise<unknown> => {
      const second = Math.floor(Date.now() / 1000);
      return vi.waitUntil(() => Math.floor(Date.now() / 1000) > second, { timeout: 5_000, interval: 10 });
    };
    /** Returns the calls of this work, and of the leader, which handles the changes a while later. */
    async function callsOf(work: () => Promise<unknown>): Promise<string[]> {
      const seen = await sentinel(fixture, role);
      calls = [];
      await work();
      await seen();
      return calls;
    }
    try {
      // Until the replica follows the sign-ins.
      await new Person(replica.url, { role: await fixture.role() }).token();
      await vi.waitUntil(() => replica.provisioner.unready() === undefined, { timeout: 10_000 });
      let token = '';
      const first = await callsOf(async () => {
        token = await alice.token();
      });
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect(first.length, first.join('\n')).toBeLessThanOrEqual(7);
      await nextSecond();
      const again = await callsOf(async () => {
        token = await alice.token();
      });
      expect(await statusFor(fixture.access, token)).toBe(200);
      expect(again.length, again.join('\n')).toBeLessThanOrEqual(3);
      const logout = await callsOf(async () => expect((await alice.logout()).status).toBe(200));
      expect(logout.length, logout.join('\n')).toBeLessThanOrEqual(5);
      await fixture.gone(alice.name);
      // One for each of the two.
      await vi.waitUntil(async () => (await fixture.events(alice.name)).length >= 2, { timeout: 10_000 });
      expect((await fixture.events(alice.name)).map(({ reason }) => reason)).toEqual(['Provisioned', 'Provisioned']);
      expect([...leader.complaints, ...replica.complaints]).toEqual([]);
    } finally {
      await replica.stop();
      await leader.stop();
      proxy.close();
    }
  },
);
