import { type Connection, probeServer, probesAtOnce, type ServerProbe, type Target } from '../discovery/probe.ts';

/** No more servers a second than this are asked, however many there are. */
const perSecond = 50;
/** Who took long is asked again after so many times as long: slow ones leave most of the room to the others. */
const rest = 5;

/** Probes servers again and again, 16 at a time, those first that have waited longest. */
export class ProbeRounds {
  readonly results = new Map<string, ServerProbe>();
  readonly #open: (server: string) => Connection;
  readonly #interval: number;
  readonly #changed: () => void;
  readonly #due = new Map<string, number>();
  readonly #running = new Set<string>();
  #targets = new Map<string, Target>();
  #timer: NodeJS.Timeout | undefined;

  /** `interval`: milliseconds between two probes of a server, if there are few. */
  constructor(open: (server: string) => Connection, interval: number, changed: () => void) {
    this.#open = open;
    this.#interval = interval;
    this.#changed = changed;
  }

  /** How many servers have not been asked yet. */
  get pending(): number {
    return [...this.#targets.keys()].filter((server) => !this.results.has(server)).length;
  }

  /** Says which servers there are now. */
  follow(targets: readonly Target[]): void {
    this.#targets = new Map(targets.map((target) => [target.server, target]));
    for (const server of [...this.results.keys(), ...this.#due.keys()]) {
      if (this.#targets.has(server)) continue;
      this.results.delete(server);
      this.#due.delete(server);
    }
    this.#pump();
  }

  /** Asks nobody any more. */
  stop(): void {
    this.follow([]);
    clearTimeout(this.#timer);
  }

  #pump(): void {
    clearTimeout(this.#timer);
    while (this.#running.size < probesAtOnce) {
      let [first, due] = [undefined as Target | undefined, Number.POSITIVE_INFINITY];
      for (const target of this.#targets.values()) {
        const at = this.#due.get(target.server) ?? 0;
        if (at < due && !this.#running.has(target.server)) [first, due] = [target, at];
      }
      if (first === undefined) return;
      const wait = due - performance.now();
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#pump(), wait);
        return;
      }
      void this.#probe(first);
    }
  }

  async #probe(target: Target): Promise<void> {
    const { server } = target;
    const began = performance.now();
    this.#running.add(server);
    const answer = await probeServer(target, this.#open);
    this.#running.delete(server);
    if (this.#targets.has(server)) {
      const ended = performance.now();
      const interval = Math.max(this.#interval, (this.#targets.size / perSecond) * 1000);
      this.#due.set(server, ended + Math.max(interval - (ended - began), rest * (ended - began)));
      this.results.set(server, answer);
      this.#changed();
    }
    this.#pump();
  }
}
