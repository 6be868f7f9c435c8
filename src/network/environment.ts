import { TkaError } from '../util/errors.ts';
import { hostOf } from '../util/url.ts';
import { bypassesProxy } from './no-proxy.ts';
import type { Destination } from './plain.ts';

/** A proxy that the environment names. */
export interface ProxyServer {
  readonly kind: 'http' | 'https' | 'socks5';
  readonly host: string;
  readonly port: number;
  readonly credentials?: { readonly user: string; readonly password: string };
  /** The URL without credentials: `socks5://127.0.0.1:1055`. */
  readonly shown: string;
  /** The environment variable that names it: `ALL_PROXY`. */
  readonly variable: string;
}

// As in Go and kubectl, socks5 leaves name resolution to the proxy; elsewhere that is called socks5h. A userspace
// tailscaled needs it: only tailscaled can resolve the tailnet's names.
const kinds: Readonly<Record<string, { kind: ProxyServer['kind']; port: number }>> = {
  http: { kind: 'http', port: 80 },
  https: { kind: 'https', port: 443 },
  socks5: { kind: 'socks5', port: 1080 },
  socks5h: { kind: 'socks5', port: 1080 },
};

/**
 * Returns the proxy that `variable` names; undefined if NO_PROXY excludes the target. Throws TkaError for an invalid
 * value.
 */
export function proxyFor(
  variable: string,
  env: Readonly<Record<string, string | undefined>>,
  target: Destination,
): ProxyServer | undefined {
  if (bypassesProxy(env.NO_PROXY || env.no_proxy || '', target.host, target.port)) return undefined;
  return parseProxy(variable, env[variable] ?? '');
}

/** Reads the URL of a proxy. Throws TkaError; the error does not quote the value, which may hold a password. */
export function parseProxy(variable: string, value: string): ProxyServer {
  const text = value.trim();
  const scheme = /^([^/?#@]*):\/\//.exec(text)?.[1]?.toLowerCase() ?? 'http';
  const known = Object.hasOwn(kinds, scheme) ? kinds[scheme] : undefined;
  if (known === undefined) {
    const named = /^[a-z][a-z0-9+.-]{0,30}$/.test(scheme) ? `of the kind ${scheme}` : 'of an unknown kind';
    throw new TkaError(`${variable} names a proxy ${named}, which is not supported`, {
      hints: [`${variable} may be http://, https://, socks5:// or socks5h://HOST:PORT`],
    });
  }
  let url: URL;
  try {
    url = new URL(text.includes('://') ? text : `http://${text}`);
    if (url.hostname === '') throw new Error('no host');
    const [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
    return {
      ...known,
      host: hostOf(url),
      port: Number(url.port) || known.port,
      ...(user + password !== '' && { credentials: { user, password } }),
      shown: `${scheme}://${url.host}`,
      variable,
    };
  } catch {
    throw new TkaError(`${variable} is not a proxy URL`, {
      hints: [
        `example: ${variable}=${scheme}://127.0.0.1:${known.port === 443 ? 8443 : known.port}`,
        'in a user name or password, characters such as # / ? @ % are written %23 %2F %3F %40 %25',
      ],
    });
  }
}
