/**
 * Returns the PEM blocks in a text whose label matches (`CERTIFICATE`), each from its BEGIN line to its END line. Takes
 * linear time for any text.
 */
export function pemBlocks(text: string, label: RegExp): string[] {
  const blocks: string[] = [];
  // A BEGIN line within a block is part of that block.
  let begin: { at: number; name: string } | undefined;
  for (const match of text.matchAll(/-----(BEGIN|END) ([A-Z ]{1,64})-----/g)) {
    const [line, which, name = ''] = match;
    if (which === 'BEGIN') begin ??= label.test(name) ? { at: match.index, name } : undefined;
    else if (begin?.name === name) {
      blocks.push(text.slice(begin.at, match.index + line.length));
      begin = undefined;
    }
  }
  return blocks;
}

/** Returns the PEM certificates in a text, each from its BEGIN line to its END line. */
export const certificatesIn = (text: string): string[] => pemBlocks(text, /^CERTIFICATE$/);
