// Who is admitted to the mesh: with a shared key, its holders; without one, the tailnet's nodes that have the right
// tag.
import { otherProcess, type Seal, type SharedKey } from './seal.ts';

/** A node of this tailnet. `name` is the first label of its DNS name, which the tailnet assigns. */
export interface TailnetNode {
  readonly name: string;
  readonly tags: readonly string[];
}

/** Returns the node at this address, or undefined if it is not an address of a node of this tailnet. May throw. */
export type Whois = (address: string, port: number) => Promise<TailnetNode | undefined>;

export type Gate =
  /** `instances`: the process that answered last, by address. */
  | { readonly key: SharedKey; readonly instances: Map<string, string> }
  /** `whois` identifies the peers that we connect to, `whoCalls` identifies the callers that connect to us. */
  | { readonly whois: Whois; readonly whoCalls: Whois; readonly tag: string };

/** A caller or peer that is not admitted, or an invalid message. `status` is the HTTP status for the caller. */
export class Denied extends Error {
  override readonly name = 'Denied';
  readonly status: number;
  /** Whether to log it as a warning. */
  readonly logged: boolean;

  constructor(status: number, message: string, logged = true) {
    super(message);
    this.status = status;
    this.logged = logged;
  }
}

/** Returns the node at this address. Throws Denied unless the node has the tag. */
export async function checkTag(whois: Whois, tag: string, address = '', port = 0): Promise<TailnetNode> {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  let node: TailnetNode | undefined;
  try {
    node = await whois(plain, port);
  } catch (cause) {
    throw Object.assign(new Denied(503, `could not identify ${plain}`), { cause });
  }
  if (node === undefined) throw new Denied(403, `${plain} is not a node of this tailnet`);
  if (!node.tags.includes(tag)) throw new Denied(403, `${plain} does not have ${tag}`);
  return node;
}

/**
 * Checks a caller before its body is read. Returns the seal of its request, or undefined without a shared key. Throws
 * Denied.
 */
export async function checkCaller(
  gate: Gate,
  header: unknown,
  address: string | undefined,
  port: number | undefined,
): Promise<Seal | undefined> {
  if (!('key' in gate)) {
    await checkTag(gate.whoCalls, gate.tag, address, port);
    return undefined;
  }
  const seal = gate.key.read(header);
  if (typeof seal === 'string') throw new Denied(401, seal, seal !== otherProcess);
  return seal;
}
