import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, it } from 'vitest';
import { AcceptedServers } from '../../src/discovery/server-marks.ts';
import { testFolder } from '../fixtures/temporary.ts';

const laptop = 'http://laptop.example.ts.net';

it('keeps accepted servers in files of its own, and forgets them', () => {
  const state = path.join(testFolder(), 'state');
  const accepted = new AcceptedServers(state);
  expect(accepted.has(laptop)).toBe(false);
  accepted.add(laptop);
  accepted.add(laptop);
  expect(new AcceptedServers(state).has(laptop)).toBe(true);
  expect(accepted.has('https://laptop.example.ts.net')).toBe(false);
  const file = path.join(state, 'accepted', 'http+laptop.example.ts.net');
  if (process.platform !== 'win32') {
    expect(fs.statSync(file).mode & 0o777).toBe(0o600);
    expect(fs.statSync(path.dirname(file)).mode & 0o777).toBe(0o700);
  }
  accepted.remove(laptop);
  accepted.remove(laptop);
  expect(accepted.has(laptop)).toBe(false);
  expect(new AcceptedServers(undefined).has(laptop)).toBe(false);
});
