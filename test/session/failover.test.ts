// A sign-in continues at another server of the same cluster while the server that the kubeconfig names is unavailable;
// see src/session/failover.ts.
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { RouteFault } from '../../src/sandbox/faults.ts';
import { FailoverClient, MovedOn } from '../../src/session/failover.ts';
import { Sessions } from '../../src/session/sessions.ts';
import type { KnownCluster, Siblings } from '../../src/session/siblings.ts';
import { TkaClient } from '../../src/tka/client.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { failure, newParent, storeIn } from './fixture.ts';
import { type Replica, type ReplicaSet, startMute, startReplicas } from './replicas.ts';

let set: ReplicaSet;
let other: ReplicaSet;
let first: Replica;
let second: Replica;
let third: Replica;
let hostile: Replica;
let folder: string;
let said: string[];
let logged: string[];

beforeAll(async () => {
  set = await startReplicas('prod-us', 3);
  other = await startReplicas('prod-eu', 1);
  [first, second, third] = set.replicas as [Replica, Replica, Replica];
  [hostile] = other.replicas as [Replica];
});
afterAll(() => Promise.all([set.close(), other.close()]));
beforeEach(async () => {
  await set.reset();
  await other.reset();
  folder = testFolder();
  said = [];
  logged = [];
});

const known = (): KnownCluster => ({
  ...{ apiServer: set.apiServer, caData: set.caData, insecureSkipTlsVerify: false },
  ...{ cluster: set.cluster, signInStore: set.store },
});
const store = () => storeIn(folder);

interface Setting {
  readonly servers?: readonly string[];
  readonly siblings?: () => Promise<Siblings | undefined>;
  readonly timeout?: number;
  readonly first?: string;
}

let asked = 0;
const sessions = (setting: Setting = {}) =>
  new Sessions({
    store: store(),
    timeout: setting.timeout ?? 10_000,
    warn: (line) => said.push(line),
    log: (line) => logged.push(line),
    siblings: async () => {
      asked++;
      return (setting.siblings ?? (async () => ({ known: known(), servers: setting.servers ?? [second.server] })))();
    },
  });
const credential = (setting: Setting = {}) =>
  sessions(setting).credential({
    server: setting.first ?? first.server,
    apiServer: set.apiServer,
    parent: newParent(),
  });
async function timed<T>(work: Promise<T>): Promise<{ readonly value: T; readonly took: number }> {
  const started = performance.now();
  return { value: await work, took: performance.now() - started };
}
const logins = () => set.events.filter((event) => event.endsWith(' login asked'));

describe('while the first server is available', () => {
  it('does not ask or look for other servers', async () => {
    asked = 0;
    await credential();
    expect(set.events.every((event) => event.startsWith('prod-us ') && !event.includes('clusterInfo'))).toBe(true);
    expect(first.count('login')).toBe(1);
    expect(asked).toBe(0);
    expect(said).toEqual([]);
  });

  it.each<[string, number]>([
    ['POST', 900],
    ['each answer', 500],
  ])('waits for a slow %s (%i ms) without a second sign-in', async (_, latencyMs) => {
    first.faults.routes = latencyMs === 500 ? { all: { latencyMs } } : { login: { latencyMs } };
    await credential();
    expect(logins()).toEqual(['prod-us login asked']);
    expect(second.count('login')).toBe(0);
  });

  it.each<[string, RouteFault, RegExp]>([
    ['403', { answer: { status: 403, body: { message: 'no grant' } } }, /no grant/],
    ['400', { answer: { status: 400, body: { message: 'no' } } }, /refused the sign-in: no/],
    ['422', { answer: { status: 422, body: { message: 'bad policy' } } }, /bad policy/],
    ['404', { answer: { status: 404, body: { message: 'gone' } } }, /gone/],
  ])('takes its %s as final', async (_, fault, message) => {
    first.faults.routes.login = fault;
    expect((await failure(credential())).message).toMatch(message);
    expect(set.events).toEqual(['prod-us login asked']);
  });

  it.each([429, 500])('takes its %i as its answer, and asks it again', async (status) => {
    const headers = { 'Retry-After': '1' };
    first.faults.routes.login = { answer: { status, headers, body: { message: 'not now' } }, times: 1 };
    await credential();
    expect(logins()).toEqual(['prod-us login asked', 'prod-us login asked']);
    expect(second.count('clusterInfo')).toBe(0);
  });
});

