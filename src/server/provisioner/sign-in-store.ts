// Where the sign-ins of this server are kept, as other servers and clients can compare it.
import { setTimeout as delay } from 'node:timers/promises';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type Metadata, paths } from './objects.ts';

export interface SignInStoreOptions {
  readonly kube: Kube;
  /** Where the sign-ins are. */
  readonly namespace: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The UID of this namespace identifies a cluster: every cluster has it, and nobody can delete it. */
const witness = 'kube-system';
const firstRetryMs = 1_000;
const lastRetryMs = 60_000;

/**
 * Reads the UID of the namespace kube-system once, in the background, and again later if it cannot be read. Returns a
 * function that answers `UID/namespace`, or undefined while the UID is not known.
 */
export function signInStore({ kube, namespace, log, signal }: SignInStoreOptions): () => string | undefined {
  let store: string | undefined;

  async function read(): Promise<void> {
    for (let retryMs = firstRetryMs; !signal.aborted; retryMs = Math.min(2 * retryMs, lastRetryMs)) {
      try {
        const found = await kube.get<{ readonly metadata?: Partial<Metadata> }>(paths.namespaces(witness), signal);
        const uid = found?.metadata?.uid;
        if (typeof uid !== 'string' || !/^[!-~]{1,100}$/.test(uid)) throw new Error('it has no UID');
        store = `${uid}/${namespace}`;
        return;
      } catch (error) {
        if (signal.aborted) return;
        const hints = isStatus(error, 403) ? ['apply deploy/ again: it lets the server get this namespace'] : [];
        log.warn(
          { err: error, hints },
          `the namespace ${witness} cannot be read: clients do not fail over to this server`,
        );
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  void read();
  return () => store;
}
