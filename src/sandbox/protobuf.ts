// kubectl 1.32 and later send access reviews as protobuf and read the answer as JSON. This file parses only these
// requests.

/** What an access review asks for. */
export interface ReviewSpec {
  readonly resourceAttributes?: { readonly verb?: string; readonly group?: string };
  readonly nonResourceAttributes?: { readonly verb?: string };
}

/** Parses the spec of a SelfSubjectAccessReview in Kubernetes' protobuf envelope. Throws if it is anything else. */
export function readAccessReview(body: Buffer): ReviewSpec {
  if (body.toString('latin1', 0, 4) !== 'k8s\0') throw new Error('not a Kubernetes protobuf message');
  const spec = fields(fields(fields(body.subarray(4)).get(2)).get(2));
  const resource = spec.get(1);
  const nonResource = spec.get(2);
  const text = (message: Buffer, field: number): string => fields(message).get(field)?.toString() ?? '';
  return {
    ...(resource && { resourceAttributes: { verb: text(resource, 2), group: text(resource, 3) } }),
    ...(nonResource && { nonResourceAttributes: { verb: text(nonResource, 2) } }),
  };
}

/** Returns the length-delimited fields of a message by number. */
function fields(message: Buffer = Buffer.alloc(0)): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  let at = 0;
  const varint = (): number => {
    for (let value = 0, scale = 1; at < message.length && scale < 2 ** 49; scale *= 128) {
      const byte = message[at++] as number;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new Error('bad protobuf number');
  };
  while (at < message.length) {
    const key = varint();
    const wireType = key % 8;
    const value = varint();
    if (wireType === 0) continue;
    if (wireType !== 2 || at + value > message.length) throw new Error('unexpected protobuf field');
    found.set(Math.floor(key / 8), message.subarray(at, at + value));
    at += value;
  }
  return found;
}
