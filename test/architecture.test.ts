// Who may import whom. Each rule says why; a new import that breaks one fails here, with the reason.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';

const root = path.join(import.meta.dirname, '..');

interface Rule {
  /** Files that the rule is about. */
  readonly of: RegExp;
  /** What they may import: files of this project, or names of packages and Node's own modules. */
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
    of: /^src\/config-file\.ts$/,
    may: /^(src\/errors\.ts$|src\/tka\/text\.ts$|node:|yaml$)/,
    because: 'client and server read their files with it',
  },
  {
    of: /^src\/credential\//,
    may: /^(src\/credential\/|node:fs$|node:path$)/,
    because: 'it runs at every kubectl call: a module more is a millisecond more',
  },
  {
    of: /^cmd\/kubectl-tka\.ts$/,
    may: /^src\/(credential\/fast|cli\/run)\.ts$/,
    because: 'the entry point is the hot path, then the CLI, and nothing else',
  },
  {
    of: /^src\/(errors|tka\/(types|text|token|url|address|errors|answers|duration|pem))\.ts$/,
    may: /^(src\/errors\.ts$|src\/tka\/|node:)/,
    because: 'wire types and their readers are pure: anybody may use them, at no cost',
  },
  {
    of: /^src\/tka\//,
    may: /^(src\/(tka|network)\/|src\/errors\.ts$|node:|yaml$)/,
    because: 'the TKA API knows nothing of those who call it',
  },
  {
    of: /^src\/network\//,
    may: /^(src\/network\/|src\/errors\.ts$|src\/tka\/(text|address|errors|pem)\.ts$|node:)/,
    because: 'the way to a server is the same for whoever goes there',
  },
  {
    of: /^src\/tailscale\//,
    may: /^(src\/tailscale\/|src\/errors\.ts$|src\/tka\/(text|pem)\.ts$|node:)/,
    because: 'tailscaled is asked by client and server alike',
  },
  {
    of: /^src\/kubeconfig\//,
    may: /^(src\/kubeconfig\/|src\/(errors|files)\.ts$|src\/tka\/(text|url)\.ts$|node:|yaml$|proper-lockfile$)/,
    because: 'editing a kubeconfig depends on no server and no session',
  },
  {
    of: /^src\/session\//,
    may: /^(src\/(session|credential|tka|network)\/|src\/(errors|files|paths|processes)\.ts$|node:)/,
    because: 'a token is obtained without discovery, kubeconfig or commands',
  },
  {
    of: /^src\/discovery\//,
    may: /^(src\/(discovery|tka|tailscale)\/|src\/credential\/entry\.ts$|src\/(errors|files)\.ts$|node:|htmlparser2$)/,
    because: 'finding clusters needs no session',
  },
  {
    of: /^src\/cli\//,
    may: /^(?!src\/(server|sandbox)\/|vitest|selfsigned|@kubernetes)/,
    because: 'no client room imports the server, and what only tests need does not ship',
  },
  {
    of: /^src\/server\//,
    may: /^(src\/(server|tka|tailscale|network)\/|src\/(errors|config-file|terminal|version)\.ts$|node:|yaml$|pino$|commander$|negotiator$|prom-client$|@opentelemetry\/|@kubernetes\/client-node$)/,
    because: 'the server shares with the client what both speak, and how: no session, no discovery, no kubeconfig',
  },
  {
    of: /^src\/sandbox\//,
    may: /^(src\/(sandbox|server\/http|tka)\/|src\/errors\.ts$|node:|yaml$|selfsigned$|@kubernetes\/client-node$)/,
    because: 'the sandbox wraps the real HTTP code, and is no part of either program',
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

it.each(rules.map((rule) => [String(rule.of), rule] as const))('%s keeps to its own', (_, { of, may, because }) => {
  const files = [...sources('cmd'), ...sources('src')].filter((file) => of.test(file));
  expect(files.length).toBeGreaterThan(0);
  const broken = files.flatMap((file) =>
    importsOf(file)
      .filter((name) => !may.test(name))
      .map((name) => `${file} imports ${name}`),
  );
  expect(broken, because).toEqual([]);
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
