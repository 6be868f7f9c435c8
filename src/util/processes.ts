// Which process left something behind, and whether that process still runs.
import * as fs from 'node:fs';
import * as os from 'node:os';
import { startTime } from '../credential/served.ts';

/** A process, so that others can tell whether it still runs. */
export interface Owner {
  /** Where its ID means something: one boot of one machine, and there one PID namespace; '' if that is unknown. */
  readonly space: string;
  readonly pid: number;
  /** Tells it from a later process with the same ID; undefined where no start time is known. */
  readonly start: string | undefined;
}

let own: Owner | undefined;

/** This process. */
export function thisProcess(): Owner {
  own ??= { space: processSpace(), pid: process.pid, start: startTime('self') };
  return own;
}

/** Eight hexadecimal digits for the space of process IDs that this process lives in; '' if that cannot be told. */
function processSpace(): string {
  if (process.platform !== 'linux') return hash(`${process.platform} ${os.hostname()}`);
  try {
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
    // `pid:[4026531836]`; another number in each container.
    return hash(`${boot} ${fs.readlinkSync('/proc/self/ns/pid')}`);
  } catch {
    return '';
  }
}

// FNV-1a: to tell spaces apart, not to keep anything secret. (node:crypto takes 5 ms to load.)
function hash(text: string): string {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value.toString(16).padStart(8, '0');
}

/** `gone` and `stopped` (SIGSTOP, ^Z) are certain; `unknown` for a process of another space. */
export type Fate = 'gone' | 'stopped' | 'alive' | 'unknown';

/** What has become of a process. */
export function fateOf({ space, pid, start }: Owner): Fate {
  if (space === '' || space !== thisProcess().space) return 'unknown';
  if (process.platform !== 'linux') {
    try {
      process.kill(pid, 0);
      return 'alive';
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ESRCH' ? 'gone' : 'alive';
    }
  }
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    // ESRCH: it ends at this very moment.
    return /^(?:ENOENT|ESRCH)$/.test((error as NodeJS.ErrnoException).code ?? '') ? 'gone' : 'unknown';
  }
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state = ''] = fields;
  // A zombie does nothing any more.
  if (/^[ZX]$/i.test(state) || (start !== undefined && fields[19] !== start)) return 'gone';
  return /^t$/i.test(state) ? 'stopped' : 'alive';
}
