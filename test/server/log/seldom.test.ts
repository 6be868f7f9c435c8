import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Log } from '../../../src/server/log/log.ts';
import { Seldom, seldom } from '../../../src/server/log/log.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

test('what happens again and again counts once a minute, or when it has happened often enough', () => {
  const seen = new Seldom();
  expect([1, 2, 3].map(() => seen.is('a'))).toEqual([true, false, false]);
  expect([1, 2, 3, 4].map(() => seen.is('b', 3))).toEqual([false, false, true, false]);
  vi.advanceTimersByTime(61_000);
  expect([1, 2].map(() => seen.is('a'))).toEqual([true, false]);
});

test('it remembers so many things, and says nothing of more', () => {
  const seen = new Seldom(2);
  expect(['a', 'b', 'c', 'c', 'a'].map((what) => seen.is(what))).toEqual([true, true, false, false, false]);
});

test('a log: warnings and errors once a minute by message, error and name; the rest always', () => {
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
