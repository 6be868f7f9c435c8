import { createRequire } from 'node:module';
import * as undici from 'undici';
import { expect, it } from 'vitest';
import { UndiciClient } from '../../src/network/undici.ts';

it('is the Client of the undici that is installed', () => {
  expect(UndiciClient).toBe(undici.Client);
});

it('is made whole as by the index of the undici that it was written for', () => {
  const { version } = createRequire(import.meta.url)('undici/package.json');
  expect(version, 'another undici: compare src/network/undici.ts with its index.js, then change this').toBe('8.12.4');
  for (const call of ['request', 'stream', 'pipeline', 'upgrade', 'connect'] as const) {
    expect(UndiciClient.prototype[call]).toBeTypeOf('function');
  }
});
