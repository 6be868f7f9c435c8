import * as fs from 'node:fs';
import { exists } from '../credential/entry.ts';
import { TkaError } from '../util/errors.ts';
import { cleanText } from '../util/text.ts';
import { readObject } from './files.ts';
import { isTimestamp } from './session.ts';
import { StateFiles } from './state-files.ts';

/** Left by a logout, until the next login. */
export interface SignedOutMark {
  readonly server: string;
  readonly username: string | null;
  readonly role: string | null;
  readonly until: string | null;
  /** When, in milliseconds of the epoch. */
  readonly at: number;
  /** The server's clean-up was over when it answered: a login need not wait for it. */
  readonly complete: boolean;
  /** Set by `forget`: it is not shown, but kubectl is refused until the next login all the same. */
  readonly forgotten: boolean;
}

/** The marks of logouts: `~/.local/state/kubectl-tka/signed-out/https+tka.example.ts.net`. */
export class SignedOutMarks extends StateFiles {
  /** The mark of a server. Anything in its place counts as one, readable or not. */
  read(server: string): SignedOutMark | undefined {
    const file = this.file(server);
    if (file === undefined || !exists(file)) return undefined;
    const at = fs.lstatSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    const value = readObject(file) ?? {};
    const text = (key: string) => (typeof value[key] === 'string' ? cleanText(value[key]) : null);
    return {
      server,
      username: text('username'),
      role: text('role'),
      until: isTimestamp(value.until) ? value.until : null,
      at,
      complete: value.complete === true,
      forgotten: value.forgotten === true,
    };
  }

  /** All marks but the forgotten ones, by server. */
  list(): SignedOutMark[] {
    return this.servers()
      .flatMap((server) => this.read(server) ?? [])
      .filter(({ forgotten }) => !forgotten);
  }

  /** Sets a mark. Throws TkaError if it cannot be kept. */
  write(mark: Omit<SignedOutMark, 'at'>): void {
    const { server, username, role, until, complete, forgotten } = mark;
    try {
      this.put(server, { server, username, role, until, complete, forgotten });
    } catch (cause) {
      if (!(cause instanceof TkaError)) throw cause;
      throw new TkaError(`cannot record on this machine that you are signed out of ${server}: ${cause.message}`, {
        hints: ['kubectl signs in again unless you remove the context: kubectl config delete-context NAME'],
        cause,
      });
    }
  }

  /** Removes a mark that `forget` left, since the context is asked for again. Throws TkaError if it cannot. */
  recall(server: string): void {
    if (this.read(server)?.forgotten === true) this.remove(server);
  }

  /** Marks a server as forgotten, and keeps what its mark says of the user. Throws TkaError if it cannot be kept. */
  forget(server: string): void {
    const mark = this.read(server) ?? { server, username: null, role: null, until: null, complete: false };
    this.write({ ...mark, forgotten: true });
  }
}
