import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { textWith, textWithout } from '../../src/settings/edit.ts';

describe('textWith', () => {
  it.each<[string, string, string | undefined]>([
    ['replaces only the value', 'tailscale:\n    port:   1   # one\n', 'tailscale:\n    port:   80   # one\n'],
    ['adds a key', 'debug: true # d\n', 'debug: true # d\ntailscale:\n  port: 80\n'],
    ['fills an empty key', 'tailscale:\n  port: # none\n', 'tailscale:\n  port: 80 # none\n'],
    ['writes into an empty text', '', 'tailscale:\n  port: 80\n'],
    ['gives up if the section is not a map', 'tailscale: 7\n', undefined],
    ['gives up on what is not YAML', 'tailscale: [\n', undefined],
  ])('%s', async (_, before, after) => {
    expect(await textWith(before, 'tailscale.port', 80)).toBe(after);
  });

  it('quotes a text that YAML 1.1 takes for a boolean', async () =>
    expect(await textWith('tailscale: {hostname: x}', 'tailscale.hostname', 'no')).toBe('tailscale: {hostname: "no"}'));
});

describe('textWithout', () => {
  it.each<[string, string, string, string | undefined]>([
    ['removes the lines of the key', 'debug', '# a\ndebug: true # b\n# c\ntls: {}\n', '# a\n# c\ntls: {}\n'],
    ['removes a list at the same indentation', 'debug', 'debug:\n- 1\n- 2\ntls: {}\n', 'tls: {}\n'],
    ['removes a block text', 'debug', 'debug: |\n  a\n\n  b\ntls: {}\n', 'tls: {}\n'],
    ['removes the last line without a newline', 'debug', 'tls: {}\ndebug: true', 'tls: {}\n'],
    ['removes every spelling', 'debug', 'debug: true\nDebug: x\ntls: {}\n', 'tls: {}\n'],
    ['returns the same text without the key', 'debug', 'tls: {} # a\n', 'tls: {} # a\n'],
    ['gives up on what is not YAML', 'debug', 'debug: [\n', undefined],
    // The alias would then point to nothing.
    ['gives up where another key needs the anchor', 'other', 'other: &a tag:x\ntailscale:\n  tag: *a\n', undefined],
  ])('%s', async (_, key, before, after) => expect(await textWithout(before, key)).toBe(after));
});

it('changes no other key of any file', async () => {
  const value = fc.oneof(fc.boolean(), fc.integer(), fc.string(), fc.constant(null), fc.array(fc.string()));
  const section = fc.dictionary(fc.constantFrom('hostname', 'port', 'tag', 'PORT', 'x'), value);
  const file = fc.record(
    { tailscale: section, tls: fc.dictionary(fc.constantFrom('caFile', 'y'), value), debug: value, other: value },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(file, fc.boolean(), async (content, isFlow) => {
      const { stringify } = await import('yaml');
      const text = isFlow ? JSON.stringify(content) : stringify(content);
      const same = (after: string) => {
        const { tailscale: old, ...before } = parse(text) ?? {};
        const { tailscale: now, ...left } = parse(after) ?? {};
        const others = (map: object | null | undefined) =>
          Object.fromEntries(Object.entries(map ?? {}).filter(([key]) => key.toLowerCase() !== 'port'));
        expect([left, others(now)]).toEqual([before, others(old)]);
      };
      const set = await textWith(text, 'tailscale.port', 80);
      if (set !== undefined) same(set);
      const unset = await textWithout(text, 'tailscale.port');
      if (unset !== undefined) {
        same(unset);
        expect(Object.keys(parse(unset)?.tailscale ?? {}).map((key) => key.toLowerCase())).not.toContain('port');
      }
    }),
    { numRuns: 200 },
  );
});
