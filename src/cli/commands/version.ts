import { openTerminal, structured } from '../../terminal/output.ts';
import { versionInfo, versionLine } from '../../util/version.ts';

export async function version(format: 'json' | 'yaml' | undefined): Promise<void> {
  const terminal = openTerminal({ debug: false, quiet: false });
  terminal.out(format === undefined ? versionLine('kubectl-tka') : await structured(format, versionInfo()));
}
