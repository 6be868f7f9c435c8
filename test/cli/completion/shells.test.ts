// Presses TAB in each shell on a pseudo-terminal. The test sees the completed line by running it: the line is an
// argument list of printf, so the shell itself splits it, and evaluates whatever it would.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import type { Home } from '../../fixtures/home.ts';
import { kubectl } from '../../fixtures/kubectl.ts';
import { test } from '../../fixtures/mesh.ts';
import { installed, lines } from '../../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../../fixtures/pty.ts';

interface Shell {
  readonly name: string;
  /** Returns the arguments, after the startup file was written. */
  readonly args: (rc: string) => readonly string[];
  readonly prompt: string;
  /** Lines that enable a program's completion. */
  readonly use: (program: 'kubectl' | 'kubectl-tka') => string;
  /** The keys that list the candidates. */
  readonly list: string;
  /** How a list shows a text and its description. */
  readonly row: (text: string, description: string) => RegExp;
}

const bashCompletion = [
  '/usr/share/bash-completion/bash_completion',
  '/usr/local/etc/profile.d/bash_completion.sh',
  '/opt/homebrew/etc/profile.d/bash_completion.sh',
].find((file) => fs.existsSync(file));

const quoted = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

const shells: readonly Shell[] = [
  {
    name: 'bash',
    args: (rc) => ['--noprofile', '--rcfile', rc, '-i'],
    list: '\t\t',
    prompt: `unset HISTFILE; PS1='rea''dy> '; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 0'`,
    // kubectl's own script for bash needs bash-completion; ours does not.
    use: (program) =>
      `${program === 'kubectl' ? `source ${bashCompletion}; ` : ''}source <(${program} completion bash)`,
    row: (text, description) => new RegExp(`${quoted(text)} +\\(${quoted(description)}`),
  },
  {
    name: 'zsh',
    args: () => ['-d', '-i'],
    list: '\t',
    prompt: `PS1='rea''dy> '; bindkey -e; autoload -U compinit; compinit -u -D`,
    use: (program) => `source <(${program} completion zsh)`,
    row: (text, description) => new RegExp(`${quoted(text)} +-- ${quoted(description)}`),
  },
  {
    name: 'fish',
    args: (rc) => ['--no-config', '-i', '-C', `source '${rc}'`],
    list: '\t',
    prompt: `function fish_prompt; printf 'rea%s> ' dy; end; set fish_autosuggestion_enabled 0`,
    use: (program) => `${program} completion fish | source`,
    row: (text, description) => new RegExp(`${quoted(text)}\\S* +\\S*\\(${quoted(description)}`),
  },
];

const find = (name: string) =>
  ['/bin', '/usr/bin', '/usr/local/bin', '/opt/homebrew/bin']
    .map((folder) => path.join(folder, name))
    .find((file) => fs.existsSync(file));

/** Returns why a shell cannot be tested with a program here; empty if it can. */
function lacking(shell: Shell, program: string): string {
  if (!hasPty) return needsPty;
  if (find(shell.name) === undefined) return ` (skipped: no ${shell.name})`;
  if (program === 'kubectl' && kubectl === undefined) return ' (skipped: no kubectl on PATH)';
  return shell.name === 'bash' && program === 'kubectl' && bashCompletion === undefined
    ? ' (skipped: no bash-completion)'
    : '';
}

/** A shell at its prompt. */
class Session {
  readonly pty: Pty;

  constructor(pty: Pty) {
    this.pty = pty;
  }

  static async start(home: Home, shell: Shell, program: 'kubectl' | 'kubectl-tka'): Promise<Session> {
    const rc = path.join(home.dir, '.zshrc');
    home.write(rc, `${shell.prompt}\n${shell.use(program)}\n`);
    const file = find(shell.name) ?? '';
    // Its stdout is the terminal too.
    const args = ['-c', 'exec "$@" >&2', 'sh', file, ...shell.args(rc)];
    const env = { ...home.env, ZDOTDIR: home.dir, TERM: 'xterm', LC_ALL: 'C.UTF-8' };
    const pty = new Pty('/bin/sh', args, { env, cwd: home.dir, rows: 50, columns: 160, drawn: false });
    const session = new Session(pty);
    await pty.wrote(/ready> /);
    return session;
  }

