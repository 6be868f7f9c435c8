import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { testFolder } from '../fixtures/temporary.ts';

interface Row {
  readonly name?: string;
  readonly cluster: string;
  readonly through?: string;
}

const fileOf = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const built = existsSync(fileOf('dist/kubectl-tka'));

// A separate temporary folder, which shows what a program leaves behind.
let tmp: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  tmp = testFolder();
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Starts a program of the sandbox; `shown` waits until its output matches. */
function start(program: string, env: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [fileOf(`src/sandbox/${program}`)], {
    env: { ...process.env, XDG_CACHE_HOME: '/nonexistent', TKA_TAILSCALE_PORT: '1', TMPDIR: tmp, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
      child.emit('output');
    });
  }
  return {
    child,
    output: () => output,
    closed: once(child, 'close'),
    async shown(pattern: RegExp): Promise<RegExpExecArray> {
      for (;;) {
        const match = pattern.exec(output);
        if (match !== null) return match;
        await once(child, 'output', { signal: AbortSignal.timeout(10_000) });
      }
    },
  };
}

test.each(['SIGINT', 'SIGTERM'] as const)('npm run sandbox runs until %s and leaves nothing behind', async (signal) => {
  const { child, output, shown, closed } = start('keep.ts');
  await shown(/Ctrl-C/);
  expect(output()).toMatch(/STAND-IN/);
  expect(output()).toMatch(/^unset XDG_CACHE_HOME$/m);
  expect(output()).toMatch(/^unset TKA_TAILSCALE_PORT$/m);
  const server = (await shown(/^export TKA_TAILSCALE_HOSTNAME='(.*)'$/m))[1];
  const home = (await shown(/^export HOME='(.*)'$/m))[1] ?? '';
  // The other folder has the certificate of the login server.
  const folders = readdirSync(tmp).filter((name) => !name.startsWith('tka-login-server-'));
  expect(folders.map((name) => join(tmp, name))).toEqual([home]);
  const members = (await (await fetch(`${server}/api/v1alpha1/memberlist`)).json()) as readonly Row[];
  expect(members.map(({ name, cluster, through }) => `${name ?? through} of ${cluster}`)).toEqual([
    'prod-us of prod-us',
    'prod-eu of prod-eu',
    'staging of staging',
    'prod-us-1 of prod-us',
    'prod-eu of edge',
  ]);
  child.kill(signal);
  expect(await closed).toEqual([0, null]);
  expect(readdirSync(tmp)).toEqual([]);
});

describe.skipIf(!built)('npm run demo (needs npm run build)', () => {
  test.each([
    ['with kubectl, if installed', {}],
    ['without kubectl', { TKA_DEMO_NO_KUBECTL: '1' }],
  ])('%s', async (_, env) => {
    const { output, closed } = start('demo.ts', env);
    const [code] = await closed;
    expect(output()).toMatch(/# Every step did what it should/);
    // One row for two servers.
    expect(output().match(/^ *prod-us +healthy /gm)).toHaveLength(1);
    expect(code).toBe(0);
    expect(readdirSync(tmp)).toEqual([]);
  });

  test('interrupted', async () => {
    const { child, shown, closed } = start('demo.ts');
    await shown(/tka clusters/);
    child.kill('SIGINT');
    expect(await closed).toEqual([130, null]);
    expect(readdirSync(tmp)).toEqual([]);
  });
});
