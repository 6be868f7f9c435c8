// Measures what a mesh costs its members: the real messages of the shipped core, in virtual time, with 5 % of all
// messages lost. Run by bench.ts as `node gossip.ts SIZE...`; 3,000 members need 4 GB.
import { connect } from 'node:net';
import { memoryUsage } from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Gate } from '../../src/server/mesh/gate.ts';
import { checkRecord, digestOf } from '../../src/server/mesh/member.ts';
import { Membership } from '../../src/server/mesh/membership.ts';
import { startMesh } from '../../src/server/mesh/mesh.ts';
import { pageRounds } from '../../src/server/mesh/pages.ts';
import { post } from '../../src/server/mesh/peer.ts';
import { SharedKey } from '../../src/server/mesh/seal.ts';
import { messageLimit, readAnswer, readQuestion, writeAnswer, writeQuestion } from '../../src/server/mesh/wire.ts';
import { type Machine, recordOf, Simulation } from '../server/mesh/simulation.ts';

const conditions = { seed: 1, delayMs: 50, loss: 0.05 };
const measured = 60;
// In the first rounds everything that was just read is still news.
const settling = 15;
const patience = 200;

const sizes = process.argv.slice(2).map(Number);
const framing = { key: await httpBytes(true), tag: await httpBytes(false) };
process.stdout.write(
  `bytes are payload; HTTP adds ${framing.tag} to each question with its answer in a tailnet, ${framing.key} with a key\n`,
);
for (const size of sizes) {
  process.stdout.write(`${size > 5000 ? oneOf(size) : mesh(size)}\n`);
  if (size === 50 || size === 500) process.stdout.write(`${joined(size)}\n`);
}

function mesh(size: number): string {
  const before = memoryUsage().heapUsed;
  const simulation = new Simulation({ ...conditions, size });
  simulation.startKnown();
  const heap = Math.max(0, memoryUsage().heapUsed - before);
  simulation.rounds(settling);
  const { bytes, messages } = simulation;
  const { user, system } = process.cpuUsage();
  simulation.rounds(measured);
  const cpu = process.cpuUsage({ user, system });
  const each = (count: number) => count / measured / size;
  const idle = { bytes: each(simulation.bytes - bytes), messages: each(simulation.messages - messages) };
  const doubts = `falsely suspected ${simulation.doubts.suspected}, dead ${simulation.doubts.dead}`;
  const one = simulation.machines[size >> 1] ?? fail();
  simulation.kill(one);
  const others = simulation.machines.filter((machine) => machine !== one);
  const all = (state: string) => others.every(({ core }) => core?.get(one.name)?.state === state);
  const dead = simulation.rounds(patience, () => all('dead'));
  simulation.start(one);
  const joined = simulation.rounds(patience, () => all('healthy') && one.core?.living === size);
  const [http, ms] = [(idle.messages / 2) * framing.tag, each(cpu.user + cpu.system) / 1000];
  const more = `HTTP ${http.toFixed(0)} B/s, with a key ${((idle.messages / 2) * framing.key).toFixed(0)}; CPU ${ms.toFixed(2)} ms/s, the simulation’s included; heap ${(heap / 1024 / size).toFixed(0)} KiB`;
  const cells = [
    `mesh ${String(size).padStart(5)} members`,
    `${idle.bytes.toFixed(0).padStart(5)} B/s in ${idle.messages.toFixed(1)} messages`,
    `a death known to all in ${dead ?? '?'} rounds`,
    `a join in ${joined ?? '?'}`,
    doubts,
    more,
  ];
  return cells.join('   ');
}

/** Measures the page of 1,000 joined clusters of one login server: when it is new, and while it changes all the time. */
function joined(size: number): string {
  const rows = Array.from({ length: 1_000 }, (_, i) => ({
    cluster: `customer-${i}-prod`,
    // Names of managed clusters are random, so they do not compress well.
    apiEndpoint: `https://${digestOf(`cluster ${i}`)
      .replace(/[^a-z0-9]/gi, '0')
      .toLowerCase()}.eks.example.com`,
    labels: { environment: 'production', region: 'eu-central-1' },
    state: 'healthy' as const,
    version: '0.2.0',
  }));
  const simulation = new Simulation({ ...conditions, size, named: true });
  simulation.startKnown();
  simulation.rounds(settling);
  const gossip = () => simulation.bytes - simulation.pages.bytes;
  let before = gossip();
  simulation.rounds(measured);
  const usual = (gossip() - before) / measured / size;
  const [login, ...others] = simulation.machines as [Machine, ...Machine[]];
  login.core?.publishJoined(rows);
  const has = ({ core }: Machine) => core?.joined()[0]?.rows.length === rows.length;
  const most = simulation.rounds(size, () => others.filter(has).length >= 0.9 * others.length);
  const last = simulation.rounds(size, () => others.every(has));
  const page = simulation.pages.bytes / simulation.pages.count;
  before = gossip();
  let pages = simulation.pages.bytes;
  simulation.rounds(measured);
  const quiet = (gossip() - before) / measured / size;
  const fetched = simulation.pages.bytes - pages;
  pages = simulation.pages.bytes;
  for (let i = 0; i < measured / pageRounds; i++) {
    login.core?.publishJoined([
      ...rows.slice(i),
      ...rows.slice(0, i).map((row) => ({ ...row, state: 'dead' as const })),
    ]);
    simulation.rounds(pageRounds);
  }
  const busy = (simulation.pages.bytes - pages) / measured;
  const cells = [
    `  ${rows.length} joined clusters: a page of ${(page / 1000).toFixed(0)} kB, known to 90 % in ${most ?? '?'} rounds, to all ${last ?? '?'} later`,
    `then ${fetched} B for pages, gossip ${quiet.toFixed(0)} B/s (before ${usual.toFixed(0)})`,
    `while it changes every ${pageRounds} rounds, the login server sends ${(busy / 1000).toFixed(0)} kB/s`,
  ];
  return cells.join('   ');
}

