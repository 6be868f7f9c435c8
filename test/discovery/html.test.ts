import { describe, expect, test } from 'vitest';
import { parseMemberlistHtml } from '../../src/discovery/html.ts';
import { memberId } from '../../src/discovery/resolution.ts';
import { cpuTime } from '../fixtures/cpu.ts';
import { samplePage } from './stand-in.ts';

const page = samplePage('memberlist-html.http');
const start = page.indexOf('\t\t\t<tr>\n\t\t\t\t<td>');
const end = page.indexOf('\t\t</tbody>');
const row = page.slice(start, page.indexOf('</tr>', start) + 6);
const withRows = (rows: string) => page.slice(0, start) + rows + page.slice(end);
/** Returns the only row of a page with a changed row. */
const rowWith = (from: string | RegExp, to: string) =>
  parseMemberlistHtml(withRows(row.replace(from, () => to)))?.rows[0];
/** Returns whether a changed page is still accepted. */
const fits = (from: string | RegExp, to: string) => {
  const changed = page.replace(from, () => to);
  expect(changed).not.toBe(page);
  return parseMemberlistHtml(changed) !== undefined;
};

/** Returns the result of `work`, which may take `limit` milliseconds of CPU time. */
async function timed<T>(work: () => T, limit: number): Promise<T | undefined> {
  let result: T | undefined;
  const took = await cpuTime(() => {
    result = work();
  }, limit);
  expect(took).toBeLessThan(limit);
  return result;
}

describe('the pages of the real server', () => {
  const production = (region: string) =>
    new Map([
      ['environment', 'production'],
      ['region', region],
    ]);

  test.each([
    ['memberlist-html.http', 'healthy', 0],
    ['memberlist-html-suspected.http', 'suspected', 9],
  ])('%s', (name, state, lastSeenSeconds) => {
    const member = (host: string, last: number, labels: Map<string, string>) => ({
      id: memberId(host, 7946),
      address: `127.0.0.${last}`,
      gossipPort: 7946,
      apiEndpoint: `https://127.0.0.${last}:6443`,
      labels,
      state: 'healthy',
      lastSeenSeconds: 0,
      isLocal: host === 'tka-prod-us',
    });
    expect(parseMemberlistHtml(samplePage(name))).toEqual({
      rows: [
        { ...member('tka-prod-eu', 12, production('eu-central-1')), state, lastSeenSeconds },
        member('tka-prod-us', 11, production('us-west-2')),
        member('tka-staging', 13, production('us-west-2').set('environment', 'staging')),
      ],
      cut: 0,
      unread: 0,
    });
  });

  test('a page without rows is an empty list', () => {
    expect(parseMemberlistHtml(withRows(''))).toEqual({ rows: [], cut: 0, unread: 0 });
  });
});

