// Compares the generated pages with what the code generates.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { pages } from '../../docs/reference/generate.ts';
import { messagesOf } from '../../docs/reference/messages.ts';

const folder = path.join(import.meta.dirname, '../../docs/reference');

describe('the reference', () => {
  it.for(Object.keys(pages))('%s is up to date; if not: npm run reference', (name, { skip }) => {
    // Other systems report less about a process.
    skip(name === 'metrics.md' && process.platform !== 'linux', 'not Linux');
    expect(fs.readFileSync(path.join(folder, name), 'utf8')).toBe(pages[name]?.());
  });

  it('has no page that nothing generates', () => {
    expect(
      fs
        .readdirSync(folder)
        .filter((name) => name.endsWith('.md'))
        .sort(),
    ).toEqual(Object.keys(pages).sort());
  });
});

describe('messages', () => {
  it.each([
    [
      `new TkaError(\`no session for \${server}\`, { hints: ['kubectl tka login', \`see \${a.fileName}\`] })`,
      [
        ['error', 'no session for SERVER'],
        ['hint', 'kubectl tka login'],
        ['hint', 'see FILE_NAME'],
      ],
    ],
    [
      `terminal.warn(isOne ? 'one is away' : 'all ' + count + ' are away')`,
      [
        ['warning', 'one is away'],
        ['warning', 'all COUNT are away'],
      ],
    ],
    [
      `throw new UsageError(\`\${name} is unknown\${near ? \`: did you mean \${near}\` : ''}\`)`,
      [
        ['error', 'NAME is unknown…'],
        ['error', ': did you mean NEAR'],
      ],
    ],
    [`import a from 'b c d'; log('debug only text'); /two words/.test('some text'); type A = 'two words';`, []],
  ] as const)('%s', (code, expected) => {
    expect(messagesOf(code).map(({ kind, text }) => [kind, text])).toEqual(expected);
  });
});
