// Answers a TAB: `kubectl-tka __complete WORD... CURRENT`. The answer has cobra's format, and kubectl passes it on to
// the shell: one candidate per line, with an optional tab and description, then a last line of `:` and a number (cobra,
// shell_completions.md). Reads only local files: no network, no locks, no settings.
// Only kubectl, which completes what follows `exec … --`, may ask a cluster.
import { type Argument, type Command, Help, type Option } from 'commander';
import { environmentName, type SettingKey, settingKeys } from '../../settings/keys.ts';
import { openTerminal } from '../../terminal/output.ts';
import { composed } from '../../util/text.ts';
import { takesHeld, takesRest } from '../help.ts';
import { type Completion, Known } from './known.ts';

// Bits of cobra's ShellCompDirective.
const noSpace = 2;
const noFiles = 4;

interface Answer {
  readonly candidates: readonly Completion[];
  readonly directive: number;
}

const nothing: Answer = { candidates: [], directive: noFiles };
const files: Answer = { candidates: [], directive: 0 };

// A shell may insert a candidate without quoting it, and bash expands a list without descriptions. So skip candidates
// that any shell would evaluate, split, or take as a flag. Quoting is not possible: it differs between shells, and
// kubectl does not say which one asks.
const plain = /^[\p{L}\p{N}\p{ExtPict}\p{RI}_./][\p{L}\p{N}\p{M}\p{ExtPict}\p{EMod}\p{RI}_.:@/+,-]*$/u;
// Most names are ASCII, and this expression takes a tenth of the time.
const ascii = /^[A-Za-z0-9_./][A-Za-z0-9_.:@/+,-]*$/;

/** A parsed command line, up to the current word. */
interface Line {
  readonly command: Command;
  /** Arguments of the command, without the current word. */
  readonly args: readonly string[];
  readonly flags: ReadonlyMap<Option, string>;
  /** The flag that expects the current word as its value. */
  readonly pending: Option | undefined;
  /** True after `--`. */
  readonly ended: boolean;
  /** The words after `--`, which are also arguments. */
  readonly rest: readonly string[];
}

/** Prints the candidates for the last word. Never throws; with TKA_DEBUG=1, it logs errors to stderr. */
export async function complete(program: Command, words: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  const terminal = openTerminal({ debug: /^(?:1|t|true)$/i.test(env.TKA_DEBUG ?? ''), quiet: true });
  let answer = nothing;
  try {
    answer = await answerTo(program, words, env);
  } catch (error) {
    terminal.log(`no completion: ${error instanceof Error ? error.stack : error}`);
  }
  const lines = answer.candidates.map(([text, about]) => (about === '' ? `${text}\n` : `${text}\t${about}\n`));
  terminal.out(`${lines.join('')}:${answer.directive}\n`);
}

async function answerTo(program: Command, words: readonly string[], env: NodeJS.ProcessEnv): Promise<Answer> {
  const current = words.at(-1) ?? '';
  // Only aliases begin with `get`, and the words before the current one are without aliases.
  if (words.length === 2 && words[0] === 'get')
    return begun({ candidates: [['clusters', '']], directive: noFiles }, current);
  const line = read(program, words.slice(0, -1));
  if (line === undefined) return nothing;
  const kubeconfig = [...line.flags].find(([option]) => option.attributeName() === 'kubeconfig')?.[1];
  const known = new Known(env, kubeconfig);
  if (line.pending !== undefined) return begun(await valuesOf(line.pending, current, known), current);
  if (!line.ended && current.startsWith('-')) {
    const [flag = '', ...rest] = current.split('=');
    if (rest.length > 0) {
      const option = optionsOf(program, line.command).find(({ short, long }) => long === flag || short === flag);
      if (option === undefined || !takesValue(option)) return nothing;
      const value = rest.join('=');
      return withoutFlag(begun(await valuesOf(option, value, known), value), value);
    }
    return begun({ candidates: flagsFor(program, line, current), directive: noFiles }, current);
  }
  if (line.ended && takesRest(line.command)) {
    if (line.command.name() !== 'exec') return files;
    const names = line.args.slice(0, line.args.length - line.rest.length);
    const selector = [...line.flags].find(([option]) => option.attributeName() === 'selector')?.[1];
    const context = await known.firstContext(names, selector);
    const { askKubectl } = await import('./kubectl.ts');
    return askKubectl([...line.rest, current], context, kubeconfig, env) ?? files;
  }
  return begun(await argumentsFor(program, line, current, known), current);
}

