// What the login server tells with each ping (8 bytes): how many replicas it has, and whether its keys have changed. So
// the joined servers know it within seconds, without a request and without a new tunnel.
import { createHash } from 'node:crypto';

/** What the login server has now. */
export interface News {
  readonly replicas: number;
  readonly keys: readonly string[];
}

/** Returns the payload of a ping: the number of replicas (4 bytes, big-endian), and 4 bytes of a hash of the keys. */
export function newsPayload({ replicas, keys }: News): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeUInt32BE(replicas);
  hashOf(keys).copy(payload, 4, 0, 4);
  return payload;
}

/** Returns how many replicas the login server has, and whether its keys are still these. */
export function readNews(payload: Uint8Array, keys: readonly string[]): { replicas: number; isSame: boolean } {
  const bytes = Buffer.from(payload);
  return { replicas: bytes.readUInt32BE(), isSame: bytes.subarray(4).equals(hashOf(keys).subarray(0, 4)) };
}

function hashOf(keys: readonly string[]): Buffer {
  return createHash('sha256').update(keys.join(' ')).digest();
}
