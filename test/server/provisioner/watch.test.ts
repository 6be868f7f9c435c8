// The watch on sign-ins with an API server on loopback that answers lists and watches as the test says.
import type { ServerResponse } from 'node:http';
import { KubeConfig } from '@kubernetes/client-node';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { connectKube, type KubeTimes } from '../../../src/server/kubernetes/kube.ts';
import type { TkaSignin } from '../../../src/server/provisioner/objects.ts';
import { endOf } from '../../../src/server/provisioner/sign-in.ts';
import { type Watched, watchSignIns } from '../../../src/server/provisioner/watch.ts';
import { StandInApi } from '../stand-in-api.ts';

// On a slow machine, everything takes longer than the usual second.
const patience = { timeout: 30_000 };

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

interface Watching {
  readonly cluster: StandInApi;
  readonly watch: Watched<TkaSignin>;
  /** Names, and whether they exist. */
  readonly changes: [string, boolean][];
  readonly warnings: string[];
}

async function watching(cluster: StandInApi, times: KubeTimes = {}): Promise<Watching> {
  await cluster.start();
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser({ name: 'x', server: cluster.url, skipTLSVerify: true }, { name: 'x', token: 'x' });
  const kube = connectKube(kubeConfig, times);
  const changes: [string, boolean][] = [];
  const warnings: string[] = [];
  const note = (fields: Readonly<Record<string, unknown>>, message: string) =>
    void warnings.push(`${message}: ${fields.err instanceof Error ? fields.err.message : ''}`);
  const watch = watchSignIns('tka', {
    kube,
    log: { debug: () => {}, info: () => {}, warn: note, error: note },
    onChange: (name, signIn) => changes.push([name, signIn !== undefined]),
  });
  ends.push(() => {
    watch.stop();
    kube.close();
    cluster.stop();
  });
  return { cluster, watch, changes, warnings };
}

/** Resolves to true when the sign-in of this name passes, and to false if it does not within the given milliseconds. */
const passes = (
  watch: Watched<TkaSignin>,
  name: string,
  isIt: (signIn: TkaSignin | undefined) => boolean,
  timeout: number,
): Promise<boolean> =>
  vi
    .waitUntil(() => isIt(watch.get(name)), { timeout, interval: 1 })
    .then(
      () => true,
      () => false,
    );
const isThere = (signIn: TkaSignin | undefined): boolean => signIn !== undefined;
// Names with a meaning for an EventEmitter, an object's prototype or one of our Maps.
const strange = [
  'error',
  'stop',
  'newListener',
  'removeListener',
  '__proto__',
  'constructor',
  'hasOwnProperty',
  'size',
];

describe('names of sign-ins have no special meaning', () => {
  test.each(strange)('%s, listed', async (name) => {
    const cluster = new StandInApi();
    cluster.put(name);
    const { watch, changes, warnings } = await watching(cluster);
    expect(await passes(watch, name, isThere, 5_000)).toBe(true);
    expect(await passes(watch, 'tka-user-alice', isThere, 1)).toBe(false);
    await cluster.watched();
    cluster.tell('ADDED', cluster.put('tka-user-alice'));
    expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
    expect(changes).toEqual([
      [name, true],
      ['tka-user-alice', true],
    ]);
    expect(warnings).toEqual([]);
  });

  test.each(strange)('%s, created and deleted later', async (name) => {
    const cluster = new StandInApi();
    const { watch, changes, warnings } = await watching(cluster);
    await cluster.watched();
    // Meanwhile the test waits for another sign-in.
    const other = passes(watch, 'tka-user-alice', isThere, 5_000);
    const signIn = cluster.put(name);
    cluster.tell('ADDED', signIn);
    expect(await passes(watch, name, isThere, 5_000)).toBe(true);
    cluster.tell('DELETED', signIn);
    expect(await passes(watch, name, (now) => now === undefined, 5_000)).toBe(true);
    cluster.tell('ADDED', cluster.put('tka-user-alice'));
    expect(await other).toBe(true);
    expect(changes).toEqual([
      [name, true],
      [name, false],
      ['tka-user-alice', true],
    ]);
    expect(warnings).toEqual([]);
  });
});