/** Returns the candidates that start with the typed text. A shell compares bytes, so they are in the typed form. */
function begun(answer: Answer, typed: string): Answer {
  const candidates = answer.candidates.flatMap(([text, about]): Completion[] => {
    if (text.startsWith(typed)) return [[text, about]];
    return composed(text).startsWith(typed) ? [[composed(text), about]] : [];
  });
  return { ...answer, candidates };
}

/**
 * Returns values for `--flag=value` without the flag, as the completion scripts of kubectl expect them. If the value
 * itself contains =, the scripts differ: bash expects the text after the first =, zsh and fish the text after the last
 * one. Returns both forms if the typed text lets each shell pick its own, else only the short form, which is harmless
 * in all of them.
 */
function withoutFlag(answer: Answer, typed: string): Answer {
  const last = typed.lastIndexOf('=') + 1;
  const tail = typed.slice(last);
  if (last === 0) return answer;
  const candidates = answer.candidates.flatMap(([text, about]): Completion[] => {
    const short: Completion = [text.slice(last), about];
    return tail === '' || text.startsWith(tail) ? [short] : [short, [text, about]];
  });
  return { ...answer, candidates };
}

const takesValue = (option: Option): boolean => option.required || option.optional;

/** Returns the options of a command: its own first, then the common ones. */
function optionsOf(program: Command, command: Command): Option[] {
  const own = command === program ? [] : command.options;
  const common = program.options.filter(({ long }) => !own.some((option) => option.long === long));
  return [...own, ...common].filter((option) => !option.hidden);
}

/** Parses the words before the current one; returns undefined if they do not start with a command. */
function read(program: Command, words: readonly string[]): Line | undefined {
  let command = program;
  let pending: Option | undefined;
  let ended = false;
  const args: string[] = [];
  const rest: string[] = [];
  const flags = new Map<Option, string>();
  const flag = (option: Option | undefined, value: string | undefined) => {
    if (option === undefined) return;
    if (takesValue(option) && value === undefined) pending = option;
    flags.set(option, value ?? '');
  };
  for (const word of words) {
    const options = optionsOf(program, command);
    if (pending !== undefined) {
      flags.set(pending, word);
      pending = undefined;
    } else if (ended) {
      args.push(word);
      rest.push(word);
    } else if (word === '--') ended = true;
    else if (word.startsWith('--')) {
      const [name, ...rest] = word.split('=');
      flag(
        options.find(({ long }) => long === name),
        rest.length === 0 ? undefined : rest.join('='),
      );
    } else if (/^-./.test(word)) {
      for (let i = 1; i < word.length; i++) {
        const option = options.find(({ short }) => short === `-${word[i]}`);
        const rest = word.slice(i + 1);
        flag(option, rest === '' ? undefined : rest);
        if (option === undefined || takesValue(option)) break;
      }
    } else if (command === program) {
      const sub = program.commands.find((each) => each.name() === word);
      if (sub === undefined) return undefined;
      command = sub;
    } else args.push(word);
  }
  return { command, args, flags, pending, ended, rest };
}

/** Returns the flags that are not given yet. Includes short flags only if just a dash is typed. */
function flagsFor(program: Command, line: Line, typed: string): Completion[] {
  const given = new Set([...line.flags.keys()].map(({ long }) => long));
  const free = optionsOf(program, line.command).filter(({ long }) => !given.has(long));
  const rows = free.flatMap(({ short, long, description }): Completion[] =>
    [typed === '-' ? short : undefined, long].flatMap((name) => (name === undefined ? [] : [[name, description]])),
  );
  // kubectl up to 1.30 adds these itself. With two descriptions, bash would insert their common prefix into the command
  // line.
  const version: Completion[] = line.command === program ? [['--version', 'show the version']] : [];
  return [...rows, ...version, ...(typed === '-' ? [['-h', ''] as const] : []), ['--help', '']];
}

async function argumentsFor(program: Command, line: Line, typed: string, known: Known): Promise<Answer> {
  const { command, args } = line;
  if (command === program) return { candidates: commandsOf(program), directive: noFiles };
  const all = command.registeredArguments;
  const argument = all[args.length] ?? (all.at(-1)?.variadic === true ? all.at(-1) : undefined);
  if (argument === undefined) return nothing;
  const rows = await argumentValues(program, command, argument, args, typed, known);
  return { candidates: safe(rows.filter(([text]) => !args.includes(text))), directive: noFiles };
}

