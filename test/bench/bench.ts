// npm run bench: whole-process times as ratios in one run. Contestants take turns, so that a busy moment affects all of
// them; the median counts. Each runs as the child of its own shell, since a second call by one parent means that the
// API server refused the token.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { entryName } from '../../src/credential/entry.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { loginBesideFlood } from './beside.ts';
import { cachedScripts } from './cached.ts';
import { joinedClusters } from './joined.ts';
import { signInCosts } from './sign-ins.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const bin = path.join(root, 'dist');
const node = path.join(bin, 'lib', 'node');
const folder = new TemporaryFolder('tka-bench-');
const home = folder.path;
const helper = fileURLToPath(new URL('./servers.ts', import.meta.url));
const servers = spawn(process.execPath, [helper], { stdio: ['pipe', 'pipe', 'inherit'] });
const [line] = await once(createInterface({ input: servers.stdout }), 'line');
const { server, apiServer, thousand, tenThousand } = JSON.parse(line);

const onPath = (process.env.PATH ?? '').split(path.delimiter).filter((part) => !part.includes('node_modules'));
const kubectl = onPath.map((folder) => path.join(folder, 'kubectl')).find((file) => fs.existsSync(file));
const env = { HOME: home, PATH: [bin, ...onPath].join(path.delimiter), KUBECONFIG: path.join(home, 'config') };
const entry = path.join(home, '.cache', 'kubectl-tka', entryName(server) ?? '');
const words = `credential --server ${server} --api-server ${apiServer}`;
const credential = `kubectl-tka ${words}`;

