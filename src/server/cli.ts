// The command line of tka-server.
import { Command, CommanderError } from 'commander';
import { openTerminal, sayError, structured } from '../terminal/output.ts';
import { UsageError } from '../util/errors.ts';
import { nearestFor } from '../util/suggest.ts';
import { cleanText } from '../util/text.ts';
import { quotedUrl } from '../util/url.ts';
import { versionInfo, versionLine } from '../util/version.ts';
import { addAdminCommands } from './admin/commands.ts';
import { loadKubeConfig } from './cluster.ts';
import { checkConfig, showConfig } from './config/commands.ts';
import { loadConfig } from './config/config.ts';
import { isNamespace } from './config/keys.ts';
import { addJoinTokenCommands } from './federation/commands.ts';
import { connectKube } from './kubernetes/kube.ts';
import { openLog } from './log/log.ts';
import { adopt } from './provisioner/adopt.ts';
import { serve } from './serve.ts';

interface AdoptFlags {
  readonly fromNamespace: string;
  readonly remove?: boolean;
  readonly dryRun?: boolean;
  readonly config?: string;
}

/** Returns the commands of tka-server. `signal` stops a running server. */
export function serverCommands(env: NodeJS.ProcessEnv, signal: AbortSignal): Command {
  const terminal = openTerminal({ debug: false, quiet: false });
  const program = new Command('tka-server')
    .usage('[command] [options]')
    .description(
      'The TKA server: short-lived access to the cluster that it runs in, for the users of a tailnet.\n\nIt asks tailscaled who calls, and grants the role that the tailnet policy defines.',
    )
    .version(versionLine('tka-server').trimEnd(), '--version', 'show the version')
    .helpOption('-h, --help', 'show help')
    .showSuggestionAfterError(false)
    .helpCommand(false)
    .configureHelp({ helpWidth: 100 })
    .configureOutput({ writeOut: (text) => terminal.out(text), writeErr: () => {} })
    .exitOverride();
  program
    .command('serve')
    .description(
      'Serve the TKA API, and provision access in the cluster of KUBECONFIG or of this pod.\n\nAn environment variable overrides each key of the configuration: TKA_TAILSCALE_PORT overrides tailscale.port. The log goes to stderr as JSON lines.',
    )
    .option('-c, --config <file>', 'configuration file (default: /etc/tka/config.yaml if it exists)')
    .allowExcessArguments(false)
    .action(async ({ config: file }: { config?: string }) => {
      const config = await loadConfig(file, env);
      const log = openLog({ debug: config.get('debug'), name: config.get('tailscale.hostname') });
      await serve({ config, env, log, signal });
    });
  program
    .command('adopt')
    .description(
      'Take over the sign-ins of a TKA server in another namespace, for example of the Go server.\n\nMoves each sign-in to the namespace of this server (operator.namespace) with its role and its end. Deletes its ClusterRoleBinding and its ServiceAccount in the other namespace; this server creates new ones. Tokens of the other server become invalid, and kubectl gets new ones automatically. Stop the other server first. You can run this command again at any time.',
    )
    .requiredOption('--from-namespace <namespace>', 'namespace of the other server’s sign-ins, for example tka-dev')
    .option('--remove', 'delete the sign-ins instead: all users must sign in again')
    .option('--dry-run', 'only print what would be done')
    .option('-c, --config <file>', 'configuration file (default: /etc/tka/config.yaml if it exists)')
    .allowExcessArguments(false)
    .action(async ({ fromNamespace: from, remove = false, dryRun = false, config: file }: AdoptFlags) => {
      const config = await loadConfig(file, env);
      const to = config.get('operator.namespace');
      if (!isNamespace(from))
        throw new UsageError(`--from-namespace ${quotedUrl(from)} must be the name of a namespace`);
      if (from === to) {
        throw new UsageError(`--from-namespace "${from}" is this server's own namespace (operator.namespace)`, {
          hints: ['this server uses sign-ins of a Go server in its own namespace without adoption'],
        });
      }
      const kube = connectKube(loadKubeConfig(env));
      const leaseNamespace = config.get('operator.leaseNamespace') ?? to;
      const say = (line: string): void => terminal.out(`${line}\n`);
      try {
        const count = await adopt({ kube, from, to, leaseNamespace, remove, dryRun, say });
        if (count === 0) terminal.notice(`nothing to adopt in namespace "${from}"`);
      } finally {
        kube.close();
      }
    });
  const config = program
    .command('config')
    .description('Check a configuration file, or show the configuration in effect.');
  config
    .command('check')
    .description(
      'Check a configuration file (-: standard input). Ignores environment variables, and needs no cluster.\n\nPrints all errors and warnings with their lines. The exit status is 1 if there is an error; warnings do not affect it.',
    )
    .argument('<file>', 'configuration file')
    .allowExcessArguments(false)
    .action((file: string) => checkConfig(file, terminal));
  config
    .command('show')
    .description(
      'Show every key with the value in effect and its source: file and line, environment variable, or default. Secrets are redacted.',
    )
    .option('-c, --config <file>', 'configuration file (default: /etc/tka/config.yaml if it exists)')
    .option('-o, --output <format>', 'json or yaml')
    .allowExcessArguments(false)
    .action(({ config: file, output }: { config?: string; output?: string }) =>
      showConfig(file, formatNamed(output), env, terminal),
    );
  addAdminCommands(program, env, terminal);
  addJoinTokenCommands(program, env, signal, terminal);
  program
    .command('version')
    .description('Show the version of this program.')
    .option('-o, --output <format>', 'json or yaml')
    .allowExcessArguments(false)
    .action(async ({ output }: { output?: string }) => {
      const format = formatNamed(output);
      terminal.out(format === undefined ? versionLine('tka-server') : await structured(format, versionInfo()));
    });
  for (const command of program.commands) {
    command.summary(command.description().split('\n', 1)[0] ?? '').helpCommand(false);
    for (const sub of command.commands) sub.summary(sub.description().split('\n', 1)[0] ?? '');
  }
  return program;
}

