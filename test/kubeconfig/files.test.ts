import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { editKubeconfig, kubeconfigFiles, kubectlHome, readKubeconfig } from '../../src/kubeconfig/index.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { chain, kubectl, kubectls, kubectlView, refusal, runKubectl, spec } from './helpers.ts';

describe('the kubeconfig files', () => {
  const at = (env: NodeJS.ProcessEnv, home: string | undefined, cwd: string, explicit?: string) =>
    kubeconfigFiles({ env, home, cwd, ...(explicit !== undefined && { explicit }) });

  it('come from --kubeconfig, else KUBECONFIG, else the home folder', () => {
    const env = { KUBECONFIG: '/b:c' };
    expect(at(env, '/home/u', '/w', 'x')).toMatchObject({ files: ['/w/x'], defaultFile: '/w/x', explicit: true });
    expect(at(env, '/home/u', '/w')).toMatchObject({ files: ['/b', '/w/c'], defaultFile: '/w/c', explicit: false });
    expect(at({}, '/home/u', '/w').files).toEqual(['/home/u/.kube/config']);
    expect(at({ KUBECONFIG: '' }, '/home/u', '/w').files).toEqual(['/home/u/.kube/config']);
    expect(at({}, undefined, '/w').files).toEqual(['/w/.kube/config']);
    expect(at({ KUBECONFIG: ':' }, '/home/u', '/w')).toMatchObject({ files: [], defaultFile: '' });
    expect(at({ KUBECONFIG: ':a::a:./a:b:' }, '/home/u', '/w').files).toEqual(['/w/a', '/w/b']);
  });

  it('use the home folder of the environment, as kubectl does', () => {
    expect(kubectlHome({ HOME: '/h', USERPROFILE: '/p' }, 'linux')).toBe('/h');
    for (const env of [{}, { HOME: '' }, { USERPROFILE: '/p' }]) expect(kubectlHome(env, 'linux')).toBeUndefined();
    const [home, profile] = [testFolder('tka-'), testFolder()];
    expect(kubectlHome({}, 'win32')).toBeUndefined();
    expect(kubectlHome({ USERPROFILE: profile }, 'win32')).toBe(profile);
    expect(kubectlHome({ HOME: home, USERPROFILE: profile }, 'win32')).toBe(home);
    expect(kubectlHome({ HOME: join(home, 'none'), USERPROFILE: profile }, 'win32')).toBe(profile);
    expect(kubectlHome({ HOME: '/none/a', USERPROFILE: '/none/b' }, 'win32')).toBe('/none/a');
    mkdirSync(join(profile, '.kube'));
    writeFileSync(join(profile, '.kube', 'config'), '');
    expect(kubectlHome({ HOME: home, USERPROFILE: profile }, 'win32')).toBe(profile);
  });

  it('cannot be written if KUBECONFIG names no file', async () => {
    const files = at({ KUBECONFIG: ':' }, '/home/u', '/w');
    expect((await readKubeconfig(files)).ours).toEqual([]);
    expect((await refusal(editKubeconfig(files, () => ({ upsert: [spec('a')] })))).message).toMatch(
      /no kubeconfig to write/,
    );
  });

  it.skipIf(!kubectl)('include the default file that kubectl writes to', () => {
    for (const [existing, list] of [
      [[], 'a'],
      [[], 'a:b:c'],
      [['b'], 'a:b:c'],
      [['a', 'c'], ':a:b:c'],
      [['c'], 'a::c:'],
      [[], undefined],
    ] as const) {
      const cwd = testFolder('tka-');
      for (const name of existing) writeFileSync(join(cwd, name), 'kind: Config\n');
      const env: NodeJS.ProcessEnv = list === undefined ? {} : { KUBECONFIG: list };
      const { defaultFile } = at(env, cwd, cwd);
      const absolute = list === undefined ? {} : { KUBECONFIG: list.replaceAll(/[abc]/g, (name) => join(cwd, name)) };
      runKubectl(['config', 'set-cluster', 'q', '--server=https://x'], { HOME: cwd, ...absolute });
      expect(readFileSync(defaultFile, 'utf8')).toContain('name: q');
    }
  });
});

// Three files of a user who keeps work apart; some names are in more than one.
const first = `contexts:
- name: one
  context: {cluster: one, user: one}
clusters:
- name: one
  cluster: {server: "https://first"}
`;
const second = `# second
clusters:
- name: one
  cluster: {server: "https://second", tls-server-name: shadow}
- name: two
  cluster: {server: "https://second"}
contexts:
- name: one
  context: {cluster: two, user: two, namespace: shadow}
- name: two
  context: {cluster: two, user: two}
users:
- name: two
  user: {token: t}
current-context: two
`;
const third = 'contexts:\n- {name: three, context: {cluster: two}}\ncurrent-context: three\n';

function three(): { dir: string; files: string[]; list: string } {
  const dir = testFolder('tka-');
  const files = ['a', 'b', 'c'].map((name) => join(dir, name));
  for (const [i, text] of [first, second, third].entries()) writeFileSync(files[i] as string, text);
  return { dir, files, list: files.join(':') };
}

