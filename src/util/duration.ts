// Go durations (time.ParseDuration and Duration.String), the format in policies, settings and sign-ins.

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * Returns a Go duration (`1m30s`, time.ParseDuration) in milliseconds, undefined for other texts. Rounds the result,
 * because `1.1h` is not a whole number in floating point.
 */
export function goDuration(text: string): number | undefined {
  if (!/^(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/([0-9.]+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(number) * (unitMs[unit ?? ''] ?? Number.NaN);
  }
  return Number.isNaN(total) ? undefined : Math.round(total);
}

/** Formats milliseconds as a Go duration: `8h0m0s`, `10m0s`, `1.5s`. */
export function formatGoDuration(ms: number): string {
  const seconds = Math.round(ms) / 1000;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = Math.round((seconds - hours * 3600 - minutes * 60) * 1000) / 1000;
  if (hours > 0) return `${hours}h${minutes}m${rest}s`;
  return minutes > 0 ? `${minutes}m${rest}s` : `${rest}s`;
}
