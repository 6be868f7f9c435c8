import type { Keeper } from './keeper.ts';
import type { Servers } from './servers.ts';
import type { SessionStore } from './store.ts';

/** What the walks of this room work with. */
export interface Tools {
  readonly store: SessionStore;
  readonly keeper: Keeper;
  readonly servers: Servers;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  /** One line for the person, on stderr. */
  readonly say: (line: string) => void;
  readonly log: (line: string) => void;
}
