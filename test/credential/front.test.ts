// Runs the front (cmd/kubectl-tka.sh) under every shell of this machine and the program's own cached path, both against
// one table of cases. Without a usable entry both hand over to the program; here a stand-in prints how it was called.
import fsItself, * as fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import * as path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { execCredential } from '../../src/credential/entry.ts';
import { serveCached } from '../../src/credential/fast.ts';
import { api, type Call, type Case, cases, entry, whole } from './cases.ts';
import { cwd, environment, fixture, front, home, makeHome, missing, run, shells, usual } from './shells.ts';

/** Returns what the program's own cached path prints; undefined if it hands over. */
function program(call: Call): string | undefined {
  let printed = '';
  const write = fsItself.writeSync;
  vi.spyOn(fsItself, 'writeSync').mockImplementation(((fd: number, data: Buffer, ...rest: []) => {
    if (fd !== 1) return write(fd, data, ...rest);
    printed += data.toString();
    return data.length;
  }) as typeof fs.writeSync);
  vi.spyOn(process, 'cwd').mockReturnValue(cwd);
  syncBuiltinESMExports();
  try {
    return serveCached(call.args ?? usual, environment(call), process.pid) ? printed : undefined;
  } finally {
    vi.restoreAllMocks();
    syncBuiltinESMExports();
  }
}

/** Everything under HOME except the served notes. */
function files(): string[] {
  const all = fs.readdirSync(home, { recursive: true, encoding: 'utf8' }).filter((name) => !/\+served$/.test(name));
  return all.sort().map((name) => {
    const { mode, size } = fs.lstatSync(path.join(home, name));
    const text =
      (mode & fs.constants.S_IFMT) === fs.constants.S_IFREG ? fs.readFileSync(path.join(home, name), 'latin1') : '';
    return `${name} ${mode} ${size} ${text.slice(0, 5000)}`;
  });
}

const handedOver = (call: Call) => ['--started-as', front, ...(call.args ?? usual), ''].join('\0');

const callOf = (arranged: unknown): Call => (typeof arranged === 'object' && arranged !== null ? arranged : {});

const printed = new Map<string, string | undefined>();
/** Returns what the program prints for a case. */
function byProgram({ name, arrange }: Case): string | undefined {
  if (!printed.has(name)) {
    printed.set(name, program(callOf(arrange(fixture))));
    makeHome();
  }
  return printed.get(name);
}

const table = cases.filter(({ skip }) => skip !== true).map((one) => [one.name, one] as const);

it('all cases have different names', () => expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length));

describe('the program', () => {
  it.each(table)('%s', (_, one) => {
    expect(byProgram(one) !== undefined).toBe(one.served !== false && one.served !== 'front');
  });
});

for (const shell of shells) {
  describe.skipIf(missing(shell))(`the front under ${shell.name}${missing(shell)}`, () => {
    it.each(table)('%s', (_, one) => {
      const expected = one.served === 'front' ? execCredential(`${api}v1`, entry) : byProgram(one);
      const call = callOf(one.arrange(fixture));
      const before = files();
      const ran = run(shell, call);
      expect(ran).toMatchObject({ status: 0, signal: null, stderr: '' });
      const answers = {
        true: [expected],
        front: [expected],
        either: [expected, handedOver(call)],
        program: [handedOver(call)],
        false: [handedOver(call)],
      };
      expect(ran.stdout).toBeOneOf(answers[`${one.served}`]);
      expect(files()).toEqual(before);
    });

    it('judges randomly damaged entries as the program does', () => {
      let seed = 7;
      const random = (n: number) => {
        seed = (seed * 48271) % 2147483647;
        return seed % n;
      };
      let served = 0;
      for (let i = 0; i < 60; i++) {
        let bytes = Buffer.from(whole);
        for (let times = random(3); times >= 0; times--) {
          const at = random(2) === 0 ? random(110) : random(bytes.length);
          // Not NUL: shells skip it in different ways.
          const byte = Buffer.from([1 + random(255)]);
          bytes = Buffer.concat([bytes.subarray(0, at), byte, bytes.subarray(at + random(3))]);
        }
        fixture.put(bytes);
        const expected = program({});
        fs.rmSync(`${fixture.file}+served`, { force: true });
        const ran = run(shell);
        if (expected !== undefined) served++;
        expect([bytes.toString('latin1'), ran.stdout]).toEqual([bytes.toString('latin1'), expected ?? handedOver({})]);
        expect(ran).toMatchObject({ status: 0, stderr: '' });
        makeHome();
      }
      expect(served).toBeLessThan(60);
    });
  });
}
