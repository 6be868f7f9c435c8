// `npm run bench`: what a whole call costs, from fork to exit. Absolute times mean little on a shared machine, so every
// figure stands beside others of the same run: rounds in which each contestant has its turn, medians, and ratios.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { bundle, Home, kubectl, program, start } from '../e2e/program.ts';

interface Row {
  readonly name: string;
  readonly times: number[];
}

const quantile = (times: readonly number[], q: number): number => {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
};
const median = (times: readonly number[]) => quantile(times, 0.5);
const ms = (time: number) => (time < 100 ? time.toFixed(2) : time.toFixed(0));
const ratio = (of: number, to: number) => (of / to >= 100 ? (of / to).toFixed(0) : (of / to).toFixed(2));

function print(title: string, headings: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [headings, ...rows];
  const widths = headings.map((_, i) => Math.max(...all.map((row) => row[i]?.length ?? 0)));
  process.stdout.write(`\n${title}\n\n`);
  for (const row of all) {
    const cells = row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)));
    process.stdout.write(`${cells.join('   ')}\n`);
  }
}

/** Runs a program to its end; the time from its start, in milliseconds. Throws where it fails. */
async function timed(file: string, args: readonly string[], env: Home['env']): Promise<number> {
  const started = performance.now();
  const child = spawn(file, args, { env: env as NodeJS.ProcessEnv, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const exited = once(child, 'exit').then(() => performance.now() - started);
  const [status] = await once(child, 'close');
  if (status !== 0) throw new Error(`${file} ${args.join(' ')}: exit ${status}: ${said}`);
  return exited;
}

/**
 * Each contestant once a round, in an order that changes, so that none always follows the same one; for so many rounds,
 * or so many seconds on a machine that has other things to do. The first round warms the machine's caches.
 */
async function race(
  rounds: number,
  seconds: number,
  contestants: Readonly<Record<string, () => Promise<number>>>,
): Promise<Row[]> {
  const rows = Object.keys(contestants).map((name): Row => ({ name, times: [] }));
  const deadline = performance.now() + seconds * 1000;
  for (let round = 0; round <= rounds && (round < 3 || performance.now() < deadline); round++) {
    for (let i = 0; i < rows.length; i++) {
      const row = rows[(i + round) % rows.length] as Row;
      const time = await contestants[row.name]?.();
      if (round > 0) row.times.push(time ?? Number.NaN);
    }
  }
  return rows;
}

function table(title: string, rows: readonly Row[], against: readonly string[]): void {
  const bases = against.map((name) => median(rows.find((row) => row.name === name)?.times ?? []));
  print(
    title,
    ['', 'rounds', 'median ms', 'min', 'p90', 'max', ...against.map((name) => `× ${name}`)],
    rows.map(({ name, times }) => [
      name,
      String(times.length),
      ...[median(times), Math.min(...times), quantile(times, 0.9), Math.max(...times)].map(ms),
      ...bases.map((base) => ratio(median(times), base)),
    ]),
  );
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
// A parent of its own for each call: a second call by one parent is the sign of a refused token. The same for all.
const byShell = (env: Home['env'], ...words: readonly string[]) =>
  timed('/bin/sh', ['-c', `${words.map(quote).join(' ')}; :`], env);

const server = spawn(process.execPath, [fileURLToPath(new URL('./mesh.ts', import.meta.url))], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const [first] = await once(createInterface({ input: server.stdout }), 'line');
const [us] = JSON.parse(first) as { name: string; server: string; apiServer: string }[];
if (us === undefined) throw new Error('the mesh has no cluster');
const home = await Home.make(us.server);
const started = performance.now();
try {
  const { env } = home;
  const node = bundle?.node ?? process.execPath;
  const run = async (args: string) => {
    const ran = await home.run(args);
    if (ran.status !== 0) throw new Error(`${args}: ${ran.stderr}`);
  };
  await run('login prod-us');
  const entry = home.entry(us);
  const credential = [program, 'credential', '--server', us.server, '--api-server', us.apiServer];
  const cpus = os.cpus();
  process.stdout.write(`${cpus.length} × ${cpus[0]?.model.trim()}, load ${os.loadavg()[0]?.toFixed(1)} at the start\n`);

  const empty = path.join(home.root, 'empty.cjs');
  fs.writeFileSync(empty, '');
  const [cat, bare, cached] = ['cat of the entry', 'node -e 0', 'credential, cached'];
  table(
    'One call, each under a shell of its own (as kubectl would, but for the shell)',
    await race(60, 14, {
      true: () => byShell(env, 'true'),
      [cat]: () => byShell(env, 'cat', entry),
      [bare]: () => byShell(env, node, '-e', '0'),
      'node of an empty file': () => byShell(env, node, empty),
      [cached]: () => byShell(env, ...credential),
    }),
    [cat, bare],
  );

  const forget = () => fs.rmSync(home.cache, { recursive: true, force: true });
  table(
    'A miss: lock, sign-in, token, write, against the mesh in another process',
    await race(25, 12, {
      [bare]: () => byShell(env, node, '-e', '0'),
      [cached]: () => byShell(env, ...credential),
      'credential, miss': () => {
        forget();
        return byShell(env, ...credential);
      },
    }),
    [bare, cached],
  );

  const many = 40;
  const together = async (one: () => Promise<unknown>): Promise<number> => {
    const from = performance.now();
    await Promise.all(Array.from({ length: many }, one));
    return performance.now() - from;
  };
  const callKubectl = async () => {
    const ran = await start(kubectl ?? '', ['get', 'namespaces'], env).ran;
    if (ran.status !== 0) throw new Error(ran.stderr);
  };
  const parallel: Record<string, () => Promise<number>> = {
    [bare]: () => together(() => byShell(env, node, '-e', '0')),
    'credential, warm': () => together(() => byShell(env, ...credential)),
    'credential, cold': () => {
      forget();
      return together(() => byShell(env, ...credential));
    },
  };
  if (kubectl !== undefined) {
    parallel['kubectl get ns, warm'] = () => together(callKubectl);
    parallel['kubectl get ns, cold'] = () => {
      forget();
      return together(callKubectl);
    };
  }
  table(`${many} at once, until the last is done`, await race(3, 22, parallel), [bare]);
  process.stdout.write(`\ndone in ${((performance.now() - started) / 1000).toFixed(0)} s\n`);
} finally {
  server.stdin.end();
  home.remove();
}
