// Who may speak to the mesh: whoever holds the shared key, or, without one, the tailnet's nodes of the right tag.
import { otherProcess, type Seal, type SharedKey } from './seal.ts';

/** A node of our tailnet: `name` is the first label of its DNS name, which the tailnet gives it. */
export interface TailnetNode {
  readonly name: string;
  readonly tags: readonly string[];
}

/** Asks whose an address is: undefined for one that is nobody's on the tailnet. May throw. */
export type Whois = (address: string, port: number) => Promise<TailnetNode | undefined>;

export type Gate =
  /** `instances`: which process answered last, by address. */
  | { readonly key: SharedKey; readonly instances: Map<string, string> }
  /** `whois` is asked about the peers that we connect to, `whoCalls` about those that connect to us. */
  | { readonly whois: Whois; readonly whoCalls: Whois; readonly tag: string };

/** Somebody who may not, or something that is not as it must be. `status` is what he is answered. */
export class Denied extends Error {
  override readonly name = 'Denied';
  readonly status: number;
  /** Whether a person should hear of it. */
  readonly logged: boolean;

  constructor(status: number, message: string, logged = true) {
    super(message);
    this.status = status;
    this.logged = logged;
  }
}

/** Returns the node at this address. Throws Denied unless it carries the tag. */
export async function checkTag(whois: Whois, tag: string, address = '', port = 0): Promise<TailnetNode> {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  let node: TailnetNode | undefined;
  try {
    node = await whois(plain, port);
  } catch (cause) {
    throw Object.assign(new Denied(503, `it cannot be told who ${plain} is`), { cause });
  }
  if (node === undefined) throw new Denied(403, `${plain} is no node of our tailnet`);
  if (!node.tags.includes(tag)) throw new Denied(403, `${plain} does not carry ${tag}`);
  return node;
}

/** What is asked of a caller before his body is read. Throws Denied. */
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