async function argumentValues(
  program: Command,
  command: Command,
  argument: Argument,
  args: readonly string[],
  typed: string,
  known: Known,
): Promise<readonly Completion[]> {
  if (argument.argChoices !== undefined) return argument.argChoices.map((text) => [text, '']);
  switch (argument.name()) {
    case 'name': {
      // Each name of `prod-eu,prod-us` is completed on its own.
      const list = argument.variadic ? typed.slice(0, typed.lastIndexOf(',') + 1) : '';
      const isUse = command.name() === 'use';
      const names = await (takesHeld(command) ? known.held() : known.names(typed.slice(list.length), isUse));
      if (list === '') return names;
      const given = list.split(',');
      return names.filter(([name]) => !given.includes(name)).map(([name, about]) => [list + name, about]);
    }
    case 'command':
      return commandsOf(program);
    case 'get|set|unset|view':
      return [...configVerbs, ...settings()];
    case 'key':
      if (args[0] === 'get' || args[0] === 'set' || args[0] === 'unset') return settings();
      return valuesFor(args[0]);
    case 'value':
      return args[0] === 'set' ? valuesFor(args[1]) : [];
    default:
      return [];
  }
}

const configVerbs: readonly Completion[] = [
  ['get', 'show a value'],
  ['set', 'set a value'],
  ['unset', 'remove a value from the file'],
  ['view', 'show all values'],
];

const settings = () => (Object.keys(settingKeys) as SettingKey[]).map((key): Completion => [key, environmentName(key)]);

const valuesFor = (key: string | undefined): readonly Completion[] =>
  Object.entries(settingKeys).some(([each, { type }]) => each === key && type === 'boolean')
    ? [
        ['true', ''],
        ['false', ''],
      ]
    : [];

function commandsOf(program: Command): Completion[] {
  return new Help().visibleCommands(program).map((command) => [command.name(), command.summary()]);
}

async function valuesOf(option: Option, typed: string, known: Known): Promise<Answer> {
  const found = (rows: readonly Completion[]): Answer => ({ candidates: safe(rows), directive: noFiles });
  if (option.argChoices !== undefined) return found(option.argChoices.map((text) => [text, '']));
  switch (option.attributeName()) {
    case 'selector':
      return selectorsFor(typed, known);
    case 'server':
      return found(await known.servers());
    case 'context':
      return found(known.contexts());
    case 'config':
    case 'kubeconfig':
      return files;
    default:
      return nothing;
  }
}

// Completes the last requirement of `a=b,c!=d,e` and keeps the text before it.
async function selectorsFor(typed: string, known: Known): Promise<Answer> {
  const before = typed.slice(0, typed.lastIndexOf(',') + 1);
  const last = typed.slice(before.length);
  const [, key, operator = ''] = /^([^=!<>\s]+)(==|=|!=)[^=]*$/.exec(last) ?? [];
  if (key !== undefined)
    return { candidates: await equations(`${before}${key}${operator}`, key, known), directive: noFiles };
  const keys = (await known.labelKeys()).filter(([name]) => name.startsWith(last));
  const [only] = keys;
  // A shell would insert a single key with a space after it, and kubectl's script for fish would fail.
  if (only !== undefined && keys.length === 1) {
    const rows = await equations(`${before}${only[0]}=`, only[0], known);
    return { candidates: rows.length > 0 ? rows : [[`${before}${only[0]}`, '']], directive: noFiles };
  }
  return {
    candidates: keys.map(([name, about]) => [`${before}${name}=`, about]),
    directive: noFiles | noSpace,
  };
}

async function equations(start: string, key: string, known: Known): Promise<Completion[]> {
  return (await known.labelValues(key)).map(([value, about]) => [`${start}${value}`, about]);
}

/** Returns each candidate once, without those that are unsafe in a shell. */
function safe(rows: readonly Completion[]): Completion[] {
  const seen = new Map<string, string>();
  for (const [text, about] of rows)
    if ((ascii.test(text) || plain.test(text)) && !seen.has(text)) seen.set(text, about);
  return [...seen];
}
