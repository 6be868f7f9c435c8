/**
 * Milliseconds of CPU time that some work takes, which does not depend on what else the machine does: the least of three
 * measurements, where the first is over `enough`.
 */
export async function cpuTime(work: () => unknown, enough = 0): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 3 && least > enough; tries++) {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}
