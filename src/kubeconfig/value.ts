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
