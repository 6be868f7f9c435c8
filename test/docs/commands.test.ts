// Runs the commands of the documents in a shell, with the built program and a real kubectl, on a tailnet of TKA servers
// on loopback.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoClusters, joinedCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { peerOf, startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { Home } from '../fixtures/home.ts';
import { kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { type Env, start } from '../fixtures/program.ts';

const root = path.join(import.meta.dirname, '../..');
const pages = ['README.md', ...fs.readdirSync(path.join(root, 'docs')).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
);

/** Commands that cannot run here, by their beginning, with the reason or the test that runs them. */
const elsewhere: readonly (readonly [RegExp, string])[] = [
  [/^(?:npm|git|node|\.ci\/run) /, 'they build and test this project: .ci/run does that'],
  [/^kubectl krew /, 'needs krew and a published release: test/krew/krew.test.ts runs it where krew is'],
  [/^(?:aws|gcloud|az) /, 'needs an account of a cloud provider'],
  [/^sudo grep .*k3s/, 'needs k3s'],
  [/^podman /, 'needs a registry: test/image builds the image'],
  [/^helm /, 'needs a real tailnet: test/cluster/chart.test.ts installs, upgrades and uninstalls the chart'],
  [/^kubectl .*(?:tka-system|-n kube-public)/, 'needs an installed server: test/cluster/chart.test.ts'],
  [/^kubectl .*tka-federation/, 'needs a login server: test/cluster/federation.test.ts'],
  [
    /^kubectl (?:apply|create) -f (?:tka-join|join-token)\.yaml$/,
    'needs a login server: test/cluster/federation.test.ts',
  ],
  [
    /^(?:openssl genpkey|cat new\.pem|rm new\.pem) /,
    'part of the rotation of a signing key: test/cluster/federation.test.ts',
  ],
  [/^kubectl delete crd /, 'needs an installed server: test/cluster/chart.test.ts'],
  [/^kubectl get clusterrolebindings /, 'needs an installed server: test/cluster/chart.test.ts'],
  [/^kubectl config view /, 'prints the cluster of the current context, and here is none of an administrator'],
  [/^(?:curl .*releases\/latest|gh )/, 'needs a published release'],
  [/^kubectl apply -f tka-k8s/, 'needs a published release: test/cluster/k8s.test.ts applies the file'],
  [/^sed .*tka-k8s/, 'needs a published release: test/deploy/k8s.test.ts runs it'],
  [/^(?:kubectl .*-n monitoring|curl .*localhost:9090)/, 'needs a Prometheus'],
  [/ apply -f - < web\.yaml$/, 'needs a manifest: test/cli/exec/changing.test.ts pipes one to exec'],
  [/^tka-server /, 'needs a cluster: test/server/program.test.ts starts it'],
  [/completion (?:bash|fish)\b/, 'for a shell of one kind: test/cli/completion/shells.test.ts'],
];
const isElsewhere = (command: string) => elsewhere.some(([pattern]) => pattern.test(command));

interface Block {
  readonly page: string;
  readonly line: number;
  readonly commands: readonly Command[];
}
interface Command {
  readonly text: string;
  /** Its output on the page; undefined: none is shown. */
  readonly output?: string;
}

/** Returns the fenced blocks of a page with commands. In one for the console commands start with `$ `. */
function blocksOf(page: string): Block[] {
  const text = fs.readFileSync(path.join(root, page), 'utf8');
  return [...text.matchAll(/^( *)```(sh|console)\n([\s\S]*?)^ *```/gm)].map(
    ({ 1: indent = '', 2: kind, 3: body = '', index }) => {
      const lines = body.split('\n').map((line) => line.slice(indent.length));
      const line = text.slice(0, index).split('\n').length;
      const commands =
        kind === 'sh'
          ? lines.filter((each) => each !== '' && !each.startsWith('#')).map((each) => ({ text: each }))
          : `\n${lines.join('\n')}`
              .split('\n$ ')
              .slice(1)
              .map((each) => {
                const [first = '', ...output] = each.split('\n');
                return { text: first, output: output.join('\n') };
              });
      return { page, line, commands };
    },
  );
}

const blocks = pages.flatMap(blocksOf);

/** Complete kubectl-tka commands in sentences. */
const inSentences = new Set(
  pages.flatMap((page) => {
    const text = fs.readFileSync(path.join(root, page), 'utf8').replace(/^ *```[\s\S]*?^ *```/gm, '');
    return [...text.matchAll(/`(kubectl tka [^`<…]+)`/g)].map(([, command = '']) => command.replace(/\s+/g, ' '));
  }),
);

/** Removes what differs between runs: addresses, times, ages, versions, the widths of columns. */
const alike = (text: string): string =>
  text
    .replace(/https?:\/\/(?:127\.0\.0\.\d+:\d+|[\w-]+\.example\.ts\.net)/g, 'URL')
    .replace(/\bin \d+m \((?:\d{4}-\d\d-\d\d )?\d\d:\d\d\)/g, 'TIME')
    .replace(/\b\d+d$/gm, 'AGE')
    .replace(/\bv1\.\d+\.\d+\S*$/gm, 'VERSION')
    .replace(/\b\d+d {2,}VERSION$/gm, 'AGE  VERSION')
    .replace(/(executable) \S*\/kubectl-tka\b/g, '$1 PATH')
    // Each version of kubectl logs its attempts differently.
    .replace(/^[EIW]\d{4} .*\n/gm, '')
    .replace(/ {2,}/g, '  ')
    .trimEnd();

/** Runs a command in a home. Returns what a terminal shows, and the exit status. */
async function type(home: Home, command: string, env: Env): Promise<{ shown: string; status: number | null }> {
  const { stdout, status } = await start(
    '/bin/sh',
    ['-c', `{ ${command}\n} 2>&1`],
    { ...home.env, ...env },
    { cwd: home.dir },
  ).ran;
  return { shown: stdout, status };
}

/** Starts the meshes of `npm run demo`, whose transcript the README shows, without a tailnet. */
async function demo() {
  const mesh = await startMesh({ clusters: demoClusters });
  return { env: {}, configured: mesh.cluster('prod-us').server, [Symbol.asyncDispose]: () => mesh.close() };
}

/**
 * Starts the servers that a block names (`tka-prod-us` or `prod-us`) as a tailnet, and one of another mesh; with a
 * cluster that has joined one of them, if `isFederation`.
 */
async function tailnet(isNamedTka: boolean, isFederation = false) {
  const prefix = isNamedTka ? 'tka-' : '';
  const joins = `${prefix}${joinedCluster.joins}`;
  const mesh = await startMesh({
    samePort: true,
    clusters: [
      ...demoClusters
        .slice(0, 3)
        .map((cluster, i) => ({ ...cluster, name: prefix + cluster.name, host: `127.0.0.${21 + i}` })),
      ...(isFederation ? [{ ...joinedCluster, joins }] : []),
    ],
  });
  const lab = await startMesh({ clusters: [{ name: 'tka-lab', host: '127.0.0.24' }] });
  const tailscaled = await startTailscaled({
    peers: mesh.clusters.filter(({ through }) => through === undefined).map((cluster) => peerOf(cluster)),
  });
  return {
    env: { TS_SOCKET: tailscaled.socketPath, TKA_TAILSCALE_PORT: new URL(mesh.clusters[0]?.server ?? '').port },
    configured: undefined,
    name: `${prefix}prod-us`,
    /** The addresses on the pages are of a tailnet that does not exist here. */
    placed: (command: string) =>
      command
        .replace(/https:\/\/tka-lab\.example\.ts\.net|\bURL\b/, lab.cluster('tka-lab').server)
        .replace(/\btag:NAME\b/, 'tag:tka')
        .replace(/\bNAME\b/, `${prefix}prod-us`),
    async [Symbol.asyncDispose]() {
      await tailscaled.close();
      await Promise.all([mesh, lab].map((each: SandboxMesh) => each.close()));
    },
  };
}

describe('the commands of the documents', () => {
  const typed = blocks.filter(({ commands }) => commands.some(({ text }) => !isElsewhere(text)));
  const shown = typed.filter(({ commands }) => commands.some(({ output }) => output !== undefined));
  const told = typed.filter((block) => !shown.includes(block));
  const nameOf = ({ page, line }: Block) => `${page}:${line}`;

  it('exist in the documents', () => {
    expect(shown.length).toBeGreaterThan(0);
    for (const page of ['README.md', 'docs/using.md', 'docs/clusters.md', 'docs/troubleshooting.md']) {
      expect(typed.map((block) => block.page)).toContain(page);
    }
  });

  it.each(elsewhere)('that start like %s exist: %s', (pattern) => {
    expect(blocks.flatMap(({ commands }) => commands).filter(({ text }) => pattern.test(text))).not.toEqual([]);
  });

  describe.skipIf(kubectl === undefined || process.platform !== 'linux')(
    `work as shown${needsKubectl} (needs loopback addresses that only Linux has)`,
    () => {
      it.each(shown.map((block) => [nameOf(block), block] as const))('%s shows their real output', async (_, block) => {
        const isDemo = block.page === 'README.md';
        await using net = isDemo ? await demo() : await tailnet(true);
        using home = new Home(net.configured);
        for (const { text, output = '' } of block.commands) {
          const ran = await type(home, text, net.env);
          // Clusters answer in any order.
          const told = (shown: string) =>
            text.includes(' exec ') ? alike(shown).split('\n').sort().join('\n') : alike(shown);
          expect(`$ ${text}\n${told(ran.shown)}`).toBe(`$ ${text}\n${told(output)}`);
          expect(ran.status === 0, text).toBe(!/^error: /m.test(output));
        }
      });

      it.each(told.map((block) => [nameOf(block), block] as const))('%s works', async (_, block) => {
        const commands = block.commands.filter(({ text }) => !isElsewhere(text));
        await using net = await tailnet(
          commands.some(({ text }) => /\btka-prod/.test(text)),
          block.page === 'docs/federation.md',
        );
        using home = new Home();
        for (const { text } of commands) {
          const { shown, status } = await type(home, net.placed(text), net.env);
          expect(`${shown}[${status}]`, `${text} (if it cannot be run here, "elsewhere" says why)`).toMatch(/\[0\]$/);
        }
      });

      describe('in a sentence', () => {
        let net: Awaited<ReturnType<typeof tailnet>>;
        beforeAll(async () => {
          net = await tailnet(true);
        });
        afterAll(() => net[Symbol.asyncDispose]());

        // With several clusters, a login without NAME asks.
        const usual = [...inSentences].filter((command) => command !== 'kubectl tka login');
        it.each(usual)('%s works', async (command) => {
          using home = new Home();
          if (!/login|clusters/.test(command)) await type(home, `kubectl tka login ${net.name}`, net.env);
          const { shown, status } = await type(home, net.placed(command.replace(/(?<!-)prod-us/, net.name)), net.env);
          expect(`${shown}[${status}]`).toMatch(/\[0\]$/);
        });
      });
    },
  );
});
