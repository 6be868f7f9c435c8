import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

/**
 * Returns how often writes found a pipe full (EAGAIN) while something ran, and for how many milliseconds it ran. CPU time
 * says less: a busy machine gives a loop little of it.
 */
export function countFull(act: () => void): { tries: number; ms: number } {
  const write = fs.writeSync as (...all: unknown[]) => number;
  let tries = 0;
  const counted = (...all: unknown[]) => {
    try {
      return write(...all);
    } catch (error) {
      tries++;
      throw error;
    }
  };
  Object.assign(fs, { writeSync: counted });
  syncBuiltinESMExports();
  const started = performance.now();
  try {
    act();
    return { tries, ms: performance.now() - started };
  } finally {
    Object.assign(fs, { writeSync: write });
    syncBuiltinESMExports();
  }
}
