/** All settings. Keys are spelled as in the Go CLI's documentation; it lacks `tailscale.tag` and `tls.caFile`. */
export const settingKeys = {
  'tailscale.hostname': {
    type: 'string',
    fallback: undefined,
    meaning: 'the TKA server to ask when none is named: a host name or a URL',
  },
  'tailscale.tailnet': {
    type: 'suffix',
    fallback: '',
    meaning: 'the DNS suffix of the tailnet, as in example.ts.net; tailscaled knows it',
  },
  'tailscale.port': {
    type: 'port',
    fallback: 443,
    meaning: 'port of the TKA server: https on 443, plain http otherwise',
  },
  'tailscale.tag': { type: 'tag', fallback: 'tag:tka', meaning: 'tag that the TKA servers of the tailnet carry' },
  'tls.caFile': {
    type: 'string',
    fallback: undefined,
    meaning: 'file with certificate authorities to trust besides the usual ones',
  },
  debug: { type: 'boolean', fallback: false, meaning: 'verbose debug output on stderr, without tokens' },
  'output.long': { type: 'boolean', fallback: false, meaning: 'print tables as with -o wide' },
  'output.quiet': { type: 'boolean', fallback: false, meaning: 'no notices' },
} as const;

/** Keys of the Go CLI in the same file that have no effect here. */
export const unusedKeys = ['output.theme', 'api.retryAfterSeconds'] as const;

// Without a file of the user's, /etc/tka/config.yaml is read, which may be that of a TKA server.
const serverKeys =
  /^(?:(?:admin|audit|clusterInfo|federation|gossip|health|identity|operator|otel|server)(?:\.|$)|tailscale\.(?:capName|stateDir)$)/i;

/** Returns whether a key is one of a TKA server's configuration, and none of this program. */
export const isServerKey = (dotted: string): boolean => serverKeys.test(dotted);

export type SettingKey = keyof typeof settingKeys;
export type SettingValue = string | number | boolean;

/** Returns the environment variable that overrides a key: `TKA_TAILSCALE_PORT`. */
export function environmentName(key: SettingKey): string {
  return `TKA_${key.toUpperCase().replace(/[.-]/g, '_')}`;
}

/** Returns the key in its documented spelling for a name in any case; undefined for an unknown name. */
export function settingKey(name: string): SettingKey | undefined {
  const wanted = name.toLowerCase();
  return (Object.keys(settingKeys) as SettingKey[]).find((key) => key.toLowerCase() === wanted);
}

/** Reads a value for a key. Returns the value, or a problem that begins with `must be`. */
export function readSetting(key: SettingKey, value: unknown): { value: SettingValue } | { problem: string } {
  const text = typeof value === 'string' ? value.trim() : value;
  switch (settingKeys[key].type) {
    case 'string':
      if (typeof text === 'number') return { value: String(text) };
      if (typeof text !== 'string') return { problem: 'must be text' };
      if (/[\u0000-\u001f\u007f-\u009f]/.test(text) || text.length > 1024)
        return { problem: 'must be one line of plain text' };
      return { value: text };
    case 'suffix': {
      if (typeof text !== 'string') return { problem: 'must be text' };
      const labels = text.replace(/^\.+|\.+$/g, '').split('.');
      const isLabel = (label: string) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(label);
      if (text === '' || (text.length <= 253 && labels.every(isLabel))) return { value: text };
      return { problem: 'must be a DNS suffix like example.ts.net' };
    }
    case 'tag':
      // As tags are spelled in the policy file.
      if (typeof text === 'string' && /^tag:[a-z][a-z0-9-]{0,62}$/i.test(text)) return { value: text };
      return { problem: 'must be a tag like tag:tka' };
    case 'boolean':
      if (typeof text === 'boolean') return { value: text };
      // As Go's strconv.ParseBool, which the Go CLI uses.
      if (typeof text === 'string' && /^(?:1|t|true)$/i.test(text)) return { value: true };
      if (typeof text === 'string' && /^(?:0|f|false)$/i.test(text)) return { value: false };
      return { problem: 'must be true or false' };
    case 'port': {
      const number = typeof text === 'string' && /^[0-9]{1,9}$/.test(text) ? Number(text) : text;
      if (typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= 65535)
        return { value: number };
      return { problem: 'must be a port from 1 to 65535' };
    }
  }
}
