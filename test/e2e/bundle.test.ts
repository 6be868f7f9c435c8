// What the built program loads: on the cached path only node:fs and node:path.

import * as fs from 'node:fs';
import * as module from 'node:module';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import type { Home } from '../fixtures/home.ts';
import { test } from '../fixtures/mesh.ts';
import { bundle, hooked, type Ran, start } from '../fixtures/program.ts';

interface Loaded {
  /** Modules as named by require and import. */
  readonly asked: readonly string[];
  /** Modules that Node itself loaded: `NativeModule internal/fs/utils`. */
  readonly internal: readonly string[];
}

/** Runs a script with the bundle's Node, and returns what it loaded. */
async function load(home: Home, script: string, args: readonly string[]): Promise<Loaded & { ran: Ran }> {
  const record = path.join(home.root, 'record.json');
  const env = { ...home.env, ...hooked('record', record) };
  const ran = await start('/bin/sh', ['-c', '"$@"; exit $?', 'sh', bundle.node, script, ...args], env).ran;
  const { asked, ...loaded } = JSON.parse(fs.readFileSync(record, 'utf8'));
  return { ...loaded, asked: [...new Set(asked)], ran };
}

const plainScript = `
const fs = require('node:fs');
const path = require('node:path');
const file = path.join(__dirname, 'plain.txt');
const out = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_TRUNC, 0o600);
fs.writeSync(out, String(process.ppid));
fs.closeSync(out);
const fd = fs.openSync(file, fs.constants.O_RDONLY);
const bytes = Buffer.alloc(fs.fstatSync(fd).size);
fs.readSync(fd, bytes, 0, bytes.length, 0);
fs.closeSync(fd);
fs.writeSync(1, JSON.stringify({ text: bytes.toString('latin1') }));
`;

const argsFor = ({ server, apiServer }: SandboxCluster) => [
  'credential',
  '--server',
  server,
  '--api-server',
  apiServer,
];

describe('the bundle', () => {
  const script = bundle.script;

  test('the cached path requests node:fs and node:path, and Node loads only what they need', async ({ home, us }) => {
    const plain = path.join(home.root, 'plain.cjs');
    // Reads and writes files in the same way, with nothing else.
    fs.writeFileSync(plain, plainScript);
    await home.run('login prod-us');
    us.resetCounts();
    const hit = await load(home, script, argsFor(us));
    expect(hit.ran).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(hit.ran.stdout).status.token).toBe(home.token(us));
    expect(hit.asked).toEqual([script, 'node:fs', 'node:path']);
    const bare = await load(home, plain, []);
    // Parts of node:fs itself are loaded on first use.
    const more = hit.internal.filter((name) => !bare.internal.includes(name) && !/ (?:internal\/fs\/|fs_)/.test(name));
    expect(more).toEqual([]);
    expect(us.requests).toEqual([]);
  });

  test.for<[string, (home: Home, us: SandboxCluster) => unknown]>([
    ['a miss', (home) => fs.rmSync(home.cache, { recursive: true })],
    ['a stale entry', (home, us) => fs.utimesSync(home.entry(us), 1, 1)],
  ])('%s loads more', async ([, spoil], { home, us }) => {
    await home.run('login prod-us');
    spoil(home, us);
    const miss = await load(home, script, argsFor(us));
    expect(miss.ran).toMatchObject({ status: 0, stderr: '' });
    expect(miss.asked.slice(0, 4)).toEqual([script, 'node:fs', 'node:path', 'node:vm']);
    expect(miss.asked).toContain('node:net');
  });

  test('version, help and TAB load nothing of the other commands, and a sign-in over plain http no cryptography', async ({
    home,
    us,
  }) => {
    const heavy = ['child_process', 'crypto', 'http', 'http2', 'internal/deps/undici/undici', 'net', 'stream', 'tls'];
    const loaded = async (...args: readonly string[]) => {
      const { ran, internal } = await load(home, script, args);
      expect(ran).toMatchObject({ status: 0, stderr: '' });
      return heavy.filter((name) => internal.includes(`NativeModule ${name}`));
    };
    expect(await loaded('version')).toEqual([]);
    expect(await loaded('--help')).toEqual([]);
    expect(await loaded('login', '--help')).toEqual([]);
    await home.run('clusters');
    expect(await loaded('__complete', 'login', '')).toEqual([]);
    expect(await loaded(...argsFor(us))).toEqual(['http', 'net', 'stream']);
  });

  test('only the picker has the prompt library', () => {
    const parts = fs.readFileSync(script, 'utf8').split('\n');
    const names = parts.filter((part) => part.includes('[Inquirer]')).map((part) => /^"([a-z-]+)-/.exec(part)?.[1]);
    expect(names).toEqual(['picker-prompt']);
  });

  test('an end before an answer is a failure, not an empty token', async ({ home, us }) => {
    const env = { ...home.env, ...hooked('no-answer') };
    const ran = await start(bundle?.node ?? '', [script, ...argsFor(us)], env).ran;
    expect(ran).toMatchObject({ status: 1, stdout: '' });
  });

  test('it is one file: nothing beside it is loaded', async ({ home, us }) => {
    const alone = path.join(home.root, 'alone.cjs');
    fs.copyFileSync(script, alone);
    for (const args of [['version'], ['login', 'prod-us'], ['clusters', '-o', 'yaml'], argsFor(us)]) {
      const { ran, asked } = await load(home, alone, args);
      expect(ran).toMatchObject({ status: 0, stderr: '' });
      expect(asked.filter((name) => name !== alone && !module.isBuiltin(name))).toEqual([]);
    }
  });
});
