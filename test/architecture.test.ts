// Which room may import which. Each rule gives its reason, which is the message if an import breaks it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';

const root = path.join(import.meta.dirname, '..');

interface Rule {
  /** Files that the rule applies to. */
  readonly of: RegExp;
  /** Allowed imports: files of this project, packages, and Node's own modules. */
  readonly may: RegExp;
  readonly because: string;
}

const rules: readonly Rule[] = [
  {
    of: /^cmd\/tka-server\.ts$/,
    may: /^src\/server\/cli\.ts$/,
    because: 'the entry point starts and ends the process, and does nothing else',
  },
  {
    of: /^cmd\/kubectl-tka\.ts$/,
    may: /^src\/(credential\/fast|cli\/run)\.ts$/,
    because: 'the entry point is the hot path, then the CLI, and nothing else',
  },
  {
    of: /^src\/credential\//,
    may: /^(src\/credential\/|node:fs$|node:path$)/,
    because: 'it runs at every kubectl call: one more module costs a millisecond',
  },
  {
    of: /^src\/util\//,
    may: /^(src\/(util|credential)\/|node:)/,
    because: 'every room may use these helpers',
  },
  {
    of: /^src\/terminal\//,
    may: /^(src\/(terminal|util|credential)\/|node:|yaml$|@inquirer\/)/,
    because: 'output is the same whatever is printed',
  },
  {
    of: /^src\/settings\//,
    may: /^(src\/(settings|util|credential)\/|node:|yaml$|env-paths$)/,
    because: 'client and server read their files with it',
  },
  {
    of: /^src\/tka\/(types|token|url|errors|raw-answer|answers|memberlist)\.ts$/,
    may: /^(src\/(tka|util)\/|src\/network\/failure\.ts$|node:)/,
    because: 'wire types and their parsers are pure: every room may use them, at no cost',
  },
  {
    of: /^src\/tka\//,
    may: /^(src\/(tka|network|util)\/|node:|yaml$)/,
    because: 'the TKA API does not depend on its callers',
  },
  {
    of: /^src\/network\//,
    may: /^(src\/(network|util)\/|node:)/,
    because: 'a connection is made the same way for every caller',
  },
  {
    of: /^src\/tailscale\//,
    may: /^(src\/(tailscale|util)\/|node:)/,
    because: 'client and server both ask tailscaled',
  },
  {
    of: /^src\/kubeconfig\//,
    may: /^(src\/(kubeconfig|util)\/|src\/tka\/url\.ts$|node:|yaml$)/,
    because: 'editing a kubeconfig needs no server and no session',
  },
  {
    of: /^src\/session\//,
    may: /^(src\/(session|credential|tka|network|util)\/|src\/settings\/paths\.ts$|node:)/,
    because: 'a token is obtained without discovery, kubeconfig or commands',
  },
  {
    of: /^src\/discovery\//,
    may: /^(src\/(discovery|tka|tailscale|network|util)\/|src\/credential\/entry\.ts$|node:|htmlparser2$)/,
    because: 'finding clusters needs no session',
  },
  {
    of: /^src\/cli\//,
    may: /^(?!src\/(server|sandbox)\/|vitest|selfsigned|@kubernetes)/,
    because: 'the client does not import the server, and test packages do not ship',
  },
  {
    of: /^src\/server\//,
    may: /^(src\/(server|tka|tailscale|network|util)\/|src\/(settings\/config-file|terminal\/output)\.ts$|node:|yaml$|pino$|jose$|commander$|negotiator$|prom-client$|undici$|@opentelemetry\/|@kubernetes\/client-node$)/,
    because: 'the server shares the protocol with the client: no session, no discovery, no kubeconfig',
  },
  {
    of: /^src\/sandbox\//,
    may: /^(src\/(sandbox|server\/(http|federation)|tka|util)\/|src\/server\/log\/log\.ts$|node:|yaml$|selfsigned$|@kubernetes\/client-node$)/,
    because: 'the sandbox wraps the real HTTP code and the real tunnels, and is part of neither program',
  },
];

function sources(folder: string): string[] {
  return fs
    .readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => path.posix.join(folder, name.replaceAll(path.sep, '/')));
}

