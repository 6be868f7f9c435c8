// The answers of the stand-in for tailscaled to whois and certificate requests, in the format of the real tailscaled.

/** The device and user at the other end of a connection. */
export interface StandInCaller {
  /** `alice@example.com`. */
  readonly login: string;
  /** The device's StableNodeID. Default: the same for all callers. */
  readonly device?: string;
  /** The device's DNS name. Default: `laptop.example.ts.net`. */
  readonly dnsName?: string;
  readonly tags?: readonly string[];
  /** Grants by capability. */
  readonly capabilities?: Readonly<Record<string, readonly unknown[]>>;
  /** Fields that replace the usual ones of the document. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

/** Both are PEM. */
export interface StandInKeyPair {
  readonly key: string;
  readonly cert: string;
}

/** An answer: status, text, and the content type if it is not plain text. */
export type StandInAnswer = readonly [status: number, text: string, type?: string];

/** Answers `/localapi/v0/whois` (ipn/localapi, serveWhoIs). */
export function whoisAnswer(
  query: URLSearchParams,
  whois: (address: string, port: number) => StandInCaller | undefined,
): StandInAnswer {
  const given = query.get('addr') ?? '';
  if (given === '') return [400, "missing 'addr' parameter\n"];
  const [, v6, v4, port] = /^(?:\[([0-9a-f:]+)\]|([0-9.]+)):([0-9]{1,5})$/i.exec(given) ?? [];
  const address = v6 ?? v4;
  if (address === undefined) return [400, "invalid 'addr' parameter\n"];
  const caller = whois(address, Number(port));
  if (caller === undefined) return [404, 'no match for IP:port\n'];
  const { login, device = 'n7CNTRL', dnsName = 'laptop.example.ts.net', tags, capabilities = null, fields } = caller;
  const document = {
    Node: {
      ID: 7,
      StableID: device,
      Name: `${dnsName}.`,
      User: tags === undefined ? 1 : 2,
      Key: `nodekey:${'7'.repeat(64)}`,
      KeyExpiry: '2027-01-01T00:00:00Z',
      Machine: `mkey:${'7'.repeat(64)}`,
      DiscoKey: `discokey:${'7'.repeat(64)}`,
      Addresses: ['100.64.0.7/32', 'fd7a:115c:a1e0::7/128'],
      AllowedIPs: ['100.64.0.7/32', 'fd7a:115c:a1e0::7/128'],
      Endpoints: null,
      HomeDERP: 4,
      Hostinfo: { OS: 'linux', Hostname: 'laptop', Services: [] },
      Created: '2026-01-01T00:00:00Z',
      Cap: 130,
      Tags: tags,
      Online: true,
      ComputedName: 'laptop',
      ComputedNameWithHost: 'laptop',
    },
    UserProfile: {
      ID: tags === undefined ? 1 : 2,
      LoginName: tags === undefined ? login : 'tagged-devices',
      DisplayName: tags === undefined ? login : 'Tagged Devices',
      ProfilePicURL: '',
    },
    CapMap: capabilities,
    ...fields,
  };
  return [200, JSON.stringify(document, undefined, '\t'), 'application/json'];
}

/** Answers `/localapi/v0/cert/NAME` (ipn/localapi, serveCert and serveKeyPair). */
export function certAnswer(
  name: string,
  query: URLSearchParams,
  certificate: (name: string) => StandInKeyPair | undefined,
): StandInAnswer {
  const pair = certificate(name);
  if (pair === undefined) return [500, `invalid domain ${JSON.stringify(name)}; no names are permitted\n`];
  const type = query.get('type') ?? 'cert';
  if (type === 'pair') return [200, pair.key + pair.cert];
  if (type === 'key') return [200, pair.key];
  if (type === 'cert' || type === 'crt') return [200, pair.cert];
  return [400, 'invalid type; want "cert" (default), "key", or "pair"\n'];
}