describe('the content of a cell', () => {
  test.each([
    ['127.0.0.12:7946', '127.0.0.12'],
    ['100.100.1.2:1', '100.100.1.2'],
    ['[FD7A:115C:A1E0:0::0001]:7946', 'fd7a:115c:a1e0::1'],
    [':7946', undefined],
    ['[::]:7946', undefined],
    ['0.0.0.0:7946', undefined],
    ['tka-prod-eu:7946', undefined],
    ['100.100.1.2', undefined],
    ['100.100.1.256:7946', undefined],
    ['[100.100.1.2]:7946', undefined],
    ['[fe80::1%25eth0]:7946', undefined],
    ['[::ffff:100.100.1.2]:7946', undefined],
    ['100.100.1.2:7946/../x', undefined],
    ['', undefined],
  ])('address %j is %s', (text, address) => {
    expect(rowWith('127.0.0.12:7946', text)).toMatchObject({ address });
  });

  test.each([
    ['100.100.1.2:7946', 7946],
    [':17946', 17_946],
    ['[::]:1', 1],
    ['tka-prod-eu:7946', 7946],
    [':0', undefined],
    [':65536', undefined],
    [':07946x', undefined],
    ['100.100.1.2', undefined],
    ['', undefined],
  ])('the gossip port of %j is %s', (text, gossipPort) => {
    expect(rowWith('127.0.0.12:7946', text)).toMatchObject({ gossipPort });
  });

  test.each([
    ['0s ago', 0],
    ['59s ago', 59],
    ['1m5s ago', 65],
    ['26h0m9s ago', 93_609],
    ['2562047h47m16.854775807s ago', undefined],
    ['-1m5s ago', undefined],
  ])('last seen %j is %s', (text, lastSeenSeconds) => {
    expect(rowWith('0s ago', text)).toMatchObject({ lastSeenSeconds });
  });

  test.each([
    ['PEER_STATE_HEALTHY', 'healthy'],
    ['PEER_STATE_SUSPECTED_DEAD', 'suspected'],
    ['PEER_STATE_DEAD', 'dead'],
    ['PEER_STATE_UNSPECIFIED', null],
  ])('%s is %s', (text, state) => {
    expect(rowWith('PEER_STATE_HEALTHY', text)).toMatchObject({ state });
  });

  test('labels are decoded and cleaned', () => {
    const list = (items: string) => rowWith(/<ul>[\s\S]*<\/ul>/, `<ul>${items}</ul>`)?.labels;
    expect(list('')).toEqual(new Map());
    expect(list('<li><strong>a:b:</strong> x&#43;y &lt;td&gt; &amp;amp; &#xfffd;</li>')).toEqual(
      new Map([['a:b', 'x+y <td> &amp; \ufffd']]),
    );
    expect(list('<li><strong>a\u001b[31m:</strong> \u001b]0;x\u0007\u202ey\nz</li>')).toEqual(
      new Map([['a [31m', ']0;x y z']]),
    );
    expect(list('<li><strong>__proto__:</strong> x</li>')).toEqual(new Map([['__proto__', 'x']]));
    expect(list('<li><strong>:</strong> x</li>')).toEqual(new Map());
    expect(list(`<li><strong>a:</strong> ${'x'.repeat(100_000)}</li>`)?.get('a')).toHaveLength(256);
    expect(list('<li><strong>a:</strong> x</li>'.replace('a', 'a'.repeat(100_000)))?.size).toBe(1);
    const many = Array.from({ length: 1000 }, (_, i) => `<li><strong>k${i}:</strong> v</li>`);
    expect(list(many.join(''))?.size).toBe(64);
  });

  test.each([
    '',
    'javascript:alert(1)',
    'file:///etc/passwd',
    'http://10.0.0.1:6443',
    'https://user:password@evil.example',
    'https://evil.example/?x=1',
    'https://a\u001b[2J.example',
    `https://${'a'.repeat(3000)}.example`,
    '../../x',
  ])('a member whose API endpoint is %j is left out and counted', (endpoint) => {
    const list = parseMemberlistHtml(withRows(row.replace('https://127.0.0.12:6443', () => endpoint) + row));
    expect(list).toMatchObject({ rows: [{ apiEndpoint: 'https://127.0.0.12:6443' }], unread: 1 });
  });

  test('an API endpoint is canonical', () => {
    expect(rowWith('https://127.0.0.12:6443', 'HTTPS://API.Example.COM.:443/')?.apiEndpoint).toBe(
      'https://api.example.com',
    );
  });
});

describe('a page of another format is refused', () => {
  test.each<[string, string | RegExp, string]>([
    ['a missing column', '<th>Address</th>', ''],
    ['an extra column', '<th>Is Local</th>', '<th>Is Local</th><th>Version</th>'],
    ['another column', '<th>Address</th>', '<th>Addr</th>'],
    ['columns swapped', /<th>ID<\/th>\s*<th>Address<\/th>/, '<th>Address</th><th>ID</th>'],
    ['no header', /<thead>[\s\S]*<\/thead>/, ''],
    ['two headers', /<thead>[\s\S]*<\/thead>/, '<thead></thead><thead></thead>'],
    ['a missing cell', '<td>127.0.0.12:7946</td>', ''],
    ['an extra cell', '<td>127.0.0.12:7946</td>', '<td>127.0.0.12:7946</td><td></td>'],
    ['a cell that spans two', '<td>127.0.0.12', '<td colspan="2">127.0.0.12'],
    ['an unknown state', 'PEER_STATE_HEALTHY', 'PEER_STATE_FINE'],
    ['a state in lower case', 'PEER_STATE_HEALTHY', 'peer_state_healthy'],
    ['an ID that is not a hash', 'lejHRrwo2CU8N7ll0rIBbA==', 'tka-prod-us'],
    ['an ID of 15 bytes', 'lejHRrwo2CU8N7ll0rIBbA==', 'lejHRrwo2CU8N7ll0rIB'],
    ['an ID with spare bits', 'lejHRrwo2CU8N7ll0rIBbA==', 'lejHRrwo2CU8N7ll0rIBbB=='],
    ['an ID with markup', 'lejHRrwo2CU8N7ll0rIBbA==', '<b>lejHRrwo2CU8N7ll0rIBbA==</b>'],
    ['no time', '0s ago', 'just now'],
    ['a time in another form', '0s ago', '0 s ago'],
    ['neither yes nor no', '<td>true</td>', '<td>yes</td>'],
    ['another description', '<dt>API Endpoint</dt>', '<dt>Endpoint</dt>'],
    ['no description', /<dl>[\s\S]*?<\/dl>/, 'https://127.0.0.12:6443'],
    ['a label without its key', '<strong>environment:</strong>', 'environment:'],
    ['a label without a colon', '<strong>environment:</strong>', '<strong>environment</strong>'],
    ['text between cells', '<td>127.0.0.12', 'x<td>127.0.0.12'],
    ['text between rows', '<tbody>', '<tbody>x'],
    ['a script', '<h1>', '<script>document.title</script><h1>'],
    ['a script in a cell', '<td>127.0.0.12', '<td><script>1</script>127.0.0.12'],
    ['a frame', '</body>', '<iframe src="x"></iframe></body>'],
    ['a table in a cell', '<td>127.0.0.12:7946</td>', '<td><table></table></td>'],
    ['a second table', '</body>', '<table></table></body>'],
    [
      'a second table of the same shape',
      '</body>',
      `${page.slice(page.indexOf('<table>'), page.indexOf('</body>'))}</body>`,
    ],
    ['no table', /<table>[\s\S]*<\/table>/, ''],
    ['no end of a cell', '127.0.0.12:7946</td>', '127.0.0.12:7946'],
    ['no end of a row', '</tr>', ''],
    ['no end of the body', '</body>', ''],
    ['an extra element', '</html>', '</html><html></html>'],
    ['text after it', '</html>', '</html>x'],
    ['a NUL between cells', '<td>127.0.0.12', '\u0000<td>127.0.0.12'],
  ])('%s', (_, from, to) => {
    expect(fits(from, to)).toBe(false);
  });

  test.each<[string, string | RegExp, string]>([
    ['comments', /<td>/g, '<!-- a cell --><td>'],
    ['another title and heading', 'TKA Cluster Members', 'Members'],
    ['other styles, an encoding', '<title>', '<meta charset="utf-8"><style>td > table { x: y }</style><title>'],
    ['an attribute of the document', '<html>', '<html lang="en">'],
    ['tags in capitals', '<td>127.0.0.12:7946</td>', '<TD>127.0.0.12:7946</TD>'],
    ['no doctype', '<!DOCTYPE html>', ''],
  ])('a page may have %s', (_, from, to) => {
    expect(fits(from, to)).toBe(true);
  });

  test('a truncated page is refused, wherever it was cut', () => {
    for (let length = 0; length < page.trimEnd().length; length += 7) {
      expect(parseMemberlistHtml(page.slice(0, length))).toBeUndefined();
    }
  });

  test.each(['', 'x', '404 page not found', '[]', '<html></html>', '\u0000', '<', '&#xffffffff;', '\ud800'])(
    '%j',
    (text) => {
      expect(parseMemberlistHtml(text)).toBeUndefined();
    },
  );
});

