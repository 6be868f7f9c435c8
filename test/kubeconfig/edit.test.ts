import { execFileSync } from 'node:child_process';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  editKubeconfig,
  type KubeconfigChange,
  previewKubeconfig,
  readKubeconfig,
} from '../../src/kubeconfig/index.ts';
import { census, kubeconfig, kubectl, kubectlView, only, refusal, runKubectl, spec } from './helpers.ts';

const mark = (server = 'https://tka.example.ts.net') =>
  `[{name: tka.specht-labs.de, extension: {server: "${server}"}}]`;

// A managed entry as a user may have edited it.
const ours = `# mine
clusters:
# about a
- name: 'a' # the name
  cluster:
    proxy-url: "socks5://x" # kept
    server: 'https://api.example.com:6443'   # the url
    tls-server-name: b
    certificate-authority-data: |-
      LS0tLS1C
      RUdJTg==
    extensions: ${mark()}
contexts:
  - context: {user: a, namespace: "dev", extensions: ${mark()}, cluster: a}
    name: a
users:
- user:
    extensions:
    - name: other
      extension: 1
    - name: tka.specht-labs.de # ours
      extension:
        server: https://tka.example.ts.net
    exec:
      interactiveMode: Never
      args: # five
      - credential
      - --server
      # the server
      - "https://tka.example.ts.net"
      - '--api-server'
      - https://api.example.com:6443
      env: [{name: A, value: B}]
      x-unknown: 1
      apiVersion: client.authentication.k8s.io/v1
      installHint: |-
        kubectl krew install tka # no: "quotes"
        second line
      command: /bin/sh
  name: a
`;

async function edited(before: string, change: KubeconfigChange): Promise<string> {
  const file = kubeconfig(before);
  await editKubeconfig(only(file), () => change);
  return readFileSync(file, 'utf8');
}

async function refused(before: string, change: KubeconfigChange) {
  const file = kubeconfig(before);
  const old = census(dirname(file));
  const error = await refusal(editKubeconfig(only(file), () => change));
  expect(census(dirname(file))).toEqual(old);
  return error;
}

