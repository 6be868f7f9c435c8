// Programs for Windows: PE32+. Source: Microsoft's "PE Format".

/**
 * Returns the program without Node's signature (Authenticode), which is invalid for a changed program: removes the table
 * at its end and the entry that refers to it, and sets the checksum to 0 (none).
 */
export function unsignPe(pe: Buffer): Buffer {
  const optional = pe.readUInt32LE(0x3c) + 24;
  const entry = optional + 112 + 4 * 8;
  const [at, size] = [pe.readUInt32LE(entry), pe.readUInt32LE(entry + 4)];
  const unsigned = Buffer.from(at !== 0 && at + size === pe.length ? pe.subarray(0, at) : pe);
  unsigned.fill(0, entry, entry + 8);
  unsigned.writeUInt32LE(0, optional + 64);
  return unsigned;
}
