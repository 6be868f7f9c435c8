import { isIP } from 'node:net';
import { generate } from 'selfsigned';

/** A throw-away certificate authority and the one certificate that it signed. */
export interface Certificates {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

/** Makes a CA and a server certificate for the loopback names and `host`. */
export async function makeCertificates(host: string): Promise<Certificates> {
  const base = {
    keyType: 'ec',
    algorithm: 'sha256',
    // A day back, so that a clock that is set back in a test does not make it "not yet valid".
    notBeforeDate: new Date(Date.now() - 86_400_000),
    notAfterDate: new Date(Date.now() + 30 * 86_400_000),
  } as const;
  const ca = await generate([{ name: 'commonName', value: 'tka-sandbox-ca' }], {
    ...base,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
    ],
  });
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
        altNames: [{ type: 2, value: 'localhost' }, ...[...ips].map((ip) => ({ type: 7, ip }) as const)],
      },
    ],
  });
  return { ca: ca.cert, key: leaf.private, cert: leaf.cert };
}