describe('a managed entry', () => {
  it('is read with all its fields', async () => {
    const view = await readKubeconfig(only(kubeconfig(`${ours}current-context: a\n`)));
    expect(view.currentContext).toBe('a');
    expect(view.ours).toEqual([
      {
        name: 'a',
        cluster: 'a',
        user: 'a',
        file: view.ours[0]?.file,
        server: 'https://tka.example.ts.net',
        apiServer: 'https://api.example.com:6443',
        command: '/bin/sh',
        caData: 'LS0tLS1CRUdJTg==',
        insecureSkipTlsVerify: false,
      },
    ]);
  });

  it('needs no change in any style if the values are right', async () => {
    expect(await edited(ours, { upsert: [spec('a')] })).toBe(ours);
  });

  it('changes only in its changed values', async () => {
    const change = {
      apiServer: 'https://new.example.com',
      server: 'https://tka2.example.ts.net',
      installHint: 'hint',
      caData: '',
    };
    const want = ours
      .replace("'https://api.example.com:6443'", '"https://new.example.com"')
      .replace('|-\n      LS0tLS1C\n      RUdJTg==', '""')
      .replaceAll('{server: "https://tka.example.ts.net"}', '{server: "https://tka2.example.ts.net"}')
      .replace('server: https://tka.example.ts.net', 'server: "https://tka2.example.ts.net"')
      .replace('- "https://tka.example.ts.net"', '- "https://tka2.example.ts.net"')
      .replace('- https://api.example.com:6443', '- "https://new.example.com"')
      .replace('|-\n        kubectl krew install tka # no: "quotes"\n        second line', '"hint"');
    expect(await edited(ours, { upsert: [spec('a', change)] })).toBe(want);
  });

  it('gets missing fields back, at the end of their map', async () => {
    const less = ours
      .replace(/ {6}interactiveMode.*\n/, '')
      .replace(/ {6}apiVersion.*\n/, '')
      .replace(/ {4}certificate-authority-data: \|-\n.*\n.*\n/, '')
      .replace(', cluster: a}', '}');
    const want = less
      .replace(
        `extensions: ${mark()}\ncontexts`,
        `extensions: ${mark()}\n    certificate-authority-data: "LS0tLS1CRUdJTg=="\ncontexts`,
      )
      .replace(`extensions: ${mark()}}`, `extensions: ${mark()}, "cluster": "a"}`)
      .replace(
        'command: /bin/sh\n',
        'command: /bin/sh\n      apiVersion: "client.authentication.k8s.io/v1"\n      interactiveMode: "Never"\n',
      );
    expect(await edited(less, { upsert: [spec('a')] })).toBe(want);
  });

  it('gets its exec stanza back if that is empty, null or of another length', async () => {
    for (const [from, to] of [
      [/exec:\n(?: {6}.*\n)+/, 'exec: # gone\n'],
      [/exec:\n(?: {6}.*\n)+/, 'exec: null\n'],
      [/exec:\n(?: {6}.*\n)+/, 'exec: {}\n'],
      [/ {4}exec:\n(?: {6}.*\n)+/, ''],
      [/ {6}- '--api-server'\n/, ''],
      [/args: # five\n(?: {6}[-#].*\n)+/, 'args: [credential]\n'],
      [/args: # five\n(?: {6}[-#].*\n)+/, 'args:\n'],
    ] as const) {
      const before = ours.replace(from, to);
      expect(before).not.toBe(ours);
      const file = kubeconfig(before);
      await editKubeconfig(only(file), () => ({ upsert: [spec('a')] }));
      if (kubectl) {
        const exec = kubectlView(file).users?.[0]?.user.exec as { args: string[]; interactiveMode: string };
        expect(exec.interactiveMode).toBe('Never');
        expect(exec.args).toEqual([
          'credential',
          '--server',
          'https://tka.example.ts.net',
          '--api-server',
          'https://api.example.com:6443',
        ]);
      }
      expect((await editKubeconfig(only(file), () => ({ upsert: [spec('a')] }))).changedFiles).toEqual([]);
    }
  });

  it('carries no CA with TLS verification disabled, which kubectl would refuse, and gets it back later', async () => {
    const insecure = await edited(ours, { upsert: [spec('a', { insecureSkipTlsVerify: true })] });
    expect(insecure).toContain('certificate-authority-data: ""');
    expect(insecure).toContain('    insecure-skip-tls-verify: true\n');
    const back = await edited(insecure, { upsert: [spec('a')] });
    expect(back).toContain('insecure-skip-tls-verify: false\n');
    expect(back).toContain('certificate-authority-data: "LS0tLS1CRUdJTg=="');
  });

  it('keeps its command if that can be run or is a bare name', async () => {
    const program = join(dirname(kubeconfig('')), 'prog');
    const upsert = [spec('a', { command: program })];
    const chosen = [spec('a', { command: program, isCommandChosen: true })];
    for (const kept of ['/bin/sh', 'sh', 'no-such-program']) {
      const before = ours.replace('/bin/sh', kept);
      expect(await edited(before, { upsert })).toBe(before);
      expect(await edited(before, { upsert: chosen })).toContain(`command: ${JSON.stringify(program)}\n`);
    }
    for (const gone of ['/nowhere/kubectl-tka', './config', '""', '/bin', '/etc/passwd']) {
      expect(await edited(ours.replace('/bin/sh', gone), { upsert })).toContain(
        `command: ${JSON.stringify(program)}\n`,
      );
    }
    const file = kubeconfig(ours.replace('/bin/sh', './mine'));
    writeFileSync(join(dirname(file), 'mine'), '#!/bin/sh\n', { mode: 0o755 });
    expect((await editKubeconfig(only(file), () => ({ upsert }))).changedFiles).toEqual([]);
  });

  it.skipIf(!kubectl)('that kubectl renamed is updated where it points to', async () => {
    const file = kubeconfig('kind: Config\n');
    await editKubeconfig(only(file), () => ({ upsert: [spec('old')] }));
    runKubectl(['config', 'rename-context', 'old', 'new'], { KUBECONFIG: file });
    await editKubeconfig(only(file), () => ({ upsert: [spec('new', { apiServer: 'https://moved.example.com' })] }));
    const view = kubectlView(file);
    expect(view.clusters).toMatchObject([{ name: 'old', cluster: { server: 'https://moved.example.com' } }]);
    expect(view.users?.map(({ name }) => name)).toEqual(['old']);
    expect(view.contexts).toMatchObject([{ name: 'new', context: { cluster: 'old', user: 'old' } }]);
    await editKubeconfig(only(file), () => ({ remove: ['new'] }));
    expect(kubectlView(file)).toMatchObject({ clusters: null, users: null, contexts: null });
  });
});

describe('names', () => {
  it('of entries that are not managed are not overwritten', async () => {
    const marked = `extensions: ${mark()}`;
    for (const before of [
      'contexts: [{name: a}]',
      'clusters: [{name: a}]',
      'users: [{name: a, user: {token: t}}]',
      'users: [{name: a, user: {extensions: [{name: tka.specht-labs.de}]}}]',
      'users: [{name: a, user: {extensions: [{name: tka.specht-labs.de, extension: {server: "ftp://x"}}]}}]',
      `contexts: [{name: a, context: {cluster: theirs, ${marked}}}]\nclusters: [{name: theirs}]`,
    ]) {
      const error = await refused(before, { upsert: [spec('b'), spec('a')] });
      expect(error.message).toMatch(
        /^(?:context|cluster|user) "\w+" already exists and is not managed by kubectl-tka$/,
      );
      expect(error.hints.join()).toContain('kubectl tka login --context OTHER-NAME');
    }
  });

  it('that cannot be written are all reported before anything is written', async () => {
    const file = kubeconfig('clusters: [{name: b}]\nusers: [{name: c, user: {token: t}}]\ncontexts: [{name: d}]\n');
    const upsert = [spec('a'), spec('b'), spec('c'), spec('d'), spec('e', { caData: '!' }), spec('f'), spec('f')];
    let told = new Map<string, string>();
    const edit = await editKubeconfig(only(file), (_, blockedBy) => {
      told = new Map([...blockedBy({ upsert })].map(([name, { message }]) => [name, message]));
      return { upsert: upsert.filter(({ name }) => !told.has(name)) };
    });
    expect(Object.fromEntries(told)).toEqual({
      b: 'cluster "b" already exists and is not managed by kubectl-tka',
      c: 'user "c" already exists and is not managed by kubectl-tka',
      d: 'context "d" already exists and is not managed by kubectl-tka',
      e: 'the CA of "e" is not base64',
      f: 'context "f" is requested twice',
    });
    expect(edit.changedFiles).toEqual([file]);
    expect((await readKubeconfig(only(file))).ours.map(({ name }) => name)).toEqual(['a']);
  });

  it('of entries that other parts of the file refer to are reported before anything is written', async () => {
    const file = kubeconfig('');
    await editKubeconfig(only(file), () => ({ upsert: [spec('a'), spec('b')] }));
    const before = readFileSync(file, 'utf8');
    const anchored = before.replace('- cluster:', '- cluster: &shared').concat('copy: *shared\n');
    expect(anchored).toContain('&shared');
    writeFileSync(file, anchored);
    const moved = { apiServer: 'https://moved.example.com' };
    let told = new Map<string, string>();
    await editKubeconfig(only(file), (_, blockedBy) => {
      const upsert = [spec('a', moved), spec('b', moved)];
      told = new Map([...blockedBy({ upsert })].map(([name, { message }]) => [name, message]));
      return { upsert: upsert.filter(({ name }) => !told.has(name)) };
    });
    expect(told.get('a')).toMatch(/other parts of the file refer to it as \*shared/);
    expect([...told.keys()]).toEqual(['a']);
    const { ours } = await readKubeconfig(only(file));
    expect(ours.map(({ name, apiServer }) => [name, apiServer])).toEqual([
      ['a', spec('a').apiServer],
      ['b', moved.apiServer],
    ]);
  });

  it('of a cluster that another context uses for another server do not change that context', async () => {
    const before = ours.replace('    name: a\nusers', '    name: renamed\nusers');
    const error = await refused(before, { upsert: [spec('a', { server: 'https://other.example.ts.net' })] });
    expect(error.message).toMatch(/in use by context "renamed"/);
    const shared = await edited(before, { upsert: [spec('a')] });
    expect(shared).toContain('  - context:\n      cluster: "a"\n');
    expect(shared.match(/\n- name: 'a'/g)?.length).toBe(1);
  });

  it('with harmful characters are refused or harmless', async () => {
    for (const name of ['', '\n', 'a\u0000', 'a\u0085b', 'a\u2028b', 'a\u001b[31m', '\ud800']) {
      await refused('', { upsert: [spec(name)] });
    }
    await refused('', { upsert: [spec('a'), spec('a')] });
    await refused('', { upsert: [spec('a', { caData: '!!' })] });
    await refused('', { upsert: [spec('a', { apiServer: 'http://x' })] });
    await refused('', { upsert: [spec('a', { server: 'javascript:alert(1)' })] });
    const nasty = 'x"\nclusters: []\u2028y\u0085\ufeff\ud800 *a &b {';
    const file = kubeconfig('kind: Config\n');
    await editKubeconfig(only(file), () => ({ upsert: [spec('a', { installHint: nasty, command: nasty })] }));
    if (kubectl) {
      expect(kubectlView(file).users?.[0]?.user.exec).toMatchObject({ installHint: nasty.toWellFormed() });
    }
  });
});

describe('refuses edits that cannot be spliced safely', () => {
  const all = `- name: z\n`;
  for (const [why, before] of Object.entries({
    'an aliased section': `x: &c\n${all}clusters: *c\n`,
    'a section that others refer to': `clusters: &c\n${all}x: *c\n`,
    'an empty section that others refer to': 'clusters: &c []\nx: *c\n',
    'sections merged in': `x: &c {clusters: []}\n<<: *c\n`,
    'several documents': 'kind: Config\n---\nkind: Config\n',
    'an empty second document': 'kind: Config\n---\n',
    'a null document': 'null\n',
    'a managed entry that others refer to': ours
      .replace("- name: 'a'", "- &e\n  name: 'a'")
      .replace('# mine', '')
      .concat('x: *e\n'),
    'a managed value that others refer to': `${ours.replace("'https://api", "&u 'https://api")}x: *u\n`,
    'a managed entry that is an alias': `x: &e {name: a, cluster: {extensions: ${mark()}}}\nclusters:\n- *e\n`,
    'a managed entry with a merged mark': `x: &e {extensions: ${mark('https://old.example.ts.net')}}\nclusters:\n- name: a\n  cluster:\n    <<: *e\n`,
  })) {
    it(why, async () => {
      const error = await refused(before, { upsert: [spec('a', { apiServer: 'https://new.example.com' })] });
      expect(error.message).toMatch(/cannot edit this safely/);
    });
  }

  for (const [why, before] of Object.entries({
    'an empty list over several lines': 'clusters: [\n  # none yet\n  ]\n',
    'a list in brackets over several lines': 'users: [\n  {name: a}, # one\n  {name: b}]\n',
    'a managed map over several lines': `contexts:\n- name: a\n  context: {\n    extensions: ${mark()}}\n`,
    'a whole file in brackets that is not JSON': '{clusters: [], # none\n}\n',
    'JSON with a comma too many': '{"clusters": [],}\n',
  })) {
    it(`${why}, with the command that rewrites the file in block form`, async () => {
      const file = kubeconfig(before);
      const name = why.includes('managed') ? 'a' : 'new';
      const error = await refusal(editKubeconfig(only(file), () => ({ upsert: [spec(name)] })));
      expect(error.message).toMatch(/config:\d:\d+: cannot edit this safely: .*brackets/);
      expect(error.hints).toEqual([
        `write the file in block form: (umask 077; kubectl config view --raw --kubeconfig ${file} >${file}.new) && mv ${file}.new ${file}`,
      ]);
      expect(readFileSync(file, 'utf8')).toBe(before);
      if (kubectl === undefined) return;
      execFileSync('sh', ['-c', error.hints[0]?.replace(/^[^(]*/, '') ?? ''], { env: { PATH: process.env.PATH } });
      expect((await editKubeconfig(only(file), () => ({ upsert: [spec(name)] }))).changedFiles).toEqual([file]);
    });
  }

  it('JSON with a number that loses digits in a program', async () => {
    const error = await refused('{"x": "12345678901234567890", "y": 12345678901234567890}', { upsert: [spec('a')] });
    expect(error.message).toMatch(/the number 12345678901234567890 would change/);
  });

  it('such files can still be read', async () => {
    const file = kubeconfig(`x: &c\n- name: z\n  context: {user: u}\ncontexts: *c\n---\nother: {{{`);
    expect((await readKubeconfig(only(file))).contexts.get('z')).toMatchObject({ ours: false, user: 'u' });
  });

  it('replaces a managed value that is itself an alias', async () => {
    const before = ours
      .replace('# mine', 'u: &u https://api.example.com:6443')
      .replace("'https://api.example.com:6443'", '*u');
    expect(await edited(before, { upsert: [spec('a')] })).toBe(before);
    const after = await edited(before, { upsert: [spec('a', { apiServer: 'https://new.example.com' })] });
    expect(after).toContain('server: "https://new.example.com"   # the url');
    expect(after).toContain('u: &u https://api.example.com:6443');
  });
});

describe('removing', () => {
  it('deletes the entry lines only and keeps every comment around them', async () => {
    const after = await edited(`${ours}current-context: a\n`, { remove: ['a', 'not-there'] });
    expect(after).toBe('# mine\nclusters: []\n# about a\ncontexts: []\nusers: []\ncurrent-context: ""\n');
  });

  it('keeps entries that another context refers to or that are not managed', async () => {
    const before = `${ours}current-context: other\n`.replace(
      'contexts:\n',
      'contexts:\n  - {name: other, context: {cluster: a, user: b}}\n',
    );
    const after = await edited(before, { remove: ['a'] });
    expect(after).toContain("name: 'a'");
    expect(after).toContain('users: []');
    expect(after).toContain('current-context: other\n');
    const error = await refused(before, { remove: ['other'] });
    expect(error.message).toMatch(/ is not managed by kubectl-tka$/);
  });

  it('and adding in one edit works in block and in flow lists', async () => {
    for (const start of ['kind: Config\n', '{"kind":"Config"}', '{\n  "clusters": [\n    {"name": "z"}\n  ]\n}\n']) {
      const file = kubeconfig(start);
      await editKubeconfig(only(file), () => ({ upsert: [spec('a'), spec('b')], currentContext: 'a' }));
      const result = await editKubeconfig(only(file), () => ({
        remove: ['a', 'b'],
        upsert: [spec('b'), spec('c')],
        currentContext: 'c',
      }));
      expect(result).toMatchObject({ previousContext: 'a', currentContext: 'c', changedFiles: [file] });
      expect((await readKubeconfig(only(file))).ours.map(({ name }) => name)).toEqual(['b', 'c']);
    }
  });

  it('finishes an interrupted removal of clusters and users', async () => {
    const before = ours.replace(/ {2}- context.*\n.*\n/, '');
    expect(await edited(before, { remove: ['a'] })).toBe('# mine\nclusters: []\n# about a\ncontexts:\nusers: []\n');
  });
});

describe('the current context', () => {
  it('can be set, kept and cleared, and must exist', async () => {
    const other = 'contexts:\n- name: p\n- name: q\n';
    expect(await edited(`${other}current-context: p # c\n`, { currentContext: 'q' })).toBe(
      `${other}current-context: "q" # c\n`,
    );
    expect(await edited(`${other}current-context: p\n`, { currentContext: 'p' })).toBe(`${other}current-context: p\n`);
    expect(await edited(`${other}current-context: p\n`, { currentContext: null })).toBe(
      `${other}current-context: ""\n`,
    );
    expect(await edited(other, { currentContext: 'p' })).toBe(`${other}current-context: "p"\n`);
    expect(await edited(`current-context: >-\n  p\n${other}`, { currentContext: 'q' })).toBe(
      `current-context: "q"\n${other}`,
    );
    expect(await edited(`current-context: &c !!str p\n${other}`, { currentContext: 'q' })).toBe(
      `current-context: &c !!str "q"\n${other}`,
    );
    expect(await edited(`a: &c p\ncurrent-context: *c\n${other}`, { currentContext: 'q' })).toBe(
      `a: &c p\ncurrent-context: "q"\n${other}`,
    );
    await refused(`${other}current-context: &c p\na: *c\n`, { currentContext: 'q' });
    await refused(other, { currentContext: 'z' });
  });
});

describe('a JSON file', () => {
  it('is printed as JSON with all its content, and escapes what a YAML 1.1 reader takes for a line end', async () => {
    const theirs = { 'x-note': ['\u2028\u0085"\\', 1, -2.5, null, true], clusters: null, kind: 'Config' };
    const before = JSON.stringify(theirs).replace('\u2028\u0085', '\\u2028\\u0085');
    const after = await edited(`\ufeff\n${before}\n\n`, { upsert: [spec('a')], currentContext: 'a' });
    expect(after).toMatch(/^\ufeff\n\{\n {2}"x-note": \[[^\u2028\u0085]*\n\}\n\n$/);
    const { users, contexts, clusters, ...rest } = JSON.parse(after.slice(1));
    expect(rest).toEqual({ 'x-note': theirs['x-note'], kind: 'Config', 'current-context': 'a' });
    expect([users, contexts, clusters].map((list) => list[0].name)).toEqual(['a', 'a', 'a']);
  });

  it('keeps its indentation, and unknown fields of managed entries', async () => {
    const file = kubeconfig('{}');
    await editKubeconfig(only(file), () => ({ upsert: [spec('a'), spec('b')] }));
    const value = JSON.parse(readFileSync(file, 'utf8'));
    value.contexts[0].context.namespace = 'dev';
    for (const indent of ['\t', '    ']) {
      writeFileSync(file, JSON.stringify(value, null, indent));
      const upsert = [spec('a', { apiServer: 'https://new.example.com' })];
      await editKubeconfig(only(file), () => ({ upsert, remove: ['b'] }));
      const after = readFileSync(file, 'utf8');
      expect(after).toBe(JSON.stringify(JSON.parse(after), null, indent));
      expect(JSON.parse(after)).toMatchObject({
        clusters: [{ name: 'a', cluster: { server: 'https://new.example.com' } }],
        contexts: [{ name: 'a', context: { cluster: 'a', namespace: 'dev' } }],
        users: [{ name: 'a' }],
      });
    }
  });
});

it('a preview shows what the edit writes, and writes nothing', async () => {
  const file = kubeconfig(ours);
  const old = census(dirname(file));
  const plan = () => ({ upsert: [spec('b')], remove: ['a'], currentContext: 'b' });
  const preview = await previewKubeconfig(only(file), plan);
  expect(census(dirname(file))).toEqual(old);
  await editKubeconfig(only(file), plan);
  expect(preview).toEqual([{ file, before: ours, after: readFileSync(file, 'utf8') }]);
  expect(await previewKubeconfig(only(file), () => ({ upsert: [spec('b')] }))).toEqual([]);
});

it('a file with two names is edited once', async () => {
  const file = kubeconfig('kind: Config\n');
  const link = join(dirname(file), 'link');
  symlinkSync('config', link);
  const files = { files: [link, file], defaultFile: link, explicit: false };
  const result = await editKubeconfig(files, () => ({ upsert: [spec('a')], currentContext: 'a' }));
  expect(result.changedFiles).toEqual([link]);
  await editKubeconfig(files, () => ({ remove: ['a'] }));
  expect(readFileSync(file, 'utf8')).toBe('kind: Config\nclusters: []\ncontexts: []\ncurrent-context: ""\nusers: []\n');
});

describe('the servers that a context remembers for its cluster', () => {
  const siblings = { cluster: 'us', signInStore: 'uid/tka-system', servers: ['https://tka-1.example.ts.net'] };
  const kept = async (file: string) => (await readKubeconfig(only(file))).ours.map((each) => each.siblings);
  const upsert = (file: string, more: Parameters<typeof spec>[1]) =>
    editKubeconfig(only(file), () => ({ upsert: [spec('a', more)] }));

  it('are written with a new context and read back, in a form that kubectl reads', async () => {
    const file = kubeconfig('');
    await upsert(file, { siblings });
    expect(await kept(file)).toEqual([siblings]);
    expect(readFileSync(file, 'utf8').match(/signInStore/g)).toHaveLength(1);
    if (kubectl !== undefined) expect(JSON.stringify(kubectlView(file))).toContain('signInStore');
  });

  it('are added to a context of version 0.1.0, in block and in flow form', async () => {
    const old = kubeconfig('');
    await upsert(old, {});
    const flow = kubeconfig(ours);
    for (const file of [old, flow]) {
      await upsert(file, { siblings });
      expect(await kept(file)).toEqual([siblings]);
    }
  });

  it('stay if no servers are known, or if one of them is still there', async () => {
    const file = kubeconfig('');
    await upsert(file, { siblings });
    const before = readFileSync(file, 'utf8');
    const more = [...siblings.servers, 'https://tka-2.example.ts.net'];
    for (const same of [undefined, siblings, { ...siblings, servers: more }, { ...siblings, servers: [] }]) {
      await upsert(file, { siblings: same });
      expect(readFileSync(file, 'utf8')).toBe(before);
    }
  });

  it.each([
    ['all servers differ', { servers: ['https://tka-2.example.ts.net'] }],
    ['the sign-ins are stored elsewhere', { signInStore: 'uid-2/tka-system' }],
    ['the cluster has another name', { cluster: 'eu' }],
  ])('are replaced if %s', async (_, more) => {
    const file = kubeconfig('');
    await upsert(file, { siblings });
    await upsert(file, { siblings: { ...siblings, ...more } });
    expect(await kept(file)).toEqual([{ ...siblings, ...more }]);
  });

  it('are dropped if the context gets another server', async () => {
    const file = kubeconfig('');
    await upsert(file, { siblings });
    await upsert(file, { server: 'https://elsewhere.example.ts.net' });
    expect(await kept(file)).toEqual([undefined]);
    await upsert(file, { server: 'https://elsewhere.example.ts.net', siblings });
    expect(await kept(file)).toEqual([siblings]);
  });

  it.each([
    ['no list', { servers: 'https://x.example.ts.net' }],
    ['no store', { signInStore: 7 }],
    ['no name', { cluster: null }],
  ])('are ignored if damaged: %s', async (_, more) => {
    const extension = { server: 'https://tka.example.ts.net', ...siblings, ...more };
    const body = { cluster: 'a', user: 'a', extensions: [{ name: 'tka.specht-labs.de', extension }] };
    const file = kubeconfig(JSON.stringify({ contexts: [{ name: 'a', context: body }] }));
    expect(await kept(file)).toEqual([undefined]);
  });

  it('leave out invalid server URLs', async () => {
    const servers = ['ftp://x', 'https://user:pw@x.example.ts.net', 5, 'https://ok.example.ts.net/'];
    const extension = { server: 'https://tka.example.ts.net', ...siblings, servers };
    const body = { cluster: 'a', user: 'a', extensions: [{ name: 'tka.specht-labs.de', extension }] };
    const file = kubeconfig(JSON.stringify({ contexts: [{ name: 'a', context: body }] }));
    expect((await kept(file))[0]?.servers).toEqual(['https://ok.example.ts.net']);
  });
});
