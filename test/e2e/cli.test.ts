// Help, usage, exit status, settings, and what --debug must not show.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { jwt, lines } from '../fixtures/program.ts';
import { gate, until } from '../fixtures/wait.ts';

const commands = ['login', 'logout', 'clusters', 'status', 'forget', 'config'];

describe.concurrent('help', () => {
  test.for(commands)('%s --help shows a description, examples, options and usage', async (command, { home }) => {
    const before = home.files();
    const help = await home.run(`${command} --help`);
    expect(help).toMatchObject({ status: 0, stderr: '' });
    expect(help.stdout).toMatch(new RegExp(`^Examples:\\n  # .*\\n  kubectl tka ${command}`, 'm'));
    expect(help.stdout).toMatch(new RegExp(`^Usage:\\n  kubectl tka ${command}\\b`, 'm'));
    expect(help.stdout).toMatch(/^Options( of every command)?:$/m);
    for (const flag of ['--server', '--port', '--tailnet', '--config', '--kubeconfig', '--debug', '--quiet', '--help'])
      expect(help.stdout).toContain(flag);
    // A bare command in a kubeconfig has this name.
    expect(help.stdout.replace(/.*--exec-command.*/g, '')).not.toMatch(/kubectl-tka|%p|undefined/);
    expect(await home.run(`help ${command}`)).toMatchObject({ status: 0, stdout: help.stdout });
    expect(home.files()).toEqual(before);
  });

  test('exec --help also explains the part after the options', async ({ home }) => {
    const { stdout } = await home.run('exec --help');
    expect(stdout).toMatch(/^Usage:\n {2}kubectl tka exec \[NAME\.\.\.\] \[options\] -- COMMAND \[args\.\.\.\]$/m);
  });

  test.for(['version', 'credential'])('%s --help', async (command, { home }) => {
    const help = await home.run(`${command} --help`);
    expect(help).toMatchObject({ status: 0, stderr: '' });
    expect(help.stdout).toMatch(new RegExp(`^Usage:\\n  kubectl tka ${command}\\b`, 'm'));
  });

  test('no command, --help, -h and help print the list of commands', async ({ home }) => {
    const help = await home.run('--help');
    expect(help).toMatchObject({ status: 0, stderr: '' });
    expect(help.stdout).toMatch(/^Available Commands:$/m);
    for (const command of [...commands, 'version', 'credential'])
      expect(help.stdout).toMatch(new RegExp(`^  ${command} +\\S`, 'm'));
    expect(help.stdout).toMatch(/^Usage:\n {2}kubectl tka /m);
    for (const args of ['', '-h', 'help'])
      expect(await home.run(args)).toMatchObject({ status: 0, stdout: help.stdout });
  });

  test.skipIf(kubectl === undefined)(`kubectl tka and kubectl-tka print the same${needsKubectl}`, async ({ home }) => {
    const direct = await home.run('login --help');
    expect(await home.kubectl('tka login --help')).toMatchObject({ status: 0, stdout: direct.stdout, stderr: '' });
    expect(await home.kubectl('tka login --wrong')).toMatchObject({ status: 2, stdout: '' });
    expect((await home.kubectl('plugin list')).stdout).toContain('kubectl-tka');
  });
});

