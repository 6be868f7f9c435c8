// `tka-server config check` and `tka-server config show`.
import { configLimit, readConfigText } from '../../settings/config-file.ts';
import { structured, type Terminal, table } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import { examineConfig, keysHint, loadConfig } from './config.ts';
import { type ConfigKey, configKeys, shownValue } from './keys.ts';

/**
 * Checks one file (`-`: standard input) without environment variables, default file or cluster. Prints warnings. Throws
 * one TkaError with a line for each problem.
 */
export async function checkConfig(file: string, terminal: Terminal): Promise<void> {
  const unreadable: string[] = [];
  const name = file === '-' ? 'standard input' : file;
  const text = file === '-' ? await readInput(unreadable) : readConfigText(file, true, unreadable);
  const { config, problems } = await examineConfig(name, text, {});
  for (const warning of config.warnings) terminal.warn(warning);
  const all = [...unreadable, ...problems];
  if (all.length > 0) throw new TkaError(all.join('\n'), { hints: [keysHint] });
  const count = config.warnings.length;
  const told = count === 0 ? '' : `, with ${count === 1 ? '1 warning' : `${count} warnings`}`;
  terminal.out(`${name} is valid${told}\n`);
}

/** Prints each key with its value and source. Throws UsageError if the configuration is invalid. */
export async function showConfig(
  file: string | undefined,
  output: 'json' | 'yaml' | undefined,
  env: NodeJS.ProcessEnv,
  terminal: Terminal,
): Promise<void> {
  const config = await loadConfig(file, env);
  for (const warning of config.warnings) terminal.warn(warning);
  const rows = (Object.keys(configKeys) as ConfigKey[]).map((key) => ({
    key,
    value: shownValue(key, config.get(key)),
    source: config.sourceOf(key) ?? 'default',
  }));
  if (output !== undefined) return terminal.out(await structured(output, rows));
  const cells = rows.map(({ key, value, source }) => [key, cellOf(value), source]);
  terminal.out(table(['KEY', 'VALUE', 'SOURCE'], cells));
}

/** Formats a value for a table cell: lists with commas, maps as `key=value`, `-` for nothing. */
function cellOf(value: unknown): string {
  if (value === null || value === '') return '-';
  if (Array.isArray(value)) return value.join(',') || '-';
  if (typeof value !== 'object') return String(value);
  const pairs = Object.entries(value).map(([key, part]) => `${key}=${part}`);
  return pairs.join(',') || '-';
}

/** Returns the text on standard input. If it is too large, returns undefined and adds to `problems`. */
async function readInput(problems: string[]): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk);
    size += chunk.length;
    if (size <= configLimit) continue;
    problems.push(`standard input: is larger than ${configLimit >> 10} KiB`);
    return undefined;
  }
  return Buffer.concat(chunks).toString('utf8');
}