/**
 * Measures one member of a mesh of `size`. The others answer and ask as members do, so all of its messages are real.
 */
function oneOf(size: number): string {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const heapUsed = (): number => {
    collect();
    return memoryUsage().heapUsed;
  };
  const nameOf = (i: number) => `tka-cluster-${String(i).padStart(5, '0')}`;
  const addressOf = (i: number) => `${nameOf(i)}.example.ts.net:7946`;
  const others = Array.from({ length: size - 1 }, (_, i) => addressOf(i + 1));
  const numbers = new Map(others.map((address, i) => [address, i + 1]));
  const before = heapUsed();
  let now = 0;
  let sent = 0;
  const core = new Membership({
    name: nameOf(0),
    record: recordOf(nameOf(0)),
    clock: { monotonic: () => now, wall: () => now },
    random: Math.random,
    intervalMs: 1000,
    factor: 3,
    stalenessThreshold: 5,
    deadThreshold: 10,
    seeds: [addressOf(1)],
  });
  let part: { members: { count: number; digest: string } } | undefined;
  let told = 0;
  const ask = (): void => {
    for (let asks = core.asks(); asks.length > 0; asks = core.asks()) {
      for (const one of asks) {
        sent += one.body.length;
        const question = readQuestion(one.body);
        if (typeof question === 'string') throw new Error(question);
        part = { members: question };
        const i = numbers.get(one.address) ?? fail();
        const { text, etag, version } = checkRecord(nameOf(i), { ...recordOf(nameOf(i)), left: false });
        const own = { name: nameOf(i), process: `p${i}`, version, silent: [], others: others.slice(told, told + 1500) };
        told += 1500;
        const answer = readAnswer(writeAnswer(own, question.have === etag ? undefined : text, messageLimit));
        if (typeof answer === 'string') throw new Error(answer);
        core.settle(one, answer);
      }
    }
  };
  core.tick();
  ask();
  if (core.living !== size) throw new Error(`${core.living} of ${size} members`);
  const joining = sent;
  const heap = heapUsed() - before;
  let started = 0;
  let { user, system } = process.cpuUsage();
  for (let round = -settling; round < measured; round++) {
    if (round === 0) {
      started = sent;
      ({ user, system } = process.cpuUsage());
    }
    now += 1000;
    core.tick();
    ask();
    // Three members ask it, and know the same members.
    for (let n = 0; n < 3; n++) {
      const i = 1 + Math.floor(Math.random() * (size - 1));
      const { text: _, etag: __, version } = checkRecord(nameOf(i), { ...recordOf(nameOf(i)), left: false });
      const { count, digest } = part?.members ?? fail();
      const sender = { name: nameOf(i), process: `p${i}`, version, at: addressOf(i), leaving: false };
      const question = readQuestion(writeQuestion({ ...sender, have: core.self.etag, count, digest }));
      if (typeof question === 'string') throw new Error(question);
      sent += core.answer(question).length;
    }
  }
  const cpu = process.cpuUsage({ user, system });
  const listing = performance.now();
  const list = JSON.stringify(core.members()).length;
  const cells = [
    `mesh ${String(size).padStart(5)} members, of which one is measured`,
    `${((sent - started) / measured).toFixed(0)} B/s`,
    `${(joining / 1024).toFixed(0)} KiB to join`,
    `CPU ${((cpu.user + cpu.system) / 1000 / measured).toFixed(2)} ms/s, the others’ part included`,
    `heap ${(heap / 2 ** 20).toFixed(1)} MiB`,
    `list of ${(list / 2 ** 20).toFixed(1)} MiB in ${(performance.now() - listing).toFixed(0)} ms`,
  ];
  return cells.join('   ');
}

/** Returns the bytes of HTTP around one request and its answer. */
async function httpBytes(withKey: boolean): Promise<number> {
  const key = 'a shared key of at least 32 characters';
  const node = async () => ({ name: 'asker', tags: ['tag:tka'] });
  const { server, apiEndpoint, labels, version } = recordOf('tka-cluster-0001');
  const door = withKey ? { key } : { whois: node, tag: 'tag:tka' };
  const record = { server, apiEndpoint, labels, version };
  await using peer = await startMesh({ name: 'tka-cluster-0001', record, hosts: ['127.0.0.1'], port: 0, ...door });
  const gate: Gate = withKey
    ? { key: new SharedKey(key, Date.now), instances: new Map() }
    : { whois: node, whoCalls: node, tag: 'tag:tka' };
  let wire = 0;
  const dial = (host: string, port: number) =>
    new Promise<{ socket: ReturnType<typeof connect>; address: string; port: number }>((resolve, reject) => {
      const socket = connect({ host, port }, () => resolve({ socket, address: host, port })).on('error', reject);
      socket.on('close', () => {
        wire = socket.bytesWritten + socket.bytesRead;
      });
    });
  const message = {
    name: 'asker',
    process: 'p',
    version: 'v',
    at: '127.0.0.1:9',
    count: 1,
    digest: 'd',
    leaving: false,
  };
  const body = writeQuestion(message);
  for (let tries = 0; ; tries++) {
    const { body: answer } = await post(`127.0.0.1:${peer.port}`, body, {
      gate,
      dial,
      signal: AbortSignal.timeout(5000),
    });
    await new Promise((resolve) => setImmediate(resolve));
    // The first request also asks which process answers.
    if (tries > 0) return wire - body.length - answer.length;
  }
}

function fail(): never {
  throw new Error('there is nobody');
}