  /** Types, and returns the arguments of the resulting command line. */
  async words(keys: string): Promise<string[]> {
    const from = this.pty.raw.length;
    // Goes back to the start of the line, and inserts the command that prints it.
    this.pty.type(`${keys}\x01printf '<%s>\\n' BEGIN \x05 END\r`);
    const [all] = await this.pty.wrote(/<BEGIN>\r?\n[\s\S]*?\n<END>/, from);
    await this.pty.wrote(/<END>[\s\S]*ready> /, from);
    return [...all.matchAll(/^<(.*)>/gm)].map((match) => match[1] ?? '').slice(1, -1);
  }

  /** Types, waits for `what` to be shown, and discards the line. Returns everything written meanwhile. */
  async shows(keys: string, what: RegExp): Promise<string> {
    const from = this.pty.raw.length;
    this.pty.type(keys);
    await this.pty.wrote(what, from);
    this.pty.type('\x15');
    expect(await this.words('true')).toEqual(['true']);
    return this.pty.raw.slice(from);
  }
}

const each = shells.flatMap((shell) =>
  (['kubectl', 'kubectl-tka'] as const).map((program) => {
    const without = lacking(shell, program);
    return { shell, program, without, title: `${shell.name}, ${program}${without}` };
  }),
);

const kubeconfigWith = (names: readonly string[]) =>
  `apiVersion: v1\nkind: Config\ncontexts:\n${names
    .map(
      (name) => `- context:
    cluster: one
    extensions:
    - extension:
        server: http://127.0.0.1:1
      name: tka.specht-labs.de
    user: one
  name: ${JSON.stringify(name)}
`,
    )
    .join('')}`;

describe.each(each)('$title', ({ shell, program, without }) => {
  const tka = program === 'kubectl' ? 'kubectl tka' : 'kubectl-tka';
  const split = tka.split(' ');

  /** Runs a session in a HOME that knows the mesh's clusters. */
  async function inShell(home: Home, act: (session: Session) => Promise<void>): Promise<void> {
    const session = await Session.start(home, shell, program);
    try {
      await act(session);
    } finally {
      await session.pty.close();
    }
  }

  test.skipIf(without !== '')(
    'completes commands, flags, values, clusters, labels and files',
    async ({ home, mesh }) => {
      expect((await home.run('clusters')).status).toBe(0);
      for (const cluster of mesh.clusters) cluster.resetCounts();
      home.write(path.join(home.dir, 'manifest.yaml'), '');
      const before = home.files(/^\.zshrc$|^\.(?:local\/share|config)\/fish|^\.cache\/fish/);
      await inShell(home, async (session) => {
        const words = async (keys: string) => (await session.words(`${tka} ${keys}`)).slice(split.length);
        expect(await words('clu\t')).toEqual(['clusters']);
        expect(await words('login pro\tu\t')).toEqual(['login', 'prod-us']);
        expect(await words('login prod-us pro\t')).toEqual(['login', 'prod-us', 'prod-eu']);
        expect(await words('login --no-sw\tstag\t')).toEqual(['login', '--no-switch', 'staging']);
        expect(await words('clusters --outp\tjs\t')).toEqual(['clusters', '--output', 'json']);
        expect(await words('clusters --output=js\t')).toEqual(['clusters', '--output=json']);
        expect(await words('clusters -o ya\t--pro\t')).toEqual(['clusters', '-o', 'yaml', '--probe']);
        expect(await words('sync -l env\tst\t--pru\t')).toEqual(['sync', '-l', 'environment=staging', '--prune']);
        expect(await words('sync -l a!=b,reg\teu\t')).toEqual(['sync', '-l', 'a!=b,region=eu-central-1']);
        expect(await words('sync --selector=env\tst\t')).toEqual(['sync', '--selector=environment=staging']);
        expect(await words('sync --selector=a!=b,env\tpro\t')).toEqual([
          'sync',
          '--selector=a!=b,environment=production',
        ]);
        expect(await words('completion pow\t')).toEqual(['completion', 'powershell']);
        expect(await words('config tailscale.po\t')).toEqual(['config', 'tailscale.port']);
        expect(await words('use --kubeconfig mani\t')).toEqual(['use', '--kubeconfig', 'manifest.yaml']);
        // kubectl completes its own words, and leaves files to the shell.
        expect(await words('exec prod-us -- apply -f mani\t')).toEqual(
          'exec prod-us -- apply -f manifest.yaml'.split(' '),
        );
        if (kubectl !== undefined) {
          expect(await words('exec prod-us -- desc\tno\t')).toEqual(['exec', 'prod-us', '--', 'describe', 'no']);
          expect(await words('exec prod-us -- rollout sta\t')).toEqual('exec prod-us -- rollout status'.split(' '));
          expect(await words('exec -- get --all-n\t')).toEqual('exec -- get --all-namespaces'.split(' '));
          expect(await words('exec -- get --output=jsonpath-f\t')).toEqual(
            'exec -- get --output=jsonpath-file'.split(' '),
          );
        }
        expect(await words('exec prod-us -- get -zz\t')).toEqual(['exec', 'prod-us', '--', 'get', '-zz']);
        expect(await words('nothing x\t')).toEqual(['nothing', 'x']);
        const server = mesh.cluster('prod-eu').server;
        expect(await words(`login --server ${server.slice(0, -1)}\t`)).toEqual(['login', '--server', server]);
        const listed = await session.shows(
          `${tka} login ${shell.list}`,
          shell.row('prod-eu', 'environment=production,region=eu'),
        );
        expect(listed).toMatch(shell.row('prod-us', 'environment=production,region=us'));
        const flags = await session.shows(`${tka} login --${shell.list}`, /--tailnet/);
        expect(flags).toMatch(shell.row('--no-switch', 'leave the current context as it is'));
      });
      expect(home.files(/^\.zshrc$|^\.(?:local\/share|config)\/fish|^\.cache\/fish/)).toEqual(before);
      for (const cluster of mesh.clusters) expect(cluster.requests).toEqual([]);
    },
  );

  test.skipIf(without !== '')(
    'leaves out names that a shell would evaluate, and no shell evaluates them',
    async ({ home }) => {
      const names = [
        '$(touch gone-1)',
        '`touch gone-2`',
        'x$(touch gone-3)',
        'x`touch gone-4`',
        'x;touch gone-5',
        "x'y",
        'x"y',
        'x y',
        'x\\y',
        'x&touch gone-6&',
        'x|touch gone-7',
        'x>gone-8',
        '-rf',
        '~root',
        'x\ttouch gone-9',
        'x\u001b]0;gone\u0007',
        'x\u009b31m',
        'x*',
        '{gone,x}',
        '!!',
        'x#y',
        '=gone',
        ':2',
        '_activeHelp_ gone',
        'good:one@there/东京',
      ];
      home.write(home.kubeconfig, kubeconfigWith(names));
      await inShell(home, async (session) => {
        const all = await session.words(`${tka} logout \t`);
        expect(all).toEqual([...split, 'logout', 'good:one@there/东京']);
        expect(await session.words(`${tka} logout x\t`)).toEqual([...split, 'logout', 'x']);
        expect(session.pty.raw).not.toMatch(/touch|gone/);
      });
      expect(fs.readdirSync(home.dir).filter((name) => name.startsWith('gone'))).toEqual([]);
    },
  );
});

