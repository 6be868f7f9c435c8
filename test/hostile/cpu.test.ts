// The answers of a server, a proxy or a tailnet must be read in time proportional to their length. Each reader gets
// every repetition that could make an expression or a loop go back over text it has read. The limit is a multiple of
// the time that this machine takes, in this run, to parse JSON of that length.
import { describe, expect, test } from 'vitest';
import { accessChanges } from '../../src/cli/sync/changes.ts';
import { parseMemberlistHtml } from '../../src/discovery/html.ts';
import { goPage } from '../../src/sandbox/go-memberlist.ts';
import { parseStatus } from '../../src/tailscale/status.ts';
import { parseClusterInfo, parseKubeconfig, parseSignIn } from '../../src/tka/answers.ts';
import { decoded } from '../../src/tka/client.ts';
import { parseMemberlist } from '../../src/tka/memberlist.ts';
import { type RawAnswer, retryAfter, serverTime } from '../../src/tka/raw-answer.ts';
import { checkToken } from '../../src/tka/token.ts';
import { cleanText } from '../../src/util/text.ts';
import { cpuTime } from '../fixtures/cpu.ts';
import { pick, randomCases } from './junk.ts';

/** Characters of hostile text in one answer. */
const size = 128 * 1024;
/** Limit of a reader, as a multiple of the reference. */
const most = 100;

const referenceText = `[${'"a",1,{},'.repeat(size / 10)}1]`;
const reference = await cpuTime(() => JSON.parse(referenceText));
const limit = Math.max(most * reference, 80);

async function quick(work: () => unknown): Promise<void> {
  expect(await cpuTime(work, limit), `the reference took ${reference} ms`).toBeLessThan(limit);
}

/** Repeated pieces: the beginnings and ends that readers look for, and what stands between them. */
const pieces = [
  ...['-----BEGIN CERTIFICATE-----', '-----END CERTIFICATE-----', '-----BEGIN ', '-', '-----BEGIN CERTIFICATE-----\n'],
  ...[
    '/',
    '//',
    '/.',
    '/../',
    'https://',
    '://',
    '@',
    '//@',
    ':',
    '::',
    '[',
    ']',
    '?',
    '#',
    '%',
    '%41',
    '.',
    'a.',
    '-.',
  ],
  ...[
    'a',
    '0',
    '_',
    'A=',
    '=',
    '==',
    'AAAA',
    '+',
    '\\',
    '"',
    "'",
    '`',
    '$',
    '{',
    '}',
    '{"a":',
    '[[',
    ',',
    '-',
    '- ',
    '? ',
  ],
  ...[' ', '\t', '\n', '\r', '\r\n', ' \n', '\u00a0', '\u2028', '\u200b', '\u202e', '\u001b', '\u001b[31m', '\u0000'],
  ...['é', '日', 'ß', 'xn--', '\u0130', '\ud800', '\ud83d\ude42', '\u{e0061}', 'a\u0301', '\u0301'],
  ...[
    '&amp;',
    '&',
    '&#',
    '&#x',
    '&#1;',
    '&notit;',
    '<',
    '<a',
    '</',
    '<!--',
    '<td>',
    '</td>',
    '<b ',
    ' a',
    ' a=',
    ' class=""',
  ],
  ...[
    '<li><strong>',
    '1h',
    '1.',
    ' ago',
    'a: 1\n',
    '&a ',
    '*a ',
    '&a [*a,',
    '!',
    '!!x ',
    '|',
    '>',
    '# ',
    '---\n',
    '<<: ',
  ],
  ...['2026-11-21', 'T', 'Z', 'tag:', 'a-', 'gossip', 'Nov ', '1,', '[],', '{},', '"",', '\\u0000', '%2e'],
];
const long = (piece: string, length = size) => piece.repeat(Math.ceil(length / piece.length)).slice(0, length);
/** A piece repeated: alone, with an end that makes it invalid, and after a beginning that makes it relevant. */
const variants = (piece: string, length = size) => {
  const text = long(piece, length);
  return [text, `${text}!`, `https://a${text}`];
};

const answer = (body: string, headers: Record<string, string> = {}): RawAnswer => ({ status: 200, headers, body });
const attempt = (read: () => unknown) => {
  try {
    return read();
  } catch {
    return undefined;
  }
};
const json = (read: (answer: RawAnswer) => unknown, make: (text: string) => unknown) => (text: string) =>
  attempt(() => read(answer(JSON.stringify(make(text)))));
const clusterInfo = (answer: RawAnswer) => parseClusterInfo(answer, 'the server');
const kubeconfig = (answer: RawAnswer) => parseKubeconfig(answer, 'the server', 0);
const signIn = (answer: RawAnswer) => parseSignIn(answer, 'the server');
const refused = (answer: RawAnswer) => parseSignIn({ ...answer, status: 403 }, 'the server');
const memberlist = (answer: RawAnswer) => parseMemberlist(answer, 'the server');
const base64 = (text: string) => Buffer.from(text).toString('base64');
const server_url = 'https://api.example.com:6443';
const about = { username: 'alice', role: 'viewer', until: '2026-11-21T00:00:00Z' };
const access = (fields: object, user: object = {}) => ({
  clusters: { c: { server: server_url, ...fields } },
  users: { u: user },
  contexts: { x: { cluster: 'c', user: 'u' } },
  'current-context': 'x',
});
/** Splits a text into as many parts as may be that long. */
const parts = <T>(text: string, length: number, make: (part: string) => T): T[] =>
  Array.from({ length: Math.floor(text.length / length) }, (_, i) => make(text.slice(i * length, (i + 1) * length)));
