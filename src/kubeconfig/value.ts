export type Plain = string | number | boolean | null | Plain[] | PlainMap;

export type PlainMap = { [key: string]: Plain };

/** A map, for what is certain to be neither a list nor a scalar. */
export function isPlainMap(value: Plain | undefined): value is PlainMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

// sigs.k8s.io/yaml (go-yaml 2): which plain scalars are no text.
const nulls = /^(?:~|null|Null|NULL|)$/;

const booleans = /^(?:(y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON)|n|N|no|No|NO|false|False|FALSE|off|Off|OFF)$/;

const numbers =
  /^[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*|(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|\.inf|\.Inf|\.INF)$|^\.(?:nan|NaN|NAN)$/;

/** What a plain scalar is to kubectl. */
export function plainValue(text: string): Plain {
  if (nulls.test(text)) return null;
  const boolean = booleans.exec(text);
  if (boolean) return boolean[1] !== undefined;
  if (numbers.test(text)) return Number(text.replaceAll('_', ''));
  return text;
}

// What JSON leaves raw but a YAML 1.1 reader takes for a line break or refuses as not printable.
const yamlUnsafe = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

/** Escapes in JSON text what a YAML 1.1 reader would read otherwise. */
export function escapeForYaml(json: string): string {
  return json.replace(yamlUnsafe, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Returns a double-quoted scalar that JSON, YAML 1.1 and YAML 1.2 readers all take for the same text. */
export function quote(text: string): string {
  // A lone surrogate has no UTF-8 form, and Go's YAML refuses its escape.
  return escapeForYaml(JSON.stringify(text.toWellFormed()));
}

const scalar = (value: Plain): string => (typeof value === 'string' ? quote(value) : String(value));

/** `key: value` as block lines (each ended by a line feed) whose keys stand at `indent`. Keys must be plain words. */
export function blockPair(key: string, value: Plain, indent: string): string {
  if (Array.isArray(value))
    return value.length === 0 ? `${indent}${key}: []\n` : `${indent}${key}:\n${blockItems(value, indent)}`;
  if (!isPlainMap(value)) return `${indent}${key}: ${scalar(value)}\n`;
  return `${indent}${key}:\n${blockMap(value, `${indent}  `)}`;
}

function blockMap(value: PlainMap, indent: string): string {
  let lines = '';
  for (const key of Object.keys(value)) lines += blockPair(key, value[key] as Plain, indent);
  return lines;
}

/** List items as block lines whose dashes stand at `indent`. */
export function blockItems(items: readonly Plain[], indent: string): string {
  let lines = '';
  for (const item of items) {
    const body = isPlainMap(item) ? blockMap(item, `${indent}  `).slice(indent.length + 2) : `${scalar(item)}\n`;
    lines += `${indent}- ${body}`;
  }
  return lines;
}

/** Returns a flow text on one line that is valid JSON too. */
export function flow(value: Plain): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(', ')}]`;
  if (!isPlainMap(value)) return scalar(value);
  const pairs = Object.keys(value).map((key) => flowPair(key, value[key] as Plain));
  return `{${pairs.join(', ')}}`;
}

/** Returns `"key": value` for a flow map. */
export function flowPair(key: string, value: Plain): string {
  return `${quote(key)}: ${flow(value)}`;
}
