// Writes the pages of this folder from the code: `npm run reference`. test/docs/reference.test.ts says where a page is out of date.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { environmentName, type SettingKey, settingKeys } from '../../src/settings/keys.ts';
import { messagesPage } from './messages.ts';

const root = path.join(import.meta.dirname, '../..');
const note = '<!-- Written by `npm run reference` from the code. -->\n\n';

/** Every command's `--help`. */
function commandsPage(): string {
  const program = path.join(root, 'cmd/kubectl-tka.ts');
  const help = (...words: string[]) =>
    execFileSync(process.execPath, [program, ...words, '--help'], { encoding: 'utf8' });
  const overview = help();
  const [, listed = ''] = /^Available Commands:\n((?: {2}.*\n)*)/m.exec(overview) ?? [];
  const names = [...listed.matchAll(/^ {2}(\S+)/gm)].map(([, name = '']) => name);
  const page = (title: string, text: string) => `## ${title}\n\n\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
  const sections = [page('kubectl tka', overview), ...names.map((name) => page(name, help(name)))];
  return `# Commands\n\n${note}${sections.join('\n')}`;
}

function settingsPage(): string {
  const rows = Object.entries(settingKeys).map(([key, { fallback, meaning }]) => {
    const standard = fallback === undefined || fallback === '' ? '' : `\`${fallback}\``;
    return `| \`${key}\` | \`${environmentName(key as SettingKey)}\` | ${standard} | ${meaning} |`;
  });
  return `# Settings of the plugin

${note}A flag comes first, then the environment variable, then the configuration file, then the default. See also
[Using the plugin](../using.md#settings).

| key | environment variable | default | meaning |
| --- | --- | --- | --- |
${rows.join('\n')}
`;
}

const plugin = [
  'cli',
  'session',
  'discovery',
  'kubeconfig',
  'tka',
  'tailscale',
  'network',
  'settings',
  'terminal',
  'util',
];

function messages(): string {
  return `# Messages

${note}Every text of the plugin and of the server, by the folder of its code. Words in capitals stand for values.

${messagesPage(root, [...plugin, 'server'])}`;
}

/** The generated pages: their texts by file name. */
export const pages: Readonly<Record<string, () => string>> = {
  'commands.md': commandsPage,
  'settings.md': settingsPage,
  'messages.md': messages,
};

if (import.meta.main) {
  for (const [name, page] of Object.entries(pages)) fs.writeFileSync(path.join(import.meta.dirname, name), page());
}
