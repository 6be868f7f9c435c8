import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { editKubeconfig, readKubeconfig } from '../../src/kubeconfig/index.ts';
import { TkaError } from '../../src/util/errors.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { census, kubeconfig, kubectl, kubectlView, only, random, refusal, spec } from './helpers.ts';

const good = `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: QUJD
    server: "https://one" # c
  name: one
contexts:
- context: {cluster: one, user: one}
  name: one
current-context: one
kind: Config
users:
- name: one
  user:
    exec:
      args: [a, "b"]
      command: >-
        x
`;

const bomb = [
  'a: &a [x, x, x, x, x, x, x, x, x, x]',
  ...'bcdefghi'.split('').map((c, i) => `${c}: &${c} [${Array(10).fill(`*${'abcdefgh'[i]}`).join(', ')}]`),
].join('\n');

// By name: the text, the position of the error and the message.
const damages: Record<string, [text: string | Uint8Array, where: string, what: RegExp]> = {
  'an unclosed list': ['clusters: [\n', '', /flow/],
  'an unclosed quote': ['clusters: []\ncurrent-context: "a\n', '', /quote/],
  'an unclosed map': ['{"clusters": []', '', /flow map/],
  'a tab for indentation': ['clusters:\n\t- name: a\n', '2:1', /tab/i],
  'wrong indentation': ['clusters:\n- name: a\n cluster: {}\n', '3:1', /./],
  'a key without a value in a map': ['clusters: []\nusers\n', '2:1', /./],
  'a mapping in a mapping': ['clusters: a: b\n', '1:11', /nested mappings/],
  'conflict markers': [
    'kind: Config\n<<<<<<< HEAD\ncurrent-context: a\n=======\ncurrent-context: b\n>>>>>>> x\n',
    '2:1',
    /conflict marker "<<<<<<<"|conflict/,
  ],
  'a conflict in a list': [
    'clusters:\n- name: a\n<<<<<<< HEAD\n- name: b\n=======\n- name: c\n>>>>>>> other\n',
    '3:1',
    /conflict marker/,
  ],
  'a conflict with CRLF': [
    'clusters:\r\n<<<<<<< HEAD\r\n- name: b\r\n=======\r\n>>>>>>> other\r\n',
    '2:1',
    /conflict marker/,
  ],
  'a duplicate section': ['clusters: []\nusers: []\nclusters: []\n', '3:1', /duplicate key "clusters"/],
  'a duplicate key in an entry': ['clusters:\n- name: a\n  name: b\n', '3:3', /duplicate key "name"/],
  'a duplicate key in a deep map': [
    'users:\n- name: a\n  user: {exec: {env: [{name: a, name: b}]}}\n',
    '3:33',
    /duplicate key "name"/,
  ],
  'a duplicate key in another program’s map': ['x: {a: 1, "a": 2}\n', '1:11', /duplicate key "a"/],
  'keys that YAML 1.1 makes equal': ['x: {yes: 1, on: 2}\n', '1:13', /duplicate key "true"/],
  'a duplicate cluster': ['clusters:\n- name: a\n- name: a\n', '3:9', /duplicate name "a" in clusters/],
  'a duplicate user in JSON': ['{"users":[{"name":"a"},{"name":"a"}]}', '1:32', /duplicate name/],
  'a duplicate key in JSON': ['{"kind":"Config","x":{"a":1,"a":2}}', '1:29', /duplicate key "a"/],
  'a duplicate key in JSON, once with an escape': ['{"x":{"a":1,"\\u0061":2}}', '1:13', /duplicate key "a"/],
  'a section that is a map': ['clusters: {}\n', '1:11', /clusters is a map, not a list/],
  'a section that is text': ['users: "none"\n', '1:8', /users is text/],
  'a section that is a number': ['contexts: 0\n', '1:11', /contexts is a number/],
  'a section that is true': ['contexts: yes\n', '1:11', /true or false/],
  'an item that is text': ['clusters:\n- a\n', '2:3', /item 1 of clusters is text, not a map/],
  'an item that is a list': ['clusters:\n- name: a\n- - name: b\n', '3:3', /item 2 of clusters is a list/],
  'an empty item': ['clusters:\n- name: a\n-\n', '', /item 2 of clusters is nothing/],
  'an item without a name': ['users:\n- user: {}\n', '2:3', /item 1 of users has no name/],
  'an item whose name is null': ['users:\n- name: ~\n', '2:3', /has no name/],
  'a name that is a YAML 1.1 word': ['clusters:\n- name: no\n', '2:9', /is true or false, not text: quote it/],
  'a name that is a number': ['clusters:\n- name: 1_000\n', '2:9', /is a number/],
  'a name that is a map': ['clusters:\n- name: {a: b}\n', '2:9', /is a map/],
  'a body that is text': ['clusters:\n- name: a\n  cluster: x\n', '3:12', /cluster of item 1 of clusters is text/],
  'a body that is a list': ['contexts:\n- name: a\n  context: []\n', '3:12', /is a list/],
  'a reference that is a number': [
    'contexts:\n- name: a\n  context: {cluster: 5}\n',
    '3:22',
    /cluster of item 1 of contexts is a number/,
  ],
  'a current context that is a list': ['current-context: [a]\n', '1:18', /current-context is a list/],
  'a current context that is a word': ['current-context: on\n', '1:18', /true or false/],
  'another kind': ['apiVersion: v1\nkind: Pod\n', '2:7', /kind is "Pod"/],
  'another version': ['apiVersion: v2\n', '1:13', /apiVersion is "v2"/],
  'a list': ['- clusters: []\n', '1:1', /expected a kubeconfig, found a list/],
  text: ['hello\n', '1:1', /found text/],
  HTML: ['<!DOCTYPE html>\n<html><body>Sign in</body></html>\n', '1:1', /./],
  'a number': ['42\n', '1:1', /found a number/],
  'an alias without an anchor': ['clusters: *none\n', '1:11', /no anchor "none"/],
  'an anchor that contains itself': ['x: &a [*a]\n', '1:8', /contains itself/],
  'a merge of text': ['x: {<<: a}\n', '1:5', /merge/],
  'a bomb of aliases': [bomb, '', /aliases expand to too much/],
  'a key that is a map': ['? {a: b}\n: c\n', '1:3', /key that is a list or a map/],
  'a NUL': ['clusters: []\n\0', '2:1', /U\+0000/],
  'an escape character': ['current-context: "a\u001b[2J"\n', '1:20', /U\+001B/],
  'not UTF-8': [Buffer.from('current-context: "a\xffb"\n', 'latin1'), '1:20', /not UTF-8/],
  'cut in the middle of a character': [Buffer.from('# é').subarray(0, 3), '1:3', /not UTF-8/],
  'UTF-16': [Buffer.from('\ufeffclusters: []\n', 'utf16le'), '1:1', /UTF-16/],
  'another YAML version': ['%YAML 1.2\n---\nkind: Config\n', '', /1\.2/],
  'deep nesting': [`x: ${'['.repeat(20000)}${']'.repeat(20000)}\n`, '', /nested too deeply|./],
  'deep nesting in block form': [
    `${Array.from({ length: 3000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')}\n`,
    '',
    /./,
  ],
  'more than 16 MiB': [`# ${'x'.repeat(16 * 1024 * 1024)}\n`, '1:1', /larger than 16 MiB/],
};

