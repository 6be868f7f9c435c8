// 128-bit FNV-1 (multiply, then xor), as Go's hash/fnv has it. Its prime is 2^88 + 2^8 + 0x3b.
const offset = 0x6c62272e07bb014262b821756295c58dn;
const prime = (1n << 88n) + 0x13bn;
const mask = (1n << 128n) - 1n;

/** The ID that the Go server gives a member: base64 of the hash of its host name and gossip port. */
export function memberId(hostname: string, gossipPort: number): string {
  let hash = offset;
  for (const byte of Buffer.from(`${hostname}:${gossipPort}`)) hash = ((hash * prime) & mask) ^ BigInt(byte);
  return Buffer.from(hash.toString(16).padStart(32, '0'), 'hex').toString('base64');
}
