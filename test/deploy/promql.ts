// The names in a PromQL expression. promtool checks the rest.

export interface Selected {
  readonly metric: string;
  /** Labels of its selector. */
  readonly labels: readonly string[];
}

export interface Names {
  readonly selected: readonly Selected[];
  /** Labels that results are grouped or matched by. */
  readonly grouped: readonly string[];
}

const keywords = new Set(['and', 'or', 'unless', 'bool', 'offset', 'by', 'without', 'on', 'ignoring', 'inf', 'nan']);

/** Returns the metrics of an expression with the labels of their selectors, and the labels that it groups by. */
export function namesIn(expr: string): Names {
  // Removes durations, and strings, which may contain any text.
  const text = expr.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/\[[^\]]*\]/g, '');
  const grouped: string[] = [];
  const rest = text.replace(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g, (_, list: string) => {
    grouped.push(...list.split(',').map((label) => label.trim()));
    return ' ';
  });
  const selected = [...rest.matchAll(/(?<![\w$.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:])/g)].flatMap(
    ([, metric = '', braces = '']) =>
      keywords.has(metric.toLowerCase())
        ? []
        : [{ metric, labels: [...braces.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label) }],
  );
  return { selected, grouped: grouped.filter((label) => label !== '') };
}
