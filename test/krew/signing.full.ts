// Compares our macOS signature with that of rcodesign (the crate apple-codesign), which cargo builds once.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { makeExecutable } from '../../krew/executable.ts';
import { targets } from '../../krew/targets.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { onPath } from './packages.ts';

const crate = ['apple-codesign', '--version', '0.29.0', '--locked'];
const folder = path.join(os.homedir(), '.cache', 'tka-rcodesign-0.29.0');

function rcodesign(): string {
  const program = path.join(folder, 'bin', 'rcodesign');
  if (!fs.existsSync(program)) execFileSync('cargo', ['install', ...crate, '--root', folder], { stdio: 'ignore' });
  return program;
}

/** Returns the signature of an executable. */
function signature(macho: Buffer): Buffer {
  let command = 32;
  while (macho.readUInt32LE(command) !== 0x1d) command += macho.readUInt32LE(command + 4);
  const at = macho.readUInt32LE(command + 8);
  return macho.subarray(at, at + macho.readUInt32BE(at + 4));
}

const able = fs.existsSync(folder) || onPath('cargo');

describe.skipIf(!able)(`a signature${able ? '' : ' (skipped: no cargo)'}`, () => {
  it.for(targets.filter(({ os }) => os === 'darwin'))('for $name is the same as rcodesign’s', async (target) => {
    const made = testFolder('tka-krew-');
    const [ours, theirs] = [path.join(made, 'ours'), path.join(made, 'theirs')] as const;
    await makeExecutable(target, 'process.exit(0)', ours);
    execFileSync(rcodesign(), ['sign', '--binary-identifier', 'kubectl-tka', ours, theirs], { stdio: 'ignore' });
    const [own, other] = [ours, theirs].map((file) => Buffer.from(signature(fs.readFileSync(file)))) as [
      Buffer,
      Buffer,
    ];
    // The first page has the load command with the space reserved for the signature; rcodesign reserves more.
    for (const each of [own, other]) {
      const directory = each.readUInt32BE(16);
      const firstPage = directory + each.readUInt32BE(directory + 16);
      each.fill(0, firstPage, firstPage + 32);
    }
    expect(own.equals(other)).toBe(true);
  });
});