// Tries an edit. It must succeed, or fail and leave the folder unchanged.
async function attempt(file: string): Promise<'edited' | TkaError> {
  const before = census(dirname(file));
  const text = readFileSync(file);
  try {
    await editKubeconfig(only(file), () => ({ upsert: [spec('tka')], currentContext: 'tka' }));
  } catch (error) {
    if (!(error instanceof TkaError)) throw new Error('not a TkaError', { cause: error });
    expect(error.message).toMatch(/^[^\n\u001b]{1,600}$/);
    expect(error.message).toContain(file);
    expect(error.hints.length).toBeGreaterThan(0);
    expect(census(dirname(file))).toEqual(before);
    return error;
  }
  expect(readdirSync(dirname(file))).toEqual(['config']);
  const view = await readKubeconfig(only(file));
  expect(view.currentContext).toBe('tka');
  expect(view.ours.map(({ name }) => name)).toContain('tka');
  const after = readFileSync(file);
  await editKubeconfig(only(file), () => ({ upsert: [spec('tka')], currentContext: 'tka' }));
  expect(readFileSync(file)).toEqual(after);
  expect(after.equals(text)).toBe(false);
  return 'edited';
}

describe('reports damage with its position and leaves the file unchanged', () => {
  for (const [name, [text, where, what]] of Object.entries(damages)) {
    it(name, async () => {
      const file = kubeconfig(text);
      const start = performance.now();
      const result = await attempt(file);
      expect(performance.now() - start).toBeLessThan(5000);
      if (name === 'deep nesting in block form' && result === 'edited') return;
      if (!(result instanceof TkaError)) throw new Error('edited');
      expect(result.message).toMatch(what);
      expect(result.message).toMatch(where === '' ? /config:\d+:\d+: / : new RegExp(`config:${where}: `));
      await refusal(readKubeconfig(only(file)));
    });
  }
});

