import * as path from 'node:path';
import type { Command, Help, Option } from 'commander';

const width = 100;

/** Formats help like kubectl: description, examples, commands, options, usage. */
export function helpOf(command: Command, helper: Help): string {
  const root = command.parent ?? command;
  const program = root.name();
  const sections = [wrap(command.description().replaceAll('%p', program))];
  const shown = examples.get(command);
  if (shown !== undefined) sections.push(`Examples:\n${shown.replaceAll('%p', program)}`);
  const aliases = command.aliases();
  if (aliases.length > 0) sections.push(`Aliases:\n  ${aliases.join(', ')}`);
  if (command === root) {
    const rows = helper
      .visibleCommands(command)
      .map((sub): [string, string] => [sub.name(), sub.summary() || sub.description()]);
    sections.push(`Available Commands:\n${columns(rows)}`);
  }
  const options = (of: Command): [string, string][] =>
    of.options.filter((option) => !option.hidden).map((option) => [flagsOf(option), option.description]);
  if (command !== root && command.options.length > 0) sections.push(`Options:\n${columns(options(command))}`);
  const version: [string, string][] = command === root ? [['    --version', 'show the version']] : [];
  sections.push(
    `${command === root ? 'Options' : 'Options of every command'}:\n${columns([...options(root), ...version, ['-h, --help', 'show help']])}`,
  );
  const args = command.registeredArguments
    .map((argument) => {
      const { argChoices, variadic } = argument;
      return ` ${argChoices?.join('|') ?? `[${nameOf(argument.name())}${variadic ? '...' : ''}]`}`;
    })
    .join('');
  const rest = usages.get(command) ?? '';
  sections.push(
    `Usage:\n  ${program}${command === root ? ' [command]' : ` ${command.name()}${args}`} [options]${rest}`,
  );
  if (command === root) sections.push(`Use "${program} <command> --help" for more information about a command.`);
  return `${sections.join('\n\n')}\n`;
}

// A name with alternatives is typed as it is.
const nameOf = (argument: string) => (argument.includes('|') ? argument : argument.toUpperCase());

const examples = new WeakMap<Command, string>();

const usages = new WeakMap<Command, string>();

/** Sets what the usage line shows after the options. */
export function setRestUsage(command: Command, text: string): void {
  usages.set(command, ` ${text}`);
}

/** Returns whether a command takes the command line of another program after `--`. */
export function takesRest(command: Command): boolean {
  return usages.has(command);
}

const held = new WeakSet<Command>();

/** Marks a command whose names are existing contexts and sessions; completion offers only those. */
export function setTakesHeld(command: Command): void {
  held.add(command);
}

export function takesHeld(command: Command): boolean {
  return held.has(command);
}

/** Sets the examples of a command; `%p` stands for the program's name. */
export function setExamples(command: Command, text: string): void {
  examples.set(command, text);
}

function flagsOf(option: Option): string {
  return option.short === undefined ? `    ${option.flags}` : option.flags;
}

function columns(rows: readonly (readonly [string, string])[]): string {
  const left = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `  ${name.padEnd(left)}   ${text}`).join('\n');
}

function wrap(text: string): string {
  const wrapLine = (line: string) => {
    const lines = [''];
    for (const word of line.split(' ')) {
      const last = lines.at(-1) ?? '';
      if (last !== '' && last.length + 1 + word.length > width) lines.push(word);
      else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
    }
    return lines.join('\n');
  };
  return text.split('\n').map(wrapLine).join('\n');
}

/** Returns the name that users type for this program: `kubectl tka` for kubectl-tka. */
export function programName(command: string): string {
  const name = path.basename(command).replace(/\.(?:exe|cmd|c?js|mjs|ts)$/i, '');
  return name === 'kubectl-tka' ? 'kubectl tka' : name;
}
