// A browser calls for its user, whatever page tells it to: a page of a stranger must neither read nor change anything here.
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { type Identity, Refusal } from '../http/contract.ts';

/** By which names this server is called. */
export interface OwnNames {
  readonly names: readonly (string | undefined)[];
  /** Domains whose names nobody else can point here: the tailnet's. */
  readonly domains: readonly (string | undefined)[];
  /** Over TLS the certificate says so already. */
  readonly secure: boolean;
}

const plain = (name: string): string => name.toLowerCase().replace(/^\.+|\.+$/g, '');

/**
 * The same identity for those who call this server by a name of its own (a page's own name may be pointed at any address:
 * DNS rebinding) and are sent by no page from elsewhere.
 */
export function guardOrigin(identity: Identity, { names, domains, secure }: OwnNames): Identity {
  const own = new Set(names.flatMap((name) => (name ? [plain(name)] : [])));
  const tails = ['ts.net', ...domains].flatMap((domain) => (domain ? [`.${plain(domain)}`] : []));
  const isOwn = (host: string): boolean => {
    const name = plain(host);
    // An address, and what has no dot, is no name that somebody could have registered.
    const isNobodys = isIP(name.replace(/^\[|\]$/g, '')) !== 0 || !name.includes('.');
    return isNobodys || own.has(name) || tails.some((tail) => name.endsWith(tail));
  };
  return {
    whoIs(request, asking) {
      const called = urlOf(`http://${request.headers.host ?? 'localhost'}`);
      if (called === undefined || !(secure || isOwn(called.hostname))) {
        const advice = [
          'call it by its name on the tailnet; tailscale.tailnet in its configuration says what that ends in',
        ];
        const message = 'this server does not go by the name that it is called by';
        throw new Refusal(421, { message, advice }, { reason: 'foreign_page' });
      }
      if (request.method !== 'GET' && !isSameOrigin(request)) {
        throw new Refusal(
          403,
          { message: 'requests of web pages from elsewhere are refused' },
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

/** True without an Origin: only browsers send one. */
function isSameOrigin({ headers: { origin, host = '' } }: IncomingMessage): boolean {
  if (origin === undefined) return true;
  const page = urlOf(origin);
  // In the page's own scheme, so that its usual port may be left out.
  return page !== undefined && page.host === urlOf(`${page.protocol}//${host}`)?.host;
}
