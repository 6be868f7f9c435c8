import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { editKubeconfig, previewKubeconfig, readKubeconfig } from '../../src/kubeconfig/index.ts';
import { census, kubeconfig, kubectl, kubectls, kubectlView, only, spec } from './helpers.ts';

// Files as people, tools and accidents leave them.
const styles: Record<string, string> = {
  'an empty file': '',
  'blank lines only': '\n\n',
  'spaces without a line end': '  ',
  'a comment only': '# my clusters\n',
  'a comment without a line end': '# my clusters',
  'a byte order mark only': '\ufeff',
  'a byte order mark and CRLF': '\ufeffapiVersion: v1\r\nclusters: []\r\nkind: Config\r\n',
  'a header only': '---\n',
  'a header without a line end': '---',
  'a header with a comment': '--- # here\n# there\n',
  'header and end marker': '---\nkind: Config\n...\n',
  'an end marker with comments around': 'current-context: a\n# before\n...\n# behind\n',
  'a YAML directive': '%YAML 1.1\n---\nkind: Config\n',
  'as kubectl writes it':
    'apiVersion: v1\nclusters:\n- cluster:\n    server: https://x\n  name: a\ncontexts:\n- context:\n    cluster: a\n    user: a\n  name: a\ncurrent-context: a\nkind: Config\npreferences: {}\nusers:\n- name: a\n  user:\n    token: t\n',
  'as kubectl writes it when empty':
    'apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: ""\nkind: Config\npreferences: {}\nusers: null\n',
  'indented lists':
    'clusters:\n  - cluster:\n      server: https://x\n    name: a\nusers:\n  - name: a\n    user:\n      token: t\n',
  'four spaces and comments everywhere':
    '# top\nclusters: # list\n    # first\n    - name: a # name\n      cluster: # body\n          server: https://x # url\n          # end of cluster\n      # end of a\n    # end of list\n# contexts follow\ncontexts: []\n# bottom\n',
  'one space': 'clusters:\n - name: a\n   cluster:\n    server: https://x\nkind: Config\n',
  'a wide dash': 'clusters:\n-   name: a\n    cluster:\n        server: https://x\n',
  'null, tilde, nothing, comments':
    'clusters: null # c1\ncontexts: ~\n# c2\nusers: # c3\n# c4\ncurrent-context:\nkind: Config\n',
  'empty lists with comments': 'clusters: [] # c1\ncontexts: [ ]\t# c2\nusers: []# not a comment\n'.replace(
    '# not a comment',
    '',
  ),
  'no final line end': 'clusters:\n- name: a\n  cluster: {server: https://x}',
  'no final line end, section empty': 'clusters:',
  'no final line end, comment behind': 'clusters: # none',
  CRLF: 'apiVersion: v1\r\nclusters:\r\n- cluster:\r\n    server: https://x\r\n  name: a\r\n# c\r\nusers: []\r\n',
  'CRLF without a final line end': 'clusters:\r\n- name: a\r\n  cluster: {}',
  'CR alone': 'clusters:\r- name: a\rcurrent-context: a\r',
  'a Unicode line separator that YAML 1.1 takes for a line end': '# c\u2028clusters:\u2028- name: a\n',
  'compact JSON': '{"apiVersion":"v1","kind":"Config","clusters":[],"contexts":null}',
  'compact JSON with an entry': '{"clusters":[{"name":"a","cluster":{"server":"https://x"}}],"users":[]}\n',
  'pretty JSON': `${JSON.stringify({ kind: 'Config', clusters: [{ name: 'a', cluster: { server: 'https://x' } }], users: [] }, null, 4)}\n`,
  'pretty JSON with tabs': JSON.stringify({ kind: 'Config', clusters: [{ name: 'a' }], contexts: [] }, null, '\t'),
  'pretty JSON with CRLF': JSON.stringify({ users: [{ name: 'a' }] }, null, 2).replaceAll('\n', '\r\n'),
  'an empty map': '{}',
  'an empty map with room': '{ }\n',
  'flow sections in block form':
    'clusters: [{name: a, cluster: {server: x}}] # c\nusers: [{name: a}, ]\ncontexts:\n  [ ]\n',
  "flow of several lines in other people's entries":
    'clusters:\n- {name: a, cluster: {\n    server: x # c\n  }}\nx: [\n  1,\n]\nusers: [ {name: a} , {name: b} ]\n',
  'quoted keys': '"clusters":\n- "name": "a"\n\'users\': []\n',
  'explicit keys': '? clusters\n: - name: a\n? users\n: - name: a\n  - name: b\n',
  'the whole file indented': '  kind: Config\n  clusters:\n  - name: a\n',
  'sections in any order, unknown ones between':
    'x-note: 1\nusers:\n- name: a\nzzz: {a: [1, 2]}\ncontexts:\n- name: a\n  context: {cluster: a, user: a}\nclusters: []\n',
  'a literal at the end': 'clusters:\n- name: a\n  x-note: |\n    line\n    # no comment\n',
  'a literal that keeps its blank lines': 'clusters:\n- name: a\n  x-note: |+\n    line\n\n\n# c\nusers: []\n',
  'a literal that keeps, at the end of the file': 'clusters:\n- name: a\n  x-note: |+\n    line\n\n\n',
  'a literal without a final line end': 'clusters:\n- name: a\n  x-note: |-\n    line',
  'a folded and an over-long scalar': `clusters:\n- name: a\n  x-note: >2-\n     folded\n\n    text\n  y: "double \\\n    quoted\n\n    lines"\n  z: plain\n    words\n    go on\nusers:\n- name: ${'u'.repeat(2000)}\n`,
  'empty values': 'clusters:\n- name: a\n  cluster: # c\n  # d\n# e\nusers:\n- name: z\n  user:\n',
  'anchors and merges of other people':
    'x: &base {tls-server-name: b}\nclusters:\n- &one\n  name: a\n  cluster: *base\n- name: b\n  cluster:\n    <<: *base\n    server: https://b\n- <<: *one\n  name: c\n',
  'an anchored section that nobody refers to': 'clusters: &all\n- name: a\nusers: &none\ncontexts: !!seq []\n',
  'YAML 1.1 words in keys and values':
    'yes: no\noff: n\n1: 0o17\nclusters:\n- name: "off"\n  cluster: {x: 1_000, y: 2001-01-01, z: 1:30}\n',
  'trailing blank lines': 'clusters:\n- name: a\n\n\n\n',
  'trailing spaces and tabs': 'clusters:   \n- name: a  \n  cluster: {}\t\nusers:\t# c\n',
  'merge behind an explicit key':
    'b: &b {server: https://b}\nclusters:\n- name: a\n  cluster: {server: https://a, <<: *b}\n',
  'an exotic name': 'clusters:\n- name: "\\u00e9 \\U0001F600 \\e[31m \\N \\L"\n',
  'a deeper comment behind the last entry': 'clusters:\n- name: a\n    # far in\n\n  # half way\n# out\n',
};

