// What a TAB asks for: `kubectl-tka __complete WORD... CURRENT`. Its answer is cobra's, which kubectl hands on to the
// shell: a candidate a line, perhaps a tab and a description, and last `:` and a number (cobra, shell_completions.md).
// Only what is on this disk is looked at: no network, no lock, no settings.
import { type Argument, type Command, Help, type Option } from 'commander';
import { environmentName, type SettingKey, settingKeys } from '../../settings/keys.ts';
import { openTerminal } from '../../terminal/output.ts';
import { takesHeld, takesRest } from '../help.ts';
import { type Completion, Known } from './known.ts';

// cobra's ShellCompDirective.
const noSpace = 2;
const noFiles = 4;

interface Answer {
  readonly candidates: readonly Completion[];
  readonly directive: number;
}

const nothing: Answer = { candidates: [], directive: noFiles };
const files: Answer = { candidates: [], directive: 0 };

// A shell may put a candidate on its command line as it is, and bash takes a list without descriptions for text to
// expand. So nothing goes out that any shell would evaluate, take apart, or take for a flag; quoting is another one's in
// each of them, and kubectl does not say which one asks.
const plain = /^[\p{L}\p{N}_./][\p{L}\p{N}_.:@/+-]*$/u;
// Most names are of these, for which an expression takes a tenth of the time.
const ascii = /^[A-Za-z0-9_./][A-Za-z0-9_.:@/+-]*$/;

/** What a command line means as far as it goes. */
interface Line {
  readonly command: Command;
  /** Arguments of the command, the current word apart. */
  readonly args: readonly string[];
  readonly flags: ReadonlyMap<Option, string>;
  /** The flag whose value is the current word. */
  readonly pending: Option | undefined;
  /** After `--`. */
  readonly ended: boolean;
}

/** Prints the candidates for the last of the words. Never throws; TKA_DEBUG=1 tells on stderr what went wrong. */
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
  const line = read(program, words.slice(0, -1));
  if (line === undefined) return nothing;
  const kubeconfig = [...line.flags].find(([option]) => option.attributeName() === 'kubeconfig')?.[1];
  const known = new Known(env, kubeconfig);
  if (line.pending !== undefined) return begun(await valuesOf(line.pending, current, known), current);
  if (!line.ended && current.startsWith('-')) {
    const [flag = '', ...rest] = current.split('=');
    if (rest.length > 0) {
      const option = optionsOf(program, line.command).find(({ long }) => long === flag);
      if (option === undefined || !takesValue(option)) return nothing;
      const value = rest.join('=');
      return withoutFlag(begun(await valuesOf(option, value, known), value), value);
    }
    return begun({ candidates: flagsFor(program, line, current), directive: noFiles }, current);
  }
  if (line.ended && takesRest(line.command)) return files;
  return begun(await argumentsFor(program, line, current, known), current);
}

/** Those candidates that begin with what is typed. */
function begun(answer: Answer, typed: string): Answer {
  return { ...answer, candidates: answer.candidates.filter(([text]) => text.startsWith(typed)) };
}

/**
 * The values for `--flag=value`, as the shells' scripts want them: without the flag. Where the value has a = of its own,
 * kubectl's script for bash wants all that follows the first one, those for zsh and fish what follows the last: both
 * forms go out where what is typed tells each shell which one is meant, else that of which none makes nonsense.
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

/** The options of a command, its own first, and those of every command. */
function optionsOf(program: Command, command: Command): Option[] {
  const own = command === program ? [] : command.options;
  const common = program.options.filter(({ long }) => !own.some((option) => option.long === long));
  return [...own, ...common].filter((option) => !option.hidden);
}

/** Reads the words before the current one; undefined where they name no command of ours. */
function read(program: Command, words: readonly string[]): Line | undefined {
  let command = program;
  let pending: Option | undefined;
  let ended = false;
  const args: string[] = [];
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
    } else if (ended) args.push(word);
    else if (word === '--') ended = true;
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
  return { command, args, flags, pending, ended };
}

/** The flags that are not given yet: short ones too where no more than a dash is typed. */
function flagsFor(program: Command, line: Line, typed: string): Completion[] {
  const given = new Set([...line.flags.keys()].map(({ long }) => long));
  const free = optionsOf(program, line.command).filter(({ long }) => !given.has(long));
  const rows = free.flatMap(({ short, long, description }): Completion[] =>
    [typed === '-' ? short : undefined, long].flatMap((name) => (name === undefined ? [] : [[name, description]])),
  );
  // kubectl up to 1.30 adds these itself: with two descriptions, bash would put what they share on the command line.
  return [...rows, ...(typed === '-' ? [['-h', ''] as const] : []), ['--help', '']];
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
    case 'name':
      return takesHeld(command) ? known.held() : known.names(typed);
    case 'command':
      return commandsOf(program);
    case 'key':
      return (Object.keys(settingKeys) as SettingKey[]).map((key) => [key, environmentName(key)]);
    case 'value':
      return Object.entries(settingKeys).some(([key, { type }]) => key === args[0] && type === 'boolean')
        ? [
            ['true', ''],
            ['false', ''],
          ]
        : [];
    default:
      return [];
  }
}

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

// `a=b,c!=d,e`: the last requirement is completed, what stands before it stays.
async function selectorsFor(typed: string, known: Known): Promise<Answer> {
  const before = typed.slice(0, typed.lastIndexOf(',') + 1);
  const last = typed.slice(before.length);
  const [, key, operator = ''] = /^([^=!<>\s]+)(==|=|!=)[^=]*$/.exec(last) ?? [];
  if (key !== undefined)
    return { candidates: await equations(`${before}${key}${operator}`, key, known), directive: noFiles };
  const keys = (await known.labelKeys()).filter(([name]) => name.startsWith(last));
  const [only] = keys;
  // A single key would be put in with a space after it, or, through kubectl, with an error of its script for fish.
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

/** Each text once, without those that are none for a shell. */
function safe(rows: readonly Completion[]): Completion[] {
  const seen = new Map<string, string>();
  for (const [text, about] of rows)
    if ((ascii.test(text) || plain.test(text)) && !seen.has(text)) seen.set(text, about);
  return [...seen];
}
