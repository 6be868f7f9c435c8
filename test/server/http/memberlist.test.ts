import { Parser } from 'htmlparser2';
import { expect, onTestFinished, test, vi } from 'vitest';
import { parseMemberlistHtml } from '../../../src/discovery/html.ts';
import { TkaClient } from '../../../src/tka/client.ts';
import type { MemberRow } from '../../../src/tka/types.ts';
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
  ['without labels, if these are too long', 15],
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

/** Returns each element of a page with its attributes, and the text of each row's cells. */
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

test('the page shows the members’ texts, none of them as markup', async () => {
  await serve({ members: () => members });
  const { body } = await ask('GET', path, { accept: browser });
  const { elements, rows } = read(body);
  expect(body).toContain('<title>1 healthy, 1 suspected, 1 dead, 1 unknown · TKA clusters</title>');
  expect(body).toContain('>4 servers in 4 clusters</p>');
  expect(rows).toEqual([
    ['Cluster', 'Labels', 'State', 'Server', 'Last seen', 'Version'],
    [
      'api.evil.example.comhttps://api.evil.example.com:6443/"><img src=x onerror=alert(1)>',
      '</table><script>document.title="owned"</script>=\'"><b> team=x y',
      'dead',
      '<script>document.title="owned"</script>javascript:document.title="owned"',
      '2 h ago',
      '"onmouseover="x',
    ],
    [
      'tka-staginghttps://api.staging.example.com:6443',
      '',
      'suspected',
      'tka-staginghttp://tka-staging.example.ts.net:8443',
      expect.stringMatching(/^\d+ s ago$/),
      '0.1.0',
    ],
    ['10.0.0.9https://10.0.0.9:6443', 'environment=staging', 'unknown', '', '', ''],
    [
      'prod-ushttps://api.prod-us.example.com:6443',
      'environment=production region=us-west-2',
      'healthy',
      'tka-prod-ushttps://tka-prod-us.example.ts.net',
      'just now',
      '0.1.0',
    ],
  ]);
  const names = new Set(elements.map(({ name }) => name));
  for (const name of ['img', 'iframe', 'base', 'object', 'svg']) expect(names).not.toContain(name);
  expect(elements.filter(({ name }) => name === 'script')).toEqual([{ name: 'script', attributes: {} }]);
  const targets = elements.flatMap(({ attributes: { href, src, action } }) => href ?? src ?? action ?? []);
  expect(targets.filter((target) => !/^(\?q=[a-z]+|\/[\w/]+|data:image\/svg\+xml,[^"]+)$/.test(target))).toEqual([]);
  const attributes = new Set(elements.flatMap((element) => Object.keys(element.attributes)));
  expect([...attributes].filter((name) => /^on|style/.test(name))).toEqual([]);
});

test('exact times are in tooltips', async () => {
  const lastSeen = new Date(Date.now() - 3 * 3_600_000).toISOString();
  await serve({ members: () => [{ ...(members[0] as MemberRow), state: 'dead', lastSeen }] });
  const title = `${lastSeen.slice(0, 19).replace('T', ' ')} UTC`;
  expect((await ask('GET', path, { accept: browser })).body).toContain(
    `<time datetime="${lastSeen}" title="${title}">3 h ago</time>`,
  );
});

const at = (n: number, more: Partial<MemberRow>): MemberRow => ({
  apiEndpoint: `https://api-${n}.example.com:6443`,
  apiPort: 443,
  labels: {},
  state: 'healthy',
  ...more,
});
/** Returns the commands on the page, by the name of the cluster. */
const logins = ({ elements, rows }: ReturnType<typeof read>) =>
  elements
    .filter(({ name }) => name === 'tbody')
    .map(({ attributes }, i) => [
      rows.filter((row) => row.length === 6)[i + 1]?.[0]?.split('https:')[0],
      attributes['data-login'],
    ]);

test('the servers of a cluster are together, grouped as the client does; the worst come first', async () => {
  const rows = [
    at(1, { name: 'a', cluster: 'prod', state: 'dead' }),
    at(2, { name: 'b', cluster: 'prod' }),
    at(1, { name: 'c', cluster: 'prod', state: 'suspected' }),
    at(1, { name: 'd', cluster: 'prod', labels: { region: 'eu' } }),
    at(2, { name: 'e', cluster: 'other' }),
    // Two of the Go server, and one of 0.1.0 beside a newer replica of its cluster.
    at(3, { state: 'dead' }),
    at(3, { state: 'suspected' }),
    at(1, { name: 'f', labels: { environment: 'production' } }),
  ];
  await serve({ members: () => rows });
  const page = await ask('GET', path, { accept: browser });
  const { elements, rows: cells } = read(page.body);
  expect(page.body).toContain('>8 servers in 4 clusters</p>');
  expect(cells.slice(1)).toEqual([
    ['api-3.example.comhttps://api-3.example.com:6443', '', 'dead', '', '', ''],
    ['suspected', '', '', ''],
    ['prodhttps://api-1.example.com:6443', 'environment=production region=eu', 'dead', 'a', '', ''],
    ['suspected', 'c', '', ''],
    ['healthy', 'd', '', ''],
    ['healthy', 'f', '', ''],
    ['otherhttps://api-2.example.com:6443', '', 'healthy', 'e', '', ''],
    ['prodhttps://api-2.example.com:6443', '', 'healthy', 'b', '', ''],
  ]);
  const spans = elements.filter(({ attributes }) => 'rowspan' in attributes);
  expect(spans.map(({ name, attributes }) => [name, attributes.rowspan])).toEqual([
    ['th', '2'],
    ['td', '2'],
    ['th', '4'],
    ['td', '4'],
  ]);
  expect(JSON.parse((await ask('GET', path)).body)).toEqual(rows);
});

const below = (login: string, name: string, more: Partial<MemberRow> = {}): MemberRow => ({
  ...at(1, { labels: { env: 'prod' }, cluster: name, through: 'home' }),
  server: `https://${login}.example.ts.net/clusters/${name}`,
  ...more,
});

test('a joined cluster is one cluster at all replicas of its login server, apart from all others', async () => {
  const rows = [
    at(1, { name: 'tka-prod', cluster: 'site', server: 'https://tka-prod.example.ts.net' }),
    // It states the endpoint and the name of the one above.
    below('tka-1', 'site'),
    below('tka-2', 'site', { apiEndpoint: 'https://api-2.example.com:6443', state: 'dead' }),
    // A cluster that joined two login servers is two clusters.
    below('tka-3', 'site', { through: 'other' }),
    below('tka-1', 'plant', { cluster: 'site', server: 'https://tka-1.example.ts.net/clusters/plant' }),
  ];
  await serve({ members: () => rows });
  const { body } = await ask('GET', path, { accept: browser });
  expect(body).toContain('>5 servers in 4 clusters</p>');
  const page = read(body);
  const url = (login: string, name: string) => `https://${login}.example.ts.net/clusters/${name}`;
  const api = 'https://api-1.example.com:6443';
  expect(page.rows.slice(1)).toEqual([
    [`site${api}through home`, 'env=prod', 'dead', `tka-2${url('tka-2', 'site')}`, '', ''],
    ['healthy', `tka-1${url('tka-1', 'site')}`, '', ''],
    [`plant${api}through home`, 'env=prod', 'healthy', `tka-1${url('tka-1', 'plant')}`, '', ''],
    [`site${api}`, '', 'healthy', 'tka-prodhttps://tka-prod.example.ts.net', '', ''],
    [`site${api}through other`, 'env=prod', 'healthy', `tka-3${url('tka-3', 'site')}`, '', ''],
  ]);
  expect(logins(page).map(([, login]) => login)).toEqual([
    url('tka-1', 'site'),
    'plant',
    'https://tka-prod.example.ts.net',
    url('tka-3', 'site'),
  ]);
  const shown = await ask('GET', `${path}?q=through+home`, { accept: browser });
  expect(shown.body).toContain('>2 of 4 clusters<');
});

test('a cluster that is in the tailnet and has joined as well is one cluster', async () => {
  const rows = [
    at(1, { name: 'tka-site', cluster: 'site', server: 'https://tka-site.example.ts.net' }),
    below('tka-1', 'site', { direct: true, state: 'suspected' }),
  ];
  await serve({ members: () => rows });
  const page = read((await ask('GET', path, { accept: browser })).body);
  expect(page.rows.slice(1)).toEqual([
    [
      ...['sitehttps://api-1.example.com:6443', 'env=prod', 'suspected'],
      ...['tka-1https://tka-1.example.ts.net/clusters/site', '', ''],
    ],
    ['healthy', 'tka-sitehttps://tka-site.example.ts.net', '', ''],
  ]);
  expect(logins(page)).toEqual([['site', 'site']]);
});

test('a page shows a login server with 1,000 joined clusters, none of their texts as markup', async () => {
  const evil = '"><img src=x onerror=alert(1)>';
  const rows = Array.from({ length: 1_000 }, (_, i) =>
    below('tka-1', `site-${i}`, { labels: { evil }, through: evil }),
  );
  await serve({ members: () => rows });
  const { body } = await ask('GET', path, { accept: browser });
  expect(body).toContain('>1000 servers in 1000 clusters</p>');
  expect(Buffer.byteLength(body)).toBeLessThan(900_000);
  expect(read(body).elements.some(({ name }) => name === 'img')).toBe(false);
});

test('the Go CLI’s fields are in each row, those of joined clusters too', async () => {
  await serve({ members: () => [at(1, { name: 'tka-home' }), below('tka-home', 'site')] });
  const own = JSON.parse((await ask('GET', path, { accept: 'application/json' })).body);
  const [go] = JSON.parse(sample('memberlist-json').body);
  const shape = (row: object) => Object.entries(row).map(([key, value]) => `${key} ${typeof value}`);
  for (const row of own) {
    expect(shape(row)).toEqual(expect.arrayContaining(shape(go)));
    expect(Number.isInteger(row.apiPort) && row.apiPort > 0 && row.apiPort < 65_536).toBe(true);
  }
});

test('a login command has the name that the client knows, or an address; never shell syntax', async () => {
  const server = (name: string) => `https://${name}.example.ts.net`;
  await serve({
    members: () => [
      at(1, { name: 'tka-a', cluster: 'a', server: server('tka-a') }),
      at(2, { name: 'tka-b', server: server('tka-b') }),
      at(3, { server: server('tka-c') }),
      at(4, { name: '$(reboot)', cluster: 'd; reboot', server: server('tka-d') }),
      // Two claim one name, one of them without a usable address.
      at(5, { name: 'x', cluster: 'twice', server: server('x') }),
      at(6, { name: 'y', cluster: 'twice', server: 'https://[fd7a::1]' }),
      at(7, { name: '-rf', server: 'https://$(reboot).example.com', apiEndpoint: 'nonsense `reboot`' }),
    ],
  });
  expect(logins(read((await ask('GET', path, { accept: browser })).body))).toEqual([
    ['nonsense `reboot`', undefined],
    ['a', 'a'],
    ['tka-b', 'tka-b'],
    ['tka-c', 'tka-c'],
    ['tka-d', 'tka-d'],
    ['twice', server('x')],
    ['twice', undefined],
  ]);
});

test.each([
  ['', 4],
  ['US-west-2  environment=production', 1],
  ['dead', 1],
  ['+', 0],
  ['"><script>', 0],
  ['example.com', 3],
])('the filter %j shows %i clusters without scripts', async (query, shown) => {
  await serve({ members: () => members });
  const { body } = await ask('GET', `${path}?${new URLSearchParams({ q: query })}`, { accept: browser });
  const { elements } = read(body);
  const clusters = elements.filter(({ name }) => name === 'tbody');
  expect(clusters.filter(({ attributes }) => !('hidden' in attributes))).toHaveLength(shown);
  expect(body).toContain(query === '' ? '>4 servers in 4 clusters<' : `>${shown} of 4 clusters<`);
  const input = elements.find(({ name }) => name === 'input');
  expect(input?.attributes.value).toBe(query.replace(/ +/g, ' '));
  expect(JSON.parse((await ask('GET', `${path}?q=dead`)).body)).toEqual(members);
});

test('a browser that has the page gets 304 as long as it would look the same', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-08-02T10:00:05Z') });
  onTestFinished(() => void vi.useRealTimers());
  const seen = () => new Date(Date.now() - 700).toISOString();
  let state: NonNullable<MemberRow['state']> = 'healthy';
  const lastSeen = new Date(Date.now() - 3_600_000).toISOString();
  await serve({ members: () => [at(1, { lastSeen: seen() }), at(2, { state, lastSeen })] });
  const first = await ask('GET', path, { accept: browser });
  const tag = first.headers.etag as string;
  expect(first.headers).toMatchObject({ 'cache-control': 'private, no-cache', vary: 'Accept' });
  const again = (etag = tag, query = '') => ask('GET', path + query, { accept: browser, 'if-none-match': etag });
  vi.setSystemTime(Date.now() + 10_000);
  for (const etag of [tag, `"x", ${tag}`, tag.slice(2), '*']) {
    const answer = await again(etag);
    expect(answer).toMatchObject({ status: 304, body: '', headers: { etag: tag, vary: 'Accept' } });
    expect(answer.headers['transfer-encoding']).toBeUndefined();
  }
  expect((await again('"x"')).status).toBe(200);
  expect((await again(tag, '?q=api-1')).status).toBe(200);
  state = 'dead';
  expect((await again()).status).toBe(200);
  state = 'healthy';
  expect((await again()).status).toBe(304);
  vi.setSystemTime(Date.now() + 60_000);
  expect((await again()).status).toBe(200);
  expect((await ask('GET', path, { 'if-none-match': '*' })).status).toBe(200);
});

test('a page of 1,000 members has less than 700 kB, whatever their texts', async () => {
  const honest = Array.from({ length: 1_000 }, (_, i) => ({
    ...(members[0] as MemberRow),
    apiEndpoint: `https://api.prod-us-${i}.example.com:6443`,
    name: `tka-prod-us-${i}`,
    cluster: `prod-us-${i}`,
    server: `https://tka-prod-us-${i}.example.ts.net`,
  }));
  await serve({ members: () => honest });
  expect(Buffer.byteLength((await ask('GET', path, { accept: browser })).body)).toBeLessThan(700_000);
  const long = 'x'.repeat(10_000);
  const labels = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`${i}${long}`, long]));
  const loud = {
    name: long,
    cluster: long,
    server: `https://${long}`,
    apiEndpoint: `https://${long}`,
    version: long,
    labels,
  };
  await serve({ members: () => [{ ...(members[0] as MemberRow), ...loud }] });
  const { body } = await ask('GET', path, { accept: browser });
  expect(Buffer.byteLength(body)).toBeLessThan(40_000);
  expect(body).toMatch(/>… \d+ more<\/li>/);
});

