import { crashed, run } from '../src/server/cli.ts';

const stop = new AbortController();
for (const [signal, number] of [
  ['SIGTERM', 15],
  ['SIGINT', 2],
] as const) {
  process.on(signal, () => {
    // A second signal ends the process at once.
    if (stop.signal.aborted) process.exit(128 + number);
    stop.abort(new Error(signal));
  });
}
process.on('uncaughtException', (error) => process.exit(crashed(error, process.env)));
run(process.argv.slice(2), process.env, stop.signal).then((status) => process.exit(status));
