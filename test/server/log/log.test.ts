import { execFile } from 'node:child_process';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { KubeError } from '../../../src/server/kubernetes/errors.ts';
import { toldOf } from '../../../src/server/log/log.ts';
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
  ['the cluster’s that is away', new KubeError('Get "https://x"', undefined, system), { type: 'KubeError' }],
  ['the system’s', system, { message: 'connect ENOENT /x', code: 'ENOENT' }],
])('%s is told without where it came from, but with debug', (_, error, told) => {
  expect(toldOf(error, false)).toMatchObject(told);
  expect(toldOf(error, false)).not.toHaveProperty('stack');
  expect(toldOf(error, true)).toMatchObject({ stack: expect.stringContaining('log.test.ts') });
});

test.each([new Error('x'), new TypeError('x')])('a mistake is told with where it is: %s', (error) => {
  expect(toldOf(error, false)).toMatchObject({ message: 'x', stack: expect.stringContaining('log.test.ts') });
});

test('no line holds a token, and each is whole when the process ends', async () => {
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
