// Executables for macOS: Mach-O of 64 bit, little endian. Source: Apple's mach-o/loader.h, mach-o/nlist.h and, for
// signatures, xnu's osfmk/kern/cs_blobs.h, whose numbers are big endian.
import { createHash } from 'node:crypto';
import { Failed } from './targets.ts';

const lcSymtab = 0x2;
const lcDysymtab = 0xb;
const lcSegment = 0x19;
const lcCodeSignature = 0x1d;
const headerSize = 32;
const symbolSize = 16;

/** Yields the offset of each load command. */
function commands(macho: Buffer): number[] {
  const found: number[] = [];
  let at = headerSize;
  for (let i = macho.readUInt32LE(16); i > 0; i--, at += macho.readUInt32LE(at + 4)) found.push(at);
  return found;
}

function command(macho: Buffer, type: number): number | undefined {
  return commands(macho).find((at) => macho.readUInt32LE(at) === type);
}

/** Returns the offset of the load command of a segment. */
function segment(macho: Buffer, name: string): number {
  const found = commands(macho).find((at) => macho.readUInt32LE(at) === lcSegment && segmentName(macho, at) === name);
  if (found === undefined) throw new Failed(`the executable for macOS has no segment ${name}`);
  return found;
}

function segmentName(macho: Buffer, at: number): string {
  return macho.toString('latin1', at + 8, at + 24).replace(/\0.*/s, '');
}

/** Makes __LINKEDIT, the last segment, end at `end` in the file. */
function endLinkEdit(macho: Buffer, end: number): void {
  const linkEdit = segment(macho, '__LINKEDIT');
  const size = end - Number(macho.readBigUInt64LE(linkEdit + 40));
  // In memory it has whole pages: 16 kB on arm64, which also works on amd64.
  macho.writeBigUInt64LE(BigInt(Math.ceil(size / 0x4000) * 0x4000), linkEdit + 32);
  macho.writeBigUInt64LE(BigInt(size), linkEdit + 48);
}

/**
 * Returns the executable without its signature and without local symbols, which dyld does not use. Throws Failed if the
 * symbols are not at the end.
 */
export function stripMachO(original: Buffer): Buffer {
  const macho = withoutSignature(original);
  const [symtab, dysymtab] = [command(macho, lcSymtab), command(macho, lcDysymtab)];
  if (symtab === undefined || dysymtab === undefined) throw new Failed('the executable for macOS has no symbols');
  const [symbols, count, strings, size] = [8, 12, 16, 20].map((field) => macho.readUInt32LE(symtab + field)) as Four;
  const [locals, , , external] = [12, 8, 20, 16].map((field) => macho.readUInt32LE(dysymtab + field)) as Four;
  const [indirect, indirects] = [56, 60].map((field) => macho.readUInt32LE(dysymtab + field)) as [number, number];
  const inOrder = symbols + count * symbolSize <= indirect && indirect + indirects * 4 <= strings;
  if (!inOrder || macho.length - (strings + size) >= 16 || external !== locals) {
    throw new Failed('unexpected order of symbols in the executable for macOS');
  }

  const kept = Buffer.from(macho.subarray(symbols + locals * symbolSize, symbols + count * symbolSize));
  // Like ld: the first string is a space, so that no name has the offset 0, which means no name.
  const names: Buffer[] = [Buffer.from(' \0')];
  let length = 2;
  for (let at = 0; at < kept.length; at += symbolSize) {
    const start = strings + kept.readUInt32LE(at);
    const name = macho.subarray(start, macho.indexOf(0, start) + 1);
    kept.writeUInt32LE(length, at);
    names.push(name);
    length += name.length;
  }
  // The symbol numbers of stubs and pointers. If one of the two highest bits is set, there is no symbol.
  const numbers = Buffer.from(macho.subarray(indirect, indirect + indirects * 4));
  for (let at = 0; at < numbers.length; at += 4) {
    const number = numbers.readUInt32LE(at);
    if (number >= 0x4000_0000) continue;
    if (number < locals) throw new Failed('a local symbol of the executable for macOS is in use');
    numbers.writeUInt32LE(number - locals, at);
  }
  names.push(Buffer.alloc(-(length + numbers.length) & 7));

  const stripped = Buffer.concat([macho.subarray(0, symbols), kept, numbers, ...names]);
  const newStrings = symbols + kept.length + numbers.length;
  stripped.writeUInt32LE(count - locals, symtab + 12);
  stripped.writeUInt32LE(newStrings, symtab + 16);
  stripped.writeUInt32LE(stripped.length - newStrings, symtab + 20);
  stripped.writeUInt32LE(0, dysymtab + 12);
  for (const field of [16, 24])
    stripped.writeUInt32LE(stripped.readUInt32LE(dysymtab + field) - locals, dysymtab + field);
  stripped.writeUInt32LE(symbols + kept.length, dysymtab + 56);
  endLinkEdit(stripped, stripped.length);
  return stripped;
}

type Four = [number, number, number, number];

