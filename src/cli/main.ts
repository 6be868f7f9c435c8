import { Argument, Command, CommanderError } from 'commander';
import { openTerminal } from '../terminal/output.ts';
import { NoGrant } from '../tka/no-grant.ts';
import { TkaError, UsageError } from '../util/errors.ts';
import { nearestFor } from '../util/suggest.ts';
import { cleanText } from '../util/text.ts';
import type { CommonFlags } from './context/context.ts';
import { helpOf, programName, setExamples, setRestUsage, setTakesHeld } from './help.ts';
import { type CommandFlags, commonOptions, output, specs } from './specs.ts';
import { type CommandLine, hasFlag, readLine, withoutAlias } from './words.ts';

function define(program: Command, args: readonly string[], command: string, env: NodeJS.ProcessEnv): void {
  program
    .name(programName(command))
    .usage('[command] [options]')
    .description(
      `Short-lived Kubernetes access over a tailnet.

A TKA server in every cluster knows who you are from the network and gives you a token for the role that the tailnet's policy grants you. After one login, kubectl gets its tokens through this program by itself.`,
    )
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .configureHelp({ formatHelp: helpOf })
    .configureOutput({
      writeOut: (text) => openTerminal({ debug: false, quiet: false }).out(text),
      writeErr: () => {},
      // Fixed values: inspecting stdout costs 3 ms in Node.
      getOutHelpWidth: () => 0,
      getOutHasColors: () => false,
    })
    // usageError() suggests commands itself, and never the ones that cannot be undone.
    .showSuggestionAfterError(false)
    .exitOverride();
  for (const option of commonOptions()) program.addOption(option);
  for (const spec of specs) {
    const sub = program.command(`${spec.name}${spec.args === undefined ? '' : ` ${spec.args}`}`).summary(spec.summary);
    // Commander counts the words after `--`.
    sub.description(spec.description).allowExcessArguments(spec.passThrough === true);
    setExamples(sub, spec.examples);
    sub.aliases(spec.aliases ?? []);
    if (spec.held === true) setTakesHeld(sub);
    if (spec.passThrough === true)
      setRestUsage(sub, spec.name === 'exec' ? '-- COMMAND [args...]' : '[-- COMMAND [args...]]');
    // Defining the options of the other commands only costs time.
    if ([spec.name, ...(spec.aliases ?? [])].some((name) => args.includes(name)))
      for (const option of spec.options ?? []) sub.addOption(option);
    sub.action(async () => {
      const flags = sub.optsWithGlobals<CommonFlags & CommandFlags>();
      const { openContext } = await import('./context/context.ts');
      const action = await spec.load();
      const dash = spec.passThrough === true ? args.indexOf('--') : -1;
      const rest = dash < 0 ? undefined : args.slice(dash + 1);
      const own = sub.args.slice(0, sub.args.length - (rest?.length ?? 0));
      const context = await openContext(flags, command, env).catch(async (error) => {
        if (spec.unread === undefined || !(error instanceof TkaError) || error.exitCode !== 1) throw error;
        await (await spec.unread())(error, flags, command, env, own);
      });
      if (context === undefined) return;
      if (spec.ownWarnings !== true) for (const line of context.settings.warnings) context.terminal.warn(line);
      await Promise.resolve(action(context, own, flags, rest)).catch(async (error) => {
        if (!(error instanceof NoGrant)) throw error;
        throw await (await import('./no-grant.ts')).withMissingGrant(context, error);
      });
    });
  }
  program
    .command('version')
    .summary('show the version')
    .description('Show the version of this program.')
    .allowExcessArguments(false)
    .addOption(output('json', 'yaml'))
    .action(async (flags: { output?: 'json' | 'yaml' }) =>
      (await import('./commands/version.ts')).version(flags.output),
    );
  program
    .command('credential')
    .summary('print a token for kubectl (called by kubectl)')
    .description('Print an ExecCredential with a token for a cluster. kubectl calls this as the context says.')
    .option('--server <url>', 'TKA server')
    .option('--api-server <url>', 'the API server that the token must be for')
    .allowExcessArguments(false)
    // Runs only if flags precede the command; `run` handles every other call.
    .action(async (_, sub: Command) => {
      const { apiServer, ...flags } = sub.optsWithGlobals<CommandFlags>();
      const given = Object.entries({ ...flags, 'api-server': apiServer }).filter(([, value]) => value !== undefined);
      const words = given.map(([name, value]) => (value === true ? `--${name}` : `--${name}=${value}`));
      await (await import('./commands/credential.ts')).credential(words, env);
    });
  const completion = program
    .command('completion')
    .summary('set up completion with the TAB key')
    .description(
      `Set up completion with the TAB key.

install is for "kubectl tka": it puts kubectl_complete-tka beside this program, where kubectl looks for it, or in ~/.local/bin if krew installed it. kubectl's own completion, which must be on, does the rest.

bash, zsh, fish and powershell print a script that completes kubectl-tka, called by that name. Names of clusters, contexts and labels are those last seen: nothing is asked for them.`,
    )
    .allowExcessArguments(false)
    .addArgument(new Argument('<shell>').choices(['install', 'bash', 'zsh', 'fish', 'powershell']))
    .action(async (shell: string) => {
      const quiet = program.opts<CommonFlags>().quiet === true;
      (await import('./commands/completion.ts')).completion(shell, command, env, quiet);
    });
  setExamples(
    completion,
    `  # %p <TAB>: once for all shells
  %p completion install

  # where kubectl's own completion is not on yet: into ~/.bashrc, or ~/.zshrc after compinit
  source <(kubectl completion bash)
  source <(kubectl completion zsh)

  # the same for fish, into ~/.config/fish/config.fish
  kubectl completion fish | source

  # kubectl-tka <TAB>, into the same files
  source <(kubectl-tka completion bash)
  source <(kubectl-tka completion zsh)
  kubectl-tka completion fish | source

  # PowerShell, into $PROFILE
  kubectl-tka completion powershell | Out-String | Invoke-Expression`,
  );
  program
    .command('help [command]')
    .summary('show help for a command')
    .description('Show help for a command.')
    .allowExcessArguments(false)
    .action(async (name: string | undefined) => {
      const sub = name === undefined ? program : commandNamed(program, name);
      if (sub !== undefined) sub.outputHelp();
      // Parsing the name as a command makes Commander report it as unknown, with a suggestion.
      else await program.parseAsync([String(name)], { from: 'user' });
    });
}

