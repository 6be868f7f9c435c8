// The steps of `kubectl tka login`: lock the entry → sign in, whatever the cache holds → write the entry → unlock.
import { TkaError } from '../util/errors.ts';
import type { EntryLock } from './lock.ts';
import { waitedTooLong } from './lock.ts';
import type { Session } from './session.ts';
import type { Tools } from './tools.ts';

/** The Go server deletes a sign-in that happens within about a second after a logout. In milliseconds. */
const logoutAftermath = 1500;

export interface LoginOptions {
  /** True if the user agrees to skip TLS verification of the API server. */
  readonly insecure: boolean;
  /** The API server that the token must be for; undefined for any. */
  readonly apiServer?: string | undefined;
}

export interface LoginResult {
  readonly session: Session;
  /** User and role of the session that this one replaces. */
  readonly previous: { readonly username: string; readonly role: string } | undefined;
}

/**
 * Signs in, even if the cache holds a token, and stores the new token. Throws what obtain() throws, and TkaError if the
 * server skips TLS verification without the user's consent.
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
  // When the server's clean-up after a logout is over, in milliseconds since the epoch. Marks can be from the future.
  const settled = mark === undefined || mark.complete ? 0 : Math.min(mark.at, Date.now()) + logoutAftermath;
  // A logout during this sign-in applies to it too.
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
