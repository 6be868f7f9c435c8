// Names the contexts of a whole list of clusters at once. The names depend on the list alone, not on the order of the
// clusters or the number of runs.
import { createHash } from 'node:crypto';
import type { Cluster, ResolvedCluster } from '../../discovery/clusters.ts';
import { contextNames } from '../../discovery/clusters.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, quoted } from '../../util/text.ts';

/** Returns the name that a template gives a cluster. Throws TkaError if the name is invalid. */
export type ContextTemplate = (cluster: ResolvedCluster) => string;

const longest = 253;
const templateHints = [
  "placeholders are {name} and {labels.KEY}: --context-template '{labels.environment}-{labels.region}'",
];

/**
 * Parses a `--context-template`: text with `{name}` and `{labels.KEY}`, for instance `{labels.environment}-{name}`. The
 * result checks each name, because labels come from servers. Throws UsageError for an invalid template.
 */
export function parseTemplate(text: string): ContextTemplate {
  const bad = (why: string) => new UsageError(`context template ${quoted(text)} ${why}`, { hints: templateHints });
  if (text.trim() === '') throw new UsageError('the context template is empty', { hints: templateHints });
  if (cleanText(text, longest) !== text) throw bad('is too long, or has spaces or control characters it must not have');
  const keys: string[] = [];
  const parts = text.split(/(\{[^{}]*\})/).map((part, i): string | ContextTemplate => {
    if (i % 2 === 0) {
      if (/[{}]/.test(part)) throw bad('has an unmatched brace');
      return part;
    }
    const field = part.slice(1, -1);
    if (field === 'name') return (cluster) => cluster.name;
    const key = /^labels\.(.+)$/.exec(field)?.[1];
    if (key === undefined) throw bad(`has an unknown placeholder ${part}`);
    if (!keys.includes(key)) keys.push(key);
    return (cluster) => labelOf(cluster, key, keys);
  });
  if (!parts.some((part) => typeof part === 'function'))
    throw bad('has no placeholder, so all contexts would have the same name');
  return (cluster) => {
    const name = parts.map((part) => (typeof part === 'string' ? part : part(cluster))).join('');
    if (name.length <= longest && cleanText(name) === name) return name;
    throw new TkaError('the context template gives an invalid name', { hints: templateHints });
  };
}

function labelOf(cluster: Cluster, key: string, keys: readonly string[]): string {
  const value = cluster.labels.get(key);
  if (value === undefined) {
    throw new TkaError(`it has no label ${cleanText(key)}, which the context template uses`, {
      hints: [
        `select the clusters that have it: -l ${cleanText(keys.join(','))}`,
        'or another template: --context-template TEMPLATE',
      ],
    });
  }
  // Kubernetes label values contain no character that is special in a shell or in YAML.
  if (/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(value)) return value;
  throw new TkaError(`its label ${cleanText(key)} cannot be part of a name: ${JSON.stringify(value)}`);
}

/**
 * Returns the possible names of a cluster's context: the preferred one first, then longer ones that distinguish it from
 * others. Some of them may be those of unmanaged entries. Throws TkaError if the template gives no valid name.
 */
export function candidateNames(
  cluster: ResolvedCluster,
  options: { readonly tailnet: string; readonly template: ContextTemplate | undefined },
): string[] {
  const { server, name, through } = cluster;
  const plain = contextNames(server, options.tailnet, name, through);
  // The hash distinguishes servers with otherwise equal names: `a-81` and `a:81`.
  const last = `${plain[0]}-${createHash('sha256').update(server).digest('hex').slice(0, 10)}`;
  if (options.template === undefined) return [...new Set([...plain, last])];
  const wanted = options.template(cluster);
  const more = [name, ...plain.slice(1)].filter((part) => part !== wanted);
  return [...new Set([wanted, ...more.map((part) => `${wanted}-${part}`), `${wanted}-${last}`])];
}

/**
 * Assigns each server a unique name from its candidates. If two servers would get the same name, both move on to their
 * next one. `kept` are the names of servers that already have one; names in `taken` are not assigned. Assigned names do
 * not change when the list grows. Leaves out a server without a free candidate.
 */
export function assignNames(
  candidates: ReadonlyMap<string, readonly string[]>,
  kept: ReadonlyMap<string, string>,
  taken: ReadonlySet<string>,
): Map<string, string> {
  const ideal = settle(candidates, new Map(), new Set());
  const free = new Map([...candidates].filter(([server]) => !kept.has(server)));
  // Start from the names of all servers, including those that already have a context. So a server gets the same name as
  // if all were named in one run.
  const levels = settle(free, ideal, new Set([...taken, ...kept.values()]));
  const names = new Map(kept);
  for (const [server, list] of free) {
    const name = list[levels.get(server) ?? list.length];
    if (name !== undefined) names.set(server, name);
  }
  return names;
}

// All servers that share a name move on together until all names are unique, so their order does not matter.
function settle(
  candidates: ReadonlyMap<string, readonly string[]>,
  start: ReadonlyMap<string, number>,
  taken: ReadonlySet<string>,
): Map<string, number> {
  const levels = new Map([...candidates.keys()].map((server) => [server, start.get(server) ?? 0]));
  for (;;) {
    const holders = new Map<string, string[]>();
    for (const [server, level] of levels) {
      const name = candidates.get(server)?.[level];
      if (name === undefined) continue;
      const others = holders.get(name);
      if (others === undefined) holders.set(name, [server]);
      else others.push(server);
    }
    const moving = [...holders].flatMap(([name, servers]) => (servers.length > 1 || taken.has(name) ? servers : []));
    if (moving.length === 0) return levels;
    for (const server of moving) levels.set(server, (levels.get(server) ?? 0) + 1);
  }
}
