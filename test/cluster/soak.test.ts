// Everything at once: users log in, change roles and log out through two replicas, while the leader changes.
import { describe, expect } from 'vitest';
import { namesOf, paths } from '../../src/server/provisioner/objects.ts';
import { survey } from '../../src/server/provisioner/reconciler.ts';
import { type Replica, startReplica } from './replica.ts';
import { absent, type Fixture, Person, statusFor, test, until } from './support.ts';

interface Lease {
  readonly spec: { readonly holderIdentity?: string };
}

/** Returns the token of a sign-in as soon as it is ready. */
async function tokenOf(person: Person): Promise<string> {
  for (;;) {
    const { status, body } = await person.kubeconfig();
    if (status === 200) return body.users[`tka-user-${person.caller.username}`]?.token ?? '';
    expect(status, JSON.stringify(body)).toBe(202);
  }
}

describe.skipIf(absent !== undefined)('soak', () => {
  test('every user has exactly the access of the last answer, and nothing is left over', async ({ fixture, role }) => {
    const other = await fixture.role(['get', 'list'], ['configmaps']);
    const replicas: Replica[] = [
      await startReplica(fixture.replicaOptions()),
      await startReplica(fixture.replicaOptions()),
    ];
    const url = (): string => replicas[Math.floor(Math.random() * replicas.length)]?.url ?? '';
    const stop = performance.now() + 6_000;

    async function live(person: Person): Promise<Person | undefined> {
      let signedIn: Person | undefined;
      while (performance.now() < stop || signedIn === undefined) {
        const it = person.granted({ role: Math.random() < 0.5 ? role : other });
        expect((await it.login()).status).toBe(202);
        const token = await tokenOf(it);
        signedIn = it;
        const mine = it.caller.role === role;
        expect(await statusFor(fixture.access, token)).toBe(mine ? 200 : 403);
        expect(await statusFor(fixture.access, token, '/api/v1/configmaps')).toBe(mine ? 403 : 200);
        if (Math.random() < 0.5 || performance.now() > stop) continue;
        expect((await it.logout()).status).toBe(200);
        signedIn = undefined;
        expect([401, 403]).toContain(await statusFor(fixture.access, token));
      }
      return signedIn;
    }

    /** Takes the lease again and again, so that leaders change and overlap. */
    async function steal(): Promise<void> {
      // The holder's name is that of a replica: a leading Go operator would cause warnings, since it cannot change
      // roles.
      const thief = 'tka-server/thief';
      const lease = paths.leases(fixture.namespace, 'controller.tka.specht-labs.de');
      while (performance.now() < stop) {
        await until<Lease>(
          fixture.access,
          paths.leases(fixture.namespace),
          'controller.tka.specht-labs.de',
          (found) => {
            const holder = found?.spec.holderIdentity ?? '';
            return holder !== '' && holder !== thief;
          },
        );
        await fixture.kube.patch(lease, { spec: { holderIdentity: thief, leaseDurationSeconds: 1 } });
      }
    }

    const people = Array.from({ length: 8 }, () => new Person(url, { role }));
    const [, ...left] = await Promise.all([steal(), ...people.map(live)]);
    await check(
      fixture,
      left.filter((person) => person !== undefined),
    );
    for (const replica of replicas) await replica.stop();
    const complaints = replicas.flatMap((replica) => replica.complaints);
    expect(complaints.filter((line) => !line.startsWith('stopped leading'))).toEqual([]);
  });
});

async function check(fixture: Fixture, left: readonly Person[]): Promise<void> {
  for await (const name of survey(fixture.kube, fixture.namespace)) throw new Error(`${name} is not as it should be`);
  for (const { caller } of left) {
    const accounts = await Promise.all(namesOf(caller).map(fixture.account));
    expect(accounts.filter((account) => account !== undefined)).toHaveLength(1);
  }
}
