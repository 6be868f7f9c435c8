// Linux executables: ELF of 64 bit, little endian. Source: the System V ABI, and glibc's ld.so for DT_RPATH.
import { Failed } from './targets.ts';

const ptLoad = 1;
const ptDynamic = 2;
const shtDynamic = 6;
const shfAlloc = 2n;
const dtNull = 0;
const dtStrtab = 5;
const dtStrsz = 10;
const dtRpath = 15;

/** The offsets of the headers of a table in the ELF header at `table`, `size` and `count`. */
function headers(elf: Buffer, table: number, size: number, count: number): number[] {
  const [at, each] = [offset(elf, table), elf.readUInt16LE(size)];
  return Array.from({ length: elf.readUInt16LE(count) }, (_, i) => at + i * each);
}

const segments = (elf: Buffer) => headers(elf, 0x20, 0x36, 0x38);
const sections = (elf: Buffer) => headers(elf, 0x28, 0x3a, 0x3c);

function offset(elf: Buffer, at: number): number {
  return Number(elf.readBigUInt64LE(at));
}

/** Returns the executable without symbols and debug information: only with the sections that are loaded. */
export function stripElf(elf: Buffer): Buffer {
  const loaded = segments(elf).filter((at) => elf.readUInt32LE(at) === ptLoad);
  const kept = elf.subarray(0, Math.max(...loaded.map((at) => offset(elf, at + 8) + offset(elf, at + 32))));
  const all = sections(elf);
  const wanted = all.filter((at, i) => i === 0 || (elf.readBigUInt64LE(at + 8) & shfAlloc) !== 0n);
  // Sections refer to each other by number, so these must stay.
  if (wanted.some((at, i) => at !== all[i])) throw new Failed('unexpected order of sections in the executable');
  const names = all[elf.readUInt16LE(0x3e)] ?? 0;
  const texts = Buffer.concat([
    elf.subarray(offset(elf, names + 24), offset(elf, names + 24) + offset(elf, names + 32)),
    Buffer.alloc(-(kept.length + offset(elf, names + 32)) & 7),
  ]);
  const table = Buffer.concat([...wanted, names].map((at) => elf.subarray(at, at + elf.readUInt16LE(0x3a))));
  table.writeBigUInt64LE(BigInt(kept.length), table.length - elf.readUInt16LE(0x3a) + 24);
  const stripped = Buffer.concat([kept, texts, table]);
  stripped.writeBigUInt64LE(BigInt(kept.length + texts.length), 0x28);
  stripped.writeUInt16LE(wanted.length + 1, 0x3c);
  stripped.writeUInt16LE(wanted.length, 0x3e);
  return stripped;
}

/**
 * Makes ld.so look for libraries in `folder` first; `$ORIGIN` is the folder of the executable. Uses DT_RPATH, not
 * DT_RUNPATH, so that it comes before the caller's LD_LIBRARY_PATH. Changes the executable in place and moves nothing:
 * uses a spare entry at the end of .dynamic, and writes the text into the padding after the segment with .dynstr. Throws
 * Failed if there is no room.
 */
export function setRpath(elf: Buffer, folder: string): void {
  const room = () => new Failed('no room for the library path in the executable for Linux');
  const all = segments(elf);
  const dynamic = all.find((at) => elf.readUInt32LE(at) === ptDynamic) ?? 0;
  const section = sections(elf).find((at) => elf.readUInt32LE(at + 4) === shtDynamic);
  if (section === undefined) throw room();
  const entries = new Map<number, number>();
  let entry = offset(elf, dynamic + 8);
  for (; offset(elf, entry) !== dtNull; entry += 16) entries.set(offset(elf, entry), entry + 8);
  const [strtab, strsz] = [entries.get(dtStrtab), entries.get(dtStrsz)];
  if (strtab === undefined || strsz === undefined || entries.has(dtRpath)) throw room();
  // The new entry, and the entry that ends the table.
  const spare = elf.subarray(entry, entry + 32);
  if (entry + 32 > offset(elf, section + 24) + offset(elf, section + 32) || spare.some((byte) => byte !== 0)) {
    throw room();
  }

  const strings = offset(elf, strtab);
  const holder = all.find((at) => {
    const address = offset(elf, at + 16);
    return elf.readUInt32LE(at) === ptLoad && address <= strings && strings < address + offset(elf, at + 32);
  });
  if (holder === undefined) throw room();
  const text = Buffer.from(`${folder}\0`);
  const [start, address, size] = [8, 16, 32].map((field) => offset(elf, holder + field)) as [number, number, number];
  const padding = elf.subarray(start + size, start + size + text.length);
  const next = Math.min(...all.map((at) => offset(elf, at + 8)).filter((at) => at >= start + size));
  if (start + size + text.length > next || padding.some((byte) => byte !== 0)) throw room();

  const at = address + size - strings;
  text.copy(padding);
  for (const field of [32, 40]) elf.writeBigUInt64LE(BigInt(size + text.length), holder + field);
  elf.writeBigUInt64LE(BigInt(at + text.length), strsz);
  elf.writeBigUInt64LE(BigInt(dtRpath), entry);
  elf.writeBigUInt64LE(BigInt(at), entry + 8);
  for (const field of [32, 40]) {
    elf.writeBigUInt64LE(
      BigInt(Math.max(offset(elf, dynamic + field), entry + 32 - offset(elf, dynamic + 8))),
      dynamic + field,
    );
  }
}
