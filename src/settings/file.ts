import { didYouMean } from '../util/suggest.ts';
import { quoted } from '../util/text.ts';
import { parseConfigText, readConfigText } from './config-file.ts';
import { isServerKey, readSetting, type SettingKey, type SettingValue, settingKeys, unusedKeys } from './keys.ts';
import type { Paths } from './paths.ts';

const mostWarnings = 10;

/** The settings in a configuration file's text. */
export interface ConfigText {
  readonly values: ReadonlyMap<SettingKey, SettingValue>;
  /** Keys whose value is invalid. */
  readonly invalid: ReadonlySet<SettingKey>;
  /** Keys of the Go CLI that have no effect here, with their values. */
  readonly unused: ReadonlyMap<string, string>;
  /** Unknown keys, as they are written. */
  readonly unknown: readonly string[];
  /** A line for each unknown key: `/home/a/.config/tka/config.yaml:3:1: unknown key "debgu"; did you mean "debug"?` */
  readonly warnings: readonly string[];
}

/** A configuration file that was read. */
export interface ConfigFile extends ConfigText {
  readonly path: string;
}

/** Returns the named file, else the first that exists; undefined if there is none. Adds problems to `problems`. */
export async function readConfig(
  named: string | undefined,
  paths: Paths,
  problems: string[],
): Promise<ConfigFile | undefined> {
  for (const path of named === undefined ? paths.configs : [named]) {
    const text = readConfigText(path, named !== undefined, problems);
    if (text === undefined) continue;
    return { path, ...(await parseConfig(path, text, problems)) };
  }
  return undefined;
}

type FileKey = SettingKey | (typeof unusedKeys)[number];

const isUnused = (key: FileKey): key is (typeof unusedKeys)[number] => unusedKeys.some((each) => each === key);

/**
 * Returns the settings in a configuration file's text. Adds problems with their line and column to `problems`. The Go CLI
 * and TKA servers use the same file, so their keys are not unknown.
 */
export async function parseConfig(path: string, text: string, problems: string[]): Promise<ConfigText> {
  const settings = Object.keys(settingKeys) as SettingKey[];
  const refused = new Map<SettingKey, string>();
  const earlier = problems.length;
  const unknown: string[] = [];
  const warnings: string[] = [];
  const found = await parseConfigText<FileKey, SettingValue>(
    path,
    text,
    {
      keys: [...settings, ...unusedKeys],
      read: (key, value) => {
        if (isUnused(key)) return { value: typeof value === 'object' ? '…' : String(value) };
        const read = readSetting(key, value);
        if ('problem' in read) refused.set(key, `: ${key} ${read.problem}`.toLowerCase());
        return read;
      },
      unknown: (dotted, place) => {
        if (isServerKey(dotted)) return;
        unknown.push(dotted);
        warnings.push(`${place}: unknown key ${quoted(dotted)}${didYouMean(dotted, settings)}`);
      },
      lenient: true,
      columns: true,
    },
    problems,
  );
  if (warnings.length > mostWarnings) {
    const more = warnings.splice(mostWarnings).length;
    warnings.push(`${path}: and ${more} more unknown keys`);
  }
  const values = new Map<SettingKey, SettingValue>();
  const unused = new Map<string, string>();
  for (const [key, { value }] of found) {
    if (isUnused(key)) unused.set(key, String(value));
    else values.set(key, value);
  }
  // In a file that is not valid YAML, the syntax errors are the only problems.
  const added = problems.slice(earlier).map((problem) => problem.toLowerCase());
  const isAdded = (problem: string) => added.some((each) => each.endsWith(problem));
  const invalid = new Set([...refused].flatMap(([key, problem]) => (isAdded(problem) ? [key] : [])));
  return { values, invalid, unused, unknown, warnings };
}
