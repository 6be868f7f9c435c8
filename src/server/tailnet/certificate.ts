// The server's certificate: gets it from tailscaled, and renews it before it expires.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { certificateFor, type TailnetCertificate } from '../../tailscale/localapi.ts';
import type { Log } from '../log/log.ts';

export interface CertificateOptions {
  readonly name: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** Stops the waiting. */
  readonly signal: AbortSignal;
  /** Called with each new pair, including the first, and when its certificate expires (Unix time in milliseconds). */
  readonly onPair: (pair: TailnetCertificate, until: number) => void;
}

const minute = 60_000;
// tailscaled gets the first certificate from an authority, through DNS, which takes long.
const timeout = 2 * minute;

/**
 * Resolves with the first pair, then renews it until the signal is aborted. Logs errors and tries again. Rejects only
 * if the signal is aborted before there is a first pair.
 */
export async function keepCertificate(options: CertificateOptions): Promise<TailnetCertificate> {
  const { signal } = options;
  const first = await obtain(options, () => 5_000);
  renew(options, first).catch((error) => {
    if (!signal.aborted) throw error;
  });
  return first.pair;
}

interface Held {
  readonly pair: TailnetCertificate;
  readonly from: number;
  readonly until: number;
}

async function renew(options: CertificateOptions, first: Held): Promise<never> {
  for (let held = first; ; ) {
    await delay(untilNext(held, Date.now()), undefined, { signal: options.signal });
    const { until } = held;
    const now = await obtain(options, () => Math.min(5 * minute, Math.max(1_000, (until - Date.now()) / 10)));
    if (now.pair.cert !== held.pair.cert) {
      options.log.info({ name: options.name, until: new Date(now.until) }, 'renewed the certificate');
    } else if (now.until < Date.now()) {
      options.log.error({ name: options.name, until: new Date(now.until) }, 'the certificate has expired');
    }
    held = now;
  }
}

/**
 * Returns the milliseconds until the next request for a certificate. The first request is due when a third of the
 * lifetime is left. Later ones follow faster and faster, because tailscaled answers with the old certificate while it
 * gets a new one. The result is at most a day, because a machine may sleep.
 */
export function untilNext({ from, until }: Omit<Held, 'pair'>, now: number): number {
  const left = until - now;
  const early = left - (until - from) / 3;
  const soon = Math.min(60 * minute, Math.max(1_000, left / 10));
  return Math.min(24 * 60 * minute, Math.max(early, soon));
}

/** Asks until there is a usable pair. */
async function obtain({ name, env, log, signal, onPair }: CertificateOptions, pauseMs: () => number): Promise<Held> {
  for (;;) {
    try {
      const pair = await certificateFor(name, { env, timeout, log: (line) => log.debug({}, line) });
      const certificate = new X509Certificate(pair.cert);
      if (!certificate.checkPrivateKey(createPrivateKey(pair.key)))
        throw new Error('the key does not match the certificate');
      const until = Date.parse(certificate.validTo);
      onPair(pair, until);
      return { pair, from: Date.parse(certificate.validFrom), until };
    } catch (error) {
      signal.throwIfAborted();
      const { hints = [] } = error as { readonly hints?: readonly string[] };
      // tailscaled gives keys only to root, and to the user in TS_PERMIT_CERT_UID.
      const uid = `allow it in tailscaled: TS_PERMIT_CERT_UID=${process.getuid?.() ?? ''}`;
      const help = (error as { readonly problem?: unknown }).problem === 'denied' ? [uid] : hints;
      log.error({ err: error, name, hints: help }, 'could not get a certificate');
      await delay(pauseMs(), undefined, { signal });
    }
  }
}
