// As much of a terminal as the program under test uses. Anything else that it is sent is an error, so that nothing goes
// unseen.

const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60]|\p{Emoji_Presentation}/u;

interface Cell {
  text: string;
  style: string;
}

/** What a terminal shows. */
export class VirtualScreen {
  rows: number;
  columns: number;
  row = 0;
  column = 0;
  cursorShown = true;
  alternate = false;
  autowrap = true;
  style = '';
  /** Lines that were pushed off the top of the normal screen. */
  scrolled = 0;
  #cells: Cell[][];
  #other: Cell[][];
  #saved = { row: 0, column: 0 };
  #rest = '';

  constructor(rows: number, columns: number) {
    this.rows = rows;
    this.columns = columns;
    this.#cells = blank(rows, columns);
    this.#other = blank(rows, columns);
  }

  resize(rows: number, columns: number): void {
    const fitted = (cells: Cell[][]) =>
      blank(rows, columns).map((line, r) => line.map((cell, c) => cells[r]?.[c] ?? cell));
    this.#cells = fitted(this.#cells);
    this.#other = fitted(this.#other);
    this.rows = rows;
    this.columns = columns;
    this.row = Math.min(this.row, rows - 1);
    this.column = Math.min(this.column, columns);
  }

  /** The lines, without the blanks at their ends. */
  lines(): string[] {
    return this.#cells.map((line) =>
      line
        .map(({ text }) => text)
        .join('')
        .trimEnd(),
    );
  }

  text(): string {
    return this.lines().join('\n').trimEnd();
  }

  /** The lines that hold anything in a style (`7`: reversed). */
  styled(style: string): string[] {
    return this.lines().filter((_, i) => this.#cells[i]?.some((cell) => cell.style === style));
  }

  write(text: string): void {
    let rest = this.#rest + text;
    this.#rest = '';
    while (rest !== '') {
      if (rest[0] !== '\x1b') {
        const plain = (rest.match(/^[^\x1b]+/) as RegExpMatchArray)[0];
        for (const character of plain) this.#put(character);
        rest = rest.slice(plain.length);
        continue;
      }
      const [whole, mode = '', numbers = '', final = ''] = /^\x1b\[([?]?)([0-9;]*)([A-Za-z])/.exec(rest) ?? [];
      if (whole === undefined) {
        if (!/^\x1b(?:\[[?]?[0-9;]*)?$/.test(rest))
          throw new Error(`no known sequence: ${JSON.stringify(rest.slice(0, 20))}`);
        this.#rest = rest;
        return;
      }
      this.#obey(mode + final, numbers);
      rest = rest.slice(whole.length);
    }
  }

  #obey(command: string, numbers: string): void {
    const [first = 0, second = 0] = numbers.split(';').map(Number);
    if (command === 'H') {
      this.row = Math.min(this.rows, Math.max(1, first)) - 1;
      this.column = Math.min(this.columns, Math.max(1, second)) - 1;
    } else if (command === 'K' && first === 0) {
      this.#cells[this.row]?.fill(empty(), this.column);
    } else if (command === 'J' && first === 0) {
      this.#cells[this.row]?.fill(empty(), this.column);
      for (let r = this.row + 1; r < this.rows; r++) this.#cells[r] = blankLine(this.columns);
    } else if (command === 'm') {
      this.style = numbers === '0' ? '' : numbers;
    } else if (command === '?h' || command === '?l') {
      this.#mode(first, command === '?h');
    } else throw new Error(`no known sequence: ${numbers}${command}`);
  }

  #mode(number: number, on: boolean): void {
    if (number === 25) this.cursorShown = on;
    else if (number === 7) this.autowrap = on;
    else if (number === 1049) {
      if (on === this.alternate) return;
      this.alternate = on;
      [this.#cells, this.#other] = [this.#other, this.#cells];
      if (on) {
        this.#saved = { row: this.row, column: this.column };
        this.#cells = blank(this.rows, this.columns);
      } else Object.assign(this, this.#saved);
    } else throw new Error(`no known mode: ${number}`);
  }

  #put(character: string): void {
    if (character === '\r') this.column = 0;
    else if (character === '\n') this.#down();
    else if (character === '\b') this.column = Math.max(0, this.column - 1);
    else if (character < ' ' || character === '\x7f') throw new Error(`control character ${JSON.stringify(character)}`);
    else if (/\p{M}/u.test(character)) {
      const cell = this.#cells[this.row]?.[this.column - 1];
      if (cell !== undefined) cell.text += character;
    } else {
      const width = wide.test(character) ? 2 : 1;
      if (this.column + width > this.columns) {
        if (this.autowrap) {
          this.column = 0;
          this.#down();
        } else this.column = this.columns - width;
      }
      const line = this.#cells[this.row] as Cell[];
      line[this.column] = { text: character, style: this.style };
      // The second half of a wide character shows nothing of its own.
      if (width === 2) line[this.column + 1] = { text: '', style: this.style };
      this.column += width;
    }
  }

  #down(): void {
    if (this.row < this.rows - 1) {
      this.row++;
      return;
    }
    this.#cells.shift();
    this.#cells.push(blankLine(this.columns));
    this.scrolled++;
  }
}

const empty = (): Cell => ({ text: ' ', style: '' });
const blankLine = (columns: number): Cell[] => Array.from({ length: columns }, empty);
const blank = (rows: number, columns: number): Cell[][] => Array.from({ length: rows }, () => blankLine(columns));