function importsOf(file: string): string[] {
  const text = fs.readFileSync(path.join(root, file), 'utf8').replace(/^\s*(?:\/\/|\*).*$/gm, '');
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*['"]([^'"]+)['"]/g)].map(
    (match) => match[1] ?? '',
  );
  return specifiers.map((s) => (s.startsWith('.') ? path.posix.join(path.posix.dirname(file), s) : s));
}

it.each(rules.map((rule) => [String(rule.of), rule] as const))(
  '%s imports only what it may',
  (_, { of, may, because }) => {
    const files = [...sources('cmd'), ...sources('src')].filter((file) => of.test(file));
    expect(files.length).toBeGreaterThan(0);
    const broken = files.flatMap((file) =>
      importsOf(file)
        .filter((name) => !may.test(name))
        .map((name) => `${file} imports ${name}`),
    );
    expect(broken, because).toEqual([]);
  },
);

/**
 * Returns the room of a file: a folder in src, or in src/cli or src/server. A file directly in one of these two is its
 * own room.
 */
function roomOf(file: string): string {
  const parts = file.split('/');
  const isDivided = parts[1] === 'cli' || parts[1] === 'server';
  return parts.slice(0, isDivided ? 3 : 2).join('/');
}

/** Returns the groups of names that import each other, directly or indirectly; each group is sorted. */
function cyclesIn(imports: ReadonlyMap<string, ReadonlySet<string>>): string[][] {
  const reachable = (from: string): Set<string> => {
    const seen = new Set<string>();
    const open = [from];
    for (let name = open.pop(); name !== undefined; name = open.pop())
      for (const next of imports.get(name) ?? []) if (!seen.has(next) && seen.add(next)) open.push(next);
    return seen;
  };
  const reached = new Map([...imports.keys()].map((name) => [name, reachable(name)]));
  const inCycles = [...imports.keys()].filter((name) => reached.get(name)?.has(name));
  const groups = Map.groupBy(inCycles, (name) =>
    inCycles.filter((other) => reached.get(name)?.has(other) && reached.get(other)?.has(name)).join(', '),
  );
  return [...groups.values()].map((group) => group.sort());
}

function importsBy(keyOf: (file: string) => string): Map<string, Set<string>> {
  const all = new Map<string, Set<string>>();
  for (const file of sources('src')) {
    const from = keyOf(file);
    const to = all.get(from) ?? new Set();
    all.set(from, to);
    for (const name of importsOf(file)) {
      const isOwn = name.startsWith('src/') && name.endsWith('.ts');
      if (isOwn && (from === file || keyOf(name) !== from)) to.add(keyOf(name));
    }
  }
  return all;
}

it('no files import each other in a cycle', () => {
  expect(cyclesIn(importsBy((file) => file))).toEqual([]);
});

it('no rooms import each other in a cycle', () => {
  expect(cyclesIn(importsBy(roomOf))).toEqual([]);
});

it('finds a cycle through several files, and none in a chain', () => {
  const imports = (table: Record<string, string[]>) =>
    new Map(Object.entries(table).map(([name, to]) => [name, new Set(to)]));
  expect(cyclesIn(imports({ a: ['b'], b: ['c'], c: ['a', 'd'], d: [] }))).toEqual([['a', 'b', 'c']]);
  expect(cyclesIn(imports({ a: ['b', 'c'], b: ['c'], c: [] }))).toEqual([]);
});

it('only entry points end the process', () => {
  const guilty = sources('src').filter((file) =>
    /\bprocess\.exit\(/.test(fs.readFileSync(path.join(root, file), 'utf8')),
  );
  expect(guilty.filter((file) => !/^src\/sandbox\/(demo|keep)\.ts$/.test(file))).toEqual([]);
});

it('only the terminal and the hot path write to stdout and stderr', () => {
  const guilty = sources('src').filter((file) =>
    /\bconsole\.|process\.std(out|err)\b/.test(fs.readFileSync(path.join(root, file), 'utf8')),
  );
  expect(guilty.filter((file) => !file.startsWith('src/sandbox/'))).toEqual([]);
});