function withoutSignature(original: Buffer): Buffer {
  const at = command(original, lcCodeSignature);
  if (at === undefined) return Buffer.from(original);
  const macho = Buffer.from(original.subarray(0, original.readUInt32LE(at + 8)));
  const last = commands(macho).at(-1);
  if (at !== last) throw new Failed('the signature of the executable for macOS is not its last load command');
  macho.fill(0, at, at + macho.readUInt32LE(at + 4));
  macho.writeUInt32LE(macho.readUInt32LE(16) - 1, 16);
  macho.writeUInt32LE(macho.readUInt32LE(20) - 16, 20);
  endLinkEdit(macho, macho.length);
  return macho;
}

const pageBits = 12;
const hashSize = 32;

/**
 * Returns the executable with an ad hoc signature, which only proves that the file is unchanged: macOS on arm64 kills
 * programs without one. It is the same as `codesign --sign -` writes: a code directory (SHA-256 of each page of 4 kB), empty
 * requirements, and an empty CMS signature. Throws Failed if there is no room for another load command.
 */
export function signMachO(original: Buffer, identifier: string): Buffer {
  const unsigned = withoutSignature(original);
  const body = Buffer.concat([unsigned, Buffer.alloc(-unsigned.length & 15)]);
  const requirements = blob(0xfade0c01, Buffer.alloc(4));
  const cms = blob(0xfade0b01, Buffer.alloc(0));
  const pages = Math.ceil(body.length / (1 << pageBits));
  const ident = Buffer.from(`${identifier}\0`);
  // The special slots, the highest number first: 2 is the hash of the requirements, 1 of an Info.plist (none).
  const special = [sha256(requirements), Buffer.alloc(hashSize)];
  const fixed = 88;
  const directorySize = fixed + ident.length + (special.length + pages) * hashSize;
  const parts = [
    { slot: 0, size: directorySize },
    { slot: 2, size: requirements.length },
    { slot: 0x10000, size: cms.length },
  ];
  const index = 12 + parts.length * 8;
  const signatureSize = parts.reduce((sum, { size }) => sum + size, index);
  const space = Math.ceil(signatureSize / 16) * 16;
  addCommand(body, body.length, space);

  const text = segment(body, '__TEXT');
  const directory = Buffer.alloc(directorySize);
  const hashes = fixed + ident.length + special.length * hashSize;
  const adHoc = 2;
  const mainBinary = 1n;
  const sha256Type = 2;
  const header = [0xfade0c02, directorySize, 0x20400, adHoc, hashes, fixed, special.length, pages, body.length];
  header.forEach((value, i) => {
    directory.writeUInt32BE(value, i * 4);
  });
  directory.set([hashSize, sha256Type, 0, pageBits], 36);
  directory.writeBigUInt64BE(body.readBigUInt64LE(text + 40), 64);
  directory.writeBigUInt64BE(body.readBigUInt64LE(text + 48), 72);
  directory.writeBigUInt64BE(mainBinary, 80);
  Buffer.concat([ident, ...special]).copy(directory, fixed);
  for (let i = 0; i < pages; i++) {
    sha256(body.subarray(i << pageBits, (i + 1) << pageBits)).copy(directory, hashes + i * hashSize);
  }

  const blobs = [directory, requirements, cms];
  const head = Buffer.alloc(index);
  head.writeUInt32BE(0xfade0cc0, 0);
  head.writeUInt32BE(signatureSize, 4);
  head.writeUInt32BE(parts.length, 8);
  let at = index;
  parts.forEach(({ slot, size }, i) => {
    head.writeUInt32BE(slot, 12 + i * 8);
    head.writeUInt32BE(at, 16 + i * 8);
    at += size;
  });
  return Buffer.concat([body, head, ...blobs, Buffer.alloc(space - signatureSize)]);
}

function blob(magic: number, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(magic, 0);
  head.writeUInt32BE(8 + data.length, 4);
  return Buffer.concat([head, data]);
}

function sha256(data: Uint8Array): Buffer {
  return createHash('sha256').update(data).digest();
}

/** Adds the load command for a signature of `size` bytes at `offset`, the end of the file. */
function addCommand(macho: Buffer, offset: number, size: number): void {
  const at = headerSize + macho.readUInt32LE(20);
  if (macho.subarray(at, at + 16).some((byte) => byte !== 0) || at + 16 > firstSection(macho)) {
    throw new Failed('no room for a signature in the executable for macOS');
  }
  [lcCodeSignature, 16, offset, size].forEach((value, i) => {
    macho.writeUInt32LE(value, at + i * 4);
  });
  macho.writeUInt32LE(macho.readUInt32LE(16) + 1, 16);
  macho.writeUInt32LE(macho.readUInt32LE(20) + 16, 20);
  endLinkEdit(macho, offset + size);
}

/** Returns the file offset of the first section. The load commands must end before it. */
function firstSection(macho: Buffer): number {
  const text = segment(macho, '__TEXT');
  const sections = Array.from({ length: macho.readUInt32LE(text + 64) }, (_, i) => text + 72 + i * 80);
  return Math.min(...sections.map((at) => macho.readUInt32LE(at + 48)));
}
