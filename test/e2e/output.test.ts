// The output for users: colours, the current context, times and progress.
import { describe, expect } from 'vitest';
import type { RouteName } from '../../src/sandbox/faults.ts';
import { test } from '../fixtures/mesh.ts';
import { lines, program } from '../fixtures/program.ts';
import { hasPty, needsPty, Pty } from '../fixtures/pty.ts';

const plain = (text: string) => text.replace(/\x1b\[\d+m/g, '');

describe.concurrent('in a pipe', () => {
  test('nothing is coloured', async ({ home }) => {
    await home.run('login prod-us');
    for (const args of ['clusters', 'status', 'doctor prod-us', 'login nowhere']) {
      const { stdout, stderr } = await home.run(args);
      expect(stdout + stderr).not.toContain('\x1b');
    }
  });

  test('FORCE_COLOR=1 colours text for users, and no data for programs', async ({ home, eu }) => {
    await home.run('login prod-us');
    await eu.stop();
    const coloured = { env: { FORCE_COLOR: '1', NO_COLOR: '1' } };
    const table = await home.run('clusters', coloured);
    expect(table.stdout).toContain('\x1b[31mdead\x1b[39m      ');
    expect(table.stdout).toMatch(/^\x1b\[32m\*\x1b\[39m +prod-us +\x1b\[32mhealthy\x1b\[39m {3}prod-us/m);
    // Columns start at the same places.
    expect(new Set(lines(plain(table.stdout)).map((line) => line.search(/LABELS|environment=/))).size).toBe(1);
    expect((await home.run('status', coloured)).stdout).toContain('\x1b[32mactive\x1b[39m');
    expect((await home.run('doctor prod-us', coloured)).stdout).toMatch(/^\x1b\[32m.\x1b\[39m tka-api/m);
    const failed = await home.run('login nowhere', coloured);
    expect(failed.stderr).toMatch(/^\x1b\[1m\x1b\[31merror:\x1b\[39m\x1b\[22m no cluster named "nowhere"/m);
    expect(failed.stderr).toMatch(/^\x1b\[2mhint:\x1b\[22m /m);
    const prefixed = await home.run('exec prod-us staging -- version --client', coloured);
    const prefixes = lines(prefixed.stdout).map((line) => /^\x1b\[(\d+)m(prod-us|staging) \|\x1b\[39m /.exec(line));
    expect(new Set(prefixes.map((found) => `${found?.[1]} ${found?.[2]}`)).size).toBe(2);
    expect(new Set(prefixes.map((found) => found?.[1])).size).toBe(2);
    for (const args of ['clusters -o json', 'clusters -o name', 'status -o yaml', 'doctor prod-us -o json', 'version'])
      expect((await home.run(args, coloured)).stdout).not.toContain('\x1b');
    const { stdout } = await home.run(
      ['credential', '--server', (await home.run('status -o json')).stdout.match(/http:[^"]+/)?.[0] ?? ''],
      coloured,
    );
    expect(stdout).toMatch(/^\{.*\}\n$/);
  });
});

describe.skipIf(!hasPty).concurrent(`on a terminal${needsPty}`, () => {
  /** Runs the program with stderr on a terminal, and stdout in a pipe or on the terminal too. */
  const shown = async (
    env: Readonly<Record<string, string | undefined>>,
    args: readonly string[],
    { whole = false } = {},
  ) => {
    const pty = whole
      ? new Pty('/bin/sh', ['-c', '"$@" >&2', 'sh', program, ...args], { env, columns: 160 })
      : new Pty(program, args, { env, columns: 160 });
    await pty.ended;
    return pty;
  };

  test('stdout and stderr are coloured each by what they are', async ({ home }) => {
    await home.run('login prod-us');
    const both = await shown(home.env, ['doctor', 'nowhere'], { whole: true });
    expect(both.raw).toMatch(/^\x1b\[31m.\x1b\[39m name /m);
    expect(both.raw).toMatch(/^\x1b\[1m\x1b\[31merror:\x1b\[39m\x1b\[22m \d+ of \d+ checks failed/m);
    const split = await shown(home.env, ['doctor', 'nowhere']);
    expect(split.stdout).toMatch(/^. name /m);
    expect(split.stdout).not.toContain('\x1b');
    expect(split.raw).toContain('\x1b[1m\x1b[31merror:');
  });

  test.for([
    ['NO_COLOR', '1'],
    ['NODE_DISABLE_COLORS', '1'],
    ['FORCE_COLOR', '0'],
    ['TERM', 'dumb'],
  ])('%s=%s: no colour', async ([name = '', value], { home }) => {
    const pty = await shown({ ...home.env, [name]: value }, ['clusters', '-l', 'no-such-label in ('], { whole: true });
    expect(pty.raw).toMatch(/^error: /);
    expect(pty.raw).not.toContain('\x1b');
  });

  test('an empty NO_COLOR changes nothing', async ({ home }) => {
    const pty = await shown({ ...home.env, NO_COLOR: '' }, ['clusters'], { whole: true });
    expect(pty.raw).toContain('\x1b[32mhealthy\x1b[39m');
  });
});

describe.concurrent('times', () => {
  test('are local and relative for users, and RFC 3339 in UTC for programs', async ({ home }) => {
    const zoned = { env: { TZ: 'Asia/Kolkata' } };
    const { stdout } = await home.run('login prod-us', zoned);
    const [, clock = ''] = /; expires in (?:29|30)m \((?:\S+ )?(\d\d:\d\d)\)\.$/m.exec(stdout) ?? [];
    const [session] = JSON.parse((await home.run('status -o json', zoned)).stdout);
    expect(session.until).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    // India is 5 h 30 min ahead of UTC all year.
    expect(new Date(Date.parse(session.until) + 5.5 * 3_600_000).toISOString().slice(11, 16)).toBe(clock);
    for (const args of ['status', 'clusters', 'doctor prod-us'])
      expect((await home.run(args, zoned)).stdout).toMatch(new RegExp(`in (?:29|30)m \\((?:\\S+ )?${clock}\\)`));
  });
});

describe.skipIf(!hasPty).concurrent(`progress on a terminal${needsPty}`, () => {
  interface Waiting {
    readonly args: string;
    /** The route that does not answer until the line is there. */
    readonly route: RouteName;
    readonly shows: RegExp;
    readonly loggedIn?: boolean;
  }

  const waits: Readonly<Record<string, Waiting>> = {
    login: { args: 'login prod-us', route: 'login', shows: /^asking http:\S+ for a token \(\d+ s\)$/m },
    clusters: { args: 'clusters', route: 'memberlist', shows: /^asking http:\S+ for the list of clusters \(\d+ s\)$/m },
    'clusters --probe': {
      ...{ args: 'clusters --probe', route: 'clusterInfo' },
      shows: /^probing the servers \[#+-+\] 2\/3 \(\d+ s\)$/m,
    },
    sync: { args: 'sync', route: 'clusterInfo', shows: /^asking the clusters \[#+-+\] 2\/3 \(\d+ s\)$/m },
    use: { args: 'use prod-us', route: 'clusterInfo', shows: /^asking http:\S+ about prod-us \(\d+ s\)$/m },
    exec: { args: 'exec prod-us -- get pods', route: 'login', shows: /^running on prod-us \(\d+ s\)$/m },
    doctor: { args: 'doctor prod-us', route: 'clusterInfo', shows: /^checking prod-us \[#*-+\] \d+\/17 \(\d+ s\)$/m },
    logout: { args: 'logout', route: 'logout', loggedIn: true, shows: /^signing out of http:\S+ \(\d+ s\)$/m },
    forget: { args: 'forget', route: 'logout', loggedIn: true, shows: /^signing out of http:\S+ \(\d+ s\)$/m },
  };

  test.for(Object.entries(waits))(
    '%s says what it waits for, and removes that line',
    async ([, wait], { home, us }) => {
      const { args, route, shows, loggedIn } = wait;
      if (loggedIn === true) await home.run('login prod-us');
      const { promise: hold, resolve: answer } = Promise.withResolvers<void>();
      us.faults.routes[route] = { hold };
      const pty = new Pty(program, args.split(' '), { env: home.env, columns: 100 });
      try {
        await pty.shows(shows);
        answer();
        await pty.ended;
        expect(pty.screen.text()).not.toMatch(/\(\d+ s\)/);
        expect(pty.stdout).not.toContain('\x1b');
      } finally {
        answer();
        await pty.close();
      }
    },
  );

  test('login on a server that never answers: the error stands alone at the end', async ({ home, us }) => {
    us.faults.routes.login = { silent: true };
    const pty = new Pty(program, ['login', us.server], { env: { ...home.env, TKA_TIMEOUT: '2s' }, columns: 100 });
    await pty.shows(/^asking http:\S+ for a token \(1 s\)$/m);
    expect(await pty.ended).toBe(1);
    expect(pty.screen.text()).toMatch(/^error: .*no answer within/m);
    expect(pty.screen.text()).not.toContain('asking');
  });

  test.for([
    ['with --quiet', ['--quiet'], {}],
    ['with --debug', ['--debug'], {}],
    ['with TERM=dumb', [], { TERM: 'dumb' }],
  ] as const)('no line %s', async ([, flags, env], { home, us }) => {
    us.faults.routes.login = { latencyMs: 1000 };
    const pty = new Pty(program, ['login', us.server, ...flags], { env: { ...home.env, ...env } });
    expect(await pty.ended).toBe(0);
    expect(pty.raw).not.toMatch(/\(\d+ s\)/);
  });

  test('no line of `credential`, because kubectl prints to the same terminal', async ({ home, us }) => {
    us.faults.routes.login = { latencyMs: 1000 };
    const pty = new Pty(program, ['credential', '--server', us.server], { env: home.env });
    expect(await pty.ended).toBe(0);
    expect(pty.raw).toBe('');
  });
});
