// The picker of the built program on a real pseudo-terminal, with its screens.
import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { program } from '../fixtures/program.ts';
import { hasPty, needsPty, Pty, type PtyOptions } from '../fixtures/pty.ts';

async function onTerminal<T>(
  home: Home,
  options: Omit<PtyOptions, 'env'> & { env?: Record<string, string | undefined>; args?: readonly string[] },
  act: (pty: Pty) => Promise<T>,
): Promise<T> {
  const { env, args = ['use'], ...rest } = options;
  const all = { ...home.env, TERM: 'xterm-256color', NO_COLOR: undefined, ...env };
  const pty = new Pty(program, args, { ...rest, cwd: home.dir, env: all });
  try {
    return await act(pty);
  } finally {
    await pty.close();
  }
}

const ready = /Esc to leave/;
const selected = (pty: Pty) => pty.screen.lines().find((line) => line.startsWith('>'));

/** Checks the state of the terminal after the program has ended. */
function expectRestored(pty: Pty): void {
  const { before, after } = pty.settings();
  expect(before).toMatch(/ icanon /);
  expect(after).toBe(before);
  expect(pty.screen).toMatchObject({ alternate: false, cursorShown: true, autowrap: true, style: '' });
}

/** Returns a list of members with these names. */
const rows = (names: readonly string[]) =>
  JSON.stringify(
    names.map((name, i) => ({
      name,
      server: `http://127.0.0.1:${20_000 + (i % 40_000)}`,
      apiEndpoint: `https://api-${i}.example.com`,
      apiPort: 443,
      labels: { number: String(i), city: i % 1000 === 0 ? '東京都' : 'Bonn' },
      state: 'healthy',
    })),
  );

