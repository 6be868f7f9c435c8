import * as fs from 'node:fs';
import * as path from 'node:path';
import { readAuthorities } from '../../network/tls.ts';
import { configLimit } from '../../settings/config-file.ts';
import { textWith, textWithout } from '../../settings/edit.ts';
import { parseConfig } from '../../settings/file.ts';
import {
  environmentName,
  readSetting,
  type SettingKey,
  type SettingValue,
  settingKey,
  settingKeys,
  unusedKeys,
} from '../../settings/keys.ts';
import { findPaths } from '../../settings/paths.ts';
import { loadSettings, type ReadSettings, readSettings, Settings } from '../../settings/settings.ts';
import { type OutputFormat, openTerminal, structured, table } from '../../terminal/output.ts';
import { systemCode, TkaError, UsageError } from '../../util/errors.ts';
import { makeFolder, writeFileAtomic } from '../../util/files.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { CommonFlags, Context } from '../context/context.ts';
import { taggedPeers } from '../target/seeds.ts';

interface ConfigFlags extends CommonFlags {
  readonly output?: OutputFormat;
  readonly headers?: boolean;
}

/**
 * Runs `config [view]`, `config [get] KEY`, `config [set] KEY VALUE` and `config unset KEY`: shows all settings with
 * their sources, including those from tailscaled; shows one, or changes one in the file.
 */
export async function config(context: Context, words: readonly string[], flags: ConfigFlags): Promise<void> {
  const { settings } = context;
  const wanted = wantedBy(words);
  if (wanted.verb === 'set' || wanted.verb === 'unset') {
    return change({ ...context, quiet: settings.quiet, named: flags.config }, wanted, flags);
  }
  for (const warning of settings.warnings) context.terminal.warn(warning);
  const read = { settings, invalid: new Map<SettingKey, string>() };
  if (wanted.verb === 'get') return get(context, read, wanted.key);
  await view(context, read, flags, flags.output === 'name' ? {} : await foundValues(context));
}

/**
 * Runs `config` if the settings cannot be read; `problem` says why. Shows what can be read and throws the problem, or
 * repairs one setting and warns about the remaining problems.
 */
export async function configWithoutSettings(
  problem: TkaError,
  flags: ConfigFlags,
  _: string,
  env: NodeJS.ProcessEnv,
  words: readonly string[],
): Promise<void> {
  const wanted = wantedBy(words);
  const quiet = flags.quiet === true;
  const terminal = openTerminal({ debug: flags.debug === true, quiet });
  const paths = await findPaths(env);
  if (wanted.verb === 'set' || wanted.verb === 'unset') {
    return change({ env, paths, terminal, quiet, named: flags.config, problem }, wanted, flags);
  }
  const read = await readSettings(flags, env, paths);
  for (const warning of read.settings.warnings) terminal.warn(warning);
  if (wanted.verb === 'get') await get({ terminal }, read, wanted.key);
  else await view({ terminal }, read, flags, {});
  throw problem;
}

type Wanted = { readonly verb: 'view' } | { readonly verb: 'get'; readonly key: SettingKey } | WantedChange;

type WantedChange =
  | { readonly verb: 'set'; readonly key: SettingKey; readonly value: string }
  | { readonly verb: 'unset'; readonly name: string };

/** Returns what the words of the command line mean. Throws UsageError. */
function wantedBy(words: readonly string[]): Wanted {
  const [first] = words;
  const isVerb = /^(?:get|set|unset|view)$/.test(first ?? '');
  const [name, value, ...more] = isVerb ? words.slice(1) : words;
  const verb = isVerb ? first : name === undefined ? 'view' : value === undefined ? 'get' : 'set';
  const most = { view: 0, get: 1, unset: 1 }[verb ?? ''] ?? 2;
  if (words.length - (isVerb ? 1 : 0) > most || more.length > 0) {
    throw new UsageError(isVerb ? `too many arguments for 'config ${verb}'` : "too many arguments for 'config'");
  }
  if (verb === 'view') return { verb };
  if (name === undefined) throw new UsageError(`config ${verb} requires a key`, { hints: [keysHint()] });
  if (verb === 'unset') return { verb, name };
  const key = keyNamed(name);
  if (verb === 'get') return { verb, key };
  if (value === undefined) {
    throw new UsageError('config set requires a value', { hints: [`kubectl tka config set ${key} VALUE`] });
  }
  return { verb: 'set', key, value };
}

