import { serveCached } from '../src/credential/fast.ts';

const args = process.argv.slice(2);
// The launcher says by which path it was started: links are resolved by the time this runs.
const started = args[0] === '--started-as' ? (args.splice(0, 2)[1] ?? '') : (process.argv[1] ?? process.execPath);

let served = false;
try {
  served = serveCached(args, process.env, process.ppid);
} catch {
  // Nobody reads stdout any more: there is nobody to serve.
  process.exit(1);
}

if (!served) {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)
    process.on(signal, () => process.exit(status));
  import('../src/cli/main.ts')
    .then(({ run, startedAs }) => run(args, startedAs(started, process.env), process.env))
    .then((status) => process.exit(status));
}
