import { parseConfigText, readConfigText } from './config-file.ts';
import { readSetting, type SettingKey, type SettingValue, settingKeys } from './keys.ts';
import type { Paths } from './paths.ts';

/** A configuration file that was read. */
export interface ConfigFile {
  readonly path: string;
  readonly values: ReadonlyMap<SettingKey, SettingValue>;
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
    return { path, values: await parseConfig(path, text, problems) };
  }
  return undefined;
}

/**
 * Returns the known keys of a configuration file's text. Adds problems with their line to `problems`. Ignores unknown
 * keys, because the Go CLI uses the same file.
 */
export async function parseConfig(
  path: string,
  text: string,
  problems: string[],
): Promise<Map<SettingKey, SettingValue>> {
  const keys = Object.keys(settingKeys) as SettingKey[];
  const values = await parseConfigText(path, text, { keys, read: readSetting, lenient: true }, problems);
  return new Map([...values].map(([key, { value }]) => [key, value]));
}