describe.concurrent('a usage error: exit 2, one error line, a hint, nothing on stdout, nothing changed', () => {
  test.for<[string, RegExp, RegExp]>([
    ['lgin', /unknown command/, /login|--help/],
    ['help lgin', /unknown command/, /login|--help/],
    ['nothing --help', /unknown command 'nothing'/, /--help/],
    ['-s host lgin -h', /unknown command 'lgin'/, /did you mean login/],
    ['help nothing', /unknown command 'nothing'/, /--help/],
    ['help login extra', /too many arguments/, /--help/],
    ['--what', /unknown option/, /--help/],
    ['login --what', /unknown option/, /kubectl tka login --help/],
    ['login --contxt x', /unknown option/, /--context/],
    ['logout --all --what', /unknown option/, /kubectl tka logout --help/],
    ['login --context', /argument missing/, /kubectl tka login --help/],
    ['login --context=', /--context is empty/, /^/],
    ['login --port 0', /--port "0" must be a port/, /^/],
    ['login --port http', /--port "http" must be a port/, /^/],
    ['login a/b', /invalid server/, /./],
    ['login ftp://x', /invalid server/, /host name, host:port, or a URL/],
    ['clusters -o xml', /-o, --output|output/, /--help/],
    ['clusters -l a=b=c', /invalid label selector/, /-l /],
    ['clusters -l', /argument missing/, /--help/],
    ['status -o', /argument missing/, /--help/],
    ['status more', /too many arguments/, /--help/],
    ['config no.such.key', /unknown setting "no\.such\.key"$/, /tailscale\.hostname/],
    ['config tailscale.hostnam', /; did you mean "tailscale\.hostname"\?$/, /tailscale\.port/],
    ['cluster', /unknown command/, /did you mean clusters\?/],
    ['logot', /unknown command/, /^hint: kubectl tka --help$/],
    ['forgte', /unknown command/, /^hint: kubectl tka --help$/],
    ['logut --all', /unknown command/, /^hint: kubectl tka --help$/],
    ['config tailscale.port many', /tailscale\.port must be a port/, /^/],
    ['config debug perhaps', /debug must be true or false/, /^/],
    ['version -o xml', /output/, /--help/],
    ['login a b --context x', /--context works for one cluster at a time$/, /kubectl tka login --help/],
    ['login prod-us -l a=b', /names and a selector cannot be combined$/, /kubectl tka login --help/],
    ['login prod-us --all-contexts', /names and --all-contexts cannot be combined$/, /kubectl tka login --help/],
    ['login --all-contexts --context x', /cannot be used with option '--context/, /kubectl tka login --help/],
    ['logout prod-us -l a=b', /names and a selector cannot be combined$/, /kubectl tka logout --help/],
    ['logout prod-us --all', /logout takes a name or --all, not both$/, /kubectl tka logout --help/],
    ['logout -l a=b --all', /logout takes a name or --all, not both$/, /kubectl tka logout --help/],
    ['forget prod-us --all', /forget takes a name or --all, not both$/, /kubectl tka forget --help/],
    ['forget -l a=b --all', /forget takes a name or --all, not both$/, /kubectl tka forget --help/],
    ['forget prod-us -l a=b', /names and a selector cannot be combined$/, /kubectl tka forget --help/],
    ['config -o wide', /wide/, /kubectl tka config --help/],
  ])('%s', async ([args, error, hint], { home, mesh }) => {
    const before = home.files();
    const wrong = await home.run(args);
    expect(wrong).toMatchObject({ status: 2, stdout: '' });
    expect(lines(wrong.stderr)[0]).toMatch(/^error: /);
    expect(lines(wrong.stderr)[0]).toMatch(error);
    expect(lines(wrong.stderr).filter((line) => line.startsWith('error: '))).toHaveLength(1);
    expect(lines(wrong.stderr).slice(1).join('\n')).toMatch(hint);
    expect(home.files()).toEqual(before);
    expect(mesh.clusters.flatMap(({ requests }) => requests).filter(({ route }) => route !== 'memberlist')).toEqual([]);
  });

  test('a name of two clusters', async ({ home, us, eu }) => {
    us.faults.memberlist = {
      raw: JSON.stringify(
        [us, eu].map(({ server, apiServer }) => ({
          apiEndpoint: apiServer,
          apiPort: 1,
          labels: {},
          name: 'twin',
          server,
        })),
      ),
    };
    const wrong = await home.run('login twin');
    expect(wrong).toMatchObject({ status: 2, stdout: '' });
    expect(wrong.stderr).toMatch(
      /^warning: 2 clusters claim the name "twin": .*\nerror: 2 clusters are named "twin"\n/,
    );
    // Each can be named by its address.
    for (const { server } of [us, eu]) expect(wrong.stderr).toMatch(new RegExp(`^hint: .*${server}`, 'm'));
    expect(us.counts.login + eu.counts.login).toBe(0);
  });

  test('an invalid TKA_TIMEOUT', async ({ home, us }) => {
    for (const value of ['soon', '-1', '0', '1e9', '2h'])
      expect(await home.credential(us, { env: { TKA_TIMEOUT: value } })).toMatchObject({ status: 2, stdout: '' });
  });
});

describe.concurrent('version', () => {
  test('-o json has these keys, and -o yaml too', async ({ home }) => {
    const ran = await home.run('version -o json');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    const version = JSON.parse(ran.stdout);
    expect(Object.keys(version)).toEqual(['version', 'commit', 'node', 'platform']);
    expect(version).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      commit: expect.stringMatching(/^(?:[0-9a-f]{7,40}|unknown)$/),
      node: expect.stringMatching(/^\d+\.\d+\.\d+$/),
      platform: expect.stringMatching(/^(?:linux|darwin|windows)\/(?:amd64|arm64)$/),
    });
    expect(parse((await home.run('version -o yaml')).stdout)).toEqual(version);
    expect((await home.run('version')).stdout).toBe(
      `kubectl-tka ${version.version} (commit ${version.commit}, node ${version.node}, ${version.platform})\n`,
    );
  });

  test('needs nothing: a damaged configuration and kubeconfig do not matter', async ({ home }) => {
    home.write(home.config, 'tailscale: [');
    home.write(home.kubeconfig, 'clusters: {');
    expect(await home.run('version')).toMatchObject({ status: 0, stderr: '' });
    expect(await home.run('--help')).toMatchObject({ status: 0, stderr: '' });
  });
});

