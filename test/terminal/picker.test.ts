// The picker's prompt on streams: key bytes in, the screen of an emulated terminal out.
import { emitKeypressEvents } from 'node:readline';
import { PassThrough, Writable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { matchingRows, type PickerRow } from '../../src/terminal/picker-list.ts';
import { ExitPromptError, pickerPrompt } from '../../src/terminal/picker-prompt.ts';
import { displayWidth, fitTo, shorten } from '../../src/terminal/width.ts';
import { VirtualScreen } from '../fixtures/pty-screen.ts';

const row = (name: string, labels = '', state = 'healthy', current = false): PickerRow => ({
  name,
  state,
  labels,
  current,
});
const three = [
  row('prod-us', 'environment=production,region=us-west-2', 'healthy', true),
  row('prod-eu', 'environment=production,region=eu-central-1', 'suspected'),
  row('staging', 'environment=staging,region=us-west-2'),
];

const keys: Readonly<Record<string, string>> = {
  up: '\x1b[A',
  down: '\x1b[B',
  right: '\x1b[C',
  left: '\x1b[D',
  pageup: '\x1b[5~',
  pagedown: '\x1b[6~',
  home: '\x1b[H',
  end: '\x1b[F',
  enter: '\r',
  escape: '\x1b',
  backspace: '\x7f',
  '^c': '\x03',
  '^d': '\x04',
  '^g': '\x07',
  '^n': '\x0e',
  '^p': '\x10',
  '^u': '\x15',
  '^w': '\x17',
  '^z': '\x1a',
  tab: '\t',
  'alt-x': '\x1bx',
  f1: '\x1bOP',
};

/** An open prompt. */
class Open {
  readonly input = new PassThrough();
  readonly screen: VirtualScreen;
  /** The chosen index, or `cancelled`; undefined before that. */
  outcome: number | 'cancelled' | undefined;
  readonly ended: Promise<void>;
  #redraw = () => {};

  constructor(rows: readonly PickerRow[], size: { rows: number; columns: number }) {
    this.screen = new VirtualScreen(size.rows, size.columns);
    // As the picker does on its terminal.
    this.screen.write('\x1b[?7l');
    const output = new Writable({
      decodeStrings: false,
      write: (text, _, written) => {
        // As a terminal does with a newline, in Node's raw mode too.
        this.screen.write(String(text).replaceAll('\n', '\r\n'));
        written();
      },
    });
    Object.assign(output, { columns: Number.MAX_SAFE_INTEGER });
    emitKeypressEvents(this.input, { escapeCodeTimeout: 20 } as never);
    const config = {
      rows,
      coloured: true,
      size: () => ({ rows: this.screen.rows, columns: this.screen.columns }),
      onResize: (redraw: () => void) => {
        this.#redraw = redraw;
      },
    };
    this.ended = pickerPrompt(config, { input: this.input, output, clearPromptOnDone: true }).then(
      (index) => {
        this.outcome = index ?? 'cancelled';
      },
      (error) => {
        if (!(error instanceof ExitPromptError)) throw error;
        this.outcome = 'cancelled';
      },
    );
  }

  /** Presses keys by name and types everything else; returns the outcome. */
  async press(...names: readonly string[]): Promise<Open['outcome']> {
    for (const name of names) this.input.write(keys[name] ?? name);
    await nextTurn();
    await nextTurn();
    return this.outcome;
  }

  resize(rows: number, columns: number): void {
    this.screen.resize(rows, columns);
    this.screen.write('\x1b[H\x1b[J');
    this.#redraw();
  }

  get lines(): string[] {
    return this.screen.lines().slice(0, this.screen.text().split('\n').length);
  }

  get shown(): string[] {
    return this.lines.slice(1, -1);
  }

  get query(): string | undefined {
    return this.lines[0];
  }

  get selected(): string | undefined {
    return this.lines
      .find((line) => line.startsWith('>'))
      ?.slice(4)
      .split(' ')[0];
  }
}

async function open(rows: readonly PickerRow[] = three, height = 10, columns = 80): Promise<Open> {
  const prompt = new Open(rows, { rows: height, columns });
  await nextTurn();
  return prompt;
}

describe('the list', () => {
  it('shows names, states and labels, marks the current one, and selects the first', async () => {
    const prompt = await open();
    expect(prompt.lines).toEqual([
      'Cluster:',
      '> * prod-us   healthy     environment=production,region=us-west-2',
      '    prod-eu   suspected   environment=production,region=eu-central-1',
      '    staging   healthy     environment=staging,region=us-west-2',
      '3 - type to filter, Enter to choose, Esc to leave',
    ]);
    expect(prompt.screen.styled('7')).toEqual([prompt.lines[1]]);
    expect(prompt.screen.styled('2')).toEqual([prompt.lines[4]]);
    expect(prompt.screen).toMatchObject({ row: 0, column: 9, cursorShown: true });
  });

  it('moves with arrows, Ctrl-N, Ctrl-P, Home and End, and stops at both ends', async () => {
    const prompt = await open();
    const seen: unknown[] = [];
    for (const key of ['up', 'down', '^n', 'down', '^p', 'up', 'up', 'end', 'home']) {
      await prompt.press(key);
      seen.push(prompt.selected);
    }
    expect(seen).toEqual([
      'prod-us',
      'prod-eu',
      'staging',
      'staging',
      'prod-eu',
      'prod-us',
      'prod-us',
      'staging',
      'prod-us',
    ]);
  });

  it.each([
    ['prod', ['prod-us', 'prod-eu']],
    ['STAG', ['staging']],
    ['us-west', ['prod-us', 'staging']],
    ['region=eu', ['prod-eu']],
    ['west prod', ['prod-us']],
    ['  ', ['prod-us', 'prod-eu', 'staging']],
    ['prod-usenvironment', []],
    ['.*', []],
  ] as const)('filters by words in names and labels, in any case and order: %j', async (query, names) => {
    expect(matchingRows(three, query).map(({ name }) => name)).toEqual(names);
    const prompt = await open();
    await prompt.press('x', '^u', query);
    const found = prompt.shown.filter((line) => line !== '  no cluster matches');
    expect(found.map((line) => line.slice(4).split(' ')[0])).toEqual(names);
    expect(prompt.query).toBe(`Cluster: ${query}`.trimEnd());
    expect(prompt.screen.column).toBe(9 + query.length);
  });

  it.each([
    ['st', ['staging', 'testing', 'prod-us']],
    ['staging', ['staging', 'staging-2', 'my-staging']],
    ['ING', ['staging', 'testing', 'staging-2', 'my-staging']],
    ['us prod', ['prod-us', 'prod-eu']],
  ] as const)('sorts by exact name, prefix, part of the name, labels: %j', async (query, names) => {
    const rows = [
      row('prod-us', 'region=us-west-2'),
      row('prod-eu', 'region=us-central-1'),
      row('my-staging', ''),
      row('testing', ''),
      row('staging-2', ''),
      row('staging', ''),
    ];
    const found = matchingRows(rows, query).map(({ name }) => name);
    expect(found.filter((name) => names.some((each) => each === name))).toEqual(
      query === 'ING' ? ['my-staging', 'testing', 'staging-2', 'staging'] : names,
    );
    const prompt = await open(rows);
    await prompt.press('down', 'down', query);
    expect(prompt.selected).toBe(found[0]);
    expect(await prompt.press('enter')).toBe(rows.findIndex(({ name }) => name === found[0]));
  });

  it('highlights what matches in names and labels, and nothing else', async () => {
    const rows = [
      row('staging', 'region=us-west-2'),
      row('prod-us', 'region=us-west-2', 'west'),
      row('東京-a.c', 'x=a.c'),
      row('zu\u0308rich', ''),
    ];
    const prompt = await open(rows);
    const marks = (style: string) => prompt.screen.marked(style).filter((text) => text !== '');
    expect(marks('4')).toEqual([]);
    await prompt.press('ST');
    expect([marks('7;4'), marks('4')]).toEqual([['stst'], ['st']]);
    await prompt.press('^u', 'w prod');
    expect([marks('7;4'), marks('4')]).toEqual([['prodw'], []]);
    await prompt.press('^u', 'a.c');
    expect(marks('7;4')).toEqual(['a.ca.c']);
    await prompt.press('^u', '京');
    expect(marks('7;4')).toEqual(['京']);
    await prompt.press('^u', 'Z\u00dcR');
    expect(prompt.selected?.normalize('NFC')).toBe('zürich');
    expect(marks('7;4').map((text) => text.normalize('NFC'))).toEqual(['zür']);
    // A row that is cut.
    prompt.resize(10, 14);
    await prompt.press('^u', 'west');
    expect(prompt.lines[1]).toBe('>   staging …');
  });

  it('shows how many match, and that none does; Enter then does nothing', async () => {
    const prompt = await open();
    await prompt.press('stag');
    expect(prompt.lines.at(-1)).toMatch(/^1 of 3 - /);
    expect(await prompt.press('x', 'enter')).toBeUndefined();
    const none = ['Cluster: stagx', '  no cluster matches', expect.stringMatching(/^0 of 3 - /)];
    expect(prompt.lines).toEqual(none);
    expect(prompt.screen).toMatchObject({ row: 0, column: 14 });
    expect(await prompt.press('down', 'pagedown', 'end', 'enter', 'up')).toBeUndefined();
    expect(prompt.lines).toEqual(none);
    expect(await prompt.press('backspace', 'enter')).toBe(2);
  });

  it('returns the selected cluster’s index in the whole list, and clears the screen', async () => {
    for (const [pressed, index] of [
      [['enter'], 0],
      [['down', 'enter'], 1],
      [['us-west', 'down', 'enter'], 2],
    ] as const) {
      const prompt = await open();
      expect(await prompt.press(...pressed)).toBe(index);
      expect(prompt.screen.text()).toBe('');
    }
  });

  it.each(['escape', '^c', '^d', '^g'])('%s cancels', async (key) => {
    for (const before of ['', 'prod']) {
      const prompt = await open();
      await prompt.press(before, key);
      await prompt.ended;
      expect(prompt.outcome).toBe('cancelled');
    }
  });

  it('is cancelled at the end of its input', async () => {
    const prompt = await open();
    prompt.input.end();
    await prompt.ended;
    expect(prompt.outcome).toBe('cancelled');
  });

  it('edits the query with Backspace, Ctrl-W and Ctrl-U; other keys do nothing', async () => {
    const prompt = await open();
    await prompt.press('ab 日🙂');
    expect(prompt.query).toBe('Cluster: ab 日🙂');
    expect(prompt.screen.column).toBe(16);
    await prompt.press('backspace');
    expect(prompt.query).toBe('Cluster: ab 日');
    await prompt.press('^w');
    expect([prompt.query, prompt.screen.column]).toEqual(['Cluster: ab', 12]);
    await prompt.press('^u', 'backspace', '^w');
    expect(prompt.query).toBe('Cluster:');
    await prompt.press('tab', 'alt-x', 'f1', '^z');
    expect([prompt.query, prompt.screen.column]).toEqual(['Cluster:', 9]);
  });

  it('edits within the query, and at its end again once the selection has moved', async () => {
    const prompt = await open();
    await prompt.press('pod', 'left', 'left', 'r');
    expect([prompt.query, prompt.screen.column]).toEqual(['Cluster: prod', 11]);
    await prompt.press('home', '-eu');
    expect(prompt.query).toBe('Cluster: prod-eu');
    expect(prompt.selected).toBe('prod-eu');
  });

  it('selects the first match again when the filter changes', async () => {
    const prompt = await open();
    await prompt.press('end', 'us-west');
    expect(prompt.selected).toBe('prod-us');
    await prompt.press('down', 'backspace');
    expect(prompt.selected).toBe('prod-us');
  });

  it('limits the query, and shows the end of one that is wider than the window', async () => {
    const wide = await open(three, 10, 400);
    await wide.press('x'.repeat(1000));
    expect(wide.query).toBe(`Cluster: ${'x'.repeat(200)}`);
    const narrow = await open(three, 10, 20);
    await narrow.press('a'.repeat(30), '東京');
    expect(narrow.query).toBe('Cluster: aaaaa東京');
    expect(narrow.screen.row).toBe(0);
  });

  it('shows no control characters of names and labels', async () => {
    const prompt = await open([row('a\x1b[2Jb\n\u202ec\x9b', 'x=\x07\u200by\r', 'dead\x1b]0;t\x07')]);
    expect(prompt.lines[1]).toBe('>   a [2Jb c   dead ]0;t   x= y');
  });

  it('uses what was typed before the list appeared', async () => {
    const prompt = new Open(three, { rows: 10, columns: 80 });
    await prompt.press('stag');
    expect(prompt.selected).toBe('staging');
  });
});

describe('a long list', () => {
  const many = Array.from({ length: 10_000 }, (_, i) => row(`c${String(i).padStart(5, '0')}`, `n=${i}`));

  it('scrolls with the selection, by lines and by pages', async () => {
    const prompt = await open(many, 12);
    expect(prompt.shown).toHaveLength(10);
    const at = async (...names: string[]) => {
      await prompt.press(...names);
      return [prompt.shown[0]?.slice(4, 10), prompt.selected];
    };
    expect(await at(...Array(9).fill('down'))).toEqual(['c00000', 'c00009']);
    expect(await at('down')).toEqual(['c00001', 'c00010']);
    expect(await at('pagedown')).toEqual(['c00011', 'c00020']);
    expect(await at('up')).toEqual(['c00011', 'c00019']);
    expect(await at('pageup', 'pageup', 'pageup')).toEqual(['c00000', 'c00000']);
    expect(await at('end')).toEqual(['c09990', 'c09999']);
  });

  it('fits every window: at most as many lines as rows, none wider than the columns', async () => {
    const wideOnes = [
      ...many.slice(0, 50),
      row('東京クラスタ'.repeat(10), 'ラベル=値'.repeat(20)),
      row('é🙂'.repeat(80)),
    ];
    for (let height = 1; height < 30; height++) {
      for (const columns of [1, 2, 5, 10, 20, 40, 80, 200]) {
        const prompt = await open(wideOnes, height, columns);
        await prompt.press('end', 'up', 'down');
        const { lines, screen } = prompt;
        expect(lines.length).toBe(height);
        for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
        expect(lines.filter((line) => line.startsWith('>'))).toHaveLength(columns > 2 ? 1 : 0);
        expect([screen.row, screen.scrolled]).toEqual([0, 0]);
        await prompt.press('^c');
        expect(screen.text()).toBe('');
      }
    }
  });

  it('keeps the selection visible when the window changes', async () => {
    const prompt = await open(many, 40);
    await prompt.press('pagedown', 'pagedown');
    const before = prompt.selected;
    for (const height of [5, 3, 2, 1, 50]) {
      prompt.resize(height, 60);
      expect(prompt.selected).toBe(before);
      expect(prompt.lines).toHaveLength(height);
    }
    prompt.resize(10_100, 60);
    expect(prompt.shown).toHaveLength(10_000);
    expect(prompt.screen.scrolled).toBe(0);
  });

  it('is quick: a hundred keys over 10,000 clusters take less than 2 s', async () => {
    const prompt = await open(many, 50);
    const started = performance.now();
    for (let i = 0; i < 20; i++) await prompt.press('c0', 'n=9', '^u');
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe('widths', () => {
  it.each([
    ['', 0],
    ['abc', 3],
    ['é', 1],
    ['e\u0301', 1],
    ['東京', 4],
    ['한글', 4],
    ['ｱ', 1],
    ['Ａ', 2],
    ['🙂', 2],
    ['👩‍👩‍👧', 2],
    ['🇩🇪', 2],
    ['\u200b', 0],
  ])('%j has width %d', (text, width) => expect(displayWidth(text)).toBe(width));

  it.each([
    ['abcdef', 6, 'abcdef'],
    ['abcdef', 5, 'abcd…'],
    ['abcdef', 1, '…'],
    ['abcdef', 0, ''],
    ['東京都', 6, '東京都'],
    ['東京都', 5, '東京…'],
    ['東京都', 4, '東…'],
    ['東京都', 1, '…'],
    ['e\u0301e\u0301e\u0301', 2, 'e\u0301…'],
  ])('%j in %d columns is %j', (text, columns, expected) => {
    expect(shorten(text, columns)).toBe(expected);
    expect(displayWidth(shorten(text, columns))).toBeLessThanOrEqual(columns);
  });

  it('fits a text to a width', () => {
    for (const text of ['', 'a', '東京', '東京都庁舎']) expect(displayWidth(fitTo(text, 6))).toBe(6);
  });
});
