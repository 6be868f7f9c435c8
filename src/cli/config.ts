import * as fs from 'node:fs';
import * as path from 'node:path';
import { systemCode, TkaError, UsageError } from '../errors.ts';
import { makeFolder, writeWhole } from '../files.ts';
import { findPaths } from '../paths.ts';
import { parseConfig, readSetting, type SettingKey, settingKey, settingKeys } from '../settings.ts';
import { type OutputFormat, structured, table } from '../terminal.ts';
import { cleanText } from '../tka/text.ts';
import type { CommonFlags, Context } from './context.ts';

/** `config [key] [value]`: shows all settings with their sources, shows one, or sets one in the file. */
export async function config(
  context: Context,
  [name, value]: readonly string[],
  flags: CommonFlags & { readonly output?: OutputFormat },
): Promise<void> {
  const { terminal, settings } = context;
  if (name !== undefined) {
    const key = settingKey(name);
    if (key === undefined) {
      throw new UsageError(`${JSON.stringify(cleanText(name))} is no setting`, {
        hints: [`the settings are ${Object.keys(settingKeys).join(', ')}`],
      });
    }
    if (value !== undefined) return set(context, key, value, flags.config);
    const known = settings.values.get(key)?.value;
    return known === undefined || known === '' ? undefined : terminal.out(`${known}\n`);
  }
  const rows = [...settings.values].map(([key, setting]) => ({
    key,
    value: setting.value ?? null,
    source: setting.source,
  }));
  if (flags.output === 'json' || flags.output === 'yaml') return terminal.out(await structured(flags.output, rows));
  if (flags.output === 'name') return terminal.out(rows.map((row) => `${row.key}\n`).join(''));
  terminal.out(
    table(
      ['KEY', 'VALUE', 'SOURCE'],
      rows.map((row) => [row.key, String(row.value ?? '-') || '-', row.source]),
    ),
  );
}

async function set(context: Context, key: SettingKey, value: string, named: string | undefined): Promise<void> {
  const read = readSetting(key, value);
  if ('problem' in read) throw new UsageError(`${key} ${read.problem}`);
  const file = named ?? (await findPaths(context.env)).configs[0];
  if (file === undefined)
    throw new TkaError('there is no home folder for a configuration file', { hints: ['name one: --config FILE'] });
  const target = realFile(file);
  try {
    const before = fs.existsSync(target) ? fs.readFileSync(target, 'utf8') : '';
    const { isMap, isScalar, parseDocument, Scalar } = await import('yaml');
    const document = parseDocument(before);
    // The Go CLI writes lower case, people write what the documentation says: a key that is there keeps its spelling.
    const keys: string[] = [];
    let node: unknown = document.contents;
    for (const part of key.split('.')) {
      const pair = isMap(node)
        ? node.items.find(({ key: k }) => isScalar(k) && String(k.value).toLowerCase() === part.toLowerCase())
        : undefined;
      keys.push(pair !== undefined && isScalar(pair.key) ? String(pair.key.value) : part);
      node = pair?.value;
    }
    // The Go CLI reads YAML 1.1, where a bare `no` is a boolean.
    const scalar = new Scalar(read.value);
    if (typeof read.value === 'string') scalar.type = 'QUOTE_DOUBLE';
    const old = document.getIn(keys, true);
    if (isScalar(old))
      Object.assign(scalar, { comment: old.comment, commentBefore: old.commentBefore, spaceBefore: old.spaceBefore });
    document.setIn(keys, scalar);
    const after = document.toString({ lineWidth: 0 });
    const problems: string[] = [];
    const check = await parseConfig(file, after, problems);
    if (problems.length > 0 || check.get(key) !== read.value)
      throw new TkaError(`${file} cannot be changed: edit it by hand`);
    makeFolder(path.dirname(target));
    const mode = fs.statSync(target, { throwIfNoEntry: false })?.mode ?? 0o600;
    writeWhole(target, after, { mode: mode & 0o777 });
  } catch (error) {
    if (error instanceof TkaError) throw error;
    throw new TkaError(
      `${file} cannot be written: ${systemCode(error) ?? (error instanceof Error ? error.message : error)}`,
      { cause: error },
    );
  }
  if (!context.settings.quiet) context.terminal.out(`${key} is ${JSON.stringify(read.value)} in ${file}.\n`);
  const { source } = context.settings.values.get(key) ?? { source: 'default' };
  if (source.startsWith('TKA_')) context.terminal.warn(`${source} is set, and beats the file`);
}

// A configuration that is a symlink into somebody's dotfiles stays one.
function realFile(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    return file;
  }
}