/** Everything that a user can see or a backup can contain, except the cache and the kernel's folders. */
function visible(home: Home, ...texts: string[]): string {
  return [...texts, ...Object.values(home.files(/^\.cache/))].join('\n');
}

describe.concurrent('status', () => {
  test('comes from the cache: a damaged kubeconfig is a warning', async ({ home }) => {
    await home.run('login prod-us');
    home.write(home.kubeconfig, 'clusters: {');
    const said = await home.run('status -o json');
    expect(said.status).toBe(0);
    expect(JSON.parse(said.stdout)).toMatchObject([{ username: 'alice', state: 'active', context: null }]);
    expect(lines(said.stderr)).toHaveLength(1);
    expect(said.stderr).toMatch(/^warning: .*config:1:\d+: /);
  });
});

describe.concurrent('credential', () => {
  test.for(['--debug', '-q', '-c /nowhere.yaml', '--config=credential --debug'])(
    'accepts the flags of every command before it: %s',
    async (flags, { home, us }) => {
      for (const more of [[], ['--api-server', us.apiServer]]) {
        const answer = await home.run([...flags.split(' '), 'credential', '--server', us.server, ...more]);
        expect(answer.status).toBe(0);
        expect(JSON.parse(answer.stdout).status.token).toMatch(jwt);
        if (!flags.includes('--debug')) expect(answer.stderr).toBe('');
      }
    },
  );

  test('prints the same about a missing server wherever the flags are', async ({ home }) => {
    const after = await home.run('credential -q');
    expect(after).toMatchObject({ status: 2, stdout: '' });
    expect(await home.run('-q credential')).toMatchObject({ status: 2, stdout: '', stderr: after.stderr });
    expect(await home.run('-q credential x')).toMatchObject({ status: 2, stdout: '' });
  });
});

