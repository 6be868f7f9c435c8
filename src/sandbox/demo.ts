// `npm run demo`: a first day with the plugin, as a transcript. The mesh runs in this process. Each command is a
// separate program in a private HOME. Fails if a command does not do what the transcript must show.
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeHome, type SandboxHome } from './home.ts';
import { demoClusters, joinedCluster, otherClusters, startMesh } from './mesh.ts';

interface Step {
  /** What the reader learns from this step. */
  readonly say: string;
  /** LAB is replaced with the server of the second mesh. */
  readonly command: string;
  /** A server that is stopped before this step. */
  readonly stops?: string;
  readonly code?: number;
  readonly expect: readonly RegExp[];
  readonly never?: RegExp;
}

const first = 'prod-us';
const second = 'prod-eu';
const steps: readonly Step[] = [
  {
    say: 'Which clusters are there? One TKA server is configured; it knows the others. Two of them serve prod-us.',
    command: 'kubectl tka clusters',
    expect: [/^ *prod-us /m, /^ *prod-eu /m, /^ *staging /m, /^ *edge +healthy /m],
    never: /prod-us-1|lab/,
  },
  {
    say: 'Sign in to one.',
    command: `kubectl tka login ${first}`,
    expect: [/alice/, /viewer/, /prod-us/],
  },
  {
    say: 'Contexts for the others too, without signing in to them.',
    command: 'kubectl tka login --all-contexts',
    expect: [/prod-eu/],
  },
  {
    say: 'A TKA server of another mesh is in no list of the first one: sign in to it by its URL.',
    command: 'kubectl tka login LAB',
    expect: [/Signed in to .* as alice/],
  },
  {
    say: 'edge is outside the tailnet: its TKA server only dials out. It has joined prod-eu, which signs me in there.',
    command: 'kubectl tka login edge',
    expect: [/Signed in to edge \(\S+\/clusters\/edge\) as alice/],
  },
  {
    say: 'kubectl itself talks to the API server of edge.',
    command: 'kubectl --context edge get pods -A',
    expect: [/coredns-edge-1/],
  },
  {
    say: 'Back to the first cluster.',
    command: `kubectl tka use ${first}`,
    expect: [/prod-us/],
  },
  {
    say: 'kubectl asks the plugin for its token; none is in the kubeconfig.',
    command: 'kubectl get namespaces',
    expect: [/shop-prod-us +Active/],
  },
  {
    say: 'Another cluster needs no login command: kubectl signs in on first use.',
    command: `kubectl --context ${second} get pods -A`,
    expect: [/coredns-prod-eu-1/],
  },
  {
    say: 'Who am I there?',
    command: 'kubectl auth whoami',
    expect: [/system:serviceaccount:tka-dev:tka-user-alice/],
  },
  {
    say: 'Which sessions do I have on this machine?',
    command: 'kubectl tka status',
    expect: [/prod-us/, /prod-eu/],
  },
  {
    say: 'Sign out, and stay signed out.',
    command: `kubectl tka logout ${first}`,
    expect: [/signed out/i],
  },
  {
    say: 'kubectl is refused now, and told what to type.',
    command: 'kubectl get namespaces',
    code: 1,
    expect: [/hint: .*kubectl tka login/],
    never: /shop-prod-us/,
  },
  {
    say: 'One of the two servers of prod-us stops. The other one signs me in.',
    stops: first,
    command: `kubectl tka login ${first}`,
    expect: [/signed in through/, /Signed in to prod-us/],
  },
  {
    say: 'The cluster is what it was.',
    command: 'kubectl get namespaces',
    expect: [/shop-prod-us +Active/],
  },
];

const stepLimitMs = 20_000;
const out = (line = ''): boolean => process.stdout.write(`${line}\n`);

/** Returns the shown text, the program and the arguments of a command, with or without kubectl. */
function programOf(
  command: string,
  home: SandboxHome,
  kubectl: boolean,
): [shown: string, file: string, args: string[]] {
  const words = command.split(' ');
  if (kubectl) return [command, words[0] as string, words.slice(1)];
  if (words[1] === 'tka') return [`kubectl-${words.slice(1).join(' ')}`, join(home.bin, 'kubectl-tka'), words.slice(2)];
  const caller = fileURLToPath(new URL('./caller.ts', import.meta.url));
  return [`client-node ${words.slice(1).join(' ')}`, process.execPath, [caller, ...words.slice(1)]];
}

async function hasKubectl(path: string): Promise<boolean> {
  const name = process.platform === 'win32' ? 'kubectl.exe' : 'kubectl';
  const found = path.split(delimiter).map((dir) => access(join(dir, name), constants.X_OK));
  return (await Promise.allSettled(found)).some(({ status }) => status === 'fulfilled');
}

/** Runs one command and passes its output on. Resolves with the exit status and the output of both streams. */
function run(file: string, args: string[], env: Readonly<Record<string, string>>, signal: AbortSignal) {
  return new Promise<{ code: number | null; output: string }>((resolve, reject) => {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(stepLimitMs)]);
    const child: ChildProcess = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'pipe'], signal: limit });
    let output = '';
    const take = (text: string) => {
      output += text;
      process.stdout.write(text);
    };
    child.stdout?.setEncoding('utf8').on('data', take);
    child.stderr?.setEncoding('utf8').on('data', take);
    let failed: unknown;
    child.on('error', (error) => {
      failed = signal.aborted ? signal.reason : limit.aborted ? limit.reason : error;
    });
    // Wait until all streams are closed: a process that still writes into the private HOME would create it again.
    child.on('close', (code) => (failed === undefined ? resolve({ code, output }) : reject(failed)));
  });
}

/** Returns what is wrong with the result of a step, or undefined. */
function fault({ code: wanted = 0, expect, never }: Step, code: number | null, output: string): string | undefined {
  if (code !== wanted) return `exit status ${code}, expected ${wanted}`;
  const missing = expect.find((pattern) => !pattern.test(output));
  if (missing !== undefined) return `the output does not show ${missing}`;
  return never?.test(output) ? `the output shows ${never}` : undefined;
}

async function demo(signal: AbortSignal): Promise<void> {
  await using mesh = await startMesh({ clusters: [...demoClusters, joinedCluster] });
  await using other = await startMesh({ clusters: otherClusters });
  const lab = other.cluster('lab').server;
  const home = await makeHome(mesh.cluster(first).server);
  try {
    const kubectl = process.env.TKA_DEMO_NO_KUBECTL !== '1' && (await hasKubectl(home.env.PATH ?? ''));
    out(
      '# Six TKA servers of five clusters on loopback, with a STAND-IN for each Kubernetes API server, in a HOME of its own.',
    );
    if (!kubectl) {
      out('# There is no kubectl: our commands are run as kubectl-tka, and @kubernetes/client-node plays kubectl.');
    }
    for (const step of steps) {
      if (step.stops !== undefined) await mesh.cluster(step.stops).stop();
      const [shown, file, args] = programOf(step.command.replace('LAB', lab), home, kubectl);
      out();
      out(`# ${step.say}`);
      out(`$ ${shown}`);
      const { code, output } = await run(file, args, home.env, signal);
      const wrong = fault(step, code, output);
      if (wrong !== undefined) throw new Error(`${shown}: ${wrong}`);
    }
  } finally {
    await home.remove();
  }
}

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => interrupted.abort());
const started = performance.now();
try {
  await demo(interrupted.signal);
  out();
  out(`# Every step did what it should, in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
} catch (error) {
  if (interrupted.signal.aborted) {
    process.exitCode = 130;
  } else {
    process.stderr.write(`\nerror: the demo failed: ${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
