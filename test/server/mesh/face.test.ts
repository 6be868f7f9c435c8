import { once } from 'node:events';
import type * as http from 'node:http';
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { Mesh } from '../../../src/server/mesh/mesh.ts';
import { dialDirectly, post as sendTo } from '../../../src/server/mesh/peer.ts';
import { type Seal, SharedKey, sealHeader, sealText, sealWindow } from '../../../src/server/mesh/seal.ts';
import { readAnswer } from '../../../src/server/mesh/wire.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { asking, host, instanceOf, key, member, names, peer, post, recordAt, sealed, telling } from './fixture.ts';

describe('with a key', () => {
  test('a sealed request is accepted, and its answer is sealed for it only', async () => {
    const mesh = await member('a', { key });
    const shared = new SharedKey(key, Date.now);
    const seal = shared.seal(asking, await instanceOf(mesh));
    const answer = await post(mesh, asking, { [sealHeader]: sealText(seal) });
    expect(answer.status).toBe(200);
    expect(shared.isAnswer(seal, answer.headers[sealHeader], answer.body)).toBe(true);
    expect(shared.isAnswer(shared.seal(asking, 'x'), answer.headers[sealHeader], answer.body)).toBe(false);
    expect(readAnswer(answer.body)).toMatchObject({
      name: 'a',
      record: { record: { server: 'http://127.0.0.1:8123', gossipPort: mesh.port } },
    });
    // A request's statements about its sender are not a record.
    expect(names(mesh)).toEqual(['a']);
  });

  test.each([
    ['no seal', async () => ({})],
    ['sealed with another key', (mesh: Mesh) => sealed(mesh, asking, 'another key of at least 32 characters')],
    ['a seal of other bytes', (mesh: Mesh) => sealed(mesh, Buffer.from('{}'))],
    ['an old seal', (mesh: Mesh) => sealed(mesh, asking, key, () => Date.now() - sealWindow - 1000)],
    ['a seal from the future', (mesh: Mesh) => sealed(mesh, asking, key, () => Date.now() + sealWindow + 1000)],
    ['an invalid seal', async () => ({ [sealHeader]: 'v2 1 2 3 4' })],
    ['the seal is for another process', async () => sealed(await member('b', { key }), asking)],
    [
      'two seals',
      async (mesh: Mesh) => {
        const [one, other] = await Promise.all([sealed(mesh, asking), sealed(mesh, asking)]);
        return { [sealHeader]: [one[sealHeader], other[sealHeader]] };
      },
    ],
  ])('%s: refused without effect, even with the right tag', async (_, headers) => {
    const mesh = await member('a', { key, whois: async () => ({ name: 'x', tags: ['tag:tka'] }), tag: 'tag:tka' });
    const answer = await post(mesh, asking, (await headers(mesh)) as http.OutgoingHttpHeaders);
    expect(answer).toMatchObject({ status: 401, body: Buffer.alloc(0) });
    expect(names(mesh)).toEqual(['a']);
  });

  test('two requests at once to a process that is not known yet are both answered', async () => {
    const mesh = await member('a', { key });
    const gate = { key: new SharedKey(key, Date.now), instances: new Map() };
    const other = Promise.withResolvers<void>();
    const send = (after: Promise<void>) =>
      sendTo(`${host}:${mesh.port}`, asking, {
        gate,
        dial: async (...to) => {
          await after;
          return dialDirectly(...to);
        },
        signal: AbortSignal.timeout(20_000),
      });
    const late = send(other.promise);
    expect(readAnswer((await send(Promise.resolve())).body)).toMatchObject({ name: 'a' });
    other.resolve();
    expect(readAnswer((await late).body)).toMatchObject({ name: 'a' });
  });

  test('a message is accepted once', async () => {
    const mesh = await member('a', { key });
    const headers = await sealed(mesh, asking);
    const answers = await Promise.all([1, 2, 3].map(() => post(mesh, asking, headers)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401, 401]);
    expect((await post(mesh, asking, headers)).status).toBe(401);
  });

  test('a message from before a restart is refused afterwards, and peers continue without interruption', async () => {
    const before = await member('a', { key });
    const { port } = before;
    const [back, seen] = [Promise.withResolvers<MemberRow>(), Promise.withResolvers<void>()];
    await member('b', {
      key,
      bootstrapPeers: [`${host}:${port}`],
      onChange: (row) => {
        if (row.name === 'a') seen.resolve();
        if (row.version === '2') back.resolve(row);
      },
    });
    await seen.promise;
    const headers = await sealed(before, asking);
    expect((await post(before, asking, headers)).status).toBe(200);
    await before.stop();
    const record = { server: `http://${host}:8123`, apiEndpoint: 'https://api.example.com', labels: {}, version: '2' };
    const after = await member('a', { key, port, record });
    expect((await post(after, asking, headers)).status).toBe(401);
    expect(await back.promise).toMatchObject({ name: 'a', state: 'healthy' });
  });

  test('a key change in three steps keeps all members connected', async () => {
    const [old, young] = [key, 'the next key, again of at least 32 characters'];
    const steps = [[old], [old, young], [young, old], [young]];
    for (const [i, later] of steps.entries()) {
      for (const keys of i === 0 ? [] : [steps[i - 1] ?? [], later]) {
        const found = Promise.withResolvers<void>();
        const mesh = await member('a', { key: later });
        await member('b', {
          key: keys,
          bootstrapPeers: [`${host}:${mesh.port}`],
          onChange: (row) => row.name === 'a' && found.resolve(),
        });
        await found.promise;
        await expect.poll(() => names(mesh), { timeout: 30_000 }).toContain('b');
      }
    }
    const last = await member('last', { key: [young] });
    expect((await post(last, asking, await sealed(last, asking, old))).status).toBe(401);
    expect((await post(last, asking, await sealed(last, asking, [young, old]))).status).toBe(200);
  });

  test('seals are remembered while they are valid, up to a limit', () => {
    let time = 1e12;
    const shared = new SharedKey(key, () => time, 3);
    const body = Buffer.from('x');
    const make = () => shared.seal(body, shared.instance);
    const seals = [make(), make(), make(), make()] as const;
    const take = (seal: Seal) => {
      const taken = shared.take(seal, body);
      return typeof taken === 'string' ? taken : undefined;
    };
    expect(seals.map(take)).toEqual([undefined, undefined, undefined, 'too many requests to remember']);
    expect(take(seals[0])).toBe('the seal was already used');
    time += sealWindow;
    expect(take(seals[0])).toBe('the seal was already used');
    time += 1;
    expect(take(seals[0])).toBe('the time of the seal is out of range');
    expect(take(make())).toBeUndefined();
  });

  test('an answer without the key’s seal is ignored', async () => {
    const { address, asked } = await peer((at) => telling({ record: recordAt(at) }));
    const refused = Promise.withResolvers<string>();
    const mesh = await member('a', {
      key,
      bootstrapPeers: [address],
      log: (_, line) => line.includes('seal') && refused.resolve(line),
    });
    expect(await refused.promise).toBe(`gossip with ${address} failed: its answer is not sealed with the shared key`);
    // The request for its process ID was empty.
    expect(Buffer.concat(asked)).toEqual(Buffer.alloc(0));
    expect(names(mesh)).toEqual(['a']);
  });
});

