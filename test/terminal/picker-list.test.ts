// The picker's list: keys in, screen out. No terminal.
import { describe, expect, it } from 'vitest';
import { type Item, type Key, PickerList } from '../../src/terminal/picker-list.ts';
import { cell, displayWidth, shorten } from '../../src/terminal/width.ts';

const item = (name: string, labels = '', state = 'healthy', current = false): Item => ({
  name,
  state,
  labels,
  current,
});
const three = [
  item('prod-us', 'environment=production,region=us-west-2', 'healthy', true),
  item('prod-eu', 'environment=production,region=eu-central-1', 'suspected'),
  item('staging', 'environment=staging,region=us-west-2'),
];
const open = (items: readonly Item[] = three, rows = 10, columns = 80) => new PickerList(items, { rows, columns });

const keys: Readonly<Record<string, Key>> = {
  up: { name: 'up' },
  down: { name: 'down' },
  pageup: { name: 'pageup' },
  pagedown: { name: 'pagedown' },
  home: { name: 'home' },
  end: { name: 'end' },
  enter: { name: 'return' },
  escape: { name: 'escape' },
  backspace: { name: 'backspace' },
  '^n': { name: 'n', ctrl: true, sequence: '\x0e' },
  '^p': { name: 'p', ctrl: true, sequence: '\x10' },
  '^c': { name: 'c', ctrl: true, sequence: '\x03' },
  '^u': { name: 'u', ctrl: true, sequence: '\x15' },
  '^w': { name: 'w', ctrl: true, sequence: '\x17' },
  tab: { name: 'tab', sequence: '\t' },
  'alt-x': { name: 'x', meta: true, sequence: '\x1bx' },
  f1: { name: 'f1', sequence: '\x1bOP' },
};

/** Presses keys by name, types everything else; the outcome of the last. */
function press(list: PickerList, ...names: string[]): ReturnType<PickerList['press']> {
  let outcome: ReturnType<PickerList['press']>;
  for (const name of names) {
    const key = keys[name];
    if (key !== undefined) outcome = list.press(key);
    else for (const character of name) outcome = list.press({ sequence: character, name: character.toLowerCase() });
  }
  return outcome;
}

const selected = (list: PickerList): string | undefined => {
  const screen = list.screen();
  return screen.lines[screen.selected]?.slice(4).split(' ')[0];
};
const shown = (list: PickerList): string[] => list.screen().lines.slice(1, -1);

