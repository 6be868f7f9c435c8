import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { KubeConfig } from '@kubernetes/client-node';
import { expect, onTestFinished, test, vi } from 'vitest';
import { connectKube } from '../../../src/server/kubernetes/kube.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { SignInEvents } from '../../../src/server/provisioner/events.ts';
import type { TkaSignin } from '../../../src/server/provisioner/objects.ts';

interface Written {
  readonly metadata: { readonly name: string };
  readonly note: string;
  readonly reason: string;
  readonly type: string;
}

const quiet: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const signIn = (name: string): TkaSignin => ({
  metadata: { name, uid: `uid-${name}`, resourceVersion: '1' },
  spec: { username: name, role: 'view', validity_period: '1h' },
});

/** Events to an API server that accepts them one at a time. */
async function written() {
  const taken: Written[] = [];
  let atOnce = 0;
  let most = 0;
  const server = createServer(async (request, response) => {
    most = Math.max(most, ++atOnce);
    taken.push(JSON.parse(await text(request)));
    atOnce--;
    response.end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const config = new KubeConfig();
  const { port } = server.address() as AddressInfo;
  config.loadFromClusterAndUser(
    { name: 'x', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
    { name: 'x', token: 'x' },
  );
  const kube = connectKube(config);
  onTestFinished(() => {
    kube.close();
    server.close().closeAllConnections();
  });
  return { taken, most: () => most, events: new SignInEvents(kube, 'tka', quiet) };
}

test('of a thousand at once, only a limited number is written, one at a time', async () => {
  const { taken, most, events } = await written();
  for (let i = 0; i < 1_000; i++) events.tell(signIn(`u${i}`), 'Provisioned', 'access');
  // One was sent at once, the others waited.
  await vi.waitUntil(() => taken.length >= 100, { timeout: 20_000, interval: 20 });
  events.stop();
  expect(taken.length).toBeLessThanOrEqual(101);
  expect(taken.map(({ metadata: { name } }) => name.split('.')[0])).toEqual(taken.map((_, i) => `u${i}`));
  expect(most()).toBe(1);
});

test('the same event about one sign-in is written once, with a name and a note of allowed length', async () => {
  const { taken, events } = await written();
  const long = signIn('x'.repeat(253));
  for (let i = 0; i < 5; i++) events.tell(long, 'Failed', `no\naccess ${'y'.repeat(3_000)}`);
  events.tell(long, 'Provisioned', 'access');
  await vi.waitUntil(() => taken.length >= 2, { timeout: 20_000, interval: 20 });
  expect(taken.map(({ reason, type }) => [reason, type])).toEqual([
    ['Failed', 'Warning'],
    ['Provisioned', 'Normal'],
  ]);
  expect(taken[0]?.metadata.name.length).toBeLessThanOrEqual(253);
  expect(taken[0]?.note).toMatch(/^no access y+…$/);
  expect(taken[0]?.note.length).toBeLessThanOrEqual(1_024);
});

test('nothing is written after the stop', async () => {
  const { taken, events } = await written();
  events.tell(signIn('first'), 'Provisioned', 'access');
  await vi.waitUntil(() => taken.length === 1, { timeout: 20_000, interval: 20 });
  events.stop();
  events.tell(signIn('second'), 'Provisioned', 'access');
  expect(taken).toHaveLength(1);
});
