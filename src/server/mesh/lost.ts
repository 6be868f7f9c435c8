// Where a member looks for the rest of a mesh that fell apart, or that it has not found yet: at the seeds and at the
// dead.
import { isHostPort } from '../../util/address.ts';
import type { Questions } from './questions.ts';
import { isAlive, type Place, pick, type Roster } from './roster.ts';

// While nothing changes, the lost are asked less and less often, down to once in this many rounds.
const lostRounds = 30;

export class Lost {
  readonly #seeds = new Set<Place>();

  /** Sets the seeds, as `host:port`. Returns whether one is new. */
  setSeeds(addresses: readonly string[], questions: Questions, self: Place): boolean {
    const before = new Set(this.#seeds);
    this.#seeds.clear();
    for (const address of addresses) {
      const plain = address.toLowerCase();
      if (isHostPort(plain)) this.#seeds.add(questions.place(plain));
    }
    this.#seeds.delete(self);
    for (const place of before) {
      place.isSeed = false;
      questions.watched.add(place);
    }
    for (const place of this.#seeds) place.isSeed = true;
    return [...this.#seeds].some((place) => !before.has(place));
  }

  /**
   * Chooses the lost addresses to ask in this round. On average one member of the mesh asks each of them once a round,
   * and less and less often while nothing changes. A member that is alone asks `factor` of them at that pace. `quiet`
   * is the number of rounds since the last change.
   */
  choose({ dead, living }: Roster, quiet: number, factor: number, random: () => number): Place[] {
    const lost = new Set(this.#seeds);
    for (const { record, place } of dead) if (!record.left) lost.add(place);
    const places = [...lost].filter((place) => !place.isSelf && !isAlive(place));
    const rounds = Math.min(lostRounds, Math.ceil(quiet / 10));
    if (living === 1) return quiet % rounds === 0 ? pick(places, factor, random) : [];
    return pick(places, random() < places.length / (living * rounds) ? 1 : 0, random);
  }
}
