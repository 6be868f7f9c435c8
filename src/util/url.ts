import { TkaError } from './errors.ts';

// The characters of DNS names and IPv6 literals. WHATWG allows more, but no real host needs them, and the name becomes
// part of a cache entry's file name.
const hostShape = /^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])$/;

/** Returns a URL for an error message: quoted, cut, without credentials. */
export function quotedUrl(text: string): string {
  const bounded = text.slice(0, 2048);
  // No regular expression: one for `//…@` takes quadratic time on a text of slashes.
  const [from, to] = [bounded.indexOf('//'), bounded.lastIndexOf('@')];
  const safe = from >= 0 && to > from ? `${bounded.slice(0, from)}//[redacted]${bounded.slice(to)}` : bounded;
  return JSON.stringify(safe.slice(0, 200));
}

function parseWebUrl(text: string, what: string): URL {
  const bad = (why: string) => new TkaError(`${what} ${quotedUrl(text)} ${why}`);
  if (text.length > 2048) throw bad('is too long');
  // The URL parser silently drops tabs and newlines, so refuse them here.
  if (/[\u0000-\u0020\u007f-\u009f]/.test(text)) throw bad('contains white space or control characters');
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new TkaError(`${what} ${quotedUrl(text)} is not a URL`, { cause });
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw bad('must start with http:// or https://');
  if (url.username !== '' || url.password !== '') throw bad('contains credentials');
  url.hostname = url.hostname.replace(/\.$/, '');
  if (!hostShape.test(url.hostname) || url.hostname.includes('..')) throw bad('has an invalid host name');
  if (url.port === '0') throw bad('has port 0');
  return url;
}

/** Returns the host of a URL: a name, or an IP address without brackets. */
export function hostOf(url: string | URL): string {
  return new URL(url).hostname.replace(/^\[|\]$/g, '');
}

const apiPathShape = /^\/?(?:api\/v1alpha1\/?)?$/;
// NAME is a DNS label.
const joinedShape = /^\/clusters\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\/api\/v1alpha1)?\/*$/;

/**
 * Returns the canonical URL of a TKA server: its WHATWG origin without a trailing dot in the host,
 * `https://tka.example.ts.net`, followed by `/clusters/NAME` for a cluster that has joined it. Accepts no other path
 * except `/` and the API's own (`/api/v1alpha1`) at the end. Throws TkaError for anything else.
 */
export function canonicalServer(text: string): string {
  const url = parseWebUrl(text, 'server');
  // The path as it was written: the URL parser resolves `..` and `%2e%2e`, and reads `\` as `/`.
  const path = text.replace(/^[a-z]+:[/\\]*[^/\\?#]*/i, '');
  const origin = `${url.protocol}//${url.host}`;
  if (apiPathShape.test(path)) return origin;
  const name = joinedShape.exec(path)?.[1];
  if (name !== undefined) return `${origin}/clusters/${name}`;
  throw new TkaError(`server ${quotedUrl(text)} has a path other than /clusters/NAME`);
}

/** Returns the canonical URL of a TKA server as canonicalServer() does, but throws TkaError for a joined cluster's. */
export function canonicalOrigin(text: string): string {
  const server = canonicalServer(text);
  if (joinedNameOf(server) === undefined) return server;
  throw new TkaError(`server ${quotedUrl(text)} has a path; only scheme, host and port are allowed`);
}

/** Returns NAME of a canonical URL that ends in `/clusters/NAME`; undefined for a server's own. */
export function joinedNameOf(server: string): string | undefined {
  return /\/clusters\/([^/]+)$/.exec(server)?.[1];
}

/** Returns the words for a TKA server in a message: its URL, or `cluster NAME through login server URL`. */
export function placeOf(server: string): string {
  const name = joinedNameOf(server);
  return name === undefined ? server : `cluster ${name} through login server ${originOf(server)}`;
}

/** Returns the origin of a TKA server's canonical URL; for a joined cluster's, that is its login server's. */
export function originOf(server: string): string {
  return new URL(server).origin;
}

/**
 * Returns the canonical URL of a Kubernetes API server, for comparison and for a kubeconfig: WHATWG form without a
 * trailing dot or slash. Throws TkaError for anything but a plain https URL (kubectl sends no token over http).
 */
export function canonicalApiServer(text: string): string {
  const url = parseWebUrl(text, 'API server');
  if (url.protocol !== 'https:') throw new TkaError(`API server ${quotedUrl(text)} is not https`);
  if (url.search !== '' || url.hash !== '') throw new TkaError(`API server ${quotedUrl(text)} has a query or fragment`);
  return `${url.protocol}//${url.host}${withoutSlashes(url.pathname)}`;
}

/** Returns a path without slashes at its end. (`/\/+$/` takes quadratic time on a path of slashes.) */
export function withoutSlashes(path: string): string {
  let end = path.length;
  while (path[end - 1] === '/') end--;
  return path.slice(0, end);
}
