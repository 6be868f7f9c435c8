import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync } from 'node:fs';
import { createServer } from 'node:http';
import { promisify } from 'node:util';
import { Parser } from 'htmlparser2';
import { describe, expect, test } from 'vitest';
import { parseMemberlistHtml } from '../../../src/discovery/html.ts';
import { close, listen } from '../../../src/server/http/listen.ts';
import { TkaClient } from '../../../src/tka/client.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
import { TemporaryFolder } from '../../fixtures/temporary.ts';
import { api, ask, members, sample, serve } from '../support.ts';

const path = `${api}/memberlist`;
const browser = 'text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8';

test.each([
  [undefined, 'json'],
  ['', 'json'],
  ['*/*', 'json'],
  ['application/json', 'json'],
  ['application/json, */*;q=0.1', 'json'],
  ['text/html;q=0.5, */*;q=0.8', 'json'],
  ['text/html;q=0, */*', 'json'],
  ['application/xml', 'json'],
  ['text/plain', 'json'],
  [';;,=', 'json'],
  [browser, 'html'],
  ['text/html', 'html'],
  ['TEXT/HTML', 'html'],
  ['text/*', 'html'],
  ['application/json;q=0.5, text/html', 'html'],
])('Accept: %s gets %s', async (accept, form) => {
  await serve({ members: () => members });
  const { status, headers, body } = await ask('GET', path, accept === undefined ? {} : { accept });
  expect(status).toBe(200);
  expect(headers.vary).toBe('Accept');
  expect(headers['content-type']).toBe(
    form === 'json' ? 'application/json; charset=utf-8' : 'text/html; charset=utf-8',
  );
  if (form === 'json') expect(JSON.parse(body)).toEqual(members);
  else expect(body).toMatch(/^<!DOCTYPE html>/);
});

test.each(['memberlist-html', 'memberlist-html-suspected'])('status and headers as in %s', async (name) => {
  const expected = sample(name);
  await serve({ members: () => members });
  const { status, headers } = await ask('GET', path, { accept: browser });
  expect(status).toBe(expected.status);
  expect(headers['content-type']).toBe(expected.headers['Content-Type']);
  expect(headers['transfer-encoding']).toBe(expected.headers['Transfer-Encoding']);
});

test.each([
  ['with their labels', 3],
  ['without labels, where these are too long for that', 15],
])('a client reads a list of 10,000 members: %s', async (_, labels) => {
  const long = Object.fromEntries(
    Array.from({ length: labels }, (_, i) => [`example.com/label-${i}`, 'x'.repeat(200)]),
  );
  const row = members[0] as MemberRow;
  const rows = Array.from({ length: 10_000 }, (_, i) => ({ ...row, name: `tka-${i}`, labels: long }));
  const client = new TkaClient(`http://127.0.0.1:${await serve({ members: () => rows })}`);
  const list = await client.memberlist({ timeout: 60_000 }).finally(() => client.close());
  expect(list).toMatchObject({ cut: 0, unread: 0 });
  expect(list?.members).toHaveLength(10_000);
  expect(list?.members[9_999]).toMatchObject({ name: 'tka-9999' });
  expect(list?.members[9_999]?.labels?.size).toBe(labels === 3 ? 3 : 0);
});

test('a server without gossip has no page either', async () => {
  await serve();
  expect(await ask('GET', path, { accept: browser })).toMatchObject({ status: 404, body: '404 page not found' });
});

/** Every element of a page with its attributes, and the text of each row's cells. */
function read(html: string) {
  const elements: { name: string; attributes: Record<string, string> }[] = [];
  const rows: string[][] = [];
  let inCell = false;
  const parser = new Parser({
    onopentag(name, attributes) {
      elements.push({ name, attributes });
      if (name === 'tr') rows.push([]);
      if (name === 'td' || name === 'th') {
        inCell = true;
        rows.at(-1)?.push('');
      }
    },
    ontext(text) {
      const row = rows.at(-1);
      if (inCell && row !== undefined) row[row.length - 1] += text;
    },
    onclosetag(name) {
      if (name === 'td' || name === 'th') inCell = false;
    },
  });
  parser.end(html);
  return { elements, rows };
}

