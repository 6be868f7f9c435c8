// Clusters whose names have letters beyond ASCII: shown as their servers state them, by every command.
import * as fs from 'node:fs';
import { test as base, describe, expect } from 'vitest';
import { parse } from 'yaml';
import { type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { displayWidth } from '../../src/terminal/width.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl } from '../fixtures/kubectl.ts';
import { lines } from '../fixtures/program.ts';

// As macOS writes it: a `u` with a mark.
const zurich = 'zu\u0308rich';
const composed = 'z\u00fcrich';
const names = ['prod-\u00e9', zurich, 'שלום', '東京', '🚀-lab'];
/** Names that could move a cursor, hide or reorder text. The host's name stands for them. */
const hidden = ['a\u202eb', 'a\u200bb', 'a\u001b[2Jb', '👩\u200d💻'];

const test = base.extend<{ mesh: SandboxMesh; home: Home }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
  mesh: async ({}, use) => {
    await using mesh = await startMesh({ clusters: names.map((name) => ({ name, labels: { city: name } })) });
    await use(mesh);
  },
  home: async ({ mesh }, use) => {
    using home = new Home(mesh.clusters[0]?.server);
    await use(home);
  },
});

const contexts = (home: Home): string[] =>
  parse(fs.readFileSync(home.kubeconfig, 'utf8')).contexts.map(({ name }: { name: string }) => name);

describe.concurrent('a name beyond ASCII', () => {
  test('is the same in clusters, sync, status, exec, doctor and completion', async ({ home }) => {
    expect(lines((await home.run('clusters -o name')).stdout)).toEqual(names);
    expect(JSON.parse((await home.run('clusters -o json')).stdout).map((row: { name: string }) => row.name)).toEqual(
      names,
    );
    const table = lines((await home.run('clusters')).stdout);
    const starts = table.map((line) => displayWidth(line.slice(0, line.search(/STATE|healthy/))));
    expect(new Set(starts).size).toBe(1);
    expect((await home.run('sync')).stdout).toBe(`5 added: ${names.join(', ')}.\n`);
    expect(contexts(home).sort()).toEqual([...names].sort());
    expect((await home.run('login -l city')).status).toBe(0);
    expect(lines((await home.run('status -o name')).stdout)).toEqual(names);
    const doctor = JSON.parse((await home.run(['doctor', zurich, '-o', 'json'])).stdout);
    expect(doctor.map(({ cluster }: { cluster: string }) => cluster)).toEqual([zurich]);
    const offered = lines((await home.run(['__complete', 'login', ''])).stdout).map((line) => line.split('\t')[0]);
    expect(offered).toEqual(expect.arrayContaining(names));
    if (kubectl === undefined) return;
    const ran = lines((await home.run('exec -- get namespaces -o name')).stdout);
    for (const name of names) expect(ran.some((line) => line.startsWith(name))).toBe(true);
    for (const name of names)
      expect(await home.kubectl(['--context', name, 'get', 'namespaces'])).toMatchObject({ status: 0, stderr: '' });
  });

  test('is found in either form that a keyboard writes', async ({ home, mesh }) => {
    const { server } = mesh.cluster(zurich);
    await home.transcript(`
      $ kubectl tka login ${composed}
      Signed in to ${zurich} (${server}) as alice, …
      Switched to context "${zurich}".
      $ kubectl tka login ${zurich}
      Signed in to ${zurich} (${server}) as alice, …
      Context "${zurich}" is already the current context.
      $ kubectl tka use 東
      Switched to context "東京".
      $ kubectl tka use ${composed}
      Switched to context "${zurich}".
      $ kubectl tka use ${composed.slice(0, 3)}
      Switched to context "${zurich}".
      $ kubectl tka use שלום
      Switched to context "שלום".
      $ kubectl tka logout ${composed}
      Signed out of ${zurich} (${server}).
      $ kubectl tka login prod-è
      ! error: no cluster named "prod-è"; did you mean "prod-é"?
      ! …
      [1]
    `);
    expect((await home.run(['login', `*${composed.slice(1)}`])).stdout).toMatch(`Signed in to ${zurich} `);
    expect((await home.run(['forget', composed])).stdout).toContain(`Removed from the kubeconfig: ${zurich}.\n`);
    const completed = async (typed: string) =>
      lines((await home.run(['__complete', 'login', typed])).stdout).map((line) => line.split('\t')[0]);
    // Shells compare bytes, so the answer starts with what is typed.
    expect(await completed('zu')).toEqual([zurich, ':4']);
    expect(await completed('z\u00fc')).toEqual([composed, ':4']);
    expect(await completed('東')).toEqual(['東京', ':4']);
  });

  test('does not get beside an unmanaged context that looks the same', async ({ home }) => {
    home.write(home.kubeconfig, `apiVersion: v1\nkind: Config\ncontexts:\n- {name: ${composed}, context: {}}\n`);
    await home.run(['login', zurich]);
    expect(contexts(home)).toEqual([composed, `tka-${zurich}`]);
  });
});

base('a name that could deceive on a terminal is that of the host instead', async () => {
  await using mesh = await startMesh({ clusters: ['good', ...hidden].map((name) => ({ name })) });
  using home = new Home(mesh.cluster('good').server);
  const listed = lines((await home.run('clusters -o name')).stdout);
  expect(listed).toHaveLength(1 + hidden.length);
  for (const name of listed) expect(name).toMatch(/^[ -~]+$/);
});