describe('with a tag', () => {
  const tag = 'tag:tka';
  test.each([
    ['the right tag', async () => ({ name: 'x', tags: ['tag:ci', tag] }), 200],
    ['another tag', async () => ({ name: 'x', tags: ['tag:ci'] }), 403],
    ['no tag', async () => ({ name: 'x', tags: [] }), 403],
    ['not in the tailnet', async () => undefined, 403],
    ['whois fails', () => Promise.reject(new Error('tailscaled is stopped')), 503],
  ])('%s', async (_, whois, status) => {
    const seen: unknown[] = [];
    const mesh = await member('a', {
      tag,
      whois: async () => undefined,
      whoCalls: (address, port) => {
        seen.push(address, typeof port);
        return whois();
      },
    });
    const answer = await post(mesh, asking);
    expect(answer.status).toBe(status);
    expect(seen).toEqual([host, 'number']);
    expect(names(mesh)).toEqual(['a']);
  });

  test('a peer without the tag gets no data', async () => {
    const { address, asked } = await peer((at) => telling({ record: recordAt(at) }));
    const refused = Promise.withResolvers<string>();
    const mesh = await member('a', {
      tag,
      whois: async () => ({ name: 'x', tags: ['tag:ci'] }),
      candidates: async () => [address, 'no address', `${host}:0`],
      log: (_, line) => line.includes('does not have') && refused.resolve(line),
    });
    expect(await refused.promise).toBe(`gossip with ${address} failed: ${host} does not have ${tag}`);
    expect(asked).toEqual([]);
    expect(names(mesh)).toEqual(['a']);
  });

  /**
   * Starts a member that asks these peers; the tailnet knows the node behind each port. Resolves with the first line
   * that matches.
   */
  async function hears(what: RegExp, nodes: Readonly<Record<number, string>>, ...seeds: string[]) {
    const said = Promise.withResolvers<string>();
    const mesh = await member('a', {
      tag,
      whois: async (_, port) => ({ name: nodes[port] ?? '', tags: [tag] }),
      candidates: async () => seeds,
      log: (_, line) => what.test(line) && said.resolve(line),
    });
    return { mesh, line: await said.promise };
  }

  test('a node’s statements about itself count', async () => {
    const one = await peer((at) => telling({ record: recordAt(at) }));
    const { mesh } = await hears(/x .* is new/, { [one.port]: 'x' }, one.address);
    expect(mesh.members()).toMatchObject([{ name: 'a' }, { name: 'x', state: 'healthy', labels: { region: 'eu' } }]);
  });

  test('a node of another name cannot change a member, wherever it claims to be', async () => {
    const liar = await peer((at) => telling({ record: recordAt(at) }));
    const { mesh, line } = await hears(/ignored member/, { [liar.port]: 'evil' }, liar.address);
    expect(line).toBe(`ignored member x: its node name on the tailnet is "evil" (${liar.address})`);
    expect(names(mesh)).toEqual(['a']);
  });

  test('a record is accepted only from the address of its own server', async () => {
    const owner = await peer((at) => telling({ record: recordAt(at) }));
    const other = await peer(() => telling({ record: { ...recordAt(owner.address), labels: { region: 'mars' } } }));
    const nodes = { [owner.port]: 'x', [other.port]: 'x' };
    const { mesh } = await hears(/x .* is new/, nodes, other.address);
    expect(mesh.members()[1]).toMatchObject({ name: 'x', labels: { region: 'eu' } });
  });
});