/** Runs a command line (without program and script) and returns the exit status. `signal` stops a running server. */
export async function run(args: readonly string[], env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<number> {
  const program = serverCommands(env, signal);
  try {
    await program.parseAsync(args.length === 0 ? ['--help'] : args, { from: 'user' });
    return 0;
  } catch (error) {
    if (!(error instanceof CommanderError)) return crashed(error, env);
    if (error.exitCode === 0) return 0;
    // Commander shows the help of a command that only has subcommands; report the missing subcommand instead.
    if (error.code === 'commander.help') {
      return sayError(new UsageError('a subcommand is missing', { hints: [`tka-server ${args[0]} --help`] }), false);
    }
    const [first = ''] = error.message.replace(/^error: /, '').split('\n');
    return sayError(new UsageError(cleanText(first, 300), { hints: usageHints(first, program, args) }), false);
  }
}

/** Returns what may have been meant by a wrong command line, and the help to read. */
function usageHints(message: string, program: Command, args: readonly string[]): string[] {
  let command = program;
  for (const word of args) command = command.commands.find((each) => each.name() === word) ?? command;
  const names = command.commands.map((each) => each.name());
  const flags = command.options.flatMap(({ long }) => long ?? []);
  const meant = nearestFor(message, names, flags);
  const path =
    command === program ? '' : `${command.parent === program ? '' : `${command.parent?.name()} `}${command.name()} `;
  return [...(meant.length === 0 ? [] : [`did you mean ${meant.join(' or ')}?`]), `tka-server ${path}--help`];
}

function formatNamed(output: string | undefined): 'json' | 'yaml' | undefined {
  if (output === undefined || output === 'json' || output === 'yaml') return output;
  throw new UsageError(`--output ${JSON.stringify(output)} must be json or yaml`);
}

/** Prints the error that ended the program. Returns the exit status. */
export function crashed(error: unknown, env: NodeJS.ProcessEnv): number {
  return sayError(error, /^(?:1|t|true)$/i.test(env.TKA_DEBUG ?? ''));
}