test('only its own style and script may run, and it may fetch nothing from elsewhere', async () => {
  await serve({ members: () => members });
  const { headers } = await ask('GET', path, { accept: browser });
  expect(headers['content-security-policy']).toMatch(
    /^default-src 'none'; style-src 'sha256-[\w+/]{43}='; script-src 'sha256-[\w+/]{43}='; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'$/,
  );
  expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
});

test('the client does not mistake it for the page of the Go server', async () => {
  await serve({ members: () => members });
  expect(parseMemberlistHtml((await ask('GET', path, { accept: browser })).body)).toBeUndefined();
});

test.each([
  ['a browser', browser, [] as MemberRow[], 302, path],
  ['a browser, at a server without gossip', browser, undefined, 302, '/swagger'],
  ['a program', '*/*', [], 404, undefined],
])('/ leads %s to the page', async (_, accept, rows, status, location) => {
  await serve({ members: () => rows });
  const answer = await ask('GET', '/', { accept });
  expect(answer).toMatchObject({ status, body: status === 404 ? '404 page not found' : '' });
  expect(answer.headers.location).toBe(location);
});

test('the pages link to each other', async () => {
  await serve({ members: () => members });
  expect((await ask('GET', path, { accept: browser })).body).toContain('href="/swagger"');
  expect((await ask('GET', '/swagger', { accept: browser })).body).toContain(`href="${path}"`);
  await serve();
  expect((await ask('GET', '/swagger', { accept: browser })).body).not.toContain(`href="${path}"`);
});