describe.skipIf(!kubectl)('several files, compared with kubectl', () => {
  it('are merged as every kubectl version does: the first file that has a name wins', async () => {
    const { files, list } = three();
    const view = await readKubeconfig(chain(join(files[0] as string, '..', 'missing'), ...files));
    for (const program of kubectls) {
      const theirs = kubectlView(list, program);
      expect(view.currentContext).toBe(theirs['current-context']);
      const contexts = Object.fromEntries(
        (theirs.contexts ?? []).map(({ name, context }) => [name, [context.cluster, context.user]]),
      );
      expect(Object.fromEntries([...view.contexts].map(([name, c]) => [name, [c.cluster, c.user]]))).toEqual(contexts);
    }
    expect(view.contexts.get('one')?.file).toBe(files[0]);
    expect(view.contexts.get('three')?.file).toBe(files[2]);
  });

  for (const [what, currentContext, args] of [
    ['switching', 'one', ['config', 'use-context', 'one']],
    ['switching to a context of a later file', 'three', ['config', 'use-context', 'three']],
    ['switching to the current context', 'two', ['config', 'use-context', 'two']],
    ['clearing', null, ['config', 'unset', 'current-context']],
  ] as const) {
    it(`${what} changes the files that kubectl changes`, async () => {
      const { dir, files, list } = three();
      const copies = testFolder('tka-');
      cpSync(dir, copies, { recursive: true });
      const theirs = files.map((file) => file.replace(dir, copies));
      runKubectl(args, { KUBECONFIG: theirs.join(':') });
      const result = await editKubeconfig(chain(...files), () => ({ currentContext }));
      const changed = theirs.filter((file, i) => readFileSync(file, 'utf8') !== [first, second, third][i]);
      expect(result.changedFiles.map((file) => file.replace(dir, copies))).toEqual(changed);
      expect(kubectlView(list)['current-context']).toBe(kubectlView(theirs.join(':'))['current-context']);
      expect(result.currentContext ?? '').toBe(kubectlView(list)['current-context']);
    });
  }

  it('a new context goes to the file that kubectl would choose, an existing one is updated in its file', async () => {
    const { dir, files, list } = three();
    await editKubeconfig(chain(...files), () => ({ upsert: [spec('new')] }));
    expect(readFileSync(files[0] as string, 'utf8')).toContain('"new"');
    copyFileSync(files[0] as string, join(dir, 'z'));
    writeFileSync(files[0] as string, first);
    const again = chain(files[0] as string, files[1] as string, join(dir, 'z'));
    const moved = spec('new', { apiServer: 'https://moved.example.com' });
    const result = await editKubeconfig(again, () => ({ upsert: [moved], currentContext: 'new' }));
    expect(result.changedFiles.toSorted()).toEqual([files[0], join(dir, 'z')]);
    expect(readFileSync(files[0] as string, 'utf8')).toBe(`${first}current-context: "new"\n`);
    expect(kubectlView(`${list}:${join(dir, 'z')}`).clusters?.find(({ name }) => name === 'new')?.cluster.server).toBe(
      'https://moved.example.com',
    );
  });

  it('a login leaves entries that an earlier file shadows unchanged; removal takes managed entries out of all files', async () => {
    const dir = testFolder('tka-');
    const [a, b] = [join(dir, 'a'), join(dir, 'b')];
    for (const file of [a, b]) {
      writeFileSync(file, '# kept\nkind: Config\n');
      await editKubeconfig(chain(file), () => ({ upsert: [spec('x')], currentContext: 'x' }));
    }
    const before = readFileSync(b, 'utf8');
    await editKubeconfig(chain(a, b), () => ({ upsert: [spec('x', { apiServer: 'https://moved.example.com' })] }));
    expect(readFileSync(b, 'utf8')).toBe(before);
    await editKubeconfig(chain(a, b), () => ({ remove: ['x'] }));
    for (const file of [a, b]) {
      expect(readFileSync(file, 'utf8')).toBe(
        '# kept\nkind: Config\nclusters: []\ncontexts: []\ncurrent-context: ""\nusers: []\n',
      );
    }
  });

  it('a damaged file anywhere in the chain fails the edit', async () => {
    const { files } = three();
    writeFileSync(files[2] as string, 'contexts: {}\n');
    const error = await refusal(editKubeconfig(chain(...files), () => ({ upsert: [spec('new')] })));
    expect(error.message).toBe(`${files[2]}:1:11: contexts is a map, not a list`);
    expect(readFileSync(files[0] as string, 'utf8')).toBe(first);
  });

  it('missing files and folders are created with private modes', async () => {
    const dir = testFolder('tka-');
    const file = join(dir, 'new', '.kube', 'config');
    await editKubeconfig(chain(file), () => ({ upsert: [spec('a')] }));
    const { statSync } = await import('node:fs');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(dir, 'new', '.kube')).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, 'new')).mode & 0o777).toBe(0o700);
    expect(existsSync(`${file}.lock`)).toBe(false);
    mkdirSync(join(dir, 'other'));
    await editKubeconfig(chain(join(dir, 'other', 'x'), file), () => ({ upsert: [spec('a')] }));
    expect(existsSync(join(dir, 'other', 'x'))).toBe(false);
  });
});
