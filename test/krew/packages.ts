// The archives under test: those in TKA_RELEASE_DIR (made by `npm run package`), else one for this machine's platform.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { unzipSync } from 'fflate';
import * as tar from 'tar';
import { makePackages } from '../../krew/package.ts';
import { ownTarget, root, type Target, targets } from '../../krew/targets.ts';

export const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

/** The target of this machine. */
export const own = ownTarget() as Target;

/** Returns whether a program is on PATH. */
export const onPath = (name: string) =>
  (process.env.PATH ?? '').split(path.delimiter).some((folder) => fs.existsSync(path.join(folder, name)));

/** Whether this machine can make its own archive: the one for Linux contains libraries of Debian's packages. */
export const makesOwn = own?.os !== 'linux' || (onPath('apt-get') && onPath('dpkg-deb'));

/** Whether there are archives, or this machine can make its own. */
export const makes = Boolean(process.env.TKA_RELEASE_DIR) || makesOwn;
export const needsTools = makes ? '' : ' (skipped: no apt-get)';

/** Copies the project and its packages, without its history and build output, so that a run writes to the copy only. */
export function copyProject(to: string): void {
  const apart = /^(?:\.git|node_modules|dist|release)$/;
  fs.cpSync(root, to, {
    recursive: true,
    filter: (file) => !apart.test(path.relative(root, file).split(path.sep)[0] ?? ''),
  });
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(to, 'node_modules'), 'junction');
}

export interface Archive {
  readonly target: Target;
  readonly file: string;
}

export interface Packages {
  readonly dir: string;
  /** The path of krew's manifest. */
  readonly plugin: string;
  readonly archives: readonly Archive[];
}

export function archivesIn(dir: string): Packages {
  const all = targets.map((target) => ({ target, file: path.join(dir, archiveName(target)) }));
  return { dir, plugin: path.join(dir, 'tka.yaml'), archives: all.filter(({ file }) => fs.existsSync(file)) };
}

export function archiveName(target: Target): string {
  return `kubectl-tka-${version}-${target.name}.${target.os === 'windows' ? 'zip' : 'tar.gz'}`;
}

/** Returns the archives in TKA_RELEASE_DIR, or makes them in `dir`. */
export async function packages(dir: string): Promise<Packages> {
  if (process.env.TKA_RELEASE_DIR) {
    return archivesIn(path.resolve(process.env.TKA_RELEASE_DIR));
  }
  if (makes) await makePackages([own], dir);
  return archivesIn(dir);
}

export interface Packed {
  readonly name: string;
  readonly mode: number;
  readonly data: Buffer;
  readonly mtime: Date | undefined;
  /** User and group, as numbers and names; empty for a .zip. */
  readonly owner: string;
}

/** Returns the content of an archive, in its order. */
export async function read({ file }: Archive): Promise<Packed[]> {
  return file.endsWith('.zip') ? readZip(fs.readFileSync(file)) : readTar(file);
}

/** Returns the content of a .tar.gz, in its order. */
export async function readTar(file: string): Promise<Packed[]> {
  const found: Packed[] = [];
  await tar.list({
    file,
    strict: true,
    onReadEntry: (entry) => {
      const parts: Buffer[] = [];
      entry.on('data', (part: Buffer) => parts.push(part));
      entry.on('end', () => {
        const { path: name, mode = 0, mtime, uid, gid, uname, gname } = entry;
        const owner = `${uid}:${gid} ${uname ?? ''}:${gname ?? ''}`;
        found.push({ name, mode, data: Buffer.concat(parts), mtime, owner });
      });
    },
  });
  return found;
}

// The central directory has the modes; the local headers do not.
function readZip(zip: Buffer): Packed[] {
  const contents = unzipSync(zip);
  const end = zip.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
  const found: Packed[] = [];
  for (let at = zip.readUInt32LE(end + 16); zip.readUInt32LE(at) === 0x02014b50; ) {
    const [length, extra, comment] = [28, 30, 32].map((offset) => zip.readUInt16LE(at + offset)) as [
      number,
      number,
      number,
    ];
    const name = zip.toString('utf8', at + 46, at + 46 + length);
    const mode = (zip.readUInt32LE(at + 38) >>> 16) & 0o7777;
    found.push({ name, mode, data: Buffer.from(contents[name] ?? []), mtime: undefined, owner: '' });
    at += 46 + length + extra + comment;
  }
  return found;
}

export function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

/** Returns the format and architecture of an executable, by its magic numbers. */
export function executableFormat(data: Buffer): string {
  if (data.readUInt32BE(0) === 0x7f454c46) return `linux-${{ 62: 'amd64', 183: 'arm64' }[data.readUInt16LE(18)]}`;
  if (data.readUInt32LE(0) === 0xfeedfacf) {
    return `darwin-${{ 16777223: 'amd64', 16777228: 'arm64' }[data.readUInt32LE(4)]}`;
  }
  const header = data.readUInt32LE(0x3c);
  if (data.toString('latin1', 0, 2) === 'MZ' && data.toString('latin1', header, header + 4) === 'PE\0\0') {
    return `windows-${{ 34404: 'amd64', 43620: 'arm64' }[data.readUInt16LE(header + 4)]}`;
  }
  return 'no executable';
}

/** Returns whether an ELF executable is stripped. */
export function isStripped(elf: Buffer): boolean {
  const [table, size, count] = [Number(elf.readBigUInt64LE(0x28)), elf.readUInt16LE(0x3a), elf.readUInt16LE(0x3c)];
  const symbols = 2;
  return Array.from({ length: count }, (_, i) => elf.readUInt32LE(table + i * size + 4)).every(
    (type) => type !== symbols,
  );
}

/** Returns the place of the signature that a Windows program states. */
export function signatureTable(pe: Buffer): { readonly at: number; readonly size: number } {
  const entry = pe.readUInt32LE(0x3c) + 24 + 112 + 4 * 8;
  return { at: pe.readUInt32LE(entry), size: pe.readUInt32LE(entry + 4) };
}

/** Returns what is wrong with the ad hoc signature of a 64-bit Mach-O executable; '' if nothing is. */
export function signatureFault(macho: Buffer): string {
  let command = 32;
  for (let i = macho.readUInt32LE(16); i > 0; i--, command += macho.readUInt32LE(command + 4)) {
    if (macho.readUInt32LE(command) !== 0x1d) continue;
    const signature = macho.readUInt32LE(command + 8);
    for (let slot = 0; slot < macho.readUInt32BE(signature + 8); slot++) {
      if (macho.readUInt32BE(signature + 12 + slot * 8) !== 0) continue;
      return directoryFault(macho, signature + macho.readUInt32BE(signature + 16 + slot * 8));
    }
    return 'a signature without a code directory';
  }
  return 'no signature';
}

function directoryFault(macho: Buffer, at: number): string {
  const adHoc = 2;
  if ((macho.readUInt32BE(at + 12) & adHoc) === 0) return 'not ad hoc';
  const [hashes, count, limit] = [16, 28, 32].map((offset) => macho.readUInt32BE(at + offset)) as [
    number,
    number,
    number,
  ];
  const [size, page] = [macho[at + 36] ?? 0, 1 << (macho[at + 39] ?? 0)];
  if (macho[at + 37] !== 2 || count !== Math.ceil(limit / page)) return 'not a SHA-256 of each page';
  for (let i = 0; i < count; i++) {
    const wanted = macho.toString('hex', at + hashes + i * size, at + hashes + (i + 1) * size);
    if (sha256(macho.subarray(i * page, Math.min((i + 1) * page, limit))) !== wanted) return `page ${i} is another`;
  }
  return '';
}