const members =
  (length: number, make: (part: string) => object, times = 1) =>
  (text: string) =>
    parts(text.repeat(times), length, (part) => ({ apiEndpoint: server_url, ...make(part) }));
const peer = { DNSName: 'a.example.ts.net.', TailscaleIPs: ['100.64.0.1'], Online: true };
const status = (text: string) => (fields: object) =>
  attempt(() =>
    parseStatus(
      JSON.stringify({
        BackendState: 'Running',
        CurrentTailnet: { MagicDNSSuffix: 'example.ts.net' },
        Self: peer,
        Peer: Object.fromEntries(parts(text, 250, String).map((part, i) => [i, { ...peer, ...fields, DNSName: part }])),
      }),
      { loopback: false },
    ),
  );
const page = (change: Partial<Parameters<typeof goPage>[0][number]>) =>
  goPage([
    {
      hostName: 'tka',
      address: '100.64.0.1:7946',
      apiEndpoint: server_url,
      labels: {},
      state: 'healthy',
      lastSeenSeconds: 1,
      isLocal: false,
      ...change,
    },
  ]);
const html = (template: string) => (text: string) => parseMemberlistHtml(template.replace('HERE', () => text));

const readers: Readonly<Record<string, (text: string) => unknown>> = {
  'any answer, as its body': (text) =>
    [clusterInfo, kubeconfig, memberlist, refused].map((read) => attempt(() => read(answer(text)))),
  'an answer in YAML': (text) => decoded(answer(text.slice(0, 64 * 1024), { 'content-type': 'application/yaml' })),
  'the API server': json(clusterInfo, (text) => ({ server_url: text })),
  'a CA': json(clusterInfo, (text) => ({ server_url, ca_data: text })),
  'a CA in base64': json(clusterInfo, (text) => ({ server_url, ca_data: base64(text) })),
  labels: json(clusterInfo, (text) => ({
    server_url,
    labels: Object.fromEntries(parts(text, 2048, (part) => [part, part])),
  })),
  'a label': json(clusterInfo, (text) => ({ server_url, labels: { [text]: text } })),
  'the CA of a kubeconfig': json(kubeconfig, (text) => access({ 'certificate-authority-data': base64(text) })),
  'a token': json(kubeconfig, (text) => access({}, { token: text })),
  'a token of allowed length': (text) => parts(text, 16_000, (part) => checkToken(part, 0)),
  'the payload of a token': (text) => parts(text, 12_000, (part) => checkToken(`a.${base64(part)}.a`, 0)),
  'the user of a sign-in': json(signIn, (text) => ({ ...about, username: text, role: text })),
  'the end of a sign-in': json(signIn, (text) => ({ ...about, until: text })),
  'a message': json(refused, (text) => ({ message: text, advice: [text], cause: { message: text } })),
  'much advice': json(refused, (text) => ({ message: 'no', advice: parts(text, 200, String) })),
  headers: (text) => {
    retryAfter(answer('', { 'retry-after': text }));
    serverTime(answer('', { date: text }));
  },
  'the API servers of members': json(
    memberlist,
    members(2048, (apiEndpoint) => ({ apiEndpoint }), 2),
  ),
  'paths of the API servers of members': json(
    memberlist,
    members(2000, (part) => ({ apiEndpoint: `https://a/${part}!` }), 2),
  ),
  'the servers of members': json(
    memberlist,
    members(2048, (server) => ({ server }), 2),
  ),
  'the names of members': json(
    memberlist,
    members(253, (name) => ({ name })),
  ),
  'the states of members': json(
    memberlist,
    members(200, (part) => ({ state: part, lastSeen: part, version: part })),
  ),
  'the CAs of a context before and after': (text) => {
    const context = {
      name: '',
      cluster: '',
      user: '',
      file: '',
      server: '',
      apiServer: server_url,
      command: undefined,
    };
    const insecure = { insecureSkipTlsVerify: false };
    const before = { ...context, ...insecure, caData: base64(text) };
    return accessChanges(before, { ...insecure, apiServer: server_url, caData: base64(`${text}!`) });
  },
  'the names of peers': (text) => status(text)({}),
  'the tags and addresses of peers': (text) =>
    status('a.')({ Tags: parts(text, 2048, String), TailscaleIPs: parts(text, 45, String) }),
  'a page': parseMemberlistHtml,
  'a page up to its head': html(page({}).replace('<style', 'HERE<style')),
  'a page, in an attribute': html(page({}).replace('<style', '<style a="HERE"')),
  'a page, in a tag': html(page({}).replace('<style', '<style HERE')),
  'a cell of a page': html(page({ address: 'HERE' })),
  'an endpoint on a page': html(page({ apiEndpoint: 'https://HERE' })),
  'a label on a page': html(page({ labels: { HERE: 'b' } })),
  'text for the user': (text) => parts(text, 2048, (part) => cleanText(part)).concat(cleanText(text)),
};

describe('CPU time is proportional to the length of the input', () => {
  for (const [name, read] of Object.entries(readers)) {
    test(name, async () => {
      for (const piece of pieces) {
        for (const text of variants(piece)) {
          const took = await cpuTime(() => read(text), limit);
          expect(took, `${JSON.stringify(text.slice(0, 40))}…, with a reference of ${reference} ms`).toBeLessThan(
            limit,
          );
        }
      }
    });
  }

  test.each(randomCases(60, 9))('%s', async (_, chance) => {
    const names = Object.keys(readers);
    const [name, some] = [pick(chance, names), [pick(chance, pieces), pick(chance, pieces), pick(chance, pieces)]];
    const text = long(some.join(''), size / 2) + long(pick(chance, pieces), size / 2);
    await quick(() => readers[name]?.(text));
  });
});
