import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { glanceContexts } from '../../src/kubeconfig/glance.ts';
import { readKubeconfig } from '../../src/kubeconfig/index.ts';
import { testFolder } from '../fixtures/temporary.ts';

let folder: string;
beforeEach(() => {
  folder = testFolder('tka-');
});

const ours = (name: string) => `- context:
    cluster: ${name}
    extensions:
    - extension:
        server: http://127.0.0.1:8123
      name: tka.specht-labs.de
    user: ${name}
  name: ${name}
`;
const theirs = (name: string) => `- context:
    cluster: ${name}
    user: ${name}
  name: ${name}
`;
const rest = 'current-context: a\nkind: Config\nusers: []\n';

const written: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['kubectl’s layout', `apiVersion: v1\nclusters: []\ncontexts:\n${ours('a')}${theirs('x')}${ours('b')}${rest}`],
  [
    'our layout, name first, quoted, indented',
    `contexts:
  - name: "prod \\u0041"
    context:
      cluster: "c"
      extensions:
        - extension:
            server: "http://127.0.0.1:8123"
          name: "tka.specht-labs.de"
      user: "u"
  - name: 'it''s'
    context: {cluster: c, user: u}
users: []
`,
  ],
  [
    'comments, blank lines and CRLF',
    `contexts: # all\n\n# one\n${ours('a')}\n# two\n${theirs('x')}${rest}`.replaceAll('\n', '\r\n'),
  ],
  ['marks elsewhere', `clusters:\n${ours('a').replaceAll('context:', 'cluster:')}contexts:\n${theirs('x')}${rest}`],
  ['no contexts', `contexts: []\n${rest}`],
  [
    'JSON',
    JSON.stringify({
      contexts: [
        {
          name: 'j',
          context: { extensions: [{ name: 'tka.specht-labs.de', extension: { server: 'http://127.0.0.1:1' } }] },
        },
        { name: 'x', context: {} },
      ],
    }),
  ],
];

describe('contexts at a glance', () => {
  it.each(written)('%s: returns what a YAML reader finds', async (_, text) => {
    const file = path.join(folder, 'config');
    fs.writeFileSync(file, text);
    const files = { files: [file], defaultFile: file, explicit: false };
    const read = (await readKubeconfig(files)).ours.map(({ name, server }) => ({ name, server }));
    expect(glanceContexts(files)).toEqual(read);
    expect(read.length > 0).toBe(/specht/.test(text.split('contexts')[1] ?? ''));
  });

  it('a missing file, a folder and damage have no contexts', () => {
    const damaged = path.join(folder, 'damaged');
    fs.writeFileSync(damaged, '{"contexts": 3');
    const files = [path.join(folder, 'absent'), folder, damaged];
    expect(glanceContexts({ files })).toEqual([]);
  });

  it.skipIf(process.platform === 'win32')('does not wait for a pipe', () => {
    const pipe = path.join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(glanceContexts({ files: [pipe] })).toEqual([]);
  });
});