/** Returns the milliseconds of one shell command. */
async function time(script: string): Promise<number> {
  const started = performance.now();
  // `:` keeps the shell from replacing itself with the program.
  const child = spawn('/bin/sh', ['-c', `${script} >/dev/null; s=$?; :; exit $s`], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const [status] = await once(child, 'close');
  if (status !== 0) throw new Error(`${script}: exit status ${status}\n${stderr}`);
  return performance.now() - started;
}

/** Returns the milliseconds that the server takes for a sign-in and a token, on an open connection. */
async function answers(): Promise<number> {
  const started = performance.now();
  for (const [method, route] of [['POST', 'login'] as const, ['GET', 'kubeconfig'] as const]) {
    const answer = await fetch(`${server}/api/v1alpha1/${route}`, { method });
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(`${method} ${route}: HTTP ${answer.status}`);
  }
  return performance.now() - started;
}

interface Contestant {
  readonly name: string;
  /** A shell command, or a function that returns its own milliseconds. */
  readonly script: string | (() => Promise<number>);
  /** Runs before each turn, untimed. */
  readonly before?: () => void;
}

interface Result {
  readonly name: string;
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

async function compare(rounds: number, contestants: readonly Contestant[]): Promise<Result[]> {
  const times = contestants.map((): number[] => []);
  // The first round only warms up.
  for (let round = -1; round < rounds; round++) {
    for (const [i, { script, before }] of contestants.entries()) {
      before?.();
      const took = typeof script === 'string' ? await time(script) : await script();
      if (round >= 0) times[i]?.push(took);
    }
  }
  return contestants.map(({ name }, i) => {
    const sorted = (times[i] ?? []).sort((a, b) => a - b);
    return {
      name,
      median: sorted[Math.floor(sorted.length / 2)] ?? 0,
      least: sorted[0] ?? 0,
      most: sorted.at(-1) ?? 0,
    };
  });
}

function report(title: string, results: readonly Result[], references: readonly string[]): void {
  const ms = (took: number) => took.toFixed(took < 10 ? 2 : took < 100 ? 1 : 0).padStart(8);
  const wide = Math.max(...results.map(({ name }) => name.length));
  const ratios = references.map((name) => `÷ ${name}`).join('   ');
  process.stdout.write(`\n${title}\n  ${''.padEnd(wide)}   median     least      most   ${ratios}\n`);
  for (const result of results) {
    const cells = references.map((reference) => {
      const median = results.find(({ name }) => name === reference)?.median ?? Number.NaN;
      return (result.median / median).toFixed(2).padStart(reference.length + 2);
    });
    const times = `${ms(result.median)}  ${ms(result.least)}  ${ms(result.most)}`;
    process.stdout.write(`  ${result.name.padEnd(wide)} ${times}   ${cells.join('   ')}\n`);
  }
}

const forget = () => fs.rmSync(path.dirname(entry), { recursive: true, force: true });
const noKubeconfig = () => fs.rmSync(env.KUBECONFIG, { force: true });
const forty = (command: string) => `for i in $(seq 40); do sh -c '${command} >/dev/null; :' & done; wait`;
const bare = { name: 'bare node -e 0', script: `'${node}' -e 0` };

try {
  const [cpu] = os.cpus();
  const load = os.loadavg()[0]?.toFixed(1);
  process.stdout.write(
    `${os.cpus().length} cores, ${cpu?.model}, load ${load}, Node ${process.versions.node}; milliseconds\n`,
  );
  await time(credential);
  const front = path.join(bin, 'kubectl-tka');
  const { calls, scripts } = cachedScripts({ env, front, folder: path.dirname(entry) });
  const gke = 'gke-gcloud-auth-plugin';
  const cached = scripts.map(([name, script]) => ({ name, script: async () => (await time(script)) / calls }));
  report(
    `a cached credential, in turns of ${calls} calls`,
    await compare(25, cached),
    ['cat of the entry', gke].filter((name) => scripts.some(([there]) => there === name)),
  );
  if (!scripts.some(([name]) => name === gke)) process.stdout.write(`  ${gke} is left out: it is not on PATH\n`);
  const serversOwn = "the server's own answers";
  const tokens = await compare(25, [
    { name: 'cat of the entry', script: `cat '${entry}'` },
    bare,
    { name: 'cached, without the front', script: `'${node}' '${bin}/lib/kubectl-tka.cjs' ${words}` },
    { name: serversOwn, script: answers },
    { name: 'miss: signs in', script: credential, before: forget },
  ]);
  report('a token for kubectl', tokens, ['cat of the entry', bare.name]);
  const median = (wanted: string) => tokens.find(({ name }) => name === wanted)?.median ?? Number.NaN;
  const added = median('miss: signs in') - median(serversOwn);
  process.stdout.write(`  a miss adds ${added.toFixed(1)} ms to ${serversOwn}, bare Node included\n`);
  report(
    '40 at once',
    await compare(3, [
      { name: bare.name, script: forty(`${node} -e 0`) },
      { name: 'cached', script: forty(credential) },
      { name: 'cold: one signs in', script: forty(credential), before: forget },
    ]),
    [bare.name],
  );
  // A separate home, so that it has no other names.
  const elsewhere = `HOME='${path.join(home, 'elsewhere')}' kubectl-tka`;
  await time(`${elsewhere} clusters -s ${tenThousand}`);
  report(
    'commands',
    await compare(9, [
      bare,
      { name: 'version', script: 'kubectl-tka version' },
      { name: '--help', script: 'kubectl-tka --help' },
      { name: 'status', script: 'kubectl-tka status' },
      { name: 'clusters, 20 members', script: `kubectl-tka clusters -s ${server}` },
      { name: 'clusters, 1,000 members', script: `kubectl-tka clusters -s ${thousand}` },
      { name: 'TAB: 1,020 names', script: `kubectl-tka __complete login ''` },
      { name: 'TAB: 10,000 names', script: `${elsewhere} __complete login ''` },
      { name: 'TAB: 11 of 10,000 names', script: `${elsewhere} __complete login member-777` },
      { name: 'login', script: `kubectl-tka login ${server}` },
    ]),
    [bare.name],
  );
  report(
    'a thousand clusters into a kubeconfig',
    await compare(3, [
      bare,
      { name: 'sync of 1,000, first', script: `kubectl-tka sync -s ${thousand}`, before: noKubeconfig },
      { name: 'sync of 1,000, again', script: `kubectl-tka sync -s ${thousand}` },
    ]),
    [bare.name],
  );
  process.stdout.write('\ngossip, sent by each member\n');
  // Thousands of members that each know thousands need a larger heap.
  const gossip = path.join(import.meta.dirname, 'gossip.ts');
  const sizes = os.totalmem() > 8 * 2 ** 30 ? ['3', '50', '500', '1000', '3000', '10000'] : ['3', '50', '500', '10000'];
  spawnSync(process.execPath, ['--max-old-space-size=6000', gossip, ...sizes], { stdio: 'inherit' });
  process.stdout.write('\nsign-ins of a TKA server, on a real API server\n');
  for (const line of await signInCosts()) process.stdout.write(`  ${line}\n`);
  process.stdout.write('\na login of one person beside another who asks without end\n');
  for (const line of await loginBesideFlood()) process.stdout.write(`  ${line}\n`);
  process.stdout.write('\na login server with 500 joined clusters\n');
  for (const line of await joinedClusters()) process.stdout.write(`  ${line}\n`);
  if (kubectl === undefined) process.stdout.write('\nexec is left out: kubectl is not on PATH\n');
  else {
    noKubeconfig();
    await time(`kubectl-tka sync -s ${server}`);
    await time(`kubectl-tka exec -s ${server} -- get ns`);
    report(
      'one kubectl command on 20 clusters',
      await compare(3, [
        { name: 'one kubectl', script: 'kubectl --context cluster-00 get ns' },
        { name: 'exec over 20', script: `kubectl-tka exec -s ${server} -- get ns` },
      ]),
      ['one kubectl'],
    );
  }
} finally {
  servers.stdin.end();
  folder[Symbol.dispose]();
}
