// `shell` as the built program runs it: a real shell on a pseudo-terminal, and the real kubectl in it.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import type { Home } from '../../fixtures/home.ts';
import { kubectl, needsKubectl } from '../../fixtures/kubectl.ts';
import { test } from '../../fixtures/mesh.ts';
import { jwt, lines, program } from '../../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../../fixtures/pty.ts';

const folders = (home: Home): string[] => {
  const shells = path.join(home.state, 'shells');
  return fs.existsSync(shells) ? fs.readdirSync(shells) : [];
};

/** A shell on a pseudo-terminal, whose prompt is the cluster's name. */
class OpenShell {
  readonly pty: Pty;

  private constructor(home: Home, args: readonly string[]) {
    const env = { ...home.env, SHELL: '/bin/sh', PS1: '[$TKA_CLUSTER/$TKA_NAMESPACE]', NO_COLOR: '1' };
    // Shells are interactive only if stdout is the terminal, too.
    const all = ['-c', 'exec "$@" >&2', 'sh', program, 'shell', ...args];
    this.pty = new Pty('/bin/sh', all, { env, cwd: home.dir, columns: 300, drawn: false });
  }

  static async open(home: Home, args: readonly string[]): Promise<OpenShell> {
    const shell = new OpenShell(home, args);
    await shell.pty.wrote(/\[[\w/-]*\]$/);
    return shell;
  }

  /** Types a command and returns what it prints, to either stream. */
  async run(command: string): Promise<string> {
    const from = this.pty.raw.length;
    // The terminal echoes the line, so the end mark must not stand in it.
    this.pty.type(`${command}; echo en''ded $?\r`);
    const [all] = await this.pty.wrote(/\n[\s\S]*?ended \d+\r\n\[[^\]]*\]/, from);
    return all.slice(1).replaceAll('\r', '');
  }

  async exit(command = 'exit'): Promise<number | string> {
    this.pty.type(`${command}\r`);
    const status = await this.pty.ended;
    await this.pty.close();
    return status;
  }
}

