import type { Client } from '../network/http.ts';
import type { Network } from '../network/network.ts';
import type { ClusterAccess } from '../tka/answers.ts';
import { withoutSlashes } from '../util/url.ts';

const timeout = 2000;

/** What an API server says of a token; 'unknown' if it does not answer. */
export type TokenVerdict = 'accepted' | 'refused' | 'unknown';

/**
 * Asks an API server whether it still takes a token: 'refused' for a 401, 'accepted' for any other answer, 'unknown'
 * without one within 2 s. Any path would do, since authentication comes first. Never throws.
 */
export async function tryToken(
  token: string,
  access: ClusterAccess,
  network: Network,
  log: (line: string) => void,
): Promise<TokenVerdict> {
  const url = new URL(access.apiServer);
  let client: Client | undefined;
  try {
    client = network.client(url.origin, {
      connectTimeout: timeout,
      insecure: access.insecureSkipTlsVerify,
      ...(access.caData !== '' && { ca: Buffer.from(access.caData, 'base64').toString('latin1') }),
    });
    const { statusCode } = await client.request({
      method: 'GET',
      path: `${withoutSlashes(url.pathname)}/version`,
      headers: { authorization: `Bearer ${token}`, accept: 'application/json', 'user-agent': 'kubectl-tka' },
      signal: AbortSignal.timeout(timeout),
    });
    log(`${access.apiServer} answers the token with HTTP ${statusCode}`);
    return statusCode === 401 ? 'refused' : 'accepted';
  } catch (error) {
    log(`${access.apiServer} could not be asked about the token: ${error}`);
    return 'unknown';
  } finally {
    await client?.destroy().catch(() => {});
  }
}
