// Gets this machine's tailnet certificate from tailscaled.
import { certificatesIn, pemBlocks } from '../util/pem.ts';
import { cleanText } from '../util/text.ts';
import { TailscaleError } from './problem.ts';
import { type LocalOptions, localRequest } from './request.ts';

/** A private key and its certificate chain, both PEM. */
export interface TailnetCertificate {
  readonly key: string;
  readonly cert: string;
}

/**
 * Returns the certificate for a name of this machine. If tailscaled has none it requests one, which takes a minute; it
 * renews a certificate when asked before it expires. Throws TailscaleError.
 */
export async function certificateFor(name: string, options: LocalOptions): Promise<TailnetCertificate> {
  const { status, body } = await localRequest(`/localapi/v0/cert/${encodeURIComponent(name)}?type=pair`, options);
  const [key] = pemBlocks(body, /^(?:[A-Z]+ )?PRIVATE KEY$/);
  const chain = certificatesIn(body);
  if (status === 200 && key !== undefined && chain.length > 0) {
    return { key: `${key}\n`, cert: chain.map((block) => `${block}\n`).join('') };
  }
  // The body of a refusal gives the reason.
  const why = status === 200 ? 'its answer is not a certificate and key' : cleanText(body, 200) || `HTTP ${status}`;
  throw new TailscaleError('unreadable', `tailscaled has no certificate for ${name}: ${why}`, [
    'check it: tailscale cert',
    'turn on HTTPS certificates at https://login.tailscale.com/admin/dns',
  ]);
}