// PowerShell is not installed here, so TAB cannot be pressed.
describe.concurrent('PowerShell’s script', () => {
  test('registers for the program’s name, and calls it as the others do', async ({ home }) => {
    const { stdout } = await home.run('completion powershell');
    expect(stdout).toMatch(/^Register-ArgumentCompleter -Native -CommandName 'kubectl-tka', 'kubectl-tka\.exe'/m);
    expect(stdout).toContain('kubectl-tka __complete @words');
    // Windows PowerShell reads a file without a BOM in the system's code page.
    expect(stdout).toMatch(/^[\t\n\x20-\x7e]*$/);
    for (const [open, close] of ['()', '{}', '[]'])
      expect(stdout.split(open ?? '').length).toBe(stdout.split(close ?? '').length);
    expect(lines(stdout).filter((line) => line.startsWith('kubectl-tka'))).toEqual([]);
  });

  const folder = path.join(installed, 'completions');
  const absent = !fs.existsSync(folder);
  test.skipIf(absent)(
    `completions/ has the scripts that the command prints${absent ? ' (skipped: not there)' : ''}`,
    async ({ home }) => {
      const files = {
        bash: 'kubectl-tka.bash',
        zsh: 'kubectl-tka.zsh',
        fish: 'kubectl-tka.fish',
        powershell: 'kubectl-tka.ps1',
      };
      for (const [shell, file] of Object.entries(files))
        expect((await home.run(`completion ${shell}`)).stdout).toBe(fs.readFileSync(path.join(folder, file), 'utf8'));
    },
  );
});
