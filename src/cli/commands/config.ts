import * as fs from 'node:fs';
import * as path from 'node:path';
import { configLimit } from '../../settings/config-file.ts';
import { parseConfig } from '../../settings/file.ts';
import { environmentName, readSetting, type SettingKey, settingKey, settingKeys } from '../../settings/keys.ts';
import { findPaths } from '../../settings/paths.ts';
import { loadSettings } from '../../settings/settings.ts';
import { type OutputFormat, openTerminal, structured, table } from '../../terminal/output.ts';
import { systemCode, TkaError, UsageError } from '../../util/errors.ts';
import { makeFolder, writeFileAtomic } from '../../util/files.ts';
import { didYouMean } from '../../util/suggest.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { CommonFlags, Context } from '../context/context.ts';
import { taggedPeers } from '../target/seeds.ts';

/**
 * Runs `config [key] [value]`: shows all settings with their sources, including those from tailscaled; shows one, or
 * sets one in the file.
 */
export async function config(
  context: Context,
  [name, value]: readonly string[],
  flags: CommonFlags & { readonly output?: OutputFormat; readonly headers?: boolean },
): Promise<void> {
  const { terminal, settings } = context;
  if (name !== undefined) {
    const key = keyNamed(name);
    if (value !== undefined) return set({ ...context, quiet: settings.quiet, named: flags.config }, key, value);
    const known = settings.values.get(key)?.value;
    return known === undefined || known === '' ? undefined : terminal.out(`${known}\n`);
  }
  const found = flags.output === 'name' ? undefined : await foundValues(context);
  const rows = [...settings.values].map(([key, { value, source }]) => {
    const isSet = value !== undefined && value !== '';
    const other = isSet ? undefined : found?.[key];
    return other ? { key, value: other, source: 'tailscaled' } : { key, value: value ?? null, source };
  });
  if (flags.output === 'json' || flags.output === 'yaml') return terminal.out(await structured(flags.output, rows));
  if (flags.output === 'name') return terminal.out(rows.map((row) => `${row.key}\n`).join(''));
  const cells = rows.map((row) => [row.key, String(row.value ?? '-') || '-', row.source]);
  terminal.out(table(['KEY', 'VALUE', 'SOURCE'], cells, { showsHeadings: flags.headers }));
}

/** Returns the values that tailscaled provides for unset settings: the tailnet, and the TKA servers that it knows. */
async function foundValues(context: Context): Promise<Partial<Record<SettingKey, string>>> {
  const { suffix, peers } = await taggedPeers(context);
  const servers = peers.map(({ dnsName }) => dnsName).join(', ');
  return { 'tailscale.tailnet': suffix, 'tailscale.hostname': servers };
}

/**
 * Runs `config key value` if the settings cannot be read; `problem` says why. Repairs one setting, and warns about the
 * remaining problems.
 */
export async function configWithoutSettings(
  problem: TkaError,
  flags: CommonFlags,
  _: string,
  env: NodeJS.ProcessEnv,
  [name, value]: readonly string[],
): Promise<void> {
  if (name === undefined || value === undefined) throw problem;
  const key = keyNamed(name);
  const quiet = flags.quiet === true;
  const terminal = openTerminal({ debug: flags.debug === true, quiet });
  const paths = await findPaths(env);
  await set({ env, paths, terminal, quiet, named: flags.config, problem }, key, value);
  await loadSettings(flags, env, paths).catch((error: unknown) => {
    if (!(error instanceof TkaError)) throw error;
    for (const line of error.message.split('\n')) terminal.warn(line);
  });
}

function keyNamed(name: string): SettingKey {
  const key = settingKey(name);
  if (key !== undefined) return key;
  const meant = didYouMean(cleanText(name), Object.keys(settingKeys));
  throw new UsageError(`unknown setting ${quoted(name)}${meant}`, {
    hints: [`the settings are ${Object.keys(settingKeys).join(', ')}`],
  });
}

interface Place extends Pick<Context, 'env' | 'paths' | 'terminal'> {
  readonly quiet: boolean;
  /** The value of --config. */
  readonly named: string | undefined;
  /** Why the settings cannot be read. Thrown if this command cannot repair the file. */
  readonly problem?: TkaError;
}

async function set({ env, paths, terminal, quiet, named, problem }: Place, key: SettingKey, value: string) {
  const read = readSetting(key, value);
  if ('problem' in read) throw new UsageError(`${key} ${read.problem}`);
  const file = named ?? paths.configs[0];
  if (file === undefined)
    throw new TkaError('no home directory for a configuration file', { hints: ['give one: --config FILE'] });
  const target = realFile(file);
  const beyond = () => problem ?? new TkaError(`${file} cannot be changed: edit it by hand`);
  try {
    const stat = fs.statSync(target, { throwIfNoEntry: false });
    if (stat === undefined ? named !== undefined : !stat.isFile() || stat.size > configLimit) throw beyond();
    const before = stat === undefined ? '' : fs.readFileSync(target, 'utf8');
    const { isMap, isScalar, parseDocument, Scalar } = await import('yaml');
    const document = parseDocument(before, { prettyErrors: false });
    if (document.errors.length > 0) throw beyond();
    // The Go CLI writes keys in lower case, people write them as documented. An existing key keeps its spelling.
    const keys: string[] = [];
    let node: unknown = document.contents;
    for (const part of key.split('.')) {
      const pair = isMap(node)
        ? node.items.find(({ key: k }) => isScalar(k) && String(k.value).toLowerCase() === part.toLowerCase())
        : undefined;
      keys.push(pair !== undefined && isScalar(pair.key) ? String(pair.key.value) : part);
      node = pair?.value;
    }
    // The Go CLI reads YAML 1.1, where an unquoted `no` is a boolean.
    const scalar = new Scalar(read.value);
    if (typeof read.value === 'string') scalar.type = 'QUOTE_DOUBLE';
    const old = document.getIn(keys, true);
    if (isScalar(old))
      Object.assign(scalar, { comment: old.comment, commentBefore: old.commentBefore, spaceBefore: old.spaceBefore });
    document.setIn(keys, scalar);
    const after = document.toString({ lineWidth: 0 });
    const [earlier, left]: [string[], string[]] = [[], []];
    await parseConfig(file, before, earlier);
    const check = await parseConfig(file, after, left);
    if (left.length > earlier.length || check.get(key) !== read.value) throw beyond();
    makeFolder(path.dirname(target));
    writeFileAtomic(target, after, { mode: (stat?.mode ?? 0o600) & 0o777 });
  } catch (error) {
    if (error instanceof TkaError) throw error;
    // Not a system error: the YAML library cannot process the file.
    if (systemCode(error) === undefined) throw beyond();
    throw new TkaError(`${file} cannot be written: ${systemCode(error)}`, { cause: error });
  }
  if (!quiet) terminal.out(`${key} is ${JSON.stringify(read.value)} in ${file}.\n`);
  const variable = environmentName(key);
  if (env[variable]) terminal.warn(`${variable} is set and overrides the file`);
}

// Resolve a symlink, for instance into a dotfiles repository, so that writing does not replace it.
function realFile(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    return file;
  }
}
