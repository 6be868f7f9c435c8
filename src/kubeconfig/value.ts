export type Plain = string | number | boolean | null | Plain[] | PlainMap;

export type PlainMap = { [key: string]: Plain };

/** Returns whether a value is a map. */
export function isPlainMap(value: Plain | undefined): value is PlainMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

// The plain scalars that sigs.k8s.io/yaml (go-yaml 2) does not read as text.
const nulls = /^(?:~|null|Null|NULL|)$/;

const booleans = /^(?:(y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON)|n|N|no|No|NO|false|False|FALSE|off|Off|OFF)$/;

const numbers =
  /^[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*|(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|\.inf|\.Inf|\.INF)$|^\.(?:nan|NaN|NAN)$/;

/** Returns the value that kubectl reads from a plain scalar. */
export function plainValue(text: string): Plain {
  if (nulls.test(text)) return null;
  const boolean = booleans.exec(text);
  if (boolean) return boolean[1] !== undefined;
  if (numbers.test(text)) return Number(text.replaceAll('_', ''));
  return text;
}

// Characters that JSON does not escape, but that a YAML 1.1 reader takes for a line break or refuses as not printable.
const yamlUnsafe = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

/** Escapes the characters in JSON text that a YAML 1.1 reader would read differently. */
export function escapeForYaml(json: string): string {
  return json.replace(yamlUnsafe, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Returns a double-quoted scalar that JSON, YAML 1.1 and YAML 1.2 readers all read as the same text. */
export function quote(text: string): string {
  // A lone surrogate has no UTF-8 form, and Go's YAML refuses its escape.
  return escapeForYaml(JSON.stringify(text.toWellFormed()));
}

const scalar = (value: Plain): string => (typeof value === 'string' ? quote(value) : String(value));

/**
 * Returns `key: value` as block lines, each with a line feed at its end and its keys at `indent`. Keys must be plain
 * words.
 */
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

/** Returns list items as block lines with their dashes at `indent`. */
export function blockItems(items: readonly Plain[], indent: string): string {
  let lines = '';
  for (const item of items) {
    const body = isPlainMap(item) ? blockMap(item, `${indent}  `).slice(indent.length + 2) : `${scalar(item)}\n`;
    lines += `${indent}- ${body}`;
  }
  return lines;
}

/** Returns a value in flow form, on one line. The text is valid JSON too. */
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
