// `tka-server members|status|sign-ins`: shows what the server on this machine or in this pod reports about itself.
import type { Command } from 'commander';
import { structured, type Terminal } from '../../terminal/output.ts';
import { UsageError } from '../../util/errors.ts';
import { loadConfig } from '../config/config.ts';
import { askAdmin } from './client.ts';
import { socketPath } from './socket.ts';
import { type MembersView, membersText, type SignInsView, type StatusView, signInsText, statusText } from './views.ts';

interface Flags {
  readonly output?: string;
  readonly config?: string;
}

/** Adds the commands to the program. */
export function addAdminCommands(program: Command, env: NodeJS.ProcessEnv, terminal: Terminal): void {
  const asking = (command: Command): Command =>
    command
      .option('-o, --output <format>', 'json or yaml')
      .option('-c, --config <file>', 'configuration file of the server (default: /etc/tka/config.yaml if it exists)')
      .allowExcessArguments(false);

  const ask = async <T>(config: string | undefined, method: 'GET' | 'DELETE', path: string): Promise<T> =>
    await askAdmin<T>(socketPath(await loadConfig(config, env)), method, path);

  /** Asks the server and prints the answer. */
  async function show<T extends object>({ output, config }: Flags, path: string, text: (view: T) => string) {
    if (output !== undefined && output !== 'json' && output !== 'yaml') {
      throw new UsageError(`--output ${JSON.stringify(output)} must be json or yaml`);
    }
    const view = await ask<T>(config, 'GET', path);
    terminal.out(output === undefined ? text(view) : await structured(output, view));
  }

  asking(program.command('status'))
    .description(
      'Show the status of the server on this machine or in this pod.\n\nkubectl exec -n tka-system tka-0 -c server -- tka-server status',
    )
    .action((flags: Flags) => show<StatusView>(flags, '/status', statusText));

  asking(program.command('sign-ins'))
    .description('List the sign-ins of the cluster: login, role, end, ServiceAccount, problem.')
    .action((flags: Flags) =>
      show<SignInsView>(flags, '/sign-ins', (view) => {
        if (view.problem !== undefined) terminal.warn(`the list may be outdated: ${view.problem}`);
        if (view.signIns.length === 0) terminal.notice('nobody is signed in');
        return signInsText(view, Date.now());
      }),
    );

  const members = asking(program.command('members'))
    .description(
      'List the members of the mesh as this server sees them.\n\nEach server keeps its own list. "tka-server members drop NAME" removes a dead member from it.',
    )
    .action((flags: Flags) => show<MembersView>(flags, '/members', (view) => membersText(view, Date.now())));
  members
    .command('drop <name>')
    .description('Remove a dead member from the list of this server now. Fails if the member is alive.')
    .option('-c, --config <file>', 'configuration file of the server (default: /etc/tka/config.yaml if it exists)')
    .allowExcessArguments(false)
    .action(async (name: string, _: object, command: Command) => {
      const { config } = command.optsWithGlobals<Flags>();
      await ask(config, 'DELETE', `/members/${encodeURIComponent(name)}`);
      terminal.notice(`dropped ${name}`);
    });
}
