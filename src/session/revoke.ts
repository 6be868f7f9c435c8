import { setTimeout as delay } from 'node:timers/promises';
import { TkaError } from '../errors.ts';
import type { TkaClient } from '../tka/client.ts';
import { NotSignedIn, Refused, Unavailable } from '../tka/errors.ts';

const tries = 3;

/**
 * Revokes our sign-in on a server, by `deadline` (as performance.now() counts); false where the server knows of none.
 * Throws TkaError where it could not be told.
 */
export async function revoke(client: TkaClient, deadline: number): Promise<boolean> {
  for (let tried = 1; ; tried++) {
    try {
      await client.logout({ timeout: deadline - performance.now() });
      return true;
    } catch (error) {
      if (error instanceof NotSignedIn || (error instanceof Refused && error.status === 404)) return false;
      const passing = error instanceof Unavailable && error.patience > 500;
      if (passing && tried < tries && deadline - performance.now() > 1000) {
        await delay(100 * tried);
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