test('the page says what the members say, and none of it is markup', async () => {
  await serve({ members: () => members });
  const { body } = await ask('GET', path, { accept: browser });
  const { elements, rows } = read(body);
  expect(rows[0]).toEqual(['Cluster', 'Server', 'State', 'Last seen', 'URL', 'Kubernetes API', 'Version', 'Labels']);
  expect(rows[1]).toEqual([
    'prod-us',
    'tka-prod-us',
    'healthy',
    expect.stringMatching(/^\d+ s ago$/),
    'https://tka-prod-us.example.ts.net',
    'https://api.prod-us.example.com:6443',
    '0.1.0',
    'environment=productionregion=us-west-2',
  ]);
  expect(rows[2]).toEqual([
    '',
    '<script>document.title="owned"</script>',
    'dead',
    '2 h ago',
    'javascript:document.title="owned"',
    'https://api.evil.example.com:6443/"><img src=x onerror=alert(1)>',
    '"onmouseover="x',
    '</table><script>document.title="owned"</script>=\'"><b>team=x y',
  ]);
  expect(rows[4]).toEqual(['', '', '', '', '', 'https://10.0.0.9:6443', '', 'environment=staging']);
  expect(rows).toHaveLength(5);
  const names = new Set(elements.map(({ name }) => name));
  for (const name of ['a', 'b', 'img', 'iframe', 'link', 'base', 'form']) expect(names).not.toContain(name);
  expect(elements.filter(({ name }) => name === 'script')).toEqual([{ name: 'script', attributes: {} }]);
  const attributes = new Set(elements.flatMap((element) => Object.keys(element.attributes)));
  expect([...attributes].sort()).toEqual(
    ['charset', 'class', 'content', 'data-key', 'datetime', 'lang', 'name', 'scope', 'title'].sort(),
  );
});

test('the servers of a cluster are together, the best first', async () => {
  const at = (n: number, more: Partial<MemberRow>): MemberRow => ({
    apiEndpoint: `https://api-${n}.example.com:6443`,
    apiPort: 443,
    labels: {},
    state: 'healthy',
    ...more,
  });
  const rows = [
    at(1, { name: 'a', cluster: 'prod', state: 'dead' }),
    at(2, { name: 'b', cluster: 'prod' }),
    at(1, { name: 'c', cluster: 'prod', state: 'suspected' }),
    at(1, { name: 'd', cluster: 'prod' }),
    at(2, { name: 'e', cluster: 'other' }),
    // Two of the Go server, and one of 0.1.0 beside a newer replica of its cluster.
    at(3, {}),
    at(3, {}),
    at(1, { name: 'f' }),
  ];
  await serve({ members: () => rows });
  const page = await ask('GET', path, { accept: browser });
  const { elements, rows: cells } = read(page.body);
  expect(page.body).toContain('>4 clusters</p>');
  expect(cells.slice(1).map(([first, second, third]) => [first, second, third])).toEqual([
    ['prod', 'd', 'healthy'],
    ['f', 'healthy', ''],
    ['c', 'suspected', ''],
    ['a', 'dead', ''],
    ['prod', 'b', 'healthy'],
    ['other', 'e', 'healthy'],
    ['', '', 'healthy'],
    ['', 'healthy', ''],
  ]);
  const spans = elements.filter(({ attributes }) => 'rowspan' in attributes);
  expect(spans.map(({ name, attributes }) => [name, attributes.rowspan])).toEqual([
    ['th', '4'],
    ['td', '4'],
    ['th', '2'],
    ['td', '2'],
  ]);
  expect(JSON.parse((await ask('GET', path)).body)).toEqual(rows);
});