describe.skipIf(!hasPty)(`use on a terminal${needsPty}`, () => {
  test('shows a list, filters while typing, and switches', async ({ home, eu }) => {
    await onTerminal(home, { rows: 12, columns: 100 }, async (pty) => {
      await pty.shows(ready);
      expect(pty.screen.lines()).toEqual([
        'Cluster:',
        '>   prod-eu   healthy   environment=production,region=eu-central-1',
        '    prod-us   healthy   environment=production,region=us-west-2',
        '    staging   healthy   environment=staging,region=us-west-2',
        '3 - type to filter, Enter to choose, Esc to leave',
        ...Array(7).fill(''),
      ]);
      expect(pty.screen.styled('7')).toEqual([selected(pty)]);
      expect(pty.screen).toMatchObject({ alternate: true, cursorShown: true, row: 0, column: 9 });
      expect(pty.isRaw()).toBe(true);

      pty.type('west');
      await pty.shows(/^Cluster: west$/m);
      expect(pty.screen.lines().slice(0, 5)).toEqual([
        'Cluster: west',
        '>   prod-us   healthy   environment=production,region=us-west-2',
        '    staging   healthy   environment=staging,region=us-west-2',
        '2 of 3 - type to filter, Enter to choose, Esc to leave',
        '',
      ]);
      expect(pty.screen).toMatchObject({ row: 0, column: 13 });
      pty.type('\x1b[B');
      await pty.shows(/^> {3}staging/m);
      pty.type('\x17\x1b[F\x1b[H\x1b[B\x1b[A');
      await pty.shows(/^3 - /m);
      await pty.shows(/^> {3}prod-eu/m);
      pty.type('\r');
      expect(await pty.ended).toBe(0);
      expect(pty.stdout).toBe('Switched to context "prod-eu".\n');
      // The screen is empty again.
      expect(pty.screen.text()).toBe('');
      expectRestored(pty);
      expect(eu.counts).toMatchObject({ clusterInfo: 1, login: 0 });
    });
    expect(fs.readFileSync(home.kubeconfig, 'utf8')).toContain('current-context: "prod-eu"');
  });

  test('finds a name before a label, highlights what matches, and lists contexts that are not managed', async ({
    home,
  }) => {
    home.write(home.kubeconfig, 'apiVersion: v1\nkind: Config\ncontexts:\n- {name: my-stuff, context: {}}\n');
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      pty.type('st');
      await pty.shows(/^Cluster: st\n> {3}staging .*\n.*my-stuff.*\n.*prod-us.*\n3 of 4 - /m);
      expect(pty.screen.lines().slice(0, 4)).toEqual([
        'Cluster: st',
        '>   staging    healthy       environment=staging,region=us-west-2',
        '    my-stuff   not managed',
        '    prod-us    healthy       environment=production,region=us-west-2',
      ]);
      const marks = (style: string) => pty.screen.marked(style).filter((text) => text !== '');
      expect([marks('7;4'), marks('4')]).toEqual([['ststst'], ['st', 'st']]);
      pty.type('\x1b[B\r');
      expect(await pty.ended).toBe(0);
      expect(pty.stdout).toBe('Switched to context "my-stuff".\n');
    });
  });

  test('marks the current context, and shows dead members', async ({ home, eu }) => {
    await home.run('login prod-us');
    await eu.stop();
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      expect(pty.screen.lines().slice(1, 4)).toEqual([
        '> * prod-us   healthy   environment=production,region=us-west-2',
        '    staging   healthy   environment=staging,region=us-west-2',
        '    prod-eu   dead      environment=production,region=eu-central-1',
      ]);
      pty.type('\r');
      expect(await pty.ended).toBe(0);
      expect(pty.stdout).toBe('Switched to context "prod-us".\n');
    });
  });

  test.for([
    ['Escape', '\x1b'],
    ['Ctrl-C', '\x03'],
    ['Escape after some typing', 'prod\x1b'],
  ])('%s: nothing changes, exit 130', async ([, keys], { home }) => {
    const files = home.files(/^\.(cache|local)/);
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      pty.type(keys as string);
      expect(await pty.ended).toBe(130);
      expect(pty.stdout).toBe('');
      expect(pty.screen.text()).toBe('error: cancelled\nhint: give the name: kubectl tka use NAME');
      expectRestored(pty);
    });
    expect(home.files(/^\.(cache|local)/)).toEqual(files);
  });

  test('accepts keys that arrive in pieces', async ({ home }) => {
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      pty.type('\x1b');
      pty.type('[');
      pty.type('B');
      await pty.shows(/^> {3}prod-us/m);
      pty.type('\x1bOB');
      await pty.shows(/^> {3}staging/m);
      pty.type('\r');
      expect(await pty.ended).toBe(0);
      expect(pty.stdout).toBe('Switched to context "staging".\n');
    });
  });

  test.for([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const)('%s restores the terminal', async ([signal, status], { home }) => {
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      process.kill(pty.pid, signal);
      expect(await pty.ended).toBe(status);
      expectRestored(pty);
      expect(pty.screen.text()).toBe('');
    });
  });

  test('redraws after a stop and a continue, and accepts keys again', async ({ home }) => {
    await onTerminal(home, {}, async (pty) => {
      await pty.shows(ready);
      process.kill(pty.pid, 'SIGSTOP');
      // As a shell does with its prompt.
      pty.screen.write('\x1b[?1049l');
      const before = pty.raw.length;
      process.kill(pty.pid, 'SIGCONT');
      await pty.wrote(/\x1b\[\?1049h.*Esc to leave/s, before);
      expect(pty.screen).toMatchObject({ alternate: true, row: 0 });
      pty.type('stag');
      await pty.shows(/^> {3}staging/m);
      pty.type('\r');
      expect(await pty.ended).toBe(0);
      expectRestored(pty);
    });
  });

  test('restores the terminal on a crash, and prints the error on the normal screen', async ({ home }) => {
    // Loaded into the program: throws at a key.
    const crash = `${home.root}/crash.cjs`;
    home.write(
      crash,
      `process.stdin.on('keypress', (_, key) => { if (key.name === 'z') throw new Error('broken'); });`,
    );
    await onTerminal(home, { env: { TKA_NODE_OPTIONS: `--require "${crash}"` } }, async (pty) => {
      await pty.shows(ready);
      pty.type('z');
      expect(await pty.ended).toBe(1);
      expectRestored(pty);
      expect(pty.screen.text()).toMatch(/^error: unexpected: broken\nhint: /);
    });
  });

  test('fits the window, and follows its changes', async ({ home, us }) => {
    us.faults.memberlist = {
      raw: rows(Array.from({ length: 300 }, (_, i) => `cluster-${String(i).padStart(3, '0')}`)),
    };
    await onTerminal(home, { rows: 10, columns: 60 }, async (pty) => {
      await pty.shows(ready);
      expect(pty.screen.lines()).toHaveLength(10);
      expect(pty.screen.lines()[8]).toMatch(/^ {4}cluster-007 +healthy +number=7,city=Bonn$/);
      pty.type('\x1b[6~');
      await pty.shows(/^> {3}cluster-008 /m);
      pty.resize(6, 24);
      await pty.shows((screen) => screen.lines()[5]?.startsWith('300 - type') === true);
      expect(pty.screen.lines()).toEqual(
        [
          'Cluster:',
          '    cluster-005   he…',
          '    cluster-006   he…',
          '    cluster-007   he…',
          '>   cluster-008   he…',
          '300 - type to filter, …',
        ].map((line) => expect.stringContaining(line.slice(0, 12))),
      );
      expect(selected(pty)).toMatch(/cluster-008/);
      pty.resize(30, 100);
      // stty changes rows and columns one after the other, and the picker may draw between them.
      await pty.shows(/^> {3}cluster-008 +healthy +number=8,city=Bonn$/m);
      expect(pty.screen.lines()[29]).toMatch(/^300 - type/);
      expect(pty.screen.scrolled).toBe(0);
      pty.type('\x03');
      expect(await pty.ended).toBe(130);
    });
  });

  test('shows and filters 10,000 clusters quickly, wide names among them', async ({ home, us }) => {
    const names = Array.from({ length: 10_000 }, (_, i) => `cluster-${i}`);
    us.faults.memberlist = { raw: rows(names) };
    await onTerminal(home, { rows: 20, columns: 70 }, async (pty) => {
      await pty.shows(ready);
      const started = performance.now();
      pty.type('number=70');
      await pty.shows(/^\d+ of 10000 - /m);
      pty.type('\x15東京');
      await pty.shows(/^10 of 10000 - /m);
      expect(performance.now() - started).toBeLessThan(3000);
      const lines = pty.screen.lines().slice(1, 11);
      expect(lines[0]).toMatch(/^> {3}cluster-0 +healthy +number=0,city=東京都$/);
      for (const line of lines) expect(line).toMatch(/city=東京都$/);
      // Wide characters are not cut in half.
      pty.resize(20, 47);
      await pty.shows((screen) => /city=東…$/.test(screen.lines()[1] ?? ''));
      pty.type('\x03');
      expect(await pty.ended).toBe(130);
    });
  });

  test('prints the list without a picker on a dumb terminal', async ({ home }) => {
    await onTerminal(home, { env: { TERM: 'dumb' } }, async (pty) => {
      expect(await pty.ended).toBe(2);
      expect(pty.raw).not.toContain('\x1b');
      expect(pty.screen.text()).toMatch(
        /^error: a cluster name is required: .*\nhint: prod-eu \(healthy\)\nhint: prod-us/,
      );
    });
  });

  test('no colours with NO_COLOR', async ({ home }) => {
    await onTerminal(home, { env: { NO_COLOR: '1' } }, async (pty) => {
      await pty.shows(ready);
      pty.type('\x1b[B');
      await pty.shows(/^> {3}prod-us/m);
      pty.type('us');
      await pty.shows(/^Cluster: us$/m);
      expect(pty.raw).not.toMatch(/\x1b\[[0-9;]+m/);
      pty.type('\r');
      expect(await pty.ended).toBe(0);
    });
  });

  test('reports a cluster that cannot be used on the normal screen', async ({ home, us }) => {
    us.faults.clusterInfo = { server_url: 'https://127.0.0.1:1' };
    await onTerminal(home, { columns: 200 }, async (pty) => {
      await pty.shows(ready);
      pty.type('prod-us\r');
      expect(await pty.ended).toBe(1);
      expect(pty.screen.text()).toMatch(/^error: \S+ is not the TKA server of prod-us/);
      expect(pty.stdout).toBe('');
    });
    expect(fs.existsSync(home.kubeconfig)).toBe(false);
  });
});
