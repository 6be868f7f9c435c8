// What a mesh costs its members: the real messages of the shipped core, in virtual time.
import { Simulation } from '../server/mesh/simulation.ts';

const rounds = 5;

/** One line for each size: bytes that one member sends in a second, answers included, without HTTP's headers. */
export function gossipBytes(sizes: readonly number[]): string[] {
  return sizes.map((size) => {
    const simulation = new Simulation({ seed: 1, size, delayMs: 50 });
    for (const machine of simulation.machines) simulation.start(machine);
    const joined = simulation.run(60, () => simulation.agreed());
    const { bytes: before, messages: sent, longest: join } = simulation;
    simulation.longest = 0;
    simulation.run(rounds);
    const each = (count: number) => count / rounds / size;
    const cells = [
      `${String(size).padStart(4)} members`,
      `${each(simulation.bytes - before)
        .toFixed(0)
        .padStart(6)} B/s`,
      `${each(simulation.messages - sent).toFixed(1)} messages/s`,
      `longest ${(simulation.longest / 1024).toFixed(1)} KiB (${(join / 1024).toFixed(1)} at the start)`,
      `agreed after ${joined} rounds`,
    ];
    return cells.join('   ');
  });
}
