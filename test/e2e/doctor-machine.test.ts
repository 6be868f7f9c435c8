// Breaks one link on this machine at a time: only that check reports it, with a hint.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { checkCache } from '../../src/cli/doctor/machine.ts';
import { examineWithoutSettings } from '../../src/cli/doctor/unread.ts';
import { TkaError } from '../../src/util/errors.ts';
import { bin, program } from '../fixtures/program.ts';
import { names, noKubectl, test } from './doctor-patient.ts';

describe.concurrent('one link is broken', () => {
  test('configuration: its caFile does not exist', async ({ patient, home, us }) => {
    home.write(home.config, `tailscale:\n  hostname: "${us.server}"\ntls:\n  caFile: /nowhere/ca.pem\n`);
    const found = await patient.look();
    found.differs({ configuration: 'failed' });
    expect(found.of('configuration')).toMatchObject({
      detail: 'tls.caFile /nowhere/ca.pem does not exist',
      hint: 'kubectl tka config tls.caFile FILE',
    });
  });

  test('configuration: it names no server; the current context still does', async ({ patient, home }) => {
    home.write(home.config, 'tailscale:\n  hostname: "two words"\n');
    const found = await patient.look();
    found.differs({ configuration: 'failed' });
    expect(found.of('configuration').hint).toBe('kubectl tka config tailscale.hostname HOST');
  });

  test.skipIf(process.platform === 'win32')('kubectl: missing, too old, not answering', async ({ patient, home }) => {
    const folder = path.join(home.root, 'tools');
    const fake = path.join(folder, 'kubectl');
    const PATH = [bin, folder, '/bin', '/usr/bin'].join(path.delimiter);
    const say = (text: string) => home.write(fake, `#!/bin/sh\n${text}\n`, 0o755);
    say(`echo '{"clientVersion":{"gitVersion":"v1.21.14"}}'`);
    const old = await patient.look([], { PATH });
    old.differs({ kubectl: 'failed' });
    expect(old.of('kubectl').detail).toBe(`${fake} is v1.21.14: exec credentials need 1.22 or newer`);
    expect(old.of('kubectl').hint).toMatch(/^install a newer one: https:/);
    say(`echo '{"clientVersion":{"gitVersion":"v1.22.0"}}'`);
    (await patient.look([], { PATH })).differs({ kubectl: 'ok' });
    say('exit 3');
    (await patient.look([], { PATH })).differs({ kubectl: 'failed' });
    say('echo hello');
    (await patient.look([], { PATH })).differs({ kubectl: 'warning' });
    fs.rmSync(fake);
    const tools = path.join(home.root, 'sh');
    fs.mkdirSync(tools);
    // The launcher is a shell script, and may need a tool or two.
    for (const name of ['sh', 'readlink', 'dirname', 'uname', 'env'])
      if (fs.existsSync(`/bin/${name}`) || fs.existsSync(`/usr/bin/${name}`))
        fs.symlinkSync(fs.existsSync(`/bin/${name}`) ? `/bin/${name}` : `/usr/bin/${name}`, path.join(tools, name));
    const none = await patient.look([], { PATH: [bin, tools].join(path.delimiter) });
    none.differs({ kubectl: 'failed' });
    expect(none.of('kubectl').detail).toBe('kubectl is not on PATH');
  });

  test.skipIf(process.platform === 'win32')('PATH: not there, not executable, shadowed', async ({ patient, home }) => {
    const folders = (patient.home.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== bin);
    const PATH = folders.join(path.delimiter);
    const missing = await patient.look([], { PATH });
    missing.differs({ path: 'failed' });
    expect(missing.of('path').hint).toBe(`export PATH="${bin}:$PATH"`);
    const other = path.join(home.root, 'other', 'kubectl-tka');
    home.write(other, '#!/bin/sh\n', 0o644);
    const blunt = await patient.look([], { PATH: [path.dirname(other), PATH].join(path.delimiter) });
    blunt.differs({ path: 'failed' });
    expect(blunt.of('path').hint).toBe(`chmod +x ${other}`);
    fs.chmodSync(other, 0o755);
    const shadowed = await patient.look([], { PATH: [path.dirname(other), bin, PATH].join(path.delimiter) });
    shadowed.differs({ path: 'warning' });
    expect(shadowed.of('path').detail).toMatch(new RegExp(`^${other} comes first on PATH`));
    const harmless = await patient.look([], { PATH: [bin, path.dirname(other), PATH].join(path.delimiter) });
    harmless.differs({});
    expect(harmless.of('path').detail).toBe(`${program}, before ${other}`);
  });

  test.skipIf(process.platform === 'win32')('cache: open to others, closed to the user', async ({ patient, home }) => {
    for (const [mode, status] of [
      [0o755, 'warning'],
      [0o500, 'failed'],
    ] as const) {
      fs.chmodSync(home.cache, mode);
      const found = await patient.look();
      found.differs({ cache: status });
      expect(found.of('cache').hint).toBe(`chmod 700 ${`'${home.cache}'`}`);
    }
    fs.chmodSync(home.cache, 0o700);
    fs.chmodSync(home.entry(patient.us), 0o644);
    (await patient.look()).differs({});
  });

  test('cache: a file in its place', async ({ patient, home }) => {
    const file = path.join(home.root, 'file');
    fs.writeFileSync(file, '');
    const found = await patient.look([], { TKA_CACHE_DIR: file });
    expect(found.of('cache')).toMatchObject({
      status: 'failed',
      detail: `${file} is not a folder`,
      hint: `rm ${file}`,
    });
  });

  test('clock: seconds, a minute, ten minutes apart', async ({ patient, us }) => {
    for (const [skew, status] of [
      [20_000, 'ok'],
      [60_000, 'warning'],
      [-60_000, 'warning'],
      [600_000, 'failed'],
      [-600_000, 'failed'],
    ] as const) {
      us.faults.dateSkewMs = skew;
      const found = await patient.look();
      found.differs({ clock: status });
      if (status === 'ok') continue;
      expect(found.of('clock').hint).toMatch(/timedatectl|sntp|w32tm/);
      expect(found.of('clock').detail).toMatch(skew > 0 ? /behind the server's$/ : /ahead of the server's$/);
    }
  });
});

