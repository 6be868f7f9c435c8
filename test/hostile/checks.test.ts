// Tests of the checks: each must fail when it should, or the tables prove nothing.
import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Home } from '../fixtures/home.ts';
import {
  checkClusterRows,
  checkCredential,
  checkFailure,
  checkFiles,
  checkKubeconfigText,
  checkPlain,
  checkStderr,
  checkTable,
} from './checks.ts';
import { bystanderKubeconfig, makeToken } from './fixture.ts';
import { damagedJson, damagedText, evilTexts, seeded } from './junk.ts';

describe('stderr', () => {
  test.each([
    '',
    'error: http://127.0.0.1:1 refused the sign-in: No (HTTP 403)\nhint: Ask somebody\n',
    'error: invalid TKA_TIMEOUT="x": must be a duration of up to an hour\n',
    'error: bad configuration: /a/b.yaml:1: debug must be true or false\nerror: bad configuration: /a/b.yaml:2: x\n',
    'warning: the token cache cannot be written\n',
    'no clusters found\n',
    'Prod-us: no server says that it is this cluster’s\n',
  ])('%j is good', (text) => checkStderr(text));

  test.each([
    'error: x',
    'Error: x\n',
    'error: Cannot read x\n',
    'error: x\nerror: y\n',
    'error: x\n\n',
    'error: x\n    at main (file.ts:1:1)\n',
    'error: unexpected: Invalid time value\n',
    'error: [object Object]\n',
    'error: until undefined\n',
    'error: in NaN s\n',
    'error: \u001b[31mx\n',
    'error: a\u009bb\n',
    'error: a\u202eb\n',
    'error: a\u200bb\n',
    'error: a\tb\n',
    'error: a\rb\n',
    `hint: ${makeToken()}\n`,
    '(node:1) Warning: x\n',
    'TypeError: x\n',
    'warning:\n',
    `error: ${'x'.repeat(10_000)}\n`,
    'hint: x\n'.repeat(100),
  ])('%j is bad', (text) => {
    expect(() => checkStderr(text)).toThrow();
  });
});

test('finds every hostile text that a terminal would obey', () => {
  const plain = Object.values(evilTexts).filter((text) => {
    try {
      checkPlain(text, 'it');
      return true;
    } catch {
      return false;
    }
  });
  expect(
    plain.filter((text) => /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e]/.test(text)),
  ).toEqual([]);
  expect(plain.length).toBeGreaterThan(10);
});

describe('stdout', () => {
  const credential = (status: object, more = '') => ({
    status: 0,
    stderr: '',
    stdout: `${JSON.stringify({ kind: 'ExecCredential', apiVersion: 'client.authentication.k8s.io/v1', status })}\n${more}`,
  });
  const token = makeToken();
  const expirationTimestamp = '2099-01-01T00:00:00Z';

  test('a credential', () => {
    expect(checkCredential(credential({ token, expirationTimestamp }))).toBe(token);
    for (const bad of [
      credential({ token, expirationTimestamp }, '\n'),
      credential({ token, expirationTimestamp, clientKeyData: 'x' }),
      credential({ token: '', expirationTimestamp }),
      credential({ token: `${token}\n`, expirationTimestamp }),
      credential({ token, expirationTimestamp: '2020-01-01T00:00:00Z' }),
      credential({ token, expirationTimestamp: 'soon' }),
      { ...credential({ token, expirationTimestamp }), status: 1 },
      { status: 0, stdout: '', stderr: '' },
    ])
      expect(() => checkCredential(bad)).toThrow();
  });

  test('a failure', () => {
    checkFailure({ status: 1, stdout: '', stderr: 'error: x\nhint: y\n' });
    expect(() => checkFailure({ status: 1, stdout: '', stderr: 'error: x\n' })).toThrow();
    expect(() => checkFailure({ status: 0, stdout: '', stderr: 'error: x\nhint: y\n' })).toThrow();
    expect(() => checkFailure({ status: 2, stdout: '', stderr: 'error: x\nhint: y\n' })).toThrow();
    expect(() => checkFailure({ status: 1, stdout: '{}', stderr: 'error: x\nhint: y\n' })).toThrow();
    expect(() => checkFailure({ status: 1, stdout: '', stderr: 'warning: x\n' })).toThrow();
  });

  const row = {
    name: 'a',
    server: 'https://a.example',
    through: null,
    apiEndpoint: 'https://k.example:6443',
    state: 'healthy',
    reason: null,
    lastSeen: null,
    labels: {},
    context: null,
    session: null,
    servers: [{ name: 'a', server: 'https://a.example', state: 'healthy' }],
  };
  test('rows of clusters', () => {
    expect(checkClusterRows(JSON.stringify([row]))).toHaveLength(1);
    for (const bad of [
      { ...row, name: 'a b' },
      { ...row, name: '../a' },
      { ...row, name: '' },
      { ...row, through: 'hub' },
      { ...row, server: 'https://a.example/' },
      { ...row, server: 'javascript:alert(1)' },
      { ...row, apiEndpoint: 'http://k.example' },
      { ...row, apiEndpoint: null },
      { ...row, state: 'fine' },
      { ...row, lastSeen: 'now' },
      { ...row, labels: null },
      { ...row, labels: { a: 1 } },
      { ...row, labels: { a: 'b\u001b' } },
      { ...row, labels: { 'a\u202e': 'b' } },
      { ...row, labels: { a: '\ud800' } },
      { ...row, more: 1 },
      null,
    ])
      expect(() => checkClusterRows(JSON.stringify([bad]))).toThrow();
  });

  test('a table', () => {
    checkTable('NAME   X\na      b\n', /^NAME/, 1);
    expect(() => checkTable('NAME   X\na\nb\n', /^NAME/, 1)).toThrow();
    expect(() => checkTable('NAME   X\na', /^NAME/, 1)).toThrow();
    expect(() => checkTable('', /^NAME/, 1)).toThrow();
  });
});

