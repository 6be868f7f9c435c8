import * as fs from 'node:fs';
import * as path from 'node:path';
import { generate } from 'selfsigned';

import { fileFolder } from '../fixtures/temporary.ts';

export interface Authority {
  /** The authority's own certificate, and its file. */
  readonly ca: string;
  readonly file: string;
  /** Issues a certificate for these names only. */
  issue(...names: string[]): Promise<{ key: string; cert: string }>;
}

const dates = {
  notBeforeDate: new Date(Date.now() - 86_400_000),
  notAfterDate: new Date(Date.now() + 86_400_000),
};
const base = { keyType: 'ec', algorithm: 'sha256', ...dates } as const;

const folder = fileFolder();
let made = 0;

/** Makes an authority whose certificates are for DNS names only; src/sandbox/certificates.ts adds loopback to each. */
export async function makeAuthority(): Promise<Authority> {
  const ca = await generate([{ name: 'commonName', value: `tka-test-ca-${++made}` }], {
    ...base,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
    ],
  });
  const file = path.join(folder, `ca-${made}.pem`);
  fs.writeFileSync(file, ca.cert);
  return {
    ca: ca.cert,
    file,
    async issue(...names) {
      const { private: key, cert } = await generate([{ name: 'commonName', value: 'tka-test' }], {
        ...base,
        ca: { key: ca.private, cert: ca.cert },
        extensions: [{ name: 'subjectAltName', altNames: names.map((value) => ({ type: 2, value }) as const) }],
      });
      return { key, cert };
    },
  };
}