const commandNamed = (program: Command, name: string | undefined): Command | undefined =>
  program.commands.find((each) => each.name() === name || each.aliases().includes(String(name)));

/** Returns a command line (without program and script) in the form that Commander takes, without aliases. */
export function commandLine(args: readonly string[]): CommandLine {
  const options = [...commonOptions(), ...specs.flatMap((spec) => spec.options ?? [])];
  const valued = new Set(options.flatMap(({ required, short, long }) => (required ? [short, long] : [])));
  return withoutAlias(
    readLine(args, (flag) => valued.has(flag)),
    specs,
  );
}

/**
 * Runs a command line (without program and script) and returns the exit status. Throws errors that the user must see.
 */
export async function runCommand(args: readonly string[], command: string, env: NodeJS.ProcessEnv): Promise<number> {
  if (args.length === 0) return runCommand(['--help'], command, env);
  const program = new Command();
  if (args[0] === '__complete') {
    // The last word is still being typed.
    const { words } = commandLine(args.slice(1, -1));
    define(program, words, command, env);
    await (await import('./completion/complete.ts')).complete(program, [...words, args.at(-1) ?? ''], env);
    return 0;
  }
  const { words, operands } = commandLine(args);
  define(program, words, command, env);
  try {
    const wanted = words[operands[0] ?? -1];
    if (wanted === undefined && hasFlag(words, '--version')) {
      await (await import('./commands/version.ts')).version(undefined);
    } else if (hasFlag(words, '-h', '--help')) {
      const sub = wanted === undefined ? program : commandNamed(program, wanted);
      // Commander shows no help beside an invalid flag, and the general help for an unknown command.
      if (sub === undefined) await program.parseAsync([String(wanted)], { from: 'user' });
      else sub.outputHelp();
    } else await program.parseAsync(words, { from: 'user' });
    return 0;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    // The command line has flags but no command.
    if (error.code === 'commander.help') return runCommand(['--help'], command, env);
    throw usageError(error, words, program);
  }
}

function usageError(error: CommanderError, args: readonly string[], program: Command): UsageError {
  const [first = ''] = error.message.replace(/^error: /, '').split('\n');
  const line = first.replace(/\. (Expected|Allowed) /, (_, word) => `: ${word.toLowerCase()} `);
  const text = cleanText(line.charAt(0).toLowerCase() + line.slice(1), 300).replace(/\.$/, '');
  const known = program.commands.map((each) => each.name()).find((name) => args.includes(name));
  const meant = meantBy(first, program, known);
  const hints = [
    ...(meant.length === 0 ? [] : [`did you mean ${meant.join(' or ')}?`]),
    `${program.name()} ${known === undefined ? '' : `${known} `}--help`,
  ];
  return new UsageError(text, { hints });
}

// Never suggest a command that cannot be undone to a user who mistyped another one.
const neverSuggested = new Set(['forget', 'logout']);

/** Returns the commands or flags that are close to an unknown one. */
function meantBy(message: string, program: Command, command: string | undefined): string[] {
  const names = program.commands.flatMap((each) => [each.name(), ...each.aliases()]);
  const options = [...(commandNamed(program, command)?.options ?? []), ...program.options];
  const flags = [...options.flatMap(({ long }) => long ?? []), ...(command === undefined ? ['--version'] : [])];
  return nearestFor(message, names, flags).filter((name) => !neverSuggested.has(name));
}
