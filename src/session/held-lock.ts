import * as fs from 'node:fs';
import * as path from 'node:path';

const heartbeat = 500;

/** Thrown instead of a write or a removal under a lock that another process has taken over. */
export class LostLock extends Error {
  override readonly name = 'LostLock';

  constructor() {
    super('another process has taken over');
  }
}

/** The lock of an entry, while this process has it. */
export interface EntryLock {
  /** The holder's own folder: gone as soon as the lock is lost. */
  readonly folder: string;
  /** False once another process has taken over. */
  held(): boolean;
  /** Gives it back. Never throws. */
  release(): void;
}

/** The locks that this process has: given back when it ends by a signal, too, so that no process waits for them. */
const heldLocks = new Set<HeldLock>();

function releaseAll(): void {
  for (const lock of heldLocks) lock.release();
}

/** A lock whose holder is this process: keeps up its heartbeat until it is released. */
export class HeldLock implements EntryLock {
  readonly folder: string;
  readonly #place: string;
  readonly #owner: string;
  readonly #beat: NodeJS.Timeout;

  /** `place` is the lock's folder, `name` that of the holder in it. */
  constructor(place: string, name: string) {
    this.#place = place;
    this.folder = path.join(place, name);
    this.#owner = path.join(this.folder, 'owner');
    this.#beat = setInterval(() => this.#touch(), heartbeat).unref();
    if (heldLocks.size === 0) process.on('exit', releaseAll);
    heldLocks.add(this);
  }

  held(): boolean {
    return fs.existsSync(this.#owner);
  }

  release(): void {
    clearInterval(this.#beat);
    heldLocks.delete(this);
    if (heldLocks.size === 0) process.off('exit', releaseAll);
    try {
      fs.rmSync(this.folder, { recursive: true, force: true });
      // Fails if another process has taken over: then it is not empty.
      fs.rmdirSync(this.#place);
    } catch {
      // Best effort: an empty lock belongs to no process.
    }
  }

  #touch(): void {
    try {
      const now = Date.now() / 1000;
      fs.utimesSync(this.#owner, now, now);
    } catch {
      // Lost: the next write finds that out.
    }
  }
}
