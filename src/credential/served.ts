// Which callers a server's entry was served to. client-go does not say that the API server refused a token: it only asks
// again. So the note `https+tka.example.ts.net+served` keeps the last four callers on its first line, newest first:
//
//   4711 812:90355 - -
//
// A caller is a process ID, with its start time (clock ticks since boot) where that is known; - is none. The shell front
// knows no start time of a caller that it meets for the first time: it costs too much. The note's mtime is when the last
// one was served. `+checked` beside it has the time when the API server was last asked about the token.
//
// Start times are read from /proc. On macOS and Windows, and where /proc is hidden, process IDs alone tell callers apart:
// a process with the ID of an earlier caller then makes the API server be asked once more than necessary.
import * as fs from 'node:fs';
import { besideEntry, openOwn } from './entry.ts';

const remembered = 4;
/** A second question is a sign of a refusal for so long, in milliseconds. */
const suspicious = 5 * 60_000;
/** The API server is asked about one token no more often, in milliseconds. */
const checkPause = 60_000;
/** Clock ticks a second in /proc, on every architecture that Node supports. */
const ticks = 100;
// Both clocks of /proc count hundredths of a second, and file times are a few milliseconds behind.
const clockTolerance = 0.02;

const noteShape = /^(?:(?:-|[0-9]{1,16}(?::[0-9]{1,20})?)(?: |$)){4}$/;

/** A process as it is noted: its ID, and its start time if that is known. */
export function callerOf(pid: number): string {
  const start = startTime(pid);
  return start === undefined ? `${pid}` : `${pid}:${start}`;
}

/** When a process started, in clock ticks since boot; undefined if there is none, or where /proc does not tell. */
export function startTime(pid: number | 'self'): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field, a name in parentheses, may hold anything. man 5 proc: the start is the 22nd.
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return start !== undefined && /^[0-9]+$/.test(start) ? start : undefined;
  } catch {
    return undefined;
  }
}

interface Note {
  /** Newest first. */
  readonly callers: readonly string[];
  /** Milliseconds of the epoch. */
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
    // A disk or a file server that gives up: EIO, ESTALE.
    return undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** True if this caller was served this entry a short time ago: probably the API server refused the token. */
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

/** True if a process that started then is surely younger than so many seconds: another one had its ID before. */
function isYounger(start: string, seconds: number): boolean {
  const own = startTime('self');
  try {
    const uptime = Number.parseFloat(fs.readFileSync('/proc/uptime', 'latin1'));
    // lxcfs puts another uptime there, by which this process would not have started yet.
    if (own === undefined || uptime - Number(own) / ticks + clockTolerance < process.uptime()) return false;
    return uptime - Number(start) / ticks + clockTolerance < seconds;
  } catch {
    return false;
  }
}

/** Notes whom the entry is served to. A note that cannot be written only loses a chance to heal a refused token. */
export function writeServed(folder: string, server: string, pid: number): void {
  const others = (readNote(folder, server)?.callers ?? []).filter((caller) => caller.split(':', 1)[0] !== `${pid}`);
  const callers = [callerOf(pid), ...others, ...Array(remembered).fill('-')].slice(0, remembered);
  const { O_WRONLY, O_CREAT, O_TRUNC } = fs.constants;
  const fd = openOwn(besideEntry(folder, server, '+served'), O_WRONLY | O_CREAT | O_TRUNC);
  if (fd === undefined) return;
  try {
    fs.writeSync(fd, `${callers.join(' ')}\n`);
  } catch {
    // A full disk.
  } finally {
    fs.closeSync(fd);
  }
}

/** True if the API server was asked about the token within the last minute. */
export function wasChecked(folder: string, server: string, now: number): boolean {
  try {
    const age = now - fs.lstatSync(besideEntry(folder, server, '+checked')).mtimeMs;
    // File times have fractions of a millisecond that Date.now() lacks.
    return age > -1000 && age < checkPause;
  } catch {
    return false;
  }
}

/** Notes that the API server is asked about the token now. Where that cannot be written, it is asked each time. */
export function writeChecked(folder: string, server: string): void {
  const { O_WRONLY, O_CREAT, O_TRUNC } = fs.constants;
  const fd = openOwn(besideEntry(folder, server, '+checked'), O_WRONLY | O_CREAT | O_TRUNC);
  if (fd === undefined) return;
  try {
    fs.writeSync(fd, '\n');
  } catch {
    // A full disk.
  } finally {
    fs.closeSync(fd);
  }
}