describe.skipIf(!hasPty || kubectl === undefined)(`an interactive shell${needsPty}${needsKubectl}`, () => {
  test('has one cluster, its name and namespace for the prompt, and ends with the shell’s status', async ({ home }) => {
    await home.run('login prod-eu');
    const before = home.files(/^\.cache|^\.local/);
    const shell = await OpenShell.open(home, ['prod-us', '-n', 'shop-prod-us']);
    expect(shell.pty.raw.replaceAll('\r', '')).toBe(
      'kubectl uses cluster "prod-us", namespace "shop-prod-us", in this shell; exit to return\n[prod-us/shop-prod-us]',
    );
    expect(await shell.run('kubectl get namespaces -o name')).toContain('namespace/shop-prod-us\n');
    expect(await shell.run('kubectl config get-contexts -o name')).toMatch(/^prod-us\nended 0\n/);
    expect(await shell.run('kubectl config view --minify -o jsonpath={..namespace}')).toContain('shop-prod-us');
    const [folder = ''] = folders(home);
    const file = path.join(home.state, 'shells', folder, 'config');
    expect(await shell.run('echo "$KUBECONFIG"')).toContain(`${file}\n`);
    expect(fs.statSync(path.dirname(file)).mode & 0o777).toBe(0o700);
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
    expect(fs.readFileSync(file, 'utf8')).not.toMatch(jwt);
    expect(await shell.exit('exit 7')).toBe(7);
    expect(folders(home)).toEqual([]);
    expect(home.files(/^\.cache|^\.local/)).toEqual(before);
  });

  test('is not changed by use, login and sync elsewhere, and does not change what is elsewhere', async ({ home }) => {
    await home.run('login prod-us');
    const shell = await OpenShell.open(home, ['prod-us']);
    for (const command of ['use staging', 'login prod-eu', 'sync']) expect((await home.run(command)).status).toBe(0);
    const elsewhere = fs.readFileSync(home.kubeconfig);
    expect(await shell.run('kubectl config get-contexts -o name')).toMatch(/^prod-us\nended 0\n/);
    const said = await shell.run('kubectl tka use staging');
    expect(said).toContain('Switched to context "staging".\n');
    expect(said).toContain('this is for this shell only; it was opened for cluster "prod-us"\n');
    expect(await shell.run('kubectl get namespaces -o name')).toContain('namespace/shop-staging\n');
    expect(await shell.run('kubectl tka sync')).toContain('this is for this shell only');
    expect(await shell.run('kubectl tka login prod-eu')).toContain('this is for this shell only');
    expect(fs.readFileSync(home.kubeconfig)).toEqual(elsewhere);
    expect(await shell.exit()).toBe(0);
    expect((await home.run('use prod-us')).stderr).toBe('');
  });

  test('a shell in a shell has its own cluster, and returns to the outer one', async ({ home }) => {
    const shell = await OpenShell.open(home, ['prod-us', '-n', 'web']);
    const from = shell.pty.raw.length;
    shell.pty.type('kubectl tka shell staging\r');
    await shell.pty.wrote(/in this shell; exit to return to "prod-us"\r\n\[staging\/\]/, from);
    expect(await shell.run('kubectl get namespaces -o name')).toContain('namespace/shop-staging\n');
    expect(folders(home)).toHaveLength(2);
    const back = shell.pty.raw.length;
    shell.pty.type('exit\r');
    await shell.pty.wrote(/\[prod-us\/web\]/, back);
    expect(await shell.run('kubectl get namespaces -o name')).toContain('namespace/shop-prod-us\n');
    expect(await shell.exit()).toBe(0);
    expect(folders(home)).toEqual([]);
  });

  test.for(['SIGTERM', 'SIGHUP'] as const)('%s ends the shell and removes its kubeconfig', async (signal, { home }) => {
    const shell = await OpenShell.open(home, ['prod-us']);
    expect(folders(home)).toHaveLength(1);
    process.kill(shell.pty.pid, signal);
    expect(await shell.pty.ended).toBe(129);
    expect(folders(home)).toEqual([]);
    await shell.pty.close();
  });

  test('Ctrl-C goes to the program in it, and ends neither shell nor us', async ({ home }) => {
    const shell = await OpenShell.open(home, ['prod-us']);
    const from = shell.pty.raw.length;
    shell.pty.type('sh -c "echo u$(:)p; exec sleep 1000"\r');
    await shell.pty.wrote(/\nup/, from);
    shell.pty.type('\x03');
    await shell.pty.wrote(/\^C[\s\S]*\[prod-us\/\]/, from);
    expect(await shell.run('kubectl get namespaces -o name')).toContain('namespace/shop-prod-us\n');
    expect(await shell.exit()).toBe(0);
  });

  test('the next shell removes what a killed one left, and nothing of one that runs', async ({ home }) => {
    const open = await OpenShell.open(home, ['prod-us']);
    const [kept = ''] = folders(home);
    const killed = await OpenShell.open(home, ['prod-eu']);
    process.kill(killed.pty.pid, 'SIGKILL');
    await killed.pty.close();
    expect(folders(home)).toHaveLength(2);
    const ran = await home.run(['shell', 'staging', '--', 'sh', '-c', 'echo "$KUBECONFIG"']);
    const own = path.basename(path.dirname(ran.stdout.trim()));
    expect(own).not.toBe(kept);
    expect(folders(home)).toEqual([kept]);
    expect(await open.exit()).toBe(0);
  });
});

