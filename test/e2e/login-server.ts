// A login server with two replicas on loopback, and clusters that have joined it. It answers for them as the real one
// does: under `/clusters/NAME`, with sign-ins of their own.

import { test as base } from 'vitest';
import { Refusal } from '../../src/server/http/contract.ts';
import { createHandler } from '../../src/server/http/handler.ts';
import type { MemberRow } from '../../src/tka/types.ts';
import { Home } from '../fixtures/home.ts';
import { type Replica, type ReplicaSet, startReplicas } from '../session/replicas.ts';

export const capability = 'specht-labs.de/cap/tka-federation';

/** A cluster that has joined a login server. */
export class Joined {
  readonly name: string;
  /** Its API server and sign-ins. None of its own TKA servers is in the tailnet. */
  readonly set: ReplicaSet;
  /** Change what the list says about it. */
  row: Partial<MemberRow> = {};
  isGranted = true;
  readonly #hub: ReplicaSet;

  constructor(name: string, set: ReplicaSet, hub: ReplicaSet) {
    this.name = name;
    this.set = set;
    this.#hub = hub;
  }

  /** Returns its URL at a replica of the login server. */
  at({ server }: Replica): string {
    return `${server}/clusters/${this.name}`;
  }

  /** Opens its tunnels to a replica. Without one, the replica answers 503. */
  connect(replica: Replica): void {
    const { set, name } = this;
    const whoIs = () => {
      if (this.isGranted)
        return { username: 'alice-9f3c', login: 'alice@example.com', role: set.role, periodMs: 1_800_000 };
      throw new Refusal(403, { message: 'no grant', capability, login: 'alice@example.com' });
    };
    const handler = createHandler({
      identity: { whoIs },
      signIns: set.provisioner,
      members: () => this.#hub.members(),
      clusterInfo: () => ({
        ...{ server_url: set.apiServer, insecure_skip_tls_verify: false, ca_data: set.caData, labels: {} },
        ...{ cluster: name, sign_in_store: `${set.store}/through/${this.#hub.cluster}` },
      }),
    });
    replica.joined.set(name, handler);
  }

  rows(): MemberRow[] {
    return this.#hub.replicas.map((replica) => ({
      ...{ cluster: this.name, server: this.at(replica), apiEndpoint: this.set.apiServer, version: 'test' },
      ...{ apiPort: Number(new URL(replica.server).port), labels: { kind: 'joined' }, through: this.#hub.cluster },
      ...{ state: replica.joined.has(this.name) ? 'healthy' : 'dead', lastSeen: new Date().toISOString() },
      ...this.row,
    }));
  }
}

/** Lets a cluster join a login server: all its replicas list it, and it is connected to each of them. */
export function join(hub: ReplicaSet, name: string, set: ReplicaSet): Joined {
  const joined = new Joined(name, set, hub);
  for (const replica of hub.replicas) joined.connect(replica);
  const { members } = hub;
  hub.members = () => [...members.call(hub), ...joined.rows()];
  return joined;
}

interface Fixtures {
  /** The login server's cluster. */
  readonly hub: ReplicaSet;
  readonly first: Replica;
  readonly second: Replica;
  /** A cluster that has joined the login server. */
  readonly site: Joined;
  /** A HOME whose configured server is the first replica. */
  readonly home: Home;
}

export const test = base.extend<Fixtures>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  hub: async ({}, use) => {
    const hub = await startReplicas('hub', 2);
    await use(hub);
    await hub.close();
  },
  first: async ({ hub }, use) => use(hub.replicas[0] as Replica),
  second: async ({ hub }, use) => use(hub.replicas[1] as Replica),
  site: async ({ hub }, use) => {
    const set = await startReplicas('site', 0, hub.certificates);
    await use(join(hub, 'site', set));
    await set.close();
  },
  home: async ({ first, site: _ }, use) => {
    using home = new Home(first.server);
    await use(home);
  },
});
