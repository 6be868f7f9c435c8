// SWIM over the same network, to compare its cost with ours: as in memberlist, one member is probed each second, others
// are asked to probe it when it is silent, changes travel on the probes, an accused member refutes with a higher
// incarnation, and whole states are exchanged rarely. It transfers no records: they would be read from their owner.
import { type Host, Network, type NetworkOptions } from './network.ts';

type State = 'alive' | 'suspect' | 'dead';
interface News {
  readonly subject: number;
  readonly state: State;
  readonly incarnation: number;
}
interface Known {
  state: State;
  incarnation: number;
}
type Message =
  | { readonly kind: 'ping' | 'ack'; readonly number: number; readonly of: number }
  | { readonly kind: 'ask'; readonly number: number; readonly of: number };

// memberlist's defaults for a LAN.
const period = 1000;
const probeMs = 500;
const helpers = 3;
const suspicionMult = 4;
const retransmitMult = 4;
const syncMs = 30_000;
const packet = 1400;

const ranks: Readonly<Record<State, number>> = { alive: 0, suspect: 1, dead: 2 };

/** One member; what it knows of the others is by number. */
class Node implements Host {
  part = 0;
  isUp = true;
  incarnation = 0;
  readonly index: number;
  readonly known = new Map<number, Known>();
  /** What is to be told, and how often it has been. */
  readonly news = new Map<number, { readonly news: News; told: number }>();
  readonly waiting = new Map<number, () => void>();
  turns: number[] = [];

  constructor(index: number) {
    this.index = index;
  }
}

export class Swim extends Network {
  readonly nodes: readonly Node[];
  /** How often a member that runs was taken for suspected, and for dead. */
  readonly doubts = { suspect: 0, dead: 0 };
  #number = 0;

  /** All know all others, and run. */
  constructor(options: NetworkOptions & { readonly size: number }) {
    super(options);
    this.nodes = Array.from({ length: options.size }, (_, index) => new Node(index));
    for (const node of this.nodes) {
      for (const { index } of this.nodes) node.known.set(index, { state: 'alive', incarnation: 0 });
      this.#start(node);
    }
  }

  kill(node: Node): void {
    node.isUp = false;
  }

  /** Starts a member that knows nobody, and joins through another. */
  join(node: Node, through: Node): void {
    node.isUp = true;
    node.known.clear();
    node.known.set(node.index, { state: 'alive', incarnation: node.incarnation });
    node.known.set(through.index, { state: 'alive', incarnation: 0 });
    const introduce = () => {
      if (node.known.size < 3) {
        this.#sync(node, through);
        this.after(period, introduce);
      }
    };
    introduce();
    this.#start(node);
  }

  /** How many that run know that this member is so. */
  agreeing(subject: Node, state: State): boolean {
    return this.nodes.every(({ isUp, known }) => !isUp || known.get(subject.index)?.state === state);
  }

