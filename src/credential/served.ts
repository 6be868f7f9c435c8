// Records the callers that got a server's entry. client-go does not report that the API server refused a token; it only
// asks again. So the file `https+tka.example.ts.net+served` keeps the last four callers on its first line, newest
// first:
//
//   4711 812:90355 - -
//
// A caller is a process ID and, if known, its start time in clock ticks since boot. `-` is an empty slot. The shell
// front does not read the start time of a new caller, because that takes too long. The file's mtime is the time of the
// last answer. The mtime of `+checked` beside it is the time of the last question to the API server about the token.
//
// Start times come from /proc. On macOS and Windows, and where /proc is hidden, only process IDs distinguish callers.
// If a process then has the ID of an earlier caller, the API server is asked once more than necessary.
import * as fs from 'node:fs';
import { besideEntry, openOwn } from './entry.ts';

const remembered = 4;
/** A caller that asks again within this time may have been refused by the API server. In milliseconds. */
const suspicious = 5 * 60_000;
/** Minimum time between two questions to the API server about one token, in milliseconds. */
const checkPause = 60_000;
/** Clock ticks per second in /proc, on every architecture that Node supports. */
const ticks = 100;
// In seconds. Both clocks of /proc count hundredths of a second, and file times are a few milliseconds behind.
const clockTolerance = 0.02;

const noteShape = /^(?:(?:-|[0-9]{1,16}(?::[0-9]{1,20})?)(?: |$)){4}$/;

/** Returns a process as the file records it: `4711:90355`, or `4711` if the start time is unknown. */
export function callerOf(pid: number): string {
  const start = startTime(pid);
  return start === undefined ? `${pid}` : `${pid}:${start}`;
}

/** Returns a process's start time in clock ticks since boot, or undefined if /proc does not have it. */
export function startTime(pid: number | 'self'): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field, a name in parentheses, can contain any character. The start time is field 22 (man 5 proc).
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return start !== undefined && /^[0-9]+$/.test(start) ? start : undefined;
  } catch {
    return undefined;
  }
}

interface Note {
  /** Newest first. */
  readonly callers: readonly string[];
  /** Milliseconds since the epoch. */
  readonly at: number;
}

function readNote(folder: string, server: string): Note | undefined {
  const fd = openOwn(besideEntry(folder, server, '+served'), fs.constants.O_RDONLY);
  if (fd === undefined) return undefined;
  try {
    const text = Buffer.alloc(256);
    const length = fs.readSync(fd, text, 0, text.length, 0);
    const [line = '', ...rest] = text.toString('latin1', 0, length).split('\n');
    if (rest.length === 0 || !noteShape.test(line)) return undefined;
    return { callers: line.split(' '), at: fs.fstatSync(fd).mtimeMs };
  } catch {
    // EIO or ESTALE: the disk or file server fails.
    return undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns true if this caller got this entry a short time ago. The API server has then probably refused the token. */
export function asksAgain(folder: string, server: string, pid: number, now: number): boolean {
  const note = readNote(folder, server);
  const met = note?.callers.filter((caller) => caller.split(':', 1)[0] === `${pid}`) ?? [];
  if (note === undefined || met.length === 0 || Math.abs(now - note.at) > suspicious) return false;
  const start = startTime(pid);
  if (start === undefined) return true;
  return met.some((caller) => {
    const noted = caller.split(':')[1];
    return noted === undefined ? !isYounger(start, (now - note.at) / 1000) : noted === start;
  });
}

/**
 * Returns true if the process is certainly younger than `seconds`, so that another process had its ID before. `start`
 * is in clock ticks since boot.
 */
function isYounger(start: string, seconds: number): boolean {
  const own = startTime('self');
  // Before the other clock is read: a busy machine can pause this process in between.
  const alive = process.uptime();
  try {
    const uptime = Number.parseFloat(fs.readFileSync('/proc/uptime', 'latin1'));
    // lxcfs shows the container's uptime. By that clock, this process would not have started yet.
    if (own === undefined || uptime - Number(own) / ticks + clockTolerance < alive) return false;
    return uptime - Number(start) / ticks + clockTolerance < seconds;
  } catch {
    return false;
  }
}

/** Records that a caller gets the entry. Best effort: without it, a refused token may not be detected. */
export function writeServed(folder: string, server: string, pid: number): void {
  const others = (readNote(folder, server)?.callers ?? []).filter((caller) => caller.split(':', 1)[0] !== `${pid}`);
  const callers = [callerOf(pid), ...others, ...Array(remembered).fill('-')].slice(0, remembered);
  const { O_WRONLY, O_CREAT, O_TRUNC } = fs.constants;
  const fd = openOwn(besideEntry(folder, server, '+served'), O_WRONLY | O_CREAT | O_TRUNC);
  if (fd === undefined) return;
  try {
    fs.writeSync(fd, `${callers.join(' ')}\n`);
  } catch {
    // Best effort: the disk may be full.
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns true if the API server was asked about the token within the last minute. */
export function wasChecked(folder: string, server: string, now: number): boolean {
  try {
    const age = now - fs.lstatSync(besideEntry(folder, server, '+checked')).mtimeMs;
    // File times have fractions of a millisecond that Date.now() lacks.
    return age > -1000 && age < checkPause;
  } catch {
    return false;
  }
}

/** Records that the API server was asked about the token just now. If that fails, it is asked every time. */
export function writeChecked(folder: string, server: string): void {
  const { O_WRONLY, O_CREAT, O_TRUNC } = fs.constants;
  const fd = openOwn(besideEntry(folder, server, '+checked'), O_WRONLY | O_CREAT | O_TRUNC);
  if (fd === undefined) return;
  try {
    fs.writeSync(fd, '\n');
  } catch {
    // Best effort: the disk may be full.
  } finally {
    fs.closeSync(fd);
  }
}
