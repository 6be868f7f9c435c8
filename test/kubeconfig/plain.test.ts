// Compares the fast kubeconfig reader with the YAML parser: for any text both return the same, or the fast one
// declines.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readPlain } from '../../src/kubeconfig/plain.ts';
import { type Layout, parseLayout, parseSource, type Source } from '../../src/kubeconfig/source.ts';
import { cpuTime } from '../fixtures/cpu.ts';

const kubectls = `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    extensions:
    - extension:
        server: http://127.0.0.1:8123
      name: tka.specht-labs.de
    server: https://127.0.0.1:6443
  name: prod-us
contexts:
- context:
    cluster: prod-us
    namespace: "007"
    user: prod-us
  name: prod-us
current-context: ""
kind: Config
preferences: {}
users:
- name: prod-us
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args:
      - credential
      - --server
      - http://127.0.0.1:8123
      command: /home/a b/.krew/bin/kubectl-tka
      env: null
      installHint: |-
        kubectl-tka gets the tokens for this cluster, but it is not installed here.
        Install it with: kubectl krew install tka
      interactiveMode: Never
      provideClusterInfo: false
`;
const ours = kubectls
  .replaceAll(/: ([a-zA-Z0-9./][^"\n]*)$/gm, ': "$1"')
  .replaceAll(/- ([^:\n]+|http:.*)$/gm, '- "$1"')
  .replace(/installHint: \|-\n.*\n.*\n/, 'installHint: "one\\ntwo \\u00e9 \\ud83d\\ude00"\n');

const meaning = ({ value, entries, currentContext }: Source) => ({
  value,
  currentContext,
  entries: Object.values(entries).map((list) => list.map(({ name, body }) => ({ name, body }))),
});

const runs = 3000;

function outcome(read: () => Source): unknown {
  try {
    return meaning(read());
  } catch (error) {
    return String(error);
  }
}

const bytes = (text: string) => Buffer.from(text.toWellFormed());
const layout = (text: string): Layout => parseLayout('config', text.toWellFormed());

function expectAgreement(text: string): boolean {
  const plain = readPlain(text.toWellFormed()) !== undefined;
  if (plain) expect(outcome(() => parseSource('config', bytes(text)))).toEqual(outcome(() => layout(text)));
  return plain;
}

describe('the fast kubeconfig reader', () => {
  it.each([
    ['kubectl’s', kubectls],
    ['ours', ours],
    ['both', kubectls.replace(/users:[\s\S]*/, '') + ours.replace(/^[\s\S]*(?=users:)/, '')],
  ])('reads the %s layout as the YAML parser does', (_, text) => {
    expect(readPlain(text)).toEqual(layout(text).value);
    expect(outcome(() => parseSource('config', bytes(text)))).toEqual(outcome(() => layout(text)));
  });

  it.each([
    ['scalars', "a: 007\nb: 0x1F\nc: yes\nd: ~\ne: .5\nf: 1e3\ng: \"yes\"\nh: 'it''s'\ni: v1.2\nj: -1\nk: 1_000\n"],
    ['nothing', 'a:\nb: null\nc: ""\nd: []\ne: {}\n'],
    ['lists', 'a:\n- x\n- b: 1\n  c:\n  - d\n  - --e\nf:\n    - g\n'],
    ['comments', '# one\na:\n  # two\n  b: c\n# three\nd: e\n'],
    ['literals', 'a: |\n  one\n\n   two\n\n\nb:\n- c: |-\n    # no comment\n    x: y\n  d: e\n'],
  ])('%s', (_, text) => {
    expect(readPlain(text)).toEqual(layout(text).value);
  });

  it.each([
    'a: b # c\n',
    'a: &x b\nc: *x\n',
    'a: !!str 1\n',
    'a: {b: c}\n',
    'a: [b]\n',
    'a: >\n  b\n',
    'a: |+\n  b\n',
    'a: |2\n   b\n',
    'a: |\n  b',
    '"a": b\n',
    '? a\n: b\n',
    'a: b\n c\n',
    'a: "b\n  c"\n',
    'a: "\\x41"\n',
    'a: b: c\n',
    'a:\n- - b\n',
    'a:\n-   b: c\n',
    'a:\n-\n',
    '- a\n',
    '---\na: b\n',
    'a: b\n---\nc: d\n',
    'a: b\n...\n',
    '%YAML 1.1\n---\na: b\n',
    'a: b\r\n',
    'a:\tb\n',
    '\ufeffa: b\n',
    'a: b\na: c\n',
    'yes: b\n',
    '<<: b\n',
    '__proto__: b\n',
    'a:\n    b: c\n  d: e\n',
    'a:\n- b: c\n   d: e\n',
    'a: |\n  b\n c\n',
    `${Array.from({ length: 60 }, (_, i) => `${'  '.repeat(i)}a:`).join('\n')}\n`,
    '# nothing\n',
    '',
  ])('leaves %j to the YAML parser', (text) => {
    expect(readPlain(text)).toBeUndefined();
  });

  it('agrees with the YAML parser on edited texts', () => {
    const alphabet = [
      ...[
        '\n',
        ' ',
        '  ',
        '- ',
        ': ',
        ':',
        '-',
        '#',
        ' #',
        '"',
        "'",
        '\\',
        '|',
        '|-',
        '>',
        '&a ',
        '*a',
        '!',
        '{',
        '}',
        '[',
      ],
      ...[
        ']',
        ',',
        '?',
        '%',
        '@',
        '`',
        '~',
        'null',
        'yes',
        '1',
        '.',
        '\t',
        '\r',
        '---\n',
        '...\n',
        '<<: ',
        '\u0085',
        'é',
      ],
      ...['\n\n', '\n  ', '\n- ', 'a: b\n', '  a: |\n    x\n', '\ufeff', '=', '\u2028', 'contexts:\n'],
    ];
    const edit = fc.tuple(fc.nat(), fc.nat(30), fc.constantFrom('', '', ...alphabet));
    const tampered = fc
      .tuple(fc.constantFrom(kubectls, ours), fc.array(edit, { minLength: 1, maxLength: 4 }))
      .map(([text, edits]) =>
        edits.reduce((before, [at, cut, put]) => {
          const place = at % before.length;
          return before.slice(0, place) + put + before.slice(place + (cut > 20 ? cut - 20 : 0));
        }, text),
      );
    let plain = 0;
    fc.assert(
      fc.property(tampered, (text) => {
        if (expectAgreement(text)) plain++;
      }),
      { numRuns: runs },
    );
    expect(plain).toBeGreaterThan(runs / 20);
  });

  it('agrees with the YAML parser on whatever a YAML writer prints', () => {
    const text = fc.oneof(
      fc.constantFrom('a', 'yes', '~', '1', '-', '- a', 'a: b', 'a #b', '|', '0o7', '1:2', "'", '', ' ', 'a\nb', 'a\n'),
      fc.string({ maxLength: 12 }),
      fc.string({ unit: fc.constantFrom('a', ' ', '\n', '#', ':', '-', '"', '\\', ','), maxLength: 12 }),
    );
    const scalar = fc.oneof(text, fc.integer(), fc.boolean(), fc.constant(null));
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof({ maxDepth: 4 }, scalar, tie('list'), tie('map')),
      list: fc.array(tie('tree'), { maxLength: 4 }),
      map: fc.dictionary(fc.stringMatching(/^[a-z][a-z.-]{0,5}$/), tie('tree'), { maxKeys: 4 }),
    }));
    const style = fc.record({
      lineWidth: fc.constantFrom(0, 20),
      indentSeq: fc.boolean(),
      indent: fc.constantFrom(2, 4),
      blockQuote: fc.constantFrom('literal' as const, false),
      defaultStringType: fc.constantFrom('PLAIN' as const, 'QUOTE_DOUBLE' as const, 'QUOTE_SINGLE' as const),
      version: fc.constant('1.1' as const),
    });
    let plain = 0;
    fc.assert(
      fc.property(fc.array(tree, { minLength: 1, maxLength: 3 }), style, (values, options) => {
        const document = Object.fromEntries(values.map((value, i) => [`key${i}`, value]));
        if (expectAgreement(stringify(document, options))) plain++;
      }),
      { numRuns: runs },
    );
    expect(plain).toBeGreaterThan(runs / 20);
  });

  it('takes time proportional to the size of any text', async () => {
    const size = 1_000_000;
    const hostile = [
      `a: ${'b '.repeat(size / 2)}`,
      `a: "${'\\\\'.repeat(size / 2)}`,
      `a: '${"''".repeat(size / 2)}`,
      `a: ${':'.repeat(size)}`,
      'a:\n'.repeat(size / 3),
      `a: |\n${' \n'.repeat(size / 2)}`,
      `a: |\n  b\n${'  \n'.repeat(size / 3)}x`,
      `${'-'.repeat(size)}: a`,
      Array.from({ length: 1400 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'),
    ];
    for (const text of hostile) expect(await cpuTime(() => readPlain(text), 1000)).toBeLessThan(1000);
  });
});
