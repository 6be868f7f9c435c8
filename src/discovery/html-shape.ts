import { Parser } from 'htmlparser2';

/** What an element must be. Text is allowed only where `text` takes it, and no attribute but `class`. */
export interface Shape {
  readonly name: string;
  /** It has no end tag. */
  readonly empty?: boolean;
  /** Any attribute will do. */
  readonly loose?: boolean;
  /** Exactly these children, in this order. */
  readonly all?: readonly Shape[];
  /** Any number of these, in any order. */
  readonly any?: readonly Shape[];
  /** Takes the element's own text, trimmed, at its end; false: it does not fit. */
  readonly text?: (text: string) => boolean;
  /** Called at its end, after `text`; false: it does not fit. */
  readonly done?: () => boolean;
}

interface Open {
  readonly shape: Shape;
  /** How many children it had. */
  children: number;
  text: string;
}

/**
 * True if a document is one element of that shape, each element in it closed by its own end tag. Reading ends at the
 * first thing that does not fit, so that neither depth nor disorder costs anything.
 */
export function matchHtml(html: string, root: Shape): boolean {
  const document: Open = { shape: { name: '', all: [root] }, children: 0, text: '' };
  const open: Open[] = [document];
  const top = () => open.at(-1) ?? document;
  let fits = true;
  const parser = new Parser({
    onopentagname(name) {
      const parent = top();
      const { all, any } = parent.shape;
      const next = all?.[parent.children] ?? any?.find((child) => child.name === name);
      if (next?.name !== name) return fail();
      parent.children++;
      open.push({ shape: next, children: 0, text: '' });
    },
    onattribute(name) {
      if (name !== 'class' && !top().shape.loose) fail();
    },
    ontext(text) {
      const element = top();
      if (element.shape.text !== undefined) element.text += text;
      else if (/\S/.test(text)) fail();
    },
    onclosetag(name, implied) {
      const { shape, children, text } = open.pop() ?? document;
      const { all = [], empty = false } = shape;
      if (name !== shape.name || implied !== empty || children < all.length) return fail();
      if (shape.text?.(text.trim()) === false || shape.done?.() === false) fail();
    },
  });
  function fail(): void {
    fits = false;
    // Not one step further: the parser's own work grows with the depth.
    parser.pause();
  }
  parser.write(html);
  if (fits) parser.end();
  return fits && open.length === 1 && document.children === 1;
}