describe.concurrent('--debug', () => {
  test('prints debug output on stderr, and no token to any stream or file outside the cache', async ({ home, us }) => {
    const login = await home.run('login prod-us --debug');
    expect(login.status).toBe(0);
    for (const part of [
      'tailscale.hostname = ',
      `POST ${us.server}/api/v1alpha1/login: 202`,
      'signed in as alice',
      '/kubeconfig: 200',
    ])
      expect(login.stderr).toContain(part);
    const token = home.token(us);
    expect(token).toMatch(jwt);
    const [, payload = '', signature = ''] = token.split('.');
    const heard = [login.stdout, login.stderr];
    for (const args of [
      'clusters',
      'status',
      'config',
      'clusters -o json',
      'login --all-contexts',
      'logout',
      'status -o yaml',
    ]) {
      const ran = await home.run(`${args} --debug`);
      expect(ran.status).toBe(0);
      heard.push(ran.stdout, ran.stderr);
    }
    us.faults.routes.kubeconfig = { reset: 'middle', times: 1 };
    heard.push(visible(home, (await home.run('login prod-us --debug')).stderr));
    for (const secret of [token, payload, signature, home.token(us)])
      expect(visible(home, ...heard)).not.toContain(secret);
    expect(visible(home, ...heard)).not.toMatch(jwt);
  });

  test('credential with --debug, or TKA_DEBUG=1: the token is on stdout only', async ({ home, us }) => {
    for (const options of [{ args: ['--debug'] }, { env: { TKA_DEBUG: '1' } }]) {
      for (let hit = 0; hit < 2; hit++) {
        const ran = await home.credential(us, options);
        expect(ran.status).toBe(0);
        expect(lines(ran.stdout)).toHaveLength(1);
        expect(ran.stdout).toContain(home.token(us));
        expect(visible(home, ran.stderr)).not.toMatch(jwt);
        if (hit === 0) expect(ran.stderr).toMatch(/^debug: /m);
      }
      fs.rmSync(home.cache, { recursive: true });
    }
  });

  test('an answer with misplaced tokens is not printed', async ({ home, us }) => {
    const secret = us.issueToken();
    us.faults.routes.login = {
      answer: { status: 403, body: { message: `no, ${secret}`, advice: [`Bearer ${secret}`] } },
    };
    const refused = await home.run(['login', us.server, '--debug']);
    expect(refused.status).toBe(1);
    expect(visible(home, refused.stdout, refused.stderr)).not.toContain(secret);
    expect(visible(home, refused.stderr)).not.toMatch(jwt);
  });

  test('an error has its stack', async ({ home, us }) => {
    await us.stop();
    expect((await home.run('clusters --debug')).stderr).toMatch(/^debug: .*\n +at /m);
    expect((await home.run('clusters')).stderr).not.toMatch(/^\s+at /m);
  });
});

describe.concurrent('interrupted', () => {
  test.for([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)(
    '%s to a login that waits for its server: exit %i, no lock, and the next call works',
    async ([signal, status], { home, us }) => {
      const { shut, open } = gate();
      us.faults.routes.kubeconfig = { hold: shut, times: 1 };
      const { child, ran } = home.start('login prod-us');
      await us.seen('kubeconfig');
      await until('the lock', () => fs.existsSync(home.entry(us, '+lock')));
      child.kill(signal);
      expect(await ran).toMatchObject({ status, signal: null, stdout: '' });
      open();
      expect(home.cached()).toEqual([]);
      expect(fs.existsSync(home.kubeconfig)).toBe(false);
      const next = await home.run('login prod-us');
      expect(next).toMatchObject({ status: 0, stderr: '' });
    },
  );

  test('SIGINT to a credential that waits for another one', async ({ home, us }) => {
    const { shut, open } = gate();
    us.faults.routes.kubeconfig = { hold: shut, times: 1 };
    const first = home.start(['credential', '--server', us.server]);
    await us.seen('kubeconfig');
    const second = home.start(['credential', '--server', us.server, '--debug']);
    // It has started; the single request shows that it waits.
    await new Promise(
      (resolve) =>
        second.child.once('said', resolve).once('close', resolve).once('exit', resolve) && setTimeout(resolve, 1000),
    );
    second.child.kill('SIGINT');
    expect(await second.ran).toMatchObject({ stdout: '' });
    expect([130, null]).toContain((await second.ran).status);
    open();
    expect(await first.ran).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts.login).toBe(1);
  });
});

describe.concurrent('streams', () => {
  test('a closed reader (| head) is not a crash', async ({ home }) => {
    await home.run('login prod-us');
    const ran = await home.byShell('"$0" "$@" | true', 'clusters -o json');
    expect(ran).toMatchObject({ status: 0, stderr: '' });
  });

  test('stdin is not read', async ({ home, us }) => {
    expect(await home.run(['credential', '--server', us.server], { input: 'anything\n' })).toMatchObject({ status: 0 });
  });

  test('no escape sequences without a terminal, with or without NO_COLOR', async ({ home }) => {
    await home.run('login prod-us');
    for (const args of ['clusters', 'status', '--help', 'login --wrong', 'config']) {
      const { stdout, stderr } = await home.run(args, { env: { FORCE_COLOR: undefined, TERM: 'xterm-256color' } });
      expect(stdout + stderr).not.toContain('\u001b');
    }
  });
});