describe('a change by this process', () => {
  const at = (signIn: TkaSignin, resourceVersion: number, uid = signIn.metadata.uid): TkaSignin => ({
    ...signIn,
    metadata: { ...signIn.metadata, uid, resourceVersion: String(resourceVersion) },
  });

  /** A watch that has reached version 10, and a sign-in that it does not know. */
  async function watched() {
    const cluster = new StandInApi();
    cluster.version = 10;
    const { watch, changes } = await watching(cluster);
    await cluster.watched();
    const alice = cluster.put('tka-user-alice');
    await vi.waitUntil(() => watch.problem() === undefined, patience);
    const now = () => watch.get('tka-user-alice')?.metadata;
    const bob = cluster.put('tka-user-bob');
    /** Sends a change of another sign-in, and resolves when the watch has received it. */
    const heard = async (version: number): Promise<void> => {
      cluster.tell('MODIFIED', at(bob, version));
      await vi.waitUntil(() => watch.get('tka-user-bob')?.metadata.resourceVersion === String(version), patience);
    };
    return { cluster, watch, changes, alice, now, heard };
  }

  test('is known at once, and an older event of the watch changes nothing', async () => {
    const { cluster, watch, alice, now, heard, changes } = await watched();
    watch.put(at(alice, 100));
    expect(now()?.resourceVersion).toBe('100');
    cluster.tell('ADDED', at(alice, 20));
    cluster.tell('DELETED', at(alice, 99));
    await heard(99);
    expect(now()?.resourceVersion).toBe('100');
    // An answer that took longer.
    watch.put(at(alice, 99));
    expect(now()?.resourceVersion).toBe('100');
    cluster.tell('MODIFIED', at(alice, 101));
    await heard(102);
    expect(now()?.resourceVersion).toBe('101');
    expect(changes.filter(([name]) => name === alice.metadata.name)).toHaveLength(2);
  });

  test('does not come back with an answer that is older than the watch', async () => {
    const { watch, alice, now, heard } = await watched();
    await heard(50);
    watch.put(at(alice, 40));
    expect(now()).toBeUndefined();
  });

  test('is forgotten with its deletion, but nothing newer of the same name', async () => {
    const { watch, alice, now } = await watched();
    watch.put(at(alice, 20));
    watch.drop(at(alice, 20, 'another'));
    expect(now()).toBeDefined();
    watch.drop(alice);
    expect(now()).toBeUndefined();
  });

  test('is left to the watch if versions are not numbers', async () => {
    const { watch, alice, now } = await watched();
    watch.put({ ...alice, metadata: { ...alice.metadata, resourceVersion: '2a' } });
    expect(now()).toBeUndefined();
  });
});