describe('files', () => {
  test('reports changed, new, removed and leftover files', async () => {
    using home = new Home('http://127.0.0.1:1');
    home.write(home.kubeconfig, bystanderKubeconfig);
    const before = home.files();
    const once = (act: () => void) => {
      act();
      return home.files();
    };
    checkFiles(before, home.files(), []);
    const added = once(() => home.write(`${home.kubeconfig}.lock`, ''));
    expect(() => checkFiles(before, added, [])).toThrow(/nobody may touch/);
    expect(() => checkFiles(before, added, [/^\.kube\//])).toThrow(/left behind/);
    fs.rmSync(`${home.kubeconfig}.lock`);
    const changed = once(() => fs.appendFileSync(home.kubeconfig, ' '));
    expect(() => checkFiles(before, changed, [/config\.yaml$/])).toThrow(/nobody may touch/);
    checkFiles(before, changed, [/^\.kube\/config$/]);
    const gone = once(() => fs.rmSync(home.kubeconfig));
    expect(() => checkFiles(before, gone, [])).toThrow(/nobody may touch/);
    const mode = once(() => fs.chmodSync(home.config, 0o644));
    expect(() => checkFiles(before, mode, [/^\.kube\/config$/])).toThrow(/nobody may touch/);
  });

  test('a kubeconfig', () => {
    const good = bystanderKubeconfig;
    checkKubeconfigText(good);
    for (const [from, to] of [
      ['command: /bin/true', 'command: true'],
      ['interactiveMode: Never', 'interactiveMode: Always'],
      ['args: [credential', 'args: [evil'],
      ['      installHint', '      env: [{name: A, value: b}]\n      installHint'],
      ['    server: https://127.0.0.99:6443', '    server: http://127.0.0.99:6443'],
      [
        '    server: https://127.0.0.99:6443',
        '    server: https://127.0.0.99:6443\n    proxy-url: http://evil.example',
      ],
      ['    server: https://127.0.0.99:6443', '    server: https://127.0.0.99:6443\n    tls-server-name: evil.example'],
      [
        '    server: https://127.0.0.99:6443',
        '    server: https://127.0.0.99:6443\n    certificate-authority: /etc/passwd',
      ],
      [
        '    server: https://127.0.0.99:6443',
        '    server: https://127.0.0.99:6443\n    certificate-authority-data: eA==',
      ],
      ['    user: elsewhere', '    user: elsewhere\n    namespace: kube-system'],
      ['  name: elsewhere\ncurrent-context', '  name: "a\\e[31m"\ncurrent-context'],
      ['not-a-real-one', makeToken()],
    ] as const) {
      assert.ok(good.includes(from), from);
      expect(() => checkKubeconfigText(good.replace(from, to)), to).toThrow();
    }
  });
});

test('random damage is the same for the same seed, and does damage', () => {
  const good = [{ a: { b: ['c'] } }, 7];
  const damage = (seed: number) => damagedJson(good, seeded(seed)) + damagedText('some text', seeded(seed));
  expect(damage(1)).toBe(damage(1));
  const all = Array.from({ length: 100 }, (_, i) => damage(i));
  expect(new Set(all).size).toBeGreaterThan(80);
  expect(all.filter((text) => text.startsWith(JSON.stringify(good))).length).toBeLessThan(10);
});
