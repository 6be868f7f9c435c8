import { setTimeout as delay } from 'node:timers/promises';
import { Unavailable } from '../network/failure.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused } from '../tka/errors.ts';
import { TkaError } from '../util/errors.ts';
import { MovedOn } from './failover.ts';

const tries = 3;

/** What a server answered to a logout. */
export interface Revoked {
  /** The server had a sign-in of ours. */
  readonly known: boolean;
  /** Nothing is left that a late clean-up could take a new sign-in for. */
  readonly complete: boolean;
}

/** Revokes our sign-in on a server, by `deadline` (as performance.now() counts). Throws TkaError if it could not be told. */
export async function revoke(client: Pick<TkaClient, 'logout'>, deadline: number): Promise<Revoked> {
  let hasMoved = false;
  for (let tried = 1; ; tried++) {
    try {
      const { complete } = await client.logout({ timeout: deadline - performance.now() });
      return { known: true, complete };
    } catch (error) {
      if (error instanceof MovedOn) {
        hasMoved = true;
        continue;
      }
      const unknown = error instanceof NotSignedIn || (error instanceof Refused && error.status === 404);
      // The previous server may have ended it before its answer was lost.
      if (unknown) return { known: hasMoved, complete: false };
      const passing = error instanceof Unavailable && error.patience > 500;
      const pause = (passing ? error.pause : undefined) ?? 100 * tried;
      if (passing && tried < tries && deadline - performance.now() > pause + 900) {
        await delay(pause);
        continue;
      }
      if (!(error instanceof TkaError)) throw error;
      throw new TkaError(`signed out on this machine, but not on the server: ${error.message}`, {
        hints: [...error.hints, 'the token is deleted here; to have it revoked, log out again when the server answers'],
        cause: error,
      });
    }
  }
}
