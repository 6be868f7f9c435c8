import { execFile } from 'node:child_process';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { KubeError } from '../../../src/server/kubernetes/errors.ts';
import { type Log, loggedError, Seldom, seldom } from '../../../src/server/log/log.ts';
import { TkaError } from '../../../src/util/errors.ts';

const system = Object.assign(new Error('connect ENOENT /x'), { code: 'ENOENT' });

test.each<[name: string, error: unknown, told: object]>([
  [
    'one for people',
    new TkaError('no such thing', { hints: ['try x'] }),
    { message: 'no such thing', hints: ['try x'] },
  ],
  ['its causes', new TkaError('no tailscaled', { cause: system }), { message: 'no tailscaled: connect ENOENT /x' }],
  ['the cluster’s', new KubeError('forbidden', 403), { type: 'KubeError', message: 'forbidden', status: 403 }],
  ['an unreachable cluster', new KubeError('Get "https://x"', undefined, system), { type: 'KubeError' }],
  ['the system’s', system, { message: 'connect ENOENT /x', code: 'ENOENT' }],
])('%s is logged without a stack, except with debug', (_, error, told) => {
  expect(loggedError(error, false)).toMatchObject(told);
  expect(loggedError(error, false)).not.toHaveProperty('stack');
  expect(loggedError(error, true)).toMatchObject({ stack: expect.stringContaining('log.test.ts') });
});

test.each([new Error('x'), new TypeError('x')])('a bug is logged with its stack: %s', (error) => {
  expect(loggedError(error, false)).toMatchObject({ message: 'x', stack: expect.stringContaining('log.test.ts') });
});

test('lines contain no token, and each is whole when the process exits', async () => {
  const source = path.join(import.meta.dirname, '../../../src/server/log/log.ts');
  const script = `
    const { openLog } = await import(${JSON.stringify(source)});
    openLog({ debug: false, name: 'tka' }).info({ a: 'Bearer eyJhbGciOiJ.eyJpc3MiOiJ.c2ln' }, 'token eyJhbGciOiJSUzI1NiJ9.x.y');
    process.exit(0);
  `;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  expect(stdout).toBe('');
  expect(JSON.parse(stderr)).toMatchObject({
    level: 'info',
    server: 'tka',
    a: 'Bearer [redacted token]',
    msg: 'token [redacted token]',
  });
});

describe('Seldom', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['performance'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test('counts a repeated event once a minute, or after it has happened often enough', () => {
    const seen = new Seldom();
    expect([1, 2, 3].map(() => seen.is('a'))).toEqual([true, false, false]);
    expect([1, 2, 3, 4].map(() => seen.is('b', 3))).toEqual([false, false, true, false]);
    vi.advanceTimersByTime(61_000);
    expect([1, 2].map(() => seen.is('a'))).toEqual([true, false]);
  });

  test('remembers a limited number of events, and ignores more', () => {
    const seen = new Seldom(2);
    expect(['a', 'b', 'c', 'c', 'a'].map((what) => seen.is(what))).toEqual([true, true, false, false, false]);
  });

  test('logs warnings and errors once a minute by message, error and name; other lines always', () => {
    const lines: string[] = [];
    const to = (level: string) => (fields: Readonly<Record<string, unknown>>, message: string) =>
      void lines.push([level, message, (fields.err as Error | undefined)?.message, fields.name].join(' ').trim());
    const log: Log = seldom({ debug: to('debug'), info: to('info'), warn: to('warn'), error: to('error') });
    const say = () => {
      log.warn({ err: new Error('x'), retryMs: lines.length }, 'broke');
      log.warn({ err: new Error('y') }, 'broke');
      log.error({ err: new Error('x'), name: 'tka-user-alice' }, 'broke');
      log.error({ err: new Error('x'), name: 'tka-user-bob' }, 'broke');
      log.info({}, 'request');
      log.debug({}, 'story');
    };
    say();
    say();
    const rest = ['info request', 'debug story'];
    const once = ['warn broke x', 'warn broke y', 'error broke x tka-user-alice', 'error broke x tka-user-bob'];
    expect(lines).toEqual([...once, ...rest, ...rest]);
    vi.advanceTimersByTime(61_000);
    say();
    expect(lines.slice(8)).toEqual([...once, ...rest]);
  });
});
