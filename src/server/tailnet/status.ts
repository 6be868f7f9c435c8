// What tailscaled reports about this node: its status, and changes of its name.

import { setTimeout as delay } from 'node:timers/promises';
import { ownNames, type TailnetStatus, TailscaleError, tailnetStatus } from '../../tailscale/localapi.ts';
import type { Log } from '../log/log.ts';

const timeout = 5_000;

const again = 1_000;

/** Returns the current status of the tailnet. Throws TailscaleError. */
export function askStatus(env: NodeJS.ProcessEnv, log: Log): Promise<TailnetStatus> {
  return tailnetStatus({ env, timeout, log: (line) => log.debug({}, line) });
}

export interface WaitOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Returns whether the server works without tailscaled too, if there is none and TS_SOCKET is not set. */
  readonly isOptional: () => boolean;
  /** Called with the reason while it waits. `isAbsent`: there is no tailscaled, and TS_SOCKET is not set. */
  readonly onWait: (why: string, isAbsent: boolean) => void;
}

/**
 * Resolves with the status as soon as tailscaled is up and has an address. A sidecar starts at the same time as the
 * server. Rejects only if the signal is aborted.
 */
export async function waitForTailnet({ env, log, signal, isOptional, onWait }: WaitOptions): Promise<TailnetStatus> {
  for (let told = ''; ; ) {
    signal.throwIfAborted();
    let why: string;
    let isAbsent = false;
    let hints: readonly string[] = [];
    try {
      const status = await askStatus(env, log);
      if (status.self.addresses.length > 0) return status;
      why = 'tailscaled has no address on the tailnet yet';
    } catch (error) {
      if (!(error instanceof TailscaleError)) throw error;
      why = error.message;
      hints = error.hints;
      isAbsent = error.problem === 'absent' && !env.TS_SOCKET;
    }
    const isTunnelOnly = isAbsent && isOptional();
    if (isTunnelOnly && told !== tunnelOnly)
      log.info({}, 'no tailscaled: people sign in through the login server only');
    else if (!isTunnelOnly && told !== why) log.warn({ hints }, `waiting for tailscaled: ${why}`);
    told = isTunnelOnly ? tunnelOnly : why;
    onWait(`tailscaled is not up yet: ${why}`, isAbsent);
    await delay(again, undefined, { signal });
  }
}

const tunnelOnly = 'tunnel only';

const renameMs = 5_000;

/**
 * Resolves with the node's DNS name when it differs from this status: an admin can rename a node, and a new version of
 * `deploy/` can too. Rejects only if the signal is aborted.
 */
export async function untilRenamed(
  { self }: TailnetStatus,
  env: NodeJS.ProcessEnv,
  log: Log,
  signal: AbortSignal,
): Promise<string> {
  for (;;) {
    await delay(renameMs, undefined, { signal });
    try {
      const { dnsName } = await ownNames({ env, timeout, log: (line) => log.debug({}, line) });
      if (dnsName !== '' && dnsName !== self.dnsName) return dnsName;
    } catch (error) {
      if (!(error instanceof TailscaleError)) throw error;
    }
  }
}

// Admins rename a tailnet once in years, and the status of a large one has megabytes.
const factsMs = 10 * 60_000;

/** What identifying a caller needs to know about the tailnet. */
export interface TailnetFacts {
  /** As in TailnetStatus. */
  readonly name: string;
  /** As in TailnetStatus. */
  readonly suffix: string;
  /** The tags of this server's own node. */
  readonly ownTags: readonly string[];
}

const factsOf = ({ name, suffix, self }: TailnetStatus): TailnetFacts => ({ name, suffix, ownTags: self.tags });

/**
 * Returns a function that resolves with facts about the tailnet, which may be some minutes old. While they are not
 * known, the function throws TailscaleError.
 */
export function tailnetFacts(
  env: NodeJS.ProcessEnv,
  log: Log,
  status: TailnetStatus | undefined,
): () => Promise<TailnetFacts> {
  let known = status && factsOf(status);
  let asking: Promise<TailnetFacts> | undefined;
  let askedAt = performance.now();

  async function ask(): Promise<TailnetFacts> {
    try {
      known = factsOf(await askStatus(env, log));
      return known;
    } finally {
      asking = undefined;
      askedAt = performance.now();
    }
  }

  return async () => {
    if (known === undefined || performance.now() - askedAt > factsMs) {
      asking ??= ask();
      // Return known facts without waiting for the answer.
      asking.catch((error: unknown) => log.debug({ err: error }, 'cannot read the status of tailscaled'));
    }
    return known ?? (asking as Promise<TailnetFacts>);
  };
}
