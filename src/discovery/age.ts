/** Returns a time as `2026-11-21 09:30 UTC`. */
export function minuteOf(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/** Returns how long ago a time was: `5 min`, `3 h`, `4 days`. */
export function ageOf(time: number): string {
  const minutes = Math.max(0, Math.round((Date.now() - time) / 60_000));
  return minutes < 120
    ? `${minutes} min`
    : minutes < 2880
      ? `${Math.round(minutes / 60)} h`
      : `${Math.round(minutes / 1440)} days`;
}
