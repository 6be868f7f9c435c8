// A browser sends requests on behalf of its user for any page. Pages of other sites must neither read nor change
// anything here.
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { type Identity, Refusal } from '../http/contract.ts';

/** The names of this server. */
export interface OwnNames {
  readonly names: readonly (string | undefined)[];
  /** Domains in which nobody else can point a name to this server: the tailnet's. */
  readonly domains: readonly (string | undefined)[];
  /** True over TLS, where the certificate already proves the name. */
  readonly secure: boolean;
}

const plain = (name: string): string => name.toLowerCase().replace(/^\.+|\.+$/g, '');

/**
 * Returns the same identity, but refuses requests that do not use a name of this server, and requests that other pages
 * send. A stranger's page may point its own name to any address (DNS rebinding).
 */
export function guardOrigin(identity: Identity, { names, domains, secure }: OwnNames): Identity {
  const own = new Set(names.flatMap((name) => (name ? [plain(name)] : [])));
  const tails = ['ts.net', ...domains].flatMap((domain) => (domain ? [`.${plain(domain)}`] : []));
  const isOwn = (host: string): boolean => {
    const name = plain(host);
    // An attacker cannot register an IP address or a name without a dot.
    const isUnregistrable = isIP(name.replace(/^\[|\]$/g, '')) !== 0 || !name.includes('.');
    return isUnregistrable || own.has(name) || tails.some((tail) => name.endsWith(tail));
  };
  return {
    whoIs(request, asking) {
      const called = urlOf(`http://${request.headers.host ?? 'localhost'}`);
      if (called === undefined || !(secure || isOwn(called.hostname))) {
        const advice = ['use its name on the tailnet, which ends in the tailscale.tailnet of its configuration'];
        const message = 'the host name of this request is not a name of this server';
        throw new Refusal(421, { message, advice }, { reason: 'foreign_page' });
      }
      if (request.method !== 'GET' && !isSameOrigin(request)) {
        throw new Refusal(
          403,
          { message: 'requests of web pages from other sites are refused' },
          { reason: 'foreign_page' },
        );
      }
      return identity.whoIs(request, asking);
    },
  };
}

function urlOf(url: string): URL | undefined {
  return URL.canParse(url) ? new URL(url) : undefined;
}

/**
 * Returns whether a request comes from no other page. True without an Origin header, because only browsers send one.
 */
function isSameOrigin({ headers: { origin, host = '' } }: IncomingMessage): boolean {
  if (origin === undefined) return true;
  const page = urlOf(origin);
  // Uses the scheme of the page, so that its default port may be missing.
  return page !== undefined && page.host === urlOf(`${page.protocol}//${host}`)?.host;
}
