import { askYesNo, terminalToAsk } from '../../terminal/ask.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import { readsStdin } from './args.ts';

/** Maximum number of clusters that the question names. */
const named = 10;
const commandLimit = 200;

/**
 * Asks whether to run a changing command on these clusters. Throws UsageError without a terminal, TkaError if the
 * answer is no.
 */
export async function confirmChange(args: readonly string[], labels: readonly string[]): Promise<void> {
  const command = cleanText(['kubectl', ...args.map(word)].join(' '), commandLimit);
  const input = terminalToAsk({ stdinIsData: readsStdin(args) });
  if (input === undefined) {
    throw new UsageError(`"${command}" may change ${labels.length} clusters, and there is no terminal to confirm it`, {
      hints: ['add --yes before the --'],
    });
  }
  const more = labels.length > named ? ` and ${labels.length - named} more` : '';
  const clusters = `${labels.length} clusters (${labels.slice(0, named).join(', ')}${more})`;
  if (!(await askYesNo(`Run "${command}" on ${clusters}?`, input)))
    throw new TkaError('cancelled', { exitCode: 130, hints: ['--yes skips the question'] });
}

// As in a shell, so that it is clear where a word with spaces ends.
const word = (arg: string): string => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`);