describe('files of every style', () => {
  for (const [style, before] of Object.entries(styles)) {
    it(`${style}: two contexts come and go`, async () => {
      const file = kubeconfig(before);
      const files = only(file);
      const old = kubectl && kubectlView(file);
      const upsert = [spec('no'), spec('two', { insecureSkipTlsVerify: true, server: 'https://two.example.ts.net' })];
      const result = await editKubeconfig(files, () => ({ upsert }));
      expect(result.changedFiles).toEqual([file]);
      const after = readFileSync(file, 'utf8');

      expect(isWithin(before, after)).toBe(true);
      const ends = new Set(after.match(/\r\n|\n|\r/g));
      const had = new Set(before.match(/\r\n|\n|\r/g));
      expect([...ends].length).toBeLessThanOrEqual(Math.max(1, had.size));
      expect(/[\r\n]$/.test(after)).toBe(/[\r\n]$/.test(before) || before.replace('\ufeff', '').length === 0);
      if (/^\s*\{/.test(before)) JSON.parse(after);
      const parsed = parse(after.replaceAll(/\r\n?|\u2028/g, '\n'), { version: '1.1', merge: true });
      for (const key of ['clusters', 'contexts', 'users']) {
        expect(parsed[key].slice(-2).map((entry: { name: string }) => entry.name)).toEqual(['no', 'two']);
      }
      if (old) {
        const now = kubectlView(file);
        for (const key of ['clusters', 'contexts', 'users'] as const) {
          const others = now[key]?.filter(({ name }) => name !== 'no' && name !== 'two');
          expect(others).toEqual(old[key] ?? []);
          expect(now[key]?.length).toBe((old[key]?.length ?? 0) + 2);
        }
        expect(now['current-context']).toBe(old['current-context']);
        expect(now.users?.find(({ name }) => name === 'no')?.user).toMatchObject({
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            command: '/bin/sh',
            args: [
              'credential',
              '--server',
              'https://tka.example.ts.net',
              '--api-server',
              'https://api.example.com:6443',
            ],
            env: null,
            interactiveMode: 'Never',
            provideClusterInfo: false,
            installHint: spec('').installHint,
          },
        });
      }

      const untouched = census(dirname(file));
      expect((await editKubeconfig(files, () => ({ upsert }))).changedFiles).toEqual([]);
      expect(census(dirname(file))).toEqual(untouched);

      await editKubeconfig(files, () => ({ remove: ['no', 'two'] }));
      const back = readFileSync(file, 'utf8');
      // Reviewed by hand: the old text byte for byte, and `[]` where a list became empty.
      expect({ before: JSON.stringify(before), back: JSON.stringify(back) }).toMatchSnapshot();
      if (old) {
        const now = kubectlView(file);
        for (const key of ['clusters', 'contexts', 'users'] as const) expect(now[key] ?? []).toEqual(old[key] ?? []);
      }
    });
  }

  // Returns whether every character of the old text is in the new one, in order, except what stands for an empty list.
  function isWithin(before: string, after: string): boolean {
    const plain = before
      .replaceAll(/((?:clusters|contexts|users)"?:) ?(?:null|~)/g, '$1')
      .replaceAll(/\s*(?<!x: )\[[ \t]*\]/g, '')
      .replace(/ \t?(?=#)/g, '');
    let at = 0;
    for (const c of plain.replaceAll(/ (?=[\r\n]|$)/g, '')) {
      at = after.indexOf(c, at) + 1;
      if (at === 0) return false;
    }
    return true;
  }
});

describe.skipIf(kubectls.length === 0)('every kubectl on this machine reads the edited file', () => {
  for (const program of kubectls) {
    it(program.split('/').at(-1) as string, async () => {
      for (const style of [
        'as kubectl writes it',
        'CRLF',
        'pretty JSON with tabs',
        'flow sections in block form',
        'an empty file',
      ]) {
        const file = kubeconfig(styles[style] as string);
        const names = [
          'no',
          '1_000',
          '~',
          'a: b',
          '- x',
          '# c',
          '"q"',
          "'",
          '\\',
          '{}',
          '\u{1f600}',
          'é',
          '<<',
          '*a',
          '%x',
          '0x1F',
          'ﬁ\u200b',
        ];
        await editKubeconfig(only(file), () => ({ upsert: names.map((name) => spec(name)), currentContext: '*a' }));
        const view = kubectlView(file, program);
        for (const key of ['clusters', 'contexts', 'users'] as const) {
          expect(new Set(view[key]?.map(({ name }) => name).filter((name) => name !== 'a'))).toEqual(new Set(names));
        }
        expect(view['current-context']).toBe('*a');
        expect((await readKubeconfig(only(file))).ours.map(({ name }) => name)).toEqual(names);
      }
    });
  }

  it('entries that kubectl rewrote are still managed and need no change', async () => {
    const { runKubectl } = await import('./helpers.ts');
    for (const program of kubectls) {
      const file = kubeconfig('kind: Config\n');
      const upsert = [spec('a'), spec('b', { caData: '' }), spec('c', { insecureSkipTlsVerify: true })];
      await editKubeconfig(only(file), () => ({ upsert, currentContext: 'a' }));
      runKubectl(['config', 'set-context', 'b', '--namespace=x'], { KUBECONFIG: file }, program);
      expect(readFileSync(file, 'utf8')).toContain('namespace: x');
      const before = readFileSync(file, 'utf8');
      expect((await editKubeconfig(only(file), () => ({ upsert }))).changedFiles).toEqual([]);
      expect(readFileSync(file, 'utf8')).toBe(before);
    }
  });
});

it('adds 1000 clusters to 5000 lines in one write, without a walk of the file for each', async () => {
  const entry = (i: number) =>
    `# cluster ${i}\n- cluster: # body\n    server: https://old-${i} # url\n    certificate-authority-data: ${'QUJD'.repeat(300)}\n  name: old-${i}\n`;
  const before = `clusters:\n${Array.from({ length: 1000 }, (_, i) => entry(i)).join('')}# the end\ncontexts: []\nusers:\n`;
  expect(before.split('\n').length).toBeGreaterThan(5000);
  const file = kubeconfig(before);
  const upsert = Array.from({ length: 1000 }, (_, i) =>
    spec(`new-${i}`, { apiServer: `https://api-${i}.example.com` }),
  );
  const [preview] = await previewKubeconfig(only(file), () => ({ upsert }));
  expect(preview?.before).toBe(before);
  const start = performance.now();
  await editKubeconfig(only(file), () => ({ upsert }));
  // The benchmark measures the speed. A walk for each cluster would take a minute.
  expect(performance.now() - start).toBeLessThan(10_000);
  const { ours } = await readKubeconfig(only(file));
  expect(ours.length).toBe(1000);
  expect(new Set(ours.map(({ apiServer }) => apiServer)).size).toBe(1000);
  await editKubeconfig(only(file), () => ({ remove: ours.map(({ name }) => name) }));
  expect(readFileSync(file, 'utf8')).toBe(before.replace('users:\n', 'users: []\n'));
});
