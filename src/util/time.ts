// Times and durations for people. Data for programs has RFC 3339 in UTC instead.

/** Returns a time as people read it, relative and in the local time zone: `in 29m (17:40)`, `3h ago (14:05)`. */
export function localTime(time: number, now = Date.now()): string {
  const distance = shortDuration(Math.abs(time - now));
  return `${time >= now ? `in ${distance}` : `${distance} ago`} (${clockTime(time, now)})`;
}

/** Returns `17:40`, or `2026-11-23 17:40` if that is not today. */
function clockTime(time: number, now: number): string {
  const [there, today] = [new Date(time), new Date(now)];
  const day = (date: Date) =>
    [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
  const clock = [there.getHours(), there.getMinutes()].map((part) => String(part).padStart(2, '0')).join(':');
  return day(there) === day(today) ? clock : `${day(there)} ${clock}`;
}

/** Returns a duration as kubectl prints ages: `45s`, `29m`, `7h30m`, `3d`. */
export function shortDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours}h` : `${hours}h${minutes % 60}m`;
  return `${Math.floor(hours / 24)}d`;
}
