import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect, test } from 'vitest';
import { parseMemberlistHtml } from '../../src/discovery/html.ts';
import { type GossipMember, goPage, goRows } from '../../src/sandbox/go-memberlist.ts';

const bodyOf = (name: string) => {
  const text = fs.readFileSync(path.join(import.meta.dirname, '../samples', name), 'latin1');
  return text.slice(text.search(/\r?\n\r?\n/)).trimStart();
};

const member = (hostName: string, last: number, environment: string, region: string): GossipMember => ({
  hostName,
  address: `127.0.0.${last}:7946`,
  apiEndpoint: `https://127.0.0.${last}:6443`,
  labels: { environment, region },
  state: 'healthy',
  lastSeenSeconds: 0,
  isLocal: hostName === 'tka-prod-us',
});
const eu = member('tka-prod-eu', 12, 'production', 'eu-central-1');
const others = [
  member('tka-staging', 13, 'staging', 'us-west-2'),
  member('tka-prod-us', 11, 'production', 'us-west-2'),
];

test.each([
  ['memberlist-html.http', eu],
  ['memberlist-html-suspected.http', { ...eu, state: 'suspected', lastSeenSeconds: 9 } as const],
])('the page equals %s byte for byte', (name, first) => {
  expect(goPage([...others, first])).toBe(bodyOf(name));
});

test('the JSON equals memberlist-json.http', () => {
  expect(JSON.stringify(goRows([...others, eu]))).toBe(bodyOf('memberlist-json.http'));
});

test('texts of members are escaped as in Go, and read back', () => {
  const labels = { '<a>&"\'+': '</li></ul><script>1</script>', empty: '' };
  const page = goPage([{ ...eu, address: ':7946', labels, lastSeenSeconds: 3725 }]);
  expect(page).not.toContain('<script>');
  expect(page).toContain('<td>:7946</td>');
  expect(page).toContain('1h2m5s ago');
  expect(parseMemberlistHtml(page)?.rows[0]).toMatchObject({
    labels: new Map(Object.entries(labels)),
    lastSeenSeconds: 3725,
    address: undefined,
  });
});
