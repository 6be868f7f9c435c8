import { isIP } from 'node:net';
import { generate } from 'selfsigned';

/** A temporary certificate authority and one certificate signed by it. */
export interface Certificates {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

/** Validity of a certificate. Default: from one day ago until 30 days from now. */
export interface SandboxCertificateOptions {
  /** One day ago by default, so that the certificate is valid even if a test sets the clock back. */
  readonly notBefore?: Date;
  readonly notAfter?: Date;
}

/** Makes a CA and a server certificate for the loopback names and for `host`, a name or an address. */
export async function makeCertificates(host: string, options: SandboxCertificateOptions = {}): Promise<Certificates> {
  const base = {
    keyType: 'ec',
    algorithm: 'sha256',
    notBeforeDate: options.notBefore ?? new Date(Date.now() - 86_400_000),
    notAfterDate: options.notAfter ?? new Date(Date.now() + 30 * 86_400_000),
  } as const;
  const ca = await generate([{ name: 'commonName', value: 'tka-sandbox-ca' }], {
    ...base,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
    ],
  });
  const names = new Set(['localhost', ...(isIP(host) === 0 ? [host] : [])]);
  const ips = new Set(['127.0.0.1', '::1', ...(isIP(host) === 0 ? [] : [host])]);
  const leaf = await generate([{ name: 'commonName', value: 'tka-sandbox-api' }], {
    ...base,
    ca: { key: ca.private, cert: ca.cert },
    extensions: [
      { name: 'basicConstraints', cA: false },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: [
          ...[...names].map((value) => ({ type: 2, value }) as const),
          ...[...ips].map((ip) => ({ type: 7, ip }) as const),
        ],
      },
    ],
  });
  return { ca: ca.cert, key: leaf.private, cert: leaf.cert };
}
