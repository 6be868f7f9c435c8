import { cell, displayWidth, shorten } from './width.ts';

/** One line to choose from; all texts clean. */
export interface Item {
  readonly name: string;
  readonly state: string;
  readonly labels: string;
  /** Marked with `*`. */
  readonly current: boolean;
}

/** A key press as node:readline tells it. */
export interface Key {
  readonly sequence?: string | undefined;
  readonly name?: string | undefined;
  readonly ctrl?: boolean | undefined;
  readonly meta?: boolean | undefined;
}

/** What is to be seen: lines without control characters, and where the cursor stands. */
export interface Screen {
  readonly lines: readonly string[];
  /** The line that is selected; -1 for none. */
  readonly selected: number;
  /** The line that is a remark. */
  readonly remark: number;
  readonly cursor: { readonly line: number; readonly column: number };
}

const prompt = 'Cluster: ';
const help = 'type to filter, Enter to choose, Esc to leave';
const gap = '   ';
const queryLimit = 200;

/** A list that is filtered as one types. Keys in, screen out; it knows no terminal. */
export class PickerList {
  readonly #items: readonly Item[];
  readonly #haystacks: readonly string[];
  readonly #widths: { readonly name: number; readonly state: number };
  #rows: number;
  #columns: number;
  #query = '';
  /** Indices of the items that match. */
  #matches: readonly number[];
  /** The selected one of the matches, and the first that is shown. */
  #at = 0;
  #top = 0;

  constructor(items: readonly Item[], size: { rows: number; columns: number }) {
    this.#items = items;
    // A line break, which no query holds: a match never runs from name to labels.
    this.#haystacks = items.map(({ name, labels }) => `${name}\n${labels}`.toLowerCase());
    this.#matches = items.map((_, i) => i);
    const widest = (text: (item: Item) => string) =>
      items.reduce((w, item) => Math.max(w, displayWidth(text(item))), 0);
    this.#widths = { name: widest((item) => item.name), state: widest((item) => item.state) };
    this.#rows = size.rows;
    this.#columns = size.columns;
  }

  resize(size: { rows: number; columns: number }): void {
    this.#rows = size.rows;
    this.#columns = size.columns;
    this.#scroll();
  }

  /** The index of the item that is chosen, 'cancelled', or undefined while neither. */
  press(key: Key): number | 'cancelled' | undefined {
    const { name = '', ctrl = false, meta = false, sequence = '' } = key;
    if (name === 'escape' || (ctrl && (name === 'c' || name === 'd' || name === 'g'))) return 'cancelled';
    if (name === 'return' || name === 'enter') return this.#matches[this.#at];
    const move = ctrl
      ? { n: 1, p: -1 }[name]
      : { down: 1, up: -1, pagedown: this.#height, pageup: -this.#height }[name];
    if (move !== undefined) this.#select(this.#at + move);
    else if (name === 'home') this.#select(0);
    else if (name === 'end') this.#select(this.#matches.length - 1);
    else if (name === 'backspace') this.#filter([...this.#query].slice(0, -1).join(''));
    else if (ctrl && name === 'u') this.#filter('');
    else if (ctrl && name === 'w') this.#filter(this.#query.replace(/\S*\s*$/, ''));
    else if (!ctrl && !meta && /^[^\p{C}]+$/u.test(sequence)) {
      this.#filter([...(this.#query + sequence)].slice(0, queryLimit).join(''));
    }
    return undefined;
  }

  screen(): Screen {
    const width = Math.max(1, this.#columns - 1);
    const [withPrompt, withRemark] = [this.#rows >= 2, this.#rows >= 3];
    const lines: string[] = [];
    // Of a long query its end is what is looked at.
    const room = Math.max(1, width - prompt.length - 1);
    let query = this.#query;
    while (displayWidth(query) > room) query = [...query].slice(1).join('');
    if (withPrompt) lines.push(shorten(`${prompt}${query}`, width));
    const shown = this.#matches.slice(this.#top, this.#top + this.#height);
    const selected = shown.length === 0 ? -1 : lines.length + this.#at - this.#top;
    for (const [i, index] of shown.entries()) lines.push(this.#line(index, this.#top + i === this.#at, width));
    if (shown.length === 0) lines.push(shorten('  no cluster matches', width));
    if (withRemark) {
      const [found, all] = [this.#matches.length, this.#items.length];
      lines.push(shorten(`${found === all ? all : `${found} of ${all}`} - ${help}`, width));
    }
    const cursor = withPrompt
      ? { line: 0, column: Math.min(displayWidth(prompt + query), width) }
      : { line: 0, column: 0 };
    return { lines, selected, remark: withRemark ? lines.length - 1 : -1, cursor };
  }

  get #height(): number {
    return Math.max(1, this.#rows - 2);
  }

  #line(index: number, selected: boolean, width: number): string {
    const { name, state, labels, current } = this.#items[index] as Item;
    const nameWidth = Math.min(this.#widths.name, Math.max(8, Math.floor(width / 2)));
    const text = `${selected ? '>' : ' '} ${current ? '*' : ' '} ${cell(name, nameWidth)}${gap}${cell(state, this.#widths.state)}${gap}${labels}`;
    return shorten(text.trimEnd(), width);
  }

  #filter(query: string): void {
    if (query === this.#query) return;
    const narrower = query.startsWith(this.#query);
    this.#query = query;
    const words = query
      .toLowerCase()
      .split(/\s+/)
      .filter((word) => word !== '');
    const candidates = narrower ? this.#matches : this.#items.map((_, i) => i);
    this.#matches = candidates.filter((i) => words.every((word) => this.#haystacks[i]?.includes(word)));
    this.#at = 0;
    this.#top = 0;
  }

  #select(at: number): void {
    this.#at = Math.max(0, Math.min(at, this.#matches.length - 1));
    this.#scroll();
  }

  #scroll(): void {
    const lowest = Math.max(0, this.#matches.length - this.#height);
    this.#top = Math.min(lowest, Math.max(this.#at - this.#height + 1, Math.min(this.#top, this.#at)));
  }
}