describe('something other than a file', () => {
  it('refuses a folder, a pipe, a socket, a device, a link loop and a path through a file at once', async () => {
    const dir = testFolder('tka-');
    mkdirSync(join(dir, 'folder'));
    execFileSync('mkfifo', [join(dir, 'pipe')]);
    symlinkSync('loop', join(dir, 'loop'));
    symlinkSync('pipe', join(dir, 'link'));
    writeFileSync(join(dir, 'file'), '');
    for (const name of ['folder', 'pipe', 'loop', 'link', 'file/config']) {
      const start = performance.now();
      const error = await refusal(editKubeconfig(only(join(dir, name)), () => ({ upsert: [spec('a')] })));
      expect(error.message).toContain(join(dir, name));
      expect(error.hints.length).toBeGreaterThan(0);
      await refusal(readKubeconfig(only(join(dir, name))));
      expect(performance.now() - start).toBeLessThan(1000);
    }
    expect(readdirSync(dir).toSorted()).toEqual(['file', 'folder', 'link', 'loop', 'pipe']);
  });

  it('reads /dev/null as an empty kubeconfig that cannot be written, and refuses /dev/zero', async () => {
    expect((await readKubeconfig(only('/dev/null'))).ours).toEqual([]);
    expect((await refusal(editKubeconfig(only('/dev/null'), () => ({ upsert: [spec('a')] })))).message).toMatch(
      /cannot write/,
    );
    await refusal(readKubeconfig(only('/dev/zero')));
  });

  it.skipIf(process.getuid?.() === 0)('reports a file without read permission', async () => {
    const file = kubeconfig(good);
    chmodSync(file, 0);
    expect((await refusal(readKubeconfig(only(file)))).message).toMatch(/permission denied/);
  });
});

// Random damage, the same in every run. Every tenth file is also read by kubectl.
function damaged(seed: number): Buffer {
  const next = random(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T;
  let text = pick([
    good,
    good.replaceAll('\n', '\r\n'),
    JSON.stringify({ clusters: [{ name: 'a' }], users: null, contexts: [] }, null, 2),
  ]);
  const at = () => Math.floor(next() * text.length);
  for (let i = 0; i <= next() * 2; i++) {
    const [a, b] = [at(), at()].toSorted((x, y) => x - y) as [number, number];
    const lines = text.split('\n');
    const line = Math.floor(next() * lines.length);
    text = pick([
      () => text.slice(0, a),
      () => text.slice(a),
      () => text.slice(0, a) + text.slice(b),
      () =>
        text.slice(0, a) +
        pick([
          ...'[]{}:,-#&*!|>\'"%@`\t \n\r?~=<\u2028\u0085\u0000\ufeff😀',
          '\n---\n',
          '\n...\n',
          '<<: ',
          '*a ',
          '&a ',
          '!!binary ',
          '\n<<<<<<< a\n',
        ]) +
        text.slice(a),
      () =>
        text.slice(0, a) + String.fromCharCode(text.charCodeAt(a) ^ (1 << Math.floor(next() * 7))) + text.slice(a + 1),
      () => lines.toSpliced(line, 1).join('\n'),
      () => lines.toSpliced(line, 0, lines[Math.floor(next() * lines.length)] as string).join('\n'),
      () => lines.with(line, ` ${lines[line]}`).join('\n'),
      () =>
        lines
          .with(
            line,
            (lines[line] as string).replace(
              /: .*/,
              pick([': null', ':', ': 1', ': []', ': {}', ': *x', ': "', ': |', ': yes']),
            ),
          )
          .join('\n'),
    ])();
  }
  const bytes = Buffer.from(text);
  if (next() < 0.05 && bytes.length > 0) bytes[Math.floor(next() * bytes.length)] = 0x80 + Math.floor(next() * 128);
  return bytes;
}

it('300 random damages: a correct edit that kubectl reads, or an error and no change', async () => {
  const file = kubeconfig('');
  let edits = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const bytes = damaged(seed);
    writeFileSync(file, bytes);
    let old: ReturnType<typeof kubectlView> | undefined;
    if (kubectl && seed % 10 === 0) {
      try {
        old = kubectlView(file);
      } catch {
        old = undefined;
      }
    }
    let result: Awaited<ReturnType<typeof attempt>>;
    try {
      result = await attempt(file);
    } catch (cause) {
      throw new Error(`seed ${seed}: ${JSON.stringify(bytes.toString())}`, { cause });
    }
    if (result !== 'edited') continue;
    edits++;
    if (!old) continue;
    const now = kubectlView(file);
    for (const key of ['clusters', 'contexts', 'users'] as const) {
      expect({ seed, list: now[key]?.filter(({ name }) => name !== 'tka') }).toEqual({ seed, list: old[key] ?? [] });
    }
  }
  expect(edits).toBeGreaterThan(50);
});