  #start(node: Node): void {
    const probe = () => {
      if (!node.isUp) return;
      this.#probe(node);
      this.after(period, probe);
    };
    this.after(this.random() * period, probe);
    // memberlist makes whole exchanges rarer in large meshes.
    const every = syncMs * (1 + Math.max(0, Math.ceil(Math.log2(this.nodes.length / 32))));
    const sync = () => {
      if (!node.isUp) return;
      const peer = this.#some(node, 1)[0];
      if (peer !== undefined) this.#sync(node, peer);
      this.after(every, sync);
    };
    this.after(this.random() * every, sync);
  }

  /** Members that run or are suspected, as far as this one knows, at random. */
  #some(node: Node, count: number, but = -1): Node[] {
    const found = new Set<Node>();
    for (let tries = 0; found.size < count && tries < 10 * count; tries++) {
      const index = Math.floor(this.random() * this.nodes.length);
      if (index !== node.index && index !== but && (node.known.get(index)?.state ?? 'dead') !== 'dead') {
        found.add(this.nodes[index] as Node);
      }
    }
    return [...found];
  }

  #probe(node: Node): void {
    let target = node.turns.pop();
    if (target === undefined) {
      node.turns = [...node.known.keys()].filter((index) => index !== node.index);
      for (let i = node.turns.length - 1; i > 0; i--) {
        const j = Math.floor(this.random() * (i + 1));
        [node.turns[i], node.turns[j]] = [node.turns[j] as number, node.turns[i] as number];
      }
      target = node.turns.pop();
    }
    const known = target === undefined ? undefined : node.known.get(target);
    if (target === undefined || known === undefined || known.state === 'dead') return;
    const of = target;
    const number = this.#number++;
    let isAnswered = false;
    node.waiting.set(number, () => {
      isAnswered = true;
    });
    this.#tell(node, this.nodes[of] as Node, { kind: 'ping', number, of });
    this.after(probeMs, () => {
      if (isAnswered || !node.isUp) return;
      for (const helper of this.#some(node, helpers, of)) this.#tell(node, helper, { kind: 'ask', number, of });
    });
    this.after(period, () => {
      node.waiting.delete(number);
      if (isAnswered || !node.isUp) return;
      this.#hear(node, { subject: of, state: 'suspect', incarnation: node.known.get(of)?.incarnation ?? 0 });
    });
  }

  #tell(from: Node, to: Node, message: Message): void {
    const limit = retransmitMult * Math.ceil(Math.log10(this.nodes.length + 1));
    const news: News[] = [];
    let bytes = sizeOf(message, from.index);
    for (const entry of [...from.news.values()].sort((a, b) => a.told - b.told)) {
      bytes += sizeOfNews(entry.news);
      if (bytes > packet) break;
      news.push(entry.news);
      if (++entry.told >= limit) from.news.delete(entry.news.subject);
    }
    this.send(from, to, Math.min(bytes, packet), () => {
      if (!to.isUp) return;
      for (const one of news) this.#hear(to, one);
      const { kind, number, of } = message;
      if (kind === 'ping') this.#tell(to, from, { kind: 'ack', number, of });
      else if (kind === 'ack') to.waiting.get(number)?.();
      else {
        const own = this.#number++;
        to.waiting.set(own, () => this.#tell(to, from, { kind: 'ack', number, of }));
        this.after(2 * period, () => to.waiting.delete(own));
        this.#tell(to, this.nodes[of] as Node, { kind: 'ping', number: own, of });
      }
    });
  }

  /** Both send all that they know. */
  #sync(from: Node, to: Node): void {
    const whole = (node: Node): News[] => [...node.known].map(([subject, known]) => ({ subject, ...known }));
    const told = whole(from);
    this.send(from, to, sizeOfAll(told), () => {
      if (!to.isUp) return;
      const back = whole(to);
      for (const one of told) this.#hear(to, one);
      this.send(to, from, sizeOfAll(back), () => {
        if (from.isUp) for (const one of back) this.#hear(from, one);
      });
    });
  }

  #hear(node: Node, news: News): void {
    const { subject, state, incarnation } = news;
    if (subject === node.index) {
      if (state === 'alive' && incarnation <= node.incarnation) return;
      if (incarnation >= node.incarnation && state !== 'alive') node.incarnation = incarnation + 1;
      this.#learn(node, { subject, state: 'alive', incarnation: node.incarnation });
      return;
    }
    const known = node.known.get(subject);
    const isNew =
      known === undefined
        ? state !== 'dead'
        : incarnation > known.incarnation || (incarnation === known.incarnation && ranks[state] > ranks[known.state]);
    if (isNew) this.#learn(node, news);
  }

  #learn(node: Node, news: News): void {
    const { subject, state, incarnation } = news;
    const known = node.known.get(subject);
    if (known === undefined) node.known.set(subject, { state, incarnation });
    else Object.assign(known, { state, incarnation });
    node.news.set(subject, { news, told: 0 });
    if (this.nodes[subject]?.isUp && state !== 'alive') this.doubts[state]++;
    if (state !== 'suspect') return;
    this.after(suspicionMult * Math.max(1, Math.log10(this.nodes.length)) * period, () => {
      const now = node.known.get(subject);
      if (node.isUp && now?.state === 'suspect' && now.incarnation === incarnation) {
        this.#hear(node, { subject, state: 'dead', incarnation });
      }
    });
  }
}

// As JSON, with names and addresses as long as ours. What is told of a member that runs has its address and version.
const nameOf = (index: number): string => `tka-cluster-${String(index).padStart(4, '0')}`;
const addressOf = (index: number): string => `${nameOf(index)}.example.ts.net:7946`;
const version = 'q3Zl0Jx8S1mYw2Va';
const sizes = new Map<string, number>();
function sizeOfNews({ subject, state, incarnation }: News): number {
  const key = `${state} ${subject < 10_000} ${incarnation}`;
  const more = state === 'alive' ? [addressOf(subject), version] : [];
  const size = sizes.get(key) ?? JSON.stringify([nameOf(subject), state[0], incarnation, ...more]).length + 1;
  sizes.set(key, size);
  return size;
}
const sizeOfAll = (all: readonly News[]): number => all.reduce((sum, news) => sum + sizeOfNews(news), 20);
const sizeOf = ({ kind, number, of }: Message, from: number): number =>
  JSON.stringify({ [kind]: number, of: nameOf(of), from: nameOf(from), news: [] }).length;
