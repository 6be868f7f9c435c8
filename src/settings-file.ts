import * as fs from 'node:fs';
import type { YAMLMap } from 'yaml';
import { systemCode } from './errors.ts';
import type { Paths } from './paths.ts';
import { readSetting, type SettingKey, type SettingValue, settingKey, settingKeys } from './settings-keys.ts';
import { cleanText } from './tka/text.ts';

// A YAML parser takes a thousand times what it reads in memory, where it is made to; eight settings take no 64 KiB.
export const configLimit = 64 * 1024;

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

/** The text of a configuration file; undefined if it is absent (or cannot be read: then a problem says why). */
function readConfigText(path: string, required: boolean, problems: string[]): string | undefined {
  let fd: number | undefined;
  try {
    fd = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) problems.push(`${path}: is not a file`);
    else if (stat.size > configLimit) problems.push(`${path}: is larger than ${configLimit >> 10} KiB`);
    else return fs.readFileSync(fd, 'utf8');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      if (required) problems.push(`${path}: there is no such file`);
    } else problems.push(`${path}: cannot be read (${code})`);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
  return undefined;
}

/** The known keys of a configuration file's text; what is wrong with them is added to `problems`, with its line. */
export async function parseConfig(
  path: string,
  text: string,
  problems: string[],
): Promise<Map<SettingKey, SettingValue>> {
  const { isMap, isScalar, isAlias, LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  // Pretty errors quote the text, and take as long as the text for each.
  const options = { version: '1.1', schema: 'yaml-1.1', uniqueKeys: true, prettyErrors: false } as const;
  const document = parseDocument(text, { ...options, lineCounter: lines });
  const line = (offset: number | undefined) => lines.linePos(offset ?? 0).line;
  const values = new Map<SettingKey, SettingValue>();
  for (const error of document.errors) {
    // In its own words that is one of the engine's.
    const what = error.code === 'RESOURCE_EXHAUSTION' ? 'nested too deeply' : cleanText(error.message);
    const problem = `${path}:${line(error.pos[0])}: ${what}`;
    if (problem !== problems.at(-1)) problems.push(problem);
  }
  if (document.errors.length > 0 || document.contents === null) return values;
  const top = document.contents;
  if (isScalar(top) && top.value === null) return values;
  if (!isMap(top)) {
    problems.push(`${path}:${line(top.range?.[0])}: must be a map of settings`);
    return values;
  }
  const visit = (map: YAMLMap, prefix: string) => {
    for (const { key, value } of map.items) {
      if (!isScalar(key)) continue;
      const dotted = `${prefix}${key.value}`;
      const at = `${path}:${line(key.range?.[0])}: ${cleanText(dotted)}`;
      const node = isAlias(value) ? value.resolve(document) : value;
      const known = settingKey(dotted);
      const isParent = Object.keys(settingKeys).some((k) => k.toLowerCase().startsWith(`${dotted.toLowerCase()}.`));
      if (isParent && isMap(node)) visit(node, `${dotted}.`);
      else if (isParent && !(isScalar(node) && node.value === null) && node !== null)
        problems.push(`${at} must be a map`);
      if (known === undefined || node === null || (isScalar(node) && node.value === null)) continue;
      if (values.has(known)) {
        problems.push(`${at} is there twice`);
        continue;
      }
      const read = readSetting(known, isScalar(node) ? node.value : undefined);
      if ('problem' in read) problems.push(`${at} ${read.problem}`);
      else values.set(known, read.value);
    }
  };
  visit(top, '');
  return values;
}
