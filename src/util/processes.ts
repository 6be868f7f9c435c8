// Identifies the process that left a file behind, and tells whether it still runs.
import * as fs from 'node:fs';
import * as os from 'node:os';
import { startTime } from '../credential/served.ts';

/** Identifies a process, so that others can tell whether it still runs. */
export interface Owner {
  /** The space in which the ID is unique: one boot of one machine and, in it, one PID namespace; '' if unknown. */
  readonly space: string;
  readonly pid: number;
  /** Start time, which distinguishes it from a later process with the same ID; undefined if unknown. */
  readonly start: string | undefined;
}

let own: Owner | undefined;

/** Returns the identity of this process. */
export function thisProcess(): Owner {
  own ??= { space: processSpace(), pid: process.pid, start: startTime('self') };
  return own;
}

/** Returns eight hexadecimal digits for this process's space of process IDs; '' if it is unknown. */
function processSpace(): string {
  if (process.platform !== 'linux') return hash(`${process.platform} ${os.hostname()}`);
  try {
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
    // Example: `pid:[4026531836]`. The number differs in each container.
    return hash(`${boot} ${fs.readlinkSync('/proc/self/ns/pid')}`);
  } catch {
    return '';
  }
}

// FNV-1a: distinguishes spaces, keeps nothing secret. (node:crypto takes 5 ms to load.)
function hash(text: string): string {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value.toString(16).padStart(8, '0');
}

/**
 * `gone` and `stopped` (SIGSTOP, Ctrl-Z) are certain; `unknown` means a process of another space, or one that cannot be
 * read.
 */
export type Fate = 'gone' | 'stopped' | 'alive' | 'unknown';

/** Returns the state of a process. */
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
    // ESRCH: the process ends at this moment.
    return /^(?:ENOENT|ESRCH)$/.test((error as NodeJS.ErrnoException).code ?? '') ? 'gone' : 'unknown';
  }
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state = ''] = fields;
  // A zombie no longer runs.
  if (/^[ZX]$/i.test(state) || (start !== undefined && fields[19] !== start)) return 'gone';
  return /^t$/i.test(state) ? 'stopped' : 'alive';
}