describe('a watch that does not continue', () => {
  const gone = { kind: 'Status', code: 410, message: 'too old resource version: 1 (9)' };
  const begun = (response: ServerResponse): ServerResponse => {
    response.writeHead(200);
    response.flushHeaders();
    return response;
  };

  test('retries a refused list, and reports the reason meanwhile', async () => {
    const cluster = new StandInApi();
    cluster.put('tka-user-alice');
    cluster.lists.push([404, { message: 'the server could not find the requested resource' }], [500, 'x']);
    const { watch, warnings } = await watching(cluster);
    expect(watch.problem()).toBe('the API server has not answered yet');
    await vi.waitUntil(() => warnings.length === 1, patience);
    expect(watch.problem()).toBe(
      'the watch on sign-ins failed; check that the CustomResourceDefinition of TkaSignin is installed: ' +
        'the server could not find the requested resource',
    );
    expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
    await cluster.watched();
    await vi.waitUntil(() => watch.problem() === undefined, patience);
    expect(warnings).toHaveLength(2);
  });

  test.each<[string, (response: ServerResponse) => void]>([
    ['as a status', (response) => response.writeHead(410).end(JSON.stringify(gone))],
    ['as an event', (response) => begun(response).end(`${JSON.stringify({ type: 'ERROR', object: gone })}\n`)],
  ])('that gets 410 Gone %s lists again at once, without a warning', async (_, answer) => {
    const cluster = new StandInApi();
    const bob = cluster.put('tka-user-bob');
    cluster.watches.push((response) => {
      cluster.put('tka-user-alice');
      cluster.items = cluster.items.filter((item) => item !== bob);
      answer(response);
    });
    const { watch, changes, warnings } = await watching(cluster);
    expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
    expect(await passes(watch, 'tka-user-bob', (now) => now === undefined, 5_000)).toBe(true);
    expect(changes).toEqual([
      ['tka-user-bob', true],
      ['tka-user-alice', true],
      ['tka-user-bob', false],
    ]);
    expect(warnings).toEqual([]);
  });

  test('that breaks continues from the last version it received, which may be a bookmark’s', async () => {
    const cluster = new StandInApi();
    const { watch, warnings } = await watching(cluster);
    await cluster.watched();
    cluster.tell('ADDED', cluster.put('tka-user-alice'));
    cluster.tell('BOOKMARK', { metadata: { resourceVersion: '77' } });
    expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
    for (const response of cluster.open) response.write('{"type":"ADD', () => response.destroy());
    await cluster.until(() => cluster.asked.some((query) => query.get('resourceVersion') === '77'));
    expect(cluster.asked.filter((query) => query.get('watch') === null)).toHaveLength(1);
    await vi.waitUntil(() => watch.problem() === undefined, patience);
    expect(warnings).toHaveLength(1);
  });

  test.each(['not JSON', '{}', 'null', '{"type":"ADDED"}', '{"type":"DANCED","object":{"metadata":{}}}'])(
    'that sends %s is restarted',
    async (line) => {
      const cluster = new StandInApi();
      cluster.watches.push((response) => {
        cluster.put('tka-user-alice');
        begun(response).write(`${line}\n`);
      });
      const { watch, warnings } = await watching(cluster);
      await cluster.watched();
      cluster.tell('ADDED', cluster.items[0]);
      expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
      expect(warnings).toEqual([expect.stringMatching(/: invalid watch event$/)]);
    },
  );

  test('that the server ends at once is retried with a pause', async () => {
    const cluster = new StandInApi();
    const ended = performance.now() + 1_500;
    cluster.watches.push(...Array.from({ length: 1_000 }, () => (response: ServerResponse) => begun(response).end()));
    const { warnings } = await watching(cluster);
    await cluster.until(() => performance.now() > ended);
    expect(cluster.asked.length).toBeLessThan(8);
    expect(warnings[0]).toMatch(/the API server closes the watch immediately$/);
  });

  test('that ends as agreed is restarted at once, without a warning', async () => {
    const cluster = new StandInApi();
    const { watch, warnings } = await watching(cluster, { watchMs: 2_000 });
    for (let watches = 1; watches < 3; watches++) {
      await cluster.until(() => cluster.asked.length === watches + 1);
      await cluster.watched();
      expect(cluster.asked.at(-1)?.get('timeoutSeconds')).toBe('2');
      const [response] = cluster.open;
      await new Promise((resolve) => setTimeout(resolve, 1_050));
      const next = cluster.until(() => cluster.asked.length === watches + 2);
      response?.end();
      await next;
    }
    expect(warnings).toEqual([]);
    expect(watch.problem()).toBe(undefined);
  });

  test('that receives nothing more is dropped, and restarted on another connection', async () => {
    const cluster = new StandInApi();
    const { watch, warnings } = await watching(cluster, { watchMs: 1_000 });
    await cluster.watched();
    const [silent] = cluster.open;
    await vi.waitUntil(() => silent?.destroyed, patience);
    await cluster.watched();
    expect([...cluster.open][0]?.socket).not.toBe(silent?.socket);
    expect(warnings).toEqual([expect.stringMatching(/the API server does not respond$/)]);
    await vi.waitUntil(() => watch.problem() === undefined, patience);
  });

  test('that is refused in an endless answer is restarted', async () => {
    const cluster = new StandInApi();
    cluster.watches.push((response) => {
      response.writeHead(500);
      response.flushHeaders();
    });
    const { watch, warnings } = await watching(cluster, { timeoutMs: 300 });
    await cluster.watched();
    expect(warnings).toEqual([expect.stringMatching(/ answered 500$/)]);
    await vi.waitUntil(() => watch.problem() === undefined, patience);
  });

  test('does not break on a sign-in without a spec, as older definitions allow', async () => {
    const cluster = new StandInApi();
    const { spec: _, ...empty } = cluster.put('empty');
    cluster.items = [empty as TkaSignin];
    const { watch, warnings } = await watching(cluster);
    await cluster.watched();
    const { spec: _again, ...other } = cluster.put('other');
    cluster.tell('ADDED', other);
    cluster.tell('ADDED', cluster.put('tka-user-alice'));
    expect(await passes(watch, 'tka-user-alice', isThere, 5_000)).toBe(true);
    expect(warnings).toEqual([]);
    for (const name of ['empty', 'other']) expect(endOf(watch.get(name) as TkaSignin, 0)).toBeUndefined();
  });

  test('reports data that was not confirmed for 30 s as old', async () => {
    const cluster = new StandInApi();
    const { watch } = await watching(cluster);
    await vi.waitUntil(() => watch.problem() === undefined, patience);
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      vi.advanceTimersByTime(60_000);
      expect(watch.problem()).toMatch(/^the API server has not reported on sign-ins for \d+ s$/);
    } finally {
      vi.useRealTimers();
    }
  });
});