test('invalid settings: checks that need none still run, and the others depend on them', async ({
  home,
  tailscaled,
}) => {
  const env = { ...home.env, TS_SOCKET: tailscaled.socketPath } as Record<string, string>;
  const paths = { cache: home.cache, state: home.state, configs: [home.config], home: home.dir };
  const machine = { paths, command: program, env, log: () => {} };
  const before = home.files();
  const status = async (message: string) => {
    const report = await examineWithoutSettings(new TkaError(message), machine);
    expect(report.cluster).toBeNull();
    expect(report.checks.map(({ name }) => name)).toEqual(names.split(' '));
    const found = Object.fromEntries(report.checks.map((check) => [check.name, check.status]));
    const all = Object.fromEntries(names.split(' ').map((name) => [name, 'skipped']));
    expect(found).toEqual({
      ...all,
      configuration: 'failed',
      tailscaled: 'ok',
      kubectl: 'ok',
      path: 'ok',
      ...noKubectl,
    });
    return report.checks[0];
  };
  expect(await status(`bad configuration: ${home.config}:2: tailscale.port must be a port`)).toMatchObject({
    detail: `${home.config}:2: tailscale.port must be a port`,
    hint: `"$EDITOR" "${home.config}"`,
  });
  expect((await status('bad configuration: TKA_TAILSCALE_PORT="x": must be a port'))?.hint).toBe(
    'unset TKA_TAILSCALE_PORT',
  );
  expect((await status('bad configuration: a.yaml:2: debug\nbad configuration: a.yaml:3: port'))?.detail).toBe(
    'a.yaml:2: debug; a.yaml:3: port',
  );
  expect(home.files()).toEqual(before);
});

describe.skipIf(process.platform === 'win32')('the folder for tokens', () => {
  const env = { HOME: '/nowhere', XDG_RUNTIME_DIR: '' };

  test('is advised only where it can be written', ({ home }) => {
    const cache = path.join(home.root, 'file', 'cache');
    fs.writeFileSync(path.dirname(cache), '');
    const hintIn = (more: Record<string, string>) => checkCache({ cache, home: undefined }, { ...env, ...more }).hint;
    expect(hintIn({ HOME: home.dir })).toBe('export TKA_CACHE_DIR="$HOME/.kubectl-tka"');
    expect(hintIn({ XDG_RUNTIME_DIR: home.dir })).toBe('export TKA_CACHE_DIR="$XDG_RUNTIME_DIR/kubectl-tka"');
    expect(hintIn({})).toBe('export TKA_CACHE_DIR="$(mktemp -d)"');
    const unset = checkCache({ cache: undefined, home: home.dir }, {});
    expect(unset).toMatchObject({ status: 'failed', hint: 'export HOME=~' });
    expect(checkCache({ cache: undefined, home: '/nowhere' }, {}).hint).toBe('export TKA_CACHE_DIR="$(mktemp -d)"');
  });

  const canMount = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;
  const needsMount = canMount ? '' : ' (skipped: cannot mount)';

  test.skipIf(!canMount)(`fails on a full disk, and on a read-only one${needsMount}`, async ({ home }) => {
    const folder = path.join(home.root, 'disk');
    fs.mkdirSync(folder);
    const look = async (prepare: string) => {
      const script = `mount -t tmpfs -o size=64k none "$DISK" && mkdir -m 700 "$DISK/cache" && ${prepare}; exec "$@"`;
      const ran = await home.run('doctor -o json', {
        env: { DISK: folder, TKA_CACHE_DIR: path.join(folder, 'cache') },
        within: ['unshare', '-rm', 'sh', '-c', script, 'sh'],
      });
      const [{ checks }] = JSON.parse(ran.stdout);
      return checks.find((check: { name: string }) => check.name === 'cache');
    };
    const elsewhere = 'export TKA_CACHE_DIR="$HOME/.kubectl-tka"';
    expect(await look('head -c 100000 /dev/zero >"$DISK/file" 2>/dev/null')).toEqual({
      name: 'cache',
      status: 'failed',
      detail: `${path.join(folder, 'cache')} is on a full disk: no token can be kept there`,
      hint: elsewhere,
    });
    expect(await look('mount -o remount,ro "$DISK"')).toMatchObject({
      status: 'failed',
      detail: expect.stringMatching(/cannot be written to: EROFS$/),
      hint: elsewhere,
    });
  });
});