test('nothing but its own style and script may run, and nothing may be fetched', async () => {
  await serve({ members: () => members });
  const { headers } = await ask('GET', path, { accept: browser });
  expect(headers['content-security-policy']).toMatch(
    /^default-src 'none'; style-src 'sha256-[\w+/]{43}='; script-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$/,
  );
  expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
});

test('the client does not take it for the page of the Go server', async () => {
  await serve({ members: () => members });
  expect(parseMemberlistHtml((await ask('GET', path, { accept: browser })).body)).toBeUndefined();
});

const chromium = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((file) => {
  try {
    accessSync(file);
    return true;
  } catch {
    return false;
  }
});
const flags =
  '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync';

// The page is asked for through a forwarder that adds, with its own hash in the policy, what a person does.
async function played(
  script: string,
  rows = members,
): Promise<ReturnType<typeof read> & { html: string; text: string }> {
  const port = await serve({ members: () => rows });
  const person = `window.addEventListener('load', () => { ${script} });`;
  const hash = createHash('sha256').update(person).digest('base64');
  const forwarder = createServer((_, response) => {
    ask('GET', path, { accept: browser }, '', port).then(({ headers, body }) => {
      const policy = headers['content-security-policy'] as string;
      response.setHeader('Content-Security-Policy', policy.replace('script-src ', `script-src 'sha256-${hash}' `));
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(body.replace('</head>', `<script>${person}</script></head>`));
    });
  });
  using folder = new TemporaryFolder();
  const home = folder.path;
  try {
    const url = `http://127.0.0.1:${await listen(forwarder, '127.0.0.1', 0)}/`;
    const args = [...flags.split(' '), `--user-data-dir=${home}`, '--dump-dom', url];
    const { stdout } = await promisify(execFile)(chromium as string, args, { env: { ...process.env, HOME: home } });
    const text = stdout.replace(/<(style|script)>[\s\S]*?<\/\1>/g, '');
    return { ...read(text), html: stdout, text };
  } finally {
    await close(forwarder);
  }
}

describe.skipIf(chromium === undefined)('in a browser', () => {
  test('nothing of the members runs; there is a filter, and a button to sort by each column', async () => {
    const { html, text, elements } = await played('');
    expect(html).toContain('<title>TKA clusters</title>');
    expect(elements.filter(({ name }) => name === 'button')).toHaveLength(8);
    expect(elements.filter(({ name }) => name === 'input')).toHaveLength(1);
    expect(text).toContain('>4 clusters</p>');
  });

  test('the filter takes words in any order', async () => {
    const { text, elements } = await played(`
      const input = document.querySelector('input');
      input.value = 'US-west-2  environment=production';
      input.dispatchEvent(new Event('input'));`);
    expect(text).toContain('>1 of 4 clusters</p>');
    const clusters = elements.filter(({ name }) => name === 'tbody');
    expect(clusters.map(({ attributes }) => 'hidden' in attributes)).toEqual([false, true, true, true]);
  });

  const stateNames = (rows: readonly string[][]) => rows.slice(1).map((row) => row[2]);
  test('a column sorts, and a second time the other way; the unknown is last both times', async () => {
    const once = await played(`document.querySelectorAll('th button')[2].click();`);
    expect(stateNames(once.rows)).toEqual(['healthy', 'suspected', 'dead', '']);
    const again = await played(`const b = document.querySelectorAll('th button')[2]; b.click(); b.click();`);
    expect(stateNames(again.rows)).toEqual(['dead', 'suspected', 'healthy', '']);
    expect(again.text).toContain('aria-sort="descending"');
  });

  test('times sort as times', async () => {
    const { rows } = await played(`document.querySelectorAll('th button')[3].click();`);
    expect(rows.slice(1).map((row) => row[1])).toEqual([
      'tka-prod-us',
      'tka-staging',
      expect.stringContaining('owned'),
      '',
    ]);
  });
});