test('a peer is reached and identified by the dialler, for example through a proxy', async () => {
  const tag = 'tag:tka';
  const found = Promise.withResolvers<void>();
  const record = {
    server: 'http://tka-peer.example.ts.net',
    apiEndpoint: 'https://api.example.com',
    labels: {},
    version: '1',
  };
  const whois = async () => ({ name: 'a', tags: [tag] });
  const peer = await member('peer', { tag, whois, record });
  const asked: unknown[] = [];
  await member('a', {
    tag,
    whois: async (address, port) => {
      asked.push([address, port]);
      return address === '100.64.0.7' ? { name: 'peer', tags: [tag] } : undefined;
    },
    bootstrapPeers: ['tka-peer.example.ts.net:7946'],
    dial: async () => {
      const socket = connect({ host, port: peer.port });
      await once(socket, 'connect');
      return { socket, address: '100.64.0.7', port: 7946 };
    },
    onChange: (row) => row.name === 'peer' && found.resolve(),
  });
  await found.promise;
  expect(asked[0]).toEqual(['100.64.0.7', 7946]);
});

test('a dialler that never returns delays no other peer', async () => {
  const [given, found] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const peer = await member('peer', { key });
  const mesh = await member('a', {
    key,
    bootstrapPeers: ['silent:7946', `${host}:${peer.port}`],
    dial: (name, port, signal) => (name === 'silent' ? new Promise(() => {}) : dialDirectly(name, port, signal)),
    log: (_, line) => line === 'gossip with silent:7946 failed: no answer within 1000 ms' && given.resolve(),
    onChange: (row) => row.name === 'peer' && found.resolve(),
  });
  await Promise.all([given.promise, found.promise]);
  await mesh.leave();
});

