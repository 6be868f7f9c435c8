import { serveCached } from '../src/credential/fast.ts';

const args = process.argv.slice(2);
// The launcher passes the path that started it, because links are already resolved here.
const started = args[0] === '--started-as' ? (args.splice(0, 2)[1] ?? '') : (process.argv[1] ?? process.execPath);

let served = false;
try {
  served = serveCached(args, process.env, process.ppid);
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  // EPIPE: nothing reads stdout any more, so no credential and no error can be delivered.
  if (code !== 'EPIPE')
    process.stderr.write(`error: cannot write the credential: ${code ?? message}\nhint: kubectl tka doctor\n`);
  process.exit(1);
}

if (!served) {
  // Counts as a failure if the process ends before run() returns.
  process.exitCode = 1;
  const ends = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
  for (const [signal, status] of Object.entries(ends)) process.on(signal, () => process.exit(status));
  import('../src/cli/run.ts')
    .then(({ run, crashed, startedAs }) => {
      process.on('uncaughtException', (error) => process.exit(crashed(error, args, process.env)));
      return run(args, startedAs(started, process.env), process.env);
    })
    .then(
      (status) => process.exit(status),
      (error) => {
        process.stderr.write(
          `error: incomplete installation: ${String(error).split('\n', 1)[0]}\nhint: install it again\n`,
        );
        process.exit(1);
      },
    );
}
