// The refusal of a caller to whom the tailnet's policy grants nothing, and the grant that is missing.
import { own, texts } from '../util/json.ts';
import { cleanText } from '../util/text.ts';
import { joinedNameOf, placeOf } from '../util/url.ts';
import { Refused } from './errors.ts';

/** The documentation of the policy's rules. */
export const policyPage = 'https://github.com/SpechtLabs/kubectl-tka/blob/main/docs/policy.md';

// The default of the server's `tailscale.capName`.
const usualCapability = 'specht-labs.de/cap/tka';

// The default of a login server's `federation.capName`, for the clusters that have joined it.
const joinedCapability = 'specht-labs.de/cap/tka-federation';

/** Who has no grant at a server. */
export interface Ungranted {
  /** The server's URL. */
  readonly server: string;
  readonly capability: string;
  /** Empty if unknown, and for a tagged device. */
  readonly login: string;
  /** The tags of a device; empty for the device of a person. */
  readonly tags: readonly string[];
}

/** The policy grants the caller nothing (403). */
export class NoGrant extends Refused {
  override readonly name = 'NoGrant';
  readonly about: Ungranted;

  /** `place` is the server for people. Default: placeOf() of its URL. */
  constructor(about: Ungranted, options: { readonly hints: readonly string[]; readonly place?: string }) {
    const { server, capability, login, tags } = about;
    const who = tags.length > 0 ? `this device (${tags.join(', ')})` : login || 'you';
    const missing = `the tailnet policy does not give the capability ${capability} there`;
    super(`no grant for ${who} on ${options.place ?? placeOf(server)}: ${missing} (HTTP 403)`, 403, options);
    this.about = about;
  }
}

// The words of the Go server, which does not send the capability. Its handlers and its middleware differ.
const noGrantWords = /^(?:no grant found for user|user not authorized)/i;

/** Returns the refusal in the body of a 403 answer; undefined if it is about something else. */
export function noGrantIn(
  body: unknown,
  server: string,
  words: { readonly message: string; readonly advice: readonly string[] },
): NoGrant | undefined {
  const textOf = (field: string, limit: number): string => {
    const value = own(body, field);
    return typeof value === 'string' ? cleanText(value, limit) : '';
  };
  const capability = textOf('capability', 256);
  if (capability === '' && !noGrantWords.test(words.message)) return undefined;
  const tags = texts(own(body, 'tags'), 16).filter((tag) => /^tag:[A-Za-z][A-Za-z0-9-]{0,62}$/.test(tag));
  const usual = joinedNameOf(server) === undefined ? usualCapability : joinedCapability;
  const about = { server, capability: capability || usual, login: textOf('login', 320), tags };
  return new NoGrant(about, {
    hints: [...words.advice, `see which grant is missing: kubectl tka doctor ${server}`],
  });
}

/**
 * Returns the grant to add to `grants` in the tailnet's policy, as one line of JSON; for a joined cluster, a grant on its
 * login server that names the cluster. `tag` is the tag of the TKA servers.
 */
export function missingGrant({ server, capability, login, tags: [device] }: Ungranted, tag: string): string {
  const { protocol, port } = new URL(server);
  const src = JSON.stringify(device ?? (login || unknownLogin));
  const ip = `"tcp:${port || (protocol === 'https:' ? 443 : 80)}"`;
  const name = joinedNameOf(server);
  const clusters = name === undefined ? '' : `, "clusters": [${JSON.stringify(name)}]`;
  const rule = `{ "role": "view", "period": "${device === undefined ? '8h' : '1h'}"${clusters} }`;
  const app = `{ ${JSON.stringify(capability)}: [${rule}] }`;
  return `{ "src": [${src}], "dst": [${JSON.stringify(tag)}], "ip": [${ip}], "app": ${app} }`;
}

/** Stands for a login that neither the server nor tailscaled knows. */
export const unknownLogin = 'you@example.com';