describe('while the first server is unavailable', () => {
  const expectSecond = () => {
    const session = store().read(first.server);
    expect(session).toMatchObject({ server: first.server, apiServer: set.apiServer, username: 'alice' });
    expect(store().read(second.server)).toBeUndefined();
    expect(second.count('login')).toBe(1);
    expect(said).toEqual([expect.stringContaining(`${first.server} is away: signed in through ${second.server}`)]);
  };

  it('connection refused: signs in through another server at once and stores the entry for the first', async () => {
    await first.stop();
    const { took } = await timed(credential());
    expectSecond();
    expect(took).toBeLessThan(5000);
  });

  it.each([502, 503, 504])(
    'HTTP %i, with and without the protocol’s body: signs in through another server',
    async (status) => {
      first.faults.routes.login = { answer: { status, body: 'bad gateway' } };
      await credential();
      expectSecond();
      store().remove(first.server);
      first.faults.routes.login = { answer: { status, body: { message: 'not ready' } } };
      await credential();
      expect(second.count('login')).toBe(2);
    },
  );

  it('no connection within 300 ms: signs in through another server', async () => {
    const mute = await startMute();
    try {
      const { took, value } = await timed(credential({ first: `https://127.0.0.1:${mute.port}` }));
      expect(value.server).toBe(`https://127.0.0.1:${mute.port}`);
      expect(took).toBeGreaterThan(295);
      expect(took).toBeLessThan(6000);
      expect(logins()).toEqual(['prod-us-1 login asked']);
    } finally {
      mute.close();
    }
  });

  it('no answer within 2 s: ends the request before another server is asked to sign in', async () => {
    first.faults.routes.login = { silent: true };
    const { took } = await timed(credential());
    expectSecond();
    expect(took).toBeGreaterThan(1990);
    expect(took).toBeLessThan(9000);
    expect(set.events).toContain('prod-us login gone');
  });

  it('has one sign-in in flight: the connection to the first is closed before the other is asked', async () => {
    first.faults.routes.login = { silent: true };
    const steps: string[] = [];
    class Noted extends TkaClient {
      override login(...args: Parameters<TkaClient['login']>) {
        steps.push(`${this.server} login`);
        return super.login(...args).finally(() => steps.push(`${this.server} over`));
      }
      override async close() {
        await super.close();
        steps.push(`${this.server} closed`);
      }
    }
    const client = new FailoverClient(first.server, {
      client: (server, onOpen) => new Noted(server, { onOpen }),
      siblings: async () => ({ known: known(), servers: [second.server] }),
      isRefused: async () => false,
      log: () => {},
    });
    await expect(client.login({ timeout: 5000 })).rejects.toBeInstanceOf(MovedOn);
    await client.login({ timeout: 5000 });
    await client.close();
    expect(steps).toEqual([
      `${first.server} login`,
      `${first.server} over`,
      `${first.server} closed`,
      `${second.server} login`,
      `${second.server} over`,
      `${second.server} closed`,
    ]);
  });

  it('signs in through another server if the first closes every connection after the POST', async () => {
    first.faults.routes.login = { reset: 'after' };
    await credential();
    expectSecond();
  });

  it('signs in again at the other server if the first fails while the token is pending', async () => {
    first.faults.routes.kubeconfig = { answer: { status: 503, body: 'gone' } };
    await credential();
    expect(set.events.filter((event) => !event.includes('gone'))).toEqual([
      'prod-us login asked',
      'prod-us kubeconfig asked',
      'prod-us-1 clusterInfo asked',
      'prod-us-1 login asked',
      'prod-us-1 kubeconfig asked',
    ]);
  });

  it('treats a process stopped with SIGSTOP, which accepts connections, as unavailable', async () => {
    const script = `require('node:http').createServer((q,s)=>s.end('{}')).listen(0,'127.0.0.1',function(){console.log(this.address().port)})`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const port = await new Promise<string>((done) => child.stdout.once('data', (data) => done(String(data).trim())));
      child.kill('SIGSTOP');
      const { took } = await timed(credential({ first: `http://127.0.0.1:${port}` }));
      expect(took).toBeLessThan(9000);
      expect(logins()).toEqual(['prod-us-1 login asked']);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('takes the first of several that answers; another unavailable one adds no delay', async () => {
    await first.stop();
    second.faults.routes.clusterInfo = { silent: true };
    await credential({ servers: [second.server, third.server] });
    expect(logins()).toEqual(['prod-us-2 login asked']);
    expect(second.count('login')).toBe(0);
  });

  it('uses the remaining time for the others if the second server becomes unavailable too', async () => {
    await first.stop();
    second.faults.routes.kubeconfig = { answer: { status: 503, body: 'gone' } };
    third.faults.routes.clusterInfo = { latencyMs: 200 };
    await credential({ servers: [second.server, third.server] });
    expect(logins()).toEqual(['prod-us-1 login asked', 'prod-us-2 login asked']);
  });

  it('tries the first again when it is back', async () => {
    first.faults.routes.login = { answer: { status: 503, body: 'starting' }, times: 1 };
    second.faults.routes.kubeconfig = { answer: { status: 503, body: 'gone' } };
    await credential();
    expect(logins().at(-1)).toBe('prod-us login asked');
    expect(store().read(first.server)?.apiServer).toBe(set.apiServer);
  });

  it('continues polling at the second server', async () => {
    await first.stop();
    second.faults.routes.kubeconfig = { answer: { status: 202, headers: { 'Retry-After': '0' } }, times: 2 };
    await credential();
    expect(second.count('kubeconfig')).toBeGreaterThanOrEqual(3);
    expect(second.count('login')).toBe(1);
  });

  it('stays with the first if it is back before another has confirmed itself', async () => {
    first.faults.routes.login = { latencyMs: 2300 };
    second.faults.routes.clusterInfo = { latencyMs: 1700 };
    await credential();
    expect(logins()).toEqual(['prod-us login asked']);
    expect(second.count('clusterInfo')).toBe(1);
  });

  it('all unavailable: reports the first’s error quickly, and the errors of the others', async () => {
    await first.stop();
    await second.stop();
    const { value, took } = await timed(failure(credential()));
    expect(value.message).toBe(`cannot reach ${first.server}: connection refused`);
    expect(value.hints).toContainEqual(
      `another server of the cluster: cannot reach ${second.server}: connection refused`,
    );
    expect(took).toBeLessThan(9000);
  });

  it('stops switching between two servers that confirm themselves and fail', async () => {
    for (const replica of [first, second]) replica.faults.routes.login = { answer: { status: 503, body: 'no' } };
    const { took } = await timed(failure(credential()));
    expect(took).toBeLessThan(15_000);
    expect(logins().length).toBeLessThan(40);
  });

  it('respects TKA_TIMEOUT', async () => {
    first.faults.routes.login = { silent: true };
    second.faults.routes.kubeconfig = { answer: { status: 202, headers: { 'Retry-After': '1' } } };
    const { value, took } = await timed(failure(credential({ timeout: 3000 })));
    // On a busy machine the last request may be cut short.
    expect(value.message).toMatch(/ has not provisioned the sign-in of alice in time$| no answer within /);
    expect(value.message).toContain(second.server);
    expect(took).toBeLessThan(6000);
  });

  it('takes a 403 of the other server as final', async () => {
    await first.stop();
    second.faults.routes.login = { answer: { status: 403, body: { message: 'no grant' } } };
    expect((await failure(credential())).message).toContain('no grant');
    expect(second.count('login')).toBe(1);
  });

  it('fails as before if no other servers are known', async () => {
    await first.stop();
    const error = await failure(credential({ siblings: async () => undefined }));
    expect(error.message).toBe(`cannot reach ${first.server}: connection refused`);
    expect(second.count('clusterInfo')).toBe(0);
    const damaged = await failure(
      credential({
        siblings: async () => {
          throw new Error('EIO');
        },
      }),
    );
    expect(damaged.message).toBe(error.message);
  });

  it('does not sign in at the other server after a logout in the meantime', async () => {
    first.faults.routes.login = { silent: true };
    second.faults.routes.clusterInfo = { latencyMs: 300 };
    const signingIn = failure(credential());
    await expect.poll(() => second.count('clusterInfo'), { timeout: 5000, interval: 5 }).toBe(1);
    store().signedOut.write({
      server: first.server,
      username: null,
      role: null,
      until: null,
      complete: true,
      forgotten: false,
    });
    expect((await signingIn).message).toBe(`signed out of ${first.server}`);
    expect(second.count('login')).toBe(0);
  });

  it('renews a valid old token through another server, and serves it if there is none', async () => {
    const old = await credential();
    const age = () => store().write({ ...old, freshUntil: 1 }, undefined);
    age();
    await first.stop();
    set.events.length = 0;
    const renewed = await credential();
    expect(renewed.token).not.toBe(old.token);
    expect(logins()).toEqual(['prod-us-1 login asked']);
    age();
    await second.stop();
    said.length = 0;
    const served = await timed(credential());
    expect(served.value.token).toBe(old.token);
    expect(served.took).toBeLessThan(9000);
    expect(said.join()).toContain('using the cached token');
  });

  it('forty callers at once make one sign-in', async () => {
    await first.stop();
    const tokens = await Promise.all(Array.from({ length: 40 }, () => credential()));
    expect(new Set(tokens.map(({ token }) => token)).size).toBe(1);
    expect(second.count('login')).toBe(1);
  });

  it('`login` signs in through another server too', async () => {
    await first.stop();
    const { session } = await sessions().signIn(first.server, { insecure: false, apiServer: set.apiServer });
    expect(session.server).toBe(first.server);
    expectSecond();
  });

  it('asks another server about the cluster, which then signs in without a delay', async () => {
    first.faults.routes = { all: { silent: true } };
    const all = sessions();
    const client = all.client(first.server, set.apiServer);
    expect(await client.clusterInfo({ timeout: 8000 })).toMatchObject({ signInStore: set.store });
    await client.close();
    await all.signIn(first.server, { insecure: false, apiServer: set.apiServer });
    expect(first.count('login')).toBe(0);
  });
});

describe('a server that must not take over', () => {
  const noEntry = () => {
    expect(store().list()).toEqual([]);
  };

  /** The other cluster's server states the same as ours, except for `more`. */
  const posing = (more: Readonly<Record<string, unknown>> = {}) => {
    hostile.faults.clusterInfo = (normal) => ({
      ...normal,
      ...{ server_url: set.apiServer, ca_data: set.caData, cluster: set.cluster, sign_in_store: set.store },
      ...more,
    });
  };

  it.each<[string, Readonly<Record<string, unknown>>]>([
    ['another store (a server of another cluster, with our endpoint and name)', { sign_in_store: 'uid-2/tka-system' }],
    ['no store (Go)', { sign_in_store: undefined }],
    ['an unreadable store', { sign_in_store: 'a b' }],
    ['another name', { cluster: 'prod-eu' }],
    ['no name', { cluster: undefined }],
    ['another endpoint', { server_url: 'https://elsewhere.example.com:6443' }],
    ['another port of the endpoint', { server_url: 'https://127.0.0.1:1' }],
    [
      'another CA',
      { ca_data: Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n').toString('base64') },
    ],
    ['no CA', { ca_data: '' }],
    ['skipped certificate verification', { insecure_skip_tls_verify: true }],
  ])('that states %s is not asked to sign in', async (_, more) => {
    posing(more);
    await first.stop();
    const error = await failure(credential({ servers: [hostile.server] }));
    expect(error.message).toBe(`cannot reach ${first.server}: connection refused`);
    expect(error.hints.join()).toContain(`${hostile.server} is not used`);
    expect(hostile.count('login')).toBe(0);
    noEntry();
  });

  it('is skipped for the next one', async () => {
    posing({ sign_in_store: 'uid-2/tka-system' });
    second.faults.routes.clusterInfo = { latencyMs: 200 };
    await first.stop();
    await credential({ servers: [hostile.server, second.server] });
    expect(logins()).toEqual(['prod-us-1 login asked']);
    expect(hostile.count('login')).toBe(0);
  });

  it('that gives a token for another API server: the token is dropped, and the next one is asked', async () => {
    posing();
    second.faults.routes.clusterInfo = { latencyMs: 300 };
    await first.stop();
    const session = await credential({ servers: [hostile.server, second.server] });
    expect(session.apiServer).toBe(set.apiServer);
    expect(hostile.count('login')).toBe(1);
    expect(second.count('login')).toBe(1);
    expect(logged.join('\n')).toContain(`${hostile.server} is not used: its API server is ${other.apiServer}`);
  });

  it('that names our API server with another CA in the kubeconfig: the token is dropped', async () => {
    posing();
    other.faults.kubeconfig = (normal) => {
      const [cluster] = Object.values(normal.clusters);
      Object.assign(cluster ?? {}, { server: set.apiServer });
      return normal;
    };
    await first.stop();
    const error = await failure(credential({ servers: [hostile.server] }));
    expect(error.hints.join()).toContain(`${hostile.server} is not used: it has another CA`);
    noEntry();
  });

  it('that fakes everything: the API server refuses its token, which is dropped', async () => {
    posing();
    other.faults.kubeconfig = (normal) => {
      const [cluster] = Object.values(normal.clusters);
      Object.assign(cluster ?? {}, { server: set.apiServer, 'certificate-authority-data': set.caData });
      return normal;
    };
    await first.stop();
    const error = await failure(credential({ servers: [hostile.server] }));
    expect(error.hints.join()).toContain(`${hostile.server} is not used: the API server refuses its token`);
    noEntry();
    second.faults.routes.clusterInfo = { latencyMs: 300 };
    await credential({ servers: [hostile.server, second.server] });
    expect(second.count('login')).toBe(1);
    expect(store().read(first.server)?.apiServer).toBe(set.apiServer);
  });

  it('is one of thousands of names: not all are asked', async () => {
    await first.stop();
    const servers = Array.from({ length: 5000 }, (_, i) => `http://127.0.0.1:${20_000 + i}`);
    const error = await failure(credential({ servers }));
    expect(error.hints.length).toBeLessThan(12);
  });
});

describe('a logout', () => {
  it('goes to another server while the first is unavailable', async () => {
    await credential();
    await first.stop();
    expect(await sessions().signOut(first.server)).toBe(true);
    expect(second.count('logout')).toBe(1);
    expect(set.provisioner.view('alice')).toBeUndefined();
  });

  it('succeeds if the first ended the sign-in without an answer', async () => {
    await credential();
    first.faults.routes.logout = { silent: true };
    expect(await sessions().signOut(first.server)).toBe(true);
    await credential().catch(() => {});
    expect(set.events).toContain('prod-us logout gone');
  });

  it('does not go to a server of another cluster', async () => {
    await credential();
    await first.stop();
    const error = await failure(sessions({ servers: [hostile.server] }).signOut(first.server));
    expect(error.message).toContain('signed out on this machine, but not on the server');
    expect(hostile.count('logout')).toBe(0);
  });
});