test('members that left are not counted as dead', async () => {
  const [found, known, gone] = Array.from({ length: 3 }, () => Promise.withResolvers<void>());
  // It says goodbye to the members that it knows.
  const peer = await member('peer', { key, onChange: ({ name }) => name === 'a' && known?.resolve() });
  const mesh = await member('a', {
    key,
    bootstrapPeers: [`${host}:${peer.port}`],
    onChange: ({ name, state }) => name === 'peer' && (state === 'healthy' ? found : gone)?.resolve(),
  });
  await Promise.all([found?.promise, known?.promise]);
  expect(mesh.counts()).toEqual({ healthy: 2, suspected: 0, dead: 0, left: 0 });
  await peer.leave();
  await gone?.promise;
  expect(mesh.counts()).toEqual({ healthy: 1, suspected: 0, dead: 0, left: 1 });
});

test('two members with one name log it', async () => {
  const heard = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  const peer = await member('peer', { key });
  for (const one of heard) {
    await member('twin', {
      key,
      bootstrapPeers: [`${host}:${peer.port}`],
      log: (level, line) => level === 'warn' && one.resolve(line),
    });
  }
  expect(new Set(await Promise.all(heard.map(({ promise }) => promise)))).toEqual(
    new Set(['another process uses the name twin: member names must be unique']),
  );
});

test('a changed record reaches the others', async () => {
  const heard = Promise.withResolvers<MemberRow>();
  const apiEndpoint = 'https://api.example.com';
  const mesh = await member('a', { key });
  await member('b', {
    key,
    bootstrapPeers: [`${host}:${mesh.port}`],
    onChange: (row, before) => {
      const own = { server: 'http://127.0.0.1:8123', apiEndpoint, version: '1' };
      if (before === undefined) mesh.update({ ...own, labels: { region: 'eu' } });
      else if (row.labels?.region !== undefined) heard.resolve(row);
    },
  });
  expect(await heard.promise).toMatchObject({ name: 'a', apiEndpoint, apiPort: 8123, labels: { region: 'eu' } });
});

test.each([
  ['neither key nor tag', {}, /would admit every node/],
  ['a short key', { key: 'short' }, /gossip\.key has 5 characters/],
  ['a peer without a port', { key, bootstrapPeers: ['tka'] }, /"tka" is not host:port/],
  ['thresholds the wrong way round', { key, deadThreshold: 3 }, /deadThreshold must be greater/],
  ['a factor of 0', { key, factor: 0 }, /gossip\.factor/],
  ['no interval', { key, intervalMs: Number.NaN }, /gossip\.interval/],
  ['no host', { key, hosts: [] }, /no address/],
  ['an invalid name', { key, name: 'a b' }, /"a b" is not a lower-case host name/],
])('a mesh does not start with %s', async (_, more, message) => {
  await expect(member('a', more)).rejects.toThrow(message);
});

test('a connection beyond the 128th is dropped without an answer', async () => {
  const mesh = await member('a', { key });
  const opened = Array.from({ length: 128 }, () => connect({ host, port: mesh.port }).on('error', () => {}));
  await Promise.all(opened.map((socket) => once(socket, 'connect')));
  let told = '';
  const late = connect({ host, port: mesh.port }).on('error', () => {});
  late.on('data', (bytes) => {
    told += bytes;
  });
  await once(late, 'close');
  // An accepted connection without a request gets 408 after 2 s.
  expect(told).toBe('');
  for (const socket of opened) socket.destroy();
});

test('other paths and methods are refused', async () => {
  const mesh = await member('a', { key });
  expect((await post(mesh, asking, {}, '/')).status).toBe(404);
  expect((await fetch(`http://${host}:${mesh.port}/gossip/v2`)).status).toBe(405);
});