describe('the list', () => {
  it('shows names, states and labels, the current one marked, the first selected', () => {
    const screen = open().screen();
    expect(screen).toEqual({
      lines: [
        'Cluster: ',
        '> * prod-us   healthy     environment=production,region=us-west-2',
        '    prod-eu   suspected   environment=production,region=eu-central-1',
        '    staging   healthy     environment=staging,region=us-west-2',
        '3 - type to filter, Enter to choose, Esc to leave',
      ],
      selected: 1,
      remark: 4,
      cursor: { line: 0, column: 9 },
    });
  });

  it('moves with arrows, Ctrl-N, Ctrl-P, Home and End, and stops at both ends', () => {
    const list = open();
    const seen = ['up', 'down', '^n', 'down', '^p', 'up', 'up', 'end', 'home'].map((key) => {
      press(list, key);
      return selected(list);
    });
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

  it('filters by what names and labels contain, whatever the case, words in any order', () => {
    const list = open();
    for (const [query, names] of [
      ['prod', ['prod-us', 'prod-eu']],
      ['STAG', ['staging']],
      ['us-west', ['prod-us', 'staging']],
      ['region=eu', ['prod-eu']],
      ['west prod', ['prod-us']],
      ['  ', ['prod-us', 'prod-eu', 'staging']],
      ['prod-usenvironment', []],
      ['.*', []],
    ] as const) {
      press(list, '^u', query);
      const found = shown(list).filter((line) => line !== '  no cluster matches');
      expect(found.map((line) => line.slice(4).split(' ')[0])).toEqual(names);
      expect(list.screen().lines[0]).toBe(`Cluster: ${query}`);
    }
  });

  it('says how many match, and that none does; Enter then does nothing', () => {
    const list = open();
    press(list, 'stag');
    expect(list.screen().lines.at(-1)).toMatch(/^1 of 3 - /);
    expect(press(list, 'x', 'enter')).toBeUndefined();
    expect(list.screen()).toMatchObject({
      lines: ['Cluster: stagx', '  no cluster matches', expect.stringMatching(/^0 of 3 - /)],
      selected: -1,
    });
    expect(press(list, 'down', 'pagedown', 'end', 'enter')).toBeUndefined();
    expect(press(list, 'backspace', 'enter')).toBe(2);
  });

  it('chooses what is selected, by its place in the whole list', () => {
    expect(press(open(), 'enter')).toBe(0);
    expect(press(open(), 'down', 'enter')).toBe(1);
    expect(press(open(), 'us-west', 'down', 'enter')).toBe(2);
  });

  it.each(['escape', '^c'])('%s leaves', (key) => expect(press(open(), 'prod', key)).toBe('cancelled'));

  it('edits the query: Backspace, Ctrl-W, Ctrl-U; a character is one, however many bytes', () => {
    const list = open();
    const query = () => list.screen().lines[0];
    press(list, 'ab 日🙂');
    expect(query()).toBe('Cluster: ab 日🙂');
    expect(list.screen().cursor.column).toBe(16);
    press(list, 'backspace');
    expect(query()).toBe('Cluster: ab 日');
    press(list, '^w');
    expect(query()).toBe('Cluster: ab ');
    press(list, '^u', 'backspace', '^w');
    expect(query()).toBe('Cluster: ');
    press(list, 'tab', 'alt-x', 'f1');
    expect(query()).toBe('Cluster: ');
  });

  it('selects the first match again when the filter changes', () => {
    const list = open();
    press(list, 'end', 'us-west');
    expect(selected(list)).toBe('prod-us');
    press(list, 'down', 'backspace');
    expect(selected(list)).toBe('prod-us');
  });

  it('bounds the query', () => {
    const list = open(three, 10, 400);
    press(list, 'x'.repeat(1000));
    expect(list.screen().lines[0]).toBe(`Cluster: ${'x'.repeat(200)}`);
  });
});

describe('a long list', () => {
  const many = Array.from({ length: 10_000 }, (_, i) => item(`c${String(i).padStart(5, '0')}`, `n=${i}`));

  it('scrolls with the selection, by lines and by pages', () => {
    const list = open(many, 12);
    expect(shown(list)).toHaveLength(10);
    const top = () => shown(list)[0]?.slice(4, 10);
    press(list, ...Array(9).fill('down'));
    expect([top(), selected(list)]).toEqual(['c00000', 'c00009']);
    press(list, 'down');
    expect([top(), selected(list)]).toEqual(['c00001', 'c00010']);
    press(list, 'pagedown');
    expect([top(), selected(list)]).toEqual(['c00011', 'c00020']);
    press(list, 'up');
    expect([top(), selected(list)]).toEqual(['c00011', 'c00019']);
    press(list, 'pageup', 'pageup', 'pageup');
    expect([top(), selected(list)]).toEqual(['c00000', 'c00000']);
    press(list, 'end');
    expect([top(), selected(list)]).toEqual(['c09990', 'c09999']);
  });

  it('fits every window: as many lines as there are rows at most, none wider than the columns', () => {
    const wideOnes = [
      ...many.slice(0, 50),
      item('東京クラスタ'.repeat(10), 'ラベル=値'.repeat(20)),
      item('é🙂'.repeat(80)),
    ];
    for (let rows = 1; rows < 30; rows++) {
      for (const columns of [1, 2, 5, 10, 20, 40, 80, 200]) {
        const list = open(wideOnes, rows, columns);
        press(list, 'end');
        const { lines, selected: at, cursor } = list.screen();
        expect(lines.length).toBeLessThanOrEqual(rows);
        for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(Math.max(1, columns - 1));
        expect(lines[at]).toMatch(/^[>…]/);
        expect(cursor.column).toBeLessThan(Math.max(2, columns));
      }
    }
  });

  it('keeps the selection in sight when the window changes', () => {
    const list = open(many, 40);
    press(list, 'pagedown', 'pagedown');
    const before = selected(list);
    for (const rows of [5, 3, 2, 1, 50]) {
      list.resize({ rows, columns: 60 });
      expect(selected(list)).toBe(before);
    }
    list.resize({ rows: 10_100, columns: 60 });
    expect(shown(list)).toHaveLength(10_000);
  });

  it('is quick: a hundred keys over 10,000 clusters take less than 2 s', () => {
    const started = performance.now();
    const list = open(many, 50);
    for (let i = 0; i < 20; i++) {
      press(list, 'c0', 'n=9', '^u');
      list.screen();
    }
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
  ])('%j is %d wide', (text, width) => expect(displayWidth(text)).toBe(width));

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

  it('a cell is as wide as it is told', () => {
    for (const text of ['', 'a', '東京', '東京都庁舎']) expect(displayWidth(cell(text, 6))).toBe(6);
  });
});
