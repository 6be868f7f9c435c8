// The certificate of the tunnels' listener, from files that something else renews: cert-manager, or an administrator.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { systemCode, TkaError } from '../../util/errors.ts';
import { certificatesIn } from '../../util/pem.ts';
import type { Log } from '../log/log.ts';

/** Paths of PEM files. */
export interface PairFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate with its chain, and its private key, as PEM. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

const everyMs = 10_000;

/** Reads a certificate and its key. Throws TkaError if a file is missing or damaged, or if they do not match. */
export async function readPair({ certFile, keyFile }: PairFiles): Promise<Pair> {
  const [cert, key] = await Promise.all([read('federation.certFile', certFile), read('federation.keyFile', keyFile)]);
  const bad = (setting: string, file: string, why: string, cause?: unknown) =>
    new TkaError(`${setting} ${file} ${why}`, {
      cause,
      hints: [`check it: openssl x509 -noout -text -in ${certFile}`],
    });
  const [first] = certificatesIn(cert);
  if (first === undefined) throw bad('federation.certFile', certFile, 'contains no PEM certificate');
  let matches: boolean;
  try {
    createSecureContext({ cert, key } satisfies SecureContextOptions);
    matches = new X509Certificate(first).checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw bad('federation.certFile', certFile, `or ${keyFile} is damaged`, cause);
  }
  if (!matches) throw bad('federation.keyFile', keyFile, `is not the key of the certificate in ${certFile}`);
  return { cert, key };
}

async function read(setting: string, file: string): Promise<string> {
  try {
    return await readFile(file, 'latin1');
  } catch (cause) {
    const code = systemCode(cause);
    const why = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? cause})`;
    throw new TkaError(`${setting} ${file} ${why}`, { cause, hints: [`check the file: ls -l ${file}`] });
  }
}

/**
 * Reads the files every 10 s, or every `ms`, and calls `onPair` when they have changed. While they are damaged or do not
 * match, the pair in use stays, with a warning. Returns a function that stops it.
 */
export function watchPair(files: PairFiles, first: Pair, log: Log, onPair: (pair: Pair) => void, ms = everyMs) {
  let used = first;
  let isReading = false;
  const timer = setInterval(async () => {
    if (isReading) return;
    isReading = true;
    try {
      const pair = await readPair(files);
      if (pair.cert === used.cert && pair.key === used.key) return;
      used = pair;
      onPair(pair);
      const until = new Date(new X509Certificate(pair.cert).validTo);
      log.info({ until }, 'uses the new certificate for tunnels');
    } catch (error) {
      log.warn({ err: error }, 'cannot use the changed certificate for tunnels');
    } finally {
      isReading = false;
    }
  }, ms);
  return (): void => clearInterval(timer);
}