/** Settings that may have invalid values, with the source of these. */
type Read = Pick<ReadSettings, 'settings' | 'invalid'>;

function get({ terminal }: Pick<Context, 'terminal'>, { settings, invalid }: Read, key: SettingKey): void {
  const value = invalid.has(key) ? undefined : settings.values.get(key)?.value;
  if (value !== undefined && value !== '') terminal.out(`${value}\n`);
}

/** Prints all settings. `found` has values for those that are not set. */
async function view(
  { terminal }: Pick<Context, 'terminal'>,
  { settings, invalid }: Read,
  flags: ConfigFlags,
  found: Partial<Record<SettingKey, string>>,
): Promise<void> {
  const rows = [...settings.values].map(([key, { value, source }]) => {
    const wrong = invalid.get(key);
    if (wrong !== undefined) return { key, value: null, source: wrong };
    const other = value === undefined || value === '' ? found[key] : undefined;
    return other ? { key, value: other, source: 'tailscaled' } : { key, value: value ?? null, source };
  });
  const unused = [...settings.unused].map(([key, value]) => ({ key, value, source: settings.configFile ?? '' }));
  const all = [...rows, ...unused];
  if (flags.output === 'json' || flags.output === 'yaml') return terminal.out(await structured(flags.output, all));
  if (flags.output === 'name') return terminal.out(all.map((row) => `${row.key}\n`).join(''));
  const cells = [
    ...rows.map(({ key, value, source }) => {
      return [key, invalid.has(key) ? '<invalid>' : String(value ?? '-') || '-', source];
    }),
    ...unused.map(({ key, value, source }) => [key, value || '-', `${source} (for the Go CLI, no effect here)`]),
  ];
  terminal.out(table(['KEY', 'VALUE', 'SOURCE'], cells, { showsHeadings: flags.headers }));
}

/** Returns the values that tailscaled provides for unset settings: the tailnet, and the TKA servers that it knows. */
async function foundValues(context: Context): Promise<Partial<Record<SettingKey, string>>> {
  const { suffix, peers } = await taggedPeers(context);
  const servers = peers.map(({ dnsName }) => dnsName).join(', ');
  return { 'tailscale.tailnet': suffix, 'tailscale.hostname': servers };
}

const keysHint = () => `the settings are ${Object.keys(settingKeys).join(', ')}`;

function keyNamed(name: string): SettingKey {
  const key = settingKey(name);
  if (key !== undefined) return key;
  const unused = unusedKeys.find((each) => each.toLowerCase() === name.toLowerCase());
  const meant = didYouMean(cleanText(name), Object.keys(settingKeys));
  const why = unused === undefined ? `unknown setting ${quoted(name)}${meant}` : `${unused} has no effect here`;
  throw new UsageError(unused === undefined ? why : `${why}: it is a setting of the Go CLI`, { hints: [keysHint()] });
}

interface Place extends Pick<Context, 'env' | 'paths' | 'terminal'> {
  readonly quiet: boolean;
  /** The value of --config. */
  readonly named: string | undefined;
  /** Why the settings cannot be read. Thrown if this command cannot repair the file. */
  readonly problem?: TkaError;
}

/** Changes the file, and warns about the problems that are left in the configuration. */
async function change(place: Place, wanted: WantedChange, flags: ConfigFlags): Promise<void> {
  await (wanted.verb === 'set' ? set(place, wanted.key, wanted.value) : unset(place, wanted.name));
  const { env, paths, terminal } = place;
  const settings = await loadSettings(flags, env, paths).catch((error: unknown) => {
    if (!(error instanceof TkaError)) throw error;
    for (const line of error.message.split('\n')) terminal.warn(line);
  });
  for (const warning of settings?.warnings ?? []) terminal.warn(warning);
}

