import { UsageError } from './errors.ts';
import { quoted } from './text.ts';

type Requirement = (labels: ReadonlyMap<string, string>) => boolean;

const key = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const value = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;

/** Returns true if a selector can match this label. Servers may also send labels with invalid keys or values. */
export function isSelectable(name: string, text: string): boolean {
  return key.test(name) && value.test(text);
}

/**
 * Parses a label selector in kubectl's syntax (k8s.io/apimachinery labels.Parse) and returns a predicate on labels.
 * Takes `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1` and `a<1`, joined by commas. Throws
 * UsageError for anything else.
 */
export function parseSelector(text: string): (labels: ReadonlyMap<string, string>) => boolean {
  const requirements = splitOutside(text).map((part) => parseRequirement(part, text));
  return (labels) => requirements.every((requirement) => requirement(labels));
}

// Splits at commas, but not inside parentheses.
function splitOutside(text: string): string[] {
  if (text.trim() === '') return [];
  const parts: string[] = [];
  let from = 0;
  let isInside = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '(' || char === ')') isInside = char === '(';
    if (char !== ',' || isInside) continue;
    parts.push(text.slice(from, at));
    from = at + 1;
  }
  return [...parts, text.slice(from)].map((part) => part.trim());
}

function parseRequirement(part: string, whole: string): Requirement {
  const bad = () =>
    new UsageError(`invalid label selector ${quoted(whole)}`, {
      hints: ["as for kubectl: -l 'environment=production,region in (eu-west-1,eu-west-2)'"],
    });
  const set = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set !== null) {
    const [, name = '', operator, list = ''] = set;
    const values = list.split(',').map((v) => v.trim());
    if (!key.test(name) || !values.every((v) => value.test(v))) throw bad();
    const isIn: Requirement = (labels) => labels.has(name) && values.includes(labels.get(name) ?? '');
    return operator === 'in' ? isIn : (labels) => !isIn(labels);
  }
  const [, name = '', operator = '', operand = ''] = /^([^\s=!<>]+)\s*(==|=|!=|<|>)\s*([^\s=!<>]*)$/.exec(part) ?? [];
  if (operator !== '') {
    if (!key.test(name) || !value.test(operand)) throw bad();
    if (operator === '!=') return (labels) => labels.get(name) !== operand;
    if (operator !== '<' && operator !== '>') return (labels) => labels.get(name) === operand;
    if (!/^-?[0-9]+$/.test(operand)) throw bad();
    return (labels) => {
      const label = labels.get(name) ?? '';
      return (
        /^-?[0-9]+$/.test(label) &&
        (operator === '<' ? BigInt(label) < BigInt(operand) : BigInt(label) > BigInt(operand))
      );
    };
  }
  const [, not = '', only = ''] = /^(!?)\s*(\S+)$/.exec(part) ?? [];
  if (!key.test(only)) throw bad();
  return not === '!' ? (labels) => !labels.has(only) : (labels) => labels.has(only);
}