describe('limits', () => {
  test('reads the first 10,000 of 100,000 rows, and counts the rest', async () => {
    // The smallest possible row, so that the test is about rows and not about bytes.
    const small = row.replace(/<ul>[\s\S]*<\/ul>/, '<ul></ul>').replace(/\s*\n\s*/g, '');
    const list = await timed(() => parseMemberlistHtml(withRows(small.repeat(100_000))), 8000);
    expect(list?.rows).toHaveLength(10_000);
    expect(list).toMatchObject({ cut: 90_000, unread: 0 });
  });

  test('reads 10,000 rows in 10 MB', async () => {
    const long = row.replace('<ul>', `<ul><li><strong>x:</strong> ${'y'.repeat(420)}</li>`);
    const list = await timed(() => parseMemberlistHtml(withRows(long.repeat(10_000))), 4000);
    expect(list).toMatchObject({ cut: 0, unread: 0 });
  });

  const opened = page.slice(0, start);
  test.each<[string, () => string]>([
    ['a million elements deep', () => '<div>'.repeat(1_000_000)],
    ['a million elements deep in the table', () => opened + '<div>'.repeat(1_000_000)],
    ['tables in tables', () => '<table><tr><td>'.repeat(100_000)],
    ['headings in headings', () => `<html><head></head><body>${'<h1>'.repeat(300_000)}`],
    ['end tags only', () => `<html><head></head><body>${'</x></p>'.repeat(300_000)}`],
    ['a million attributes', () => `<html ${Array.from({ length: 300_000 }, (_, i) => `a${i}=1`).join(' ')}>`],
    ['an attribute without end', () => `<html a="${'x'.repeat(5_000_000)}`],
    ['a million comments', () => '<!--x-->'.repeat(500_000)],
    ['comments that do not end', () => '<!--'.repeat(500_000)],
    ['a million entities', () => `${opened}<tr><td>${'&amp;'.repeat(500_000)}`],
    ['entities that do not end', () => `${opened}<tr><td>${'&a'.repeat(500_000)}`],
    ['numbers without end', () => `${opened}<tr><td>&#${'1'.repeat(1_000_000)};`],
    ['brackets', () => '<'.repeat(3_000_000)],
    ['only NULs', () => '\u0000'.repeat(1_000_000)],
    ['a hundred megabytes', () => 'x'.repeat(100 * 1024 * 1024)],
  ])('%s', async (_, make) => {
    const hostile = make();
    expect(await timed(() => parseMemberlistHtml(hostile), 3000)).toBeUndefined();
  });
});