async function set(place: Place, key: SettingKey, text: string): Promise<void> {
  const value = checkedValue(key, text);
  const { env, paths, terminal, quiet, named } = place;
  const file = named ?? paths.configs[0];
  if (file === undefined)
    throw new TkaError('no home directory for a configuration file', { hints: ['give one: --config FILE'] });
  const isNew = !fs.existsSync(file);
  await edit(place, file, (before) => textWith(before, key, value));
  if (!quiet) terminal.out(`${key} is ${JSON.stringify(value)} in ${file}.\n`);
  const hidden =
    isNew && named === undefined ? paths.configs.find((each) => each !== file && fs.existsSync(each)) : undefined;
  if (hidden !== undefined) terminal.warn(`${hidden} no longer applies: only the first configuration file is read`);
  warnOfVariable(env, terminal, key);
}

async function unset(place: Place, name: string): Promise<void> {
  const { env, paths, terminal, quiet, named } = place;
  const key = settingKey(name);
  const file = named ?? paths.configs.find((each) => fs.existsSync(each));
  const isChanged = file !== undefined && (await edit(place, file, (before) => withoutKey(before, name)));
  // An unknown key that is in the file can be removed, too.
  if (!isChanged && key === undefined) keyNamed(name);
  if (!quiet) {
    terminal.out(isChanged ? `Removed ${cleanText(key ?? name)} from ${file}.\n` : `${key} is not set in the file.\n`);
  }
  if (key !== undefined) warnOfVariable(env, terminal, key);
}

/** Like textWithout(). Throws UsageError for a section that has valid settings. */
async function withoutKey(text: string, name: string): Promise<string | undefined> {
  const { values } = await parseConfig('', text, []);
  const keys = [...values.keys()].filter((key) => key.toLowerCase().startsWith(`${name.toLowerCase()}.`));
  if (keys.length === 0) return textWithout(text, name);
  throw new UsageError(`${quoted(name)} is not a key but a section`, {
    hints: keys.map((key) => `kubectl tka config unset ${key}`),
  });
}

function warnOfVariable(env: NodeJS.ProcessEnv, terminal: Context['terminal'], key: SettingKey): void {
  const variable = environmentName(key);
  if (env[variable]) terminal.warn(`${variable} is set and overrides the file`);
}

/** Returns the value for a key. Throws UsageError for one that cannot work. */
function checkedValue(key: SettingKey, text: string): SettingValue {
  const read = readSetting(key, text);
  if ('problem' in read) throw new UsageError(`${key} ${read.problem}`);
  const { value } = read;
  if (value === '') return value;
  if (key === 'tls.caFile') {
    // The setting applies in every folder.
    const file = path.resolve(String(value));
    wrongUsage(() => readAuthorities(file));
    return file;
  }
  // Reads the value as every command does.
  if (key === 'tailscale.hostname') void new Settings(new Map([[key, { value, source: key }]]), undefined, false).seed;
  return value;
}

function wrongUsage(check: () => unknown): void {
  try {
    check();
  } catch (error) {
    throw error instanceof TkaError ? new UsageError(error.message, { hints: error.hints }) : error;
  }
}

/** Changes the text of a file. Returns whether it is another text. Throws TkaError and keeps the file if it cannot be changed. */
async function edit(
  { named, problem }: Place,
  file: string,
  change: (before: string) => Promise<string | undefined>,
): Promise<boolean> {
  const beyond = () => problem ?? new TkaError(`${file} cannot be changed`, { hints: [`edit ${file}`] });
  const target = realFile(file);
  try {
    const stat = fs.statSync(target, { throwIfNoEntry: false });
    if (stat === undefined ? named !== undefined : !stat.isFile() || stat.size > configLimit) throw beyond();
    const before = stat === undefined ? '' : fs.readFileSync(target, 'utf8');
    const after = await change(before);
    if (after === undefined) throw beyond();
    if (after === before && stat !== undefined) return false;
    makeFolder(path.dirname(target));
    writeFileAtomic(target, after, { mode: (stat?.mode ?? 0o600) & 0o777 });
    return true;
  } catch (error) {
    if (error instanceof TkaError) throw error;
    // Not a system error: the YAML library cannot process the file.
    if (systemCode(error) === undefined) throw beyond();
    throw new TkaError(`${file} cannot be written: ${systemCode(error)}`, { cause: error });
  }
}

// Resolve a symlink, for instance into a dotfiles repository, so that writing does not replace it.
function realFile(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    return file;
  }
}
