import { parseConfigText, readConfigText } from './config-file.ts';
import { readSetting, type SettingKey, type SettingValue, settingKeys } from './keys.ts';
import type { Paths } from './paths.ts';

/** A configuration file that was read. */
export interface ConfigFile {
  readonly path: string;
  readonly values: ReadonlyMap<SettingKey, SettingValue>;
}

/** The file that is named, else the first that there is; undefined for none. What is wrong is added to `problems`. */
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
 * The known keys of a configuration file's text; what is wrong with them is added to `problems`, with its line. Others
 * are passed over: the file is the Go CLI's too.
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
