import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { AcceptedServers, AwayServers } from '../../src/discovery/server-marks.ts';
import { testFolder } from '../fixtures/temporary.ts';

const server = 'https://tka.example.ts.net';
let folder: string;
beforeEach(() => {
  folder = testFolder();
});

const file = () => path.join(folder, 'away', 'https+tka.example.ts.net');

it('remembers for a minute, across processes, that a server did not answer', () => {
  new AwayServers(folder).note(server, 'failed');
  const later = new AwayServers(folder);
  expect(later.has(server)).toBe('failed');
  expect(later.has('https://other.example.ts.net')).toBeUndefined();
  expect(fs.statSync(file()).mode & 0o777).toBe(0o600);
  const at = Date.now() / 1000;
  fs.utimesSync(file(), at, at - 59);
  expect(later.has(server)).toBe('failed');
  for (const long of [at - 61, at + 3600]) {
    fs.utimesSync(file(), at, long);
    expect(later.has(server)).toBeUndefined();
  }
  later.note(server, 'silent');
  expect(later.has(server)).toBe('silent');
});

it('forgets the mark when the server answers', () => {
  const servers = new AwayServers(folder);
  servers.clear(server);
  servers.note(server, 'silent');
  servers.clear(server);
  expect(servers.has(server)).toBeUndefined();
  expect(fs.existsSync(file())).toBe(false);
});

it('works without a folder, and if it cannot write', () => {
  for (const state of [undefined, path.join(folder, 'file')]) {
    if (state !== undefined) fs.writeFileSync(state, '');
    const servers = new AwayServers(state);
    servers.note(server, 'silent');
    servers.clear(server);
    expect(servers.has(server)).toBeUndefined();
  }
});

const laptop = 'http://laptop.example.ts.net';

it('stores accepted servers in separate files, and forgets them', () => {
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
