// The documents: links lead somewhere, and the commands in them exist.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { specs } from '../../src/cli/specs.ts';
import { configKeys } from '../../src/server/config/keys.ts';

const root = path.join(import.meta.dirname, '../..');
const files = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'deploy/README.md'],
  ...fs.readdirSync(path.join(root, 'docs'), { recursive: true, encoding: 'utf8' }).map((name) => `docs/${name}`),
].filter((name) => name.endsWith('.md'));
const textOf = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');

/** Returns the headings of a page as GitHub's anchors. */
function anchorsOf(file: string): string[] {
  const headings = textOf(file)
    .replace(/^```[\s\S]*?^```/gm, '')
    .matchAll(/^#+ (.*)$/gm);
  return [...headings].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

/** Returns the fenced blocks of a language, with the page of each. */
function blocks(language: string): (readonly [file: string, text: string])[] {
  return files.flatMap((file) =>
    [...textOf(file).matchAll(new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\``, 'gm'))].map(
      ([, text = '']) => [file, text] as const,
    ),
  );
}

describe('links', () => {
  it.each(files)('of %s lead to existing pages and headings', (file) => {
    for (const [, target = ''] of textOf(file).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [page = '', anchor] = target.split('#');
      const there = page === '' ? file : path.posix.join(path.posix.dirname(file), page);
      expect(fs.existsSync(path.join(root, there)), `${file}: ${target}`).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(there), `${file}: ${target}`).toContain(anchor);
    }
  });
});

const everywhere = ['--server', '--port', '--tailnet', '--config', '--kubeconfig', '--debug', '--quiet', '--help'];

describe('commands', () => {
  const lines = blocks('(?:sh|console)').flatMap(([file, text]) =>
    [...text.matchAll(/^(?:\$ )?kubectl[ -]tka ([a-z]+)([^#|\n]*)/gm)].map(
      ([line, command = '', rest = '']) => [file, line, command, rest] as const,
    ),
  );

  it('exist in the documents', () => {
    expect(lines.length).toBeGreaterThan(10);
  });

  it.each(lines)('%s: %s', (_file, _line, command, rest) => {
    if (/^(?:version|completion)$/.test(command)) return;
    const spec = specs.find(({ name }) => name === command);
    expect(spec, `no command ${command}`).toBeDefined();
    const own = rest.split(' -- ')[0] ?? '';
    const known = [...everywhere, ...(spec?.options ?? []).flatMap(({ long, short }) => [long, short])];
    for (const [flag] of own.matchAll(/(?<=\s)--?[a-z][a-z-]*/g)) expect([...known, '-s', '-c', '-q']).toContain(flag);
  });
});

describe('examples', () => {
  it.each(blocks('json'))('%s: JSON is valid', (_, text) => {
    expect(typeof JSON.parse(text)).toBe('object');
  });

  it.each(blocks('yaml'))('%s: YAML is valid, and the server knows the keys', (_, text) => {
    const value = parse(text);
    const known = Object.keys(configKeys);
    const keysOf = (map: object, prefix = ''): string[] =>
      Object.entries(map).flatMap(([key, inner]) =>
        typeof inner === 'object' && inner !== null && !Array.isArray(inner) && !known.includes(`${prefix}${key}`)
          ? keysOf(inner, `${prefix}${key}.`)
          : [`${prefix}${key}`],
      );
    if (typeof value?.tka === 'object') for (const key of keysOf(value.tka)) expect(known).toContain(key);
  });
});