describe('shell NAME -- COMMAND', () => {
  const show = ['--', 'sh', '-c', 'echo "$TKA_CLUSTER $TKA_NAMESPACE"; cat "$KUBECONFIG"; exit 3'];

  test('runs the command with its arguments and returns its status; stdout is the command’s', async ({ home, us }) => {
    const ran = await home.run(['shell', 'prod-us', ...show], { env: { TKA_NAMESPACE: 'outer' } });
    expect(ran).toMatchObject({ status: 3, stderr: '' });
    expect(lines(ran.stdout)[0]).toBe('prod-us ');
    expect(ran.stdout).toContain(us.server);
    expect(ran.stdout).not.toMatch(jwt);
    expect(us.counts.login).toBe(0);
    expect(folders(home)).toEqual([]);
    expect((await home.run(['shell', 'prod-us', '--', 'sh', '-c', 'kill -9 $$'])).status).toBe(137);
  });

  test.skipIf(kubectl === undefined)(
    `takes a context as the user has it: namespace, proxy, other servers${needsKubectl}`,
    async ({ home }) => {
      await home.run('login prod-us --context mine');
      await home.kubectl('config set-context mine --namespace shop');
      await home.kubectl(['config', 'set-cluster', 'mine', '--proxy-url', 'http://127.0.0.1:9']);
      await home.run('login prod-eu');
      const { stdout } = await home.run(['shell', 'prod-us', ...show]);
      expect(stdout).toMatch(/^ *namespace: "?shop"?$/m);
      expect(stdout).toMatch(/^current-context: "?mine"?$/m);
      expect(stdout).not.toContain('prod-eu');
      const other = await home.run(['shell', 'mine', '-n', 'web', ...show]);
      expect(other.stdout).toMatch(/^ *namespace: "?web"?$/m);
    },
  );

  test.skipIf(kubectl === undefined)(
    `works from the context alone while no server is there${needsKubectl}`,
    async ({ home, us }) => {
      await home.run('login prod-us');
      await us.stop();
      fs.rmSync(home.config);
      fs.rmSync(path.join(home.state, 'clusters'), { recursive: true, force: true });
      const ran = await home.run(['shell', 'prod-us', '--', 'kubectl', 'get', 'namespaces', '-o', 'name']);
      expect(ran).toMatchObject({ status: 0, stdout: expect.stringContaining('namespace/shop-prod-us\n') });
    },
  );

  test('--revoke logs out at the end, also if the command failed', async ({ home, us }) => {
    await home.run('login prod-us');
    const ran = await home.run('shell prod-us --revoke -- false');
    expect(ran).toMatchObject({ status: 1, stdout: '', stderr: `Signed out of prod-us (${us.server}).\n` });
    expect(us.counts.logout).toBe(1);
    expect(await home.run('shell prod-us -- true')).toMatchObject({
      status: 1,
      stderr: `error: signed out of ${us.server}\nhint: kubectl tka login prod-us\n`,
    });
  });

  test('--revoke without a sign-in does nothing, and a failed one is an error', async ({ home, us }) => {
    expect(await home.run('shell prod-us --revoke -- true')).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(us.counts.logout).toBe(0);
    await home.run('login prod-us');
    us.faults.routes.logout = { answer: { status: 500 } };
    const ran = await home.run('shell prod-us --revoke -- true');
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(/^warning: .*\nhint: /m);
  });

  test.skipIf(!hasPty)(`waits for a command that handles Ctrl-C${needsPty}`, async ({ home }) => {
    const script = 'trap "exit 3" INT; echo up >&2; while :; do sleep 0.1; done';
    const env = { ...home.env };
    const pty = new Pty(program, ['shell', 'prod-us', '--', 'sh', '-c', script], { env, cwd: home.dir, drawn: false });
    await pty.wrote(/up/);
    pty.type('\x03');
    // The shell around the program gets the Ctrl-C too, and ends with the program.
    await pty.ended;
    expect(folders(home)).toEqual([]);
    await pty.close();
  });

  test('uses TMPDIR where the path of the state folder cannot stand in KUBECONFIG', async ({ home }) => {
    const env = { XDG_STATE_HOME: path.join(home.root, 'a:b') };
    const ran = await home.run(['shell', 'prod-us', '--', 'sh', '-c', 'echo "$KUBECONFIG"; ls -ld "$KUBECONFIG"'], {
      env,
    });
    expect(ran.stdout).toMatch(new RegExp(`^${home.env.TMPDIR}/kubectl-tka-shell-\\w+/config\n-rw------- `));
    expect(fs.readdirSync(home.env.TMPDIR as string)).toEqual([]);
  });

  test('names with special characters are harmless in a prompt', async ({ home, us }) => {
    us.faults.routes.memberlist = {
      change: (rows: { name: string }[]) =>
        rows.map((row) => (row.name === 'prod-us' ? { ...row, name: 'a$(id)`id`\u001b東', cluster: undefined } : row)),
    };
    const { stdout } = await home.run(['shell', us.server, '--', 'sh', '-c', 'echo "$TKA_CLUSTER"']);
    expect(stdout).toMatch(/^[\p{L}\p{N}._-]+\n$/u);
  });

  test.for<[string, number, RegExp]>([
    ['shell', 2, /^error: a cluster name is required\nhint: /],
    ['shell nowhere', 1, /^error: no cluster named "nowhere"/],
    ['shell prod', 2, /^error: 2 clusters have names that start with "prod"\n/],
    [
      'shell prod-us,prod-eu',
      2,
      /^error: "prod-us,prod-eu" means several clusters\nhint: a shell is for one cluster\n/,
    ],
    ['shell prod-us prod-eu', 2, /^error: unexpected argument "prod-eu": a shell is for one cluster\nhint: /],
    ['shell prod-us --', 2, /^error: no command after --\n/],
    ['shell prod-us -n Web_1', 2, /^error: invalid namespace "Web_1"\n/],
    ['shell prod-us -- no-such-program', 1, /^error: cannot start no-such-program: ENOENT\nhint: give the path/],
  ])('%s: exit %d', async ([args, status, stderr], { home }) => {
    const ran = await home.run(args);
    expect(ran).toMatchObject({ status, stdout: '' });
    expect(ran.stderr).toMatch(stderr);
    expect(folders(home)).toEqual([]);
  });

  test('a SHELL that does not exist', async ({ home }) => {
    const ran = await home.run('shell prod-us', { env: { SHELL: '/no/such/shell' } });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toMatch(
      /error: cannot start \/no\/such\/shell: ENOENT\nhint: set SHELL to the path of a shell\n$/,
    );
  });
});
