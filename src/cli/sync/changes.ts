import { createHash, X509Certificate } from 'node:crypto';
import type { OurContext } from '../../kubeconfig/index.ts';
import type { ClusterAccess } from '../../tka/answers.ts';
import { certificatesIn } from '../../util/pem.ts';

/** A change in how to reach a known cluster, in a form that people can compare. */
export interface AccessChange {
  readonly what: 'TKA server' | 'API server' | 'CA';
  readonly from: string;
  readonly to: string;
}

/**
 * Returns how a server's description of its API server differs from a managed context; nothing if the context has no
 * API server.
 */
export function accessChanges(context: OurContext, access: ClusterAccess): AccessChange[] {
  if (context.apiServer === undefined) return [];
  const changes: AccessChange[] = [];
  if (context.apiServer !== access.apiServer) {
    changes.push({ what: 'API server', from: context.apiServer, to: access.apiServer });
  }
  const known = { caData: context.caData ?? '', insecureSkipTlsVerify: context.insecureSkipTlsVerify };
  if (trustOf(known) !== trustOf(access)) changes.push({ what: 'CA', from: shownTrust(known), to: shownTrust(access) });
  return changes;
}

type Trust = Pick<ClusterAccess, 'caData' | 'insecureSkipTlsVerify'>;

// White space in base64 has no meaning.
const trustOf = ({ caData, insecureSkipTlsVerify }: Trust) =>
  insecureSkipTlsVerify ? 'none' : caData.replace(/\s+/g, '');

/** Returns the fingerprint of a CA in the format of `openssl x509 -fingerprint -sha256`. */
function shownTrust(trust: Trust): string {
  if (trust.insecureSkipTlsVerify) return 'TLS verification skipped';
  const bytes = Buffer.from(trust.caData, 'base64');
  if (bytes.length === 0) return "the system's CAs";
  const blocks = certificatesIn(bytes.toString('latin1'));
  const prints = blocks.slice(0, 4).map((block) => {
    try {
      return new X509Certificate(block).fingerprint256.replaceAll(':', '').toLowerCase();
    } catch {
      return undefined;
    }
  });
  const readable = blocks.length > 0 && blocks.length <= 4 && prints.every((print) => print !== undefined);
  return `sha256 ${readable ? prints.join(' + ') : `of the file ${createHash('sha256').update(bytes).digest('hex')}`}`;
}
