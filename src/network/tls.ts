import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as net from 'node:net';
import * as tls from 'node:tls';
import { systemCode, TkaError } from '../util/errors.ts';
import { certificatesIn } from '../util/pem.ts';

/** How a certificate is verified. */
export interface Trust {
  readonly context: tls.SecureContext;
  readonly insecure?: boolean | undefined;
}

/**
 * Returns a context with the default authorities and those of `tls.caFile`. Throws TkaError if that is not a PEM file.
 */
export function defaultContext(caFile: string | undefined): tls.SecureContext {
  // Node adds NODE_EXTRA_CA_CERTS to both.
  if (caFile === undefined) return tls.createSecureContext();
  return tls.createSecureContext({ ca: [...tls.getCACertificates('default'), ...readAuthorities(caFile)] });
}

/**
 * Returns the certificates (PEM) of the file that a setting names. Throws TkaError if it cannot be read, or contains
 * none or a damaged one.
 */
export function readAuthorities(file: string, setting = 'tls.caFile'): string[] {
  const bad = (why: string, cause?: unknown) => {
    const where = setting === 'tls.caFile' ? '; see kubectl tka config' : '';
    return new TkaError(`${setting} ${file} ${why}`, {
      cause,
      hints: [`it must contain CA certificates in PEM format${where}`],
    });
  };
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch (error) {
    const code = systemCode(error);
    throw bad(code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? error})`, error);
  }
  const found = certificatesIn(text);
  if (found.length === 0) throw bad('contains no PEM certificate');
  // createSecureContext silently ignores a certificate that it cannot read.
  for (const [i, pem] of found.entries()) {
    try {
      new X509Certificate(pem);
    } catch (error) {
      throw bad(`is damaged: certificate ${i + 1} cannot be read`, error);
    }
  }
  return found;
}

/**
 * Starts TLS over an open connection. Verifies that the certificate is valid for `host`, unless `trust.insecure` is
 * set.
 */
export function secure(socket: net.Socket, host: string, trust: Trust, signal: AbortSignal): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const name = host.replace(/\.$/, '');
    const wrapped = tls.connect({
      socket,
      host: name,
      // SNI takes names only.
      ...(net.isIP(name) === 0 && { servername: name }),
      // HTTP/2 gains nothing for one request at a time, and would need limits of its own.
      ALPNProtocols: ['http/1.1'],
      secureContext: trust.context,
      rejectUnauthorized: trust.insecure !== true,
    });
    const abort = () => {
      wrapped.destroy(signal.reason);
      socket.destroy();
    };
    const end = () => signal.removeEventListener('abort', abort);
    wrapped.once('secureConnect', () => {
      end();
      resolve(wrapped);
    });
    const fail = (error: Error) => {
      end();
      socket.destroy();
      reject(error);
    };
    wrapped.on('error', fail);
    wrapped.once('close', () => fail(Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' })));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
  });
}
