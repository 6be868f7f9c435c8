// The walk of `kubectl tka login`: lock the entry → sign in, whatever the cache holds → write the entry → unlock.
import { TkaError } from '../util/errors.ts';
import type { EntryLock } from './lock.ts';
import { waitedTooLong } from './lock.ts';
import type { Session } from './session.ts';
import type { Tools } from './tools.ts';

/** The Go server deletes a sign-in that is made within about a second of a logout. In milliseconds. */
const logoutAftermath = 1500;

export interface LoginOptions {
  /** The person agrees to reach the API server without TLS verification. */
  readonly insecure: boolean;
  /** The API server that the token must be for; undefined: any. */
  readonly apiServer?: string | undefined;
}

export interface LoginResult {
  readonly session: Session;
  /** The user before. */
  readonly previous: { readonly username: string; readonly role: string } | undefined;
}

/**
 * Signs in anew, whatever the cache holds, and keeps the token. Throws as obtain() does, and TkaError for an insecure API
 * server without consent.
 */
export function login(tools: Tools, server: string, options: LoginOptions): Promise<LoginResult> {
  const deadline = performance.now() + tools.timeout;
  return tools.withLock(server, {
    deadline: () => deadline,
    act: (lock) => signIn(tools, server, { ...options, deadline }, lock),
    late: () => {
      throw waitedTooLong(server, tools.timeout, `try again: kubectl tka login ${server}`);
    },
  });
}

async function signIn(
  tools: Tools,
  server: string,
  { insecure, apiServer, deadline }: LoginOptions & { readonly deadline: number },
  lock: EntryLock | undefined,
): Promise<LoginResult> {
  const { store } = tools;
  const mark = store.signedOut.read(server);
  const before = mark === undefined ? store.read(server) : undefined;
  const { username = null, role = null } = before ?? mark ?? {};
  const previous = username === null || role === null ? undefined : { username, role };
  // When the server's clean-up after a logout is over (milliseconds of the epoch). A mark may be from the future.
  const settled = mark === undefined || mark.complete ? 0 : Math.min(mark.at, Date.now()) + logoutAftermath;
  // A logout while we sign in means us too.
  const mayLogin = () => {
    if (store.signedOut.read(server)?.at === mark?.at) return;
    throw new TkaError(`signed out of ${server} meanwhile`, { hints: [`kubectl tka login ${server}`] });
  };
  try {
    const grant = await tools.obtain(server, apiServer, {
      deadline,
      settled,
      mayLogin,
      accept: (access) => store.consents.check(server, access, apiServer, insecure),
    });
    mayLogin();
    if (lock?.held() !== false) store.signedOut.remove(server);
    return { session: tools.keep(server, grant, before, lock), previous };
  } catch (error) {
    tools.removeIfRefused(server, error, lock);
    throw error;
  }
}
