// Both ends of a tunnel, on loopback.
import { expect, test } from 'vitest';
import { type OwnTunnel, type TunnelRequest, tunnelBodyLimit } from '../../../src/server/federation/contract.ts';
import { ask, fields, joined, login, OpenAdmission, ownKey, request, statement } from './fixture.ts';

test('a request passes through the tunnel, and its answer comes back', async () => {
  const asked: [TunnelRequest, OwnTunnel][] = [];
  const admission = new OpenAdmission();
  const { endpoint, next } = await login({ admission });
  const own = joined(endpoint, {
    async answer(given, tunnel) {
      asked.push([given, tunnel]);
      return { status: 202, headers: { 'content-type': 'application/json', 'retry-after': '1' }, body: '{"a":"ü"}' };
    },
  });
  const tunnel = await next();
  expect(tunnel).toMatchObject({ cluster: 'alpha', replica: 'tka-0', statement });
  expect(await ask(tunnel)).toEqual({
    status: 202,
    headers: { 'content-type': 'application/json', 'retry-after': '1' },
    body: '{"a":"ü"}',
  });
  const [[given, ownTunnel] = []] = asked;
  expect(given).toEqual(request);
  expect(ownTunnel).toMatchObject({ id: tunnel.id, cluster: 'alpha', primary: 'primary', replica: 'login-0' });
  expect(ownTunnel?.keys).toEqual(tunnel.keys);
  expect(Math.abs(ownTunnel?.clockOffsetMs ?? 1e9)).toBeLessThan(60_000);
  expect(admission.asked).toEqual([
    {
      cluster: 'alpha',
      replica: 'tka-0',
      publicKey: ownKey.publicKey,
      statement,
      tunnel: tunnel.id,
      address: '127.0.0.1',
    },
  ]);
  expect(own.connected().map(({ id }) => id)).toEqual([tunnel.id]);
  expect(fields.find(({ message }) => message === 'a tunnel is open')).toMatchObject({
    cluster: 'alpha',
    replica: 'tka-0',
  });
});

test.each(['99999999999', '0xfffffffff'])(
  'a cluster of the name %s, which is no host of a URL, has tunnels',
  async (cluster) => {
    const { endpoint, next } = await login();
    joined(endpoint, { cluster });
    const tunnel = await next();
    expect(tunnel.cluster).toBe(cluster);
    expect((await ask(tunnel)).status).toBe(200);
  },
);

test('the largest answer passes', async () => {
  const body = 'x'.repeat(tunnelBodyLimit);
  const { endpoint, next } = await login();
  joined(endpoint, { answer: async () => ({ status: 200, headers: {}, body }) });
  const tunnel = await next();
  const answers = await Promise.all(Array.from({ length: 40 }, () => ask(tunnel)));
  expect(answers.every((answer) => answer.body === body)).toBe(true);
});
