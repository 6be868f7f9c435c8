// Writes the pages of this folder from the code: `npm run reference`. test/docs/reference.test.ts says where a page is out of date.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { Command } from 'commander';
import { serverCommands } from '../../src/server/cli.ts';
import { type ConfigKey, configKeys, shownValue, variableOf } from '../../src/server/config/keys.ts';
import { createMetrics } from '../../src/server/telemetry/metrics.ts';
import { environmentName, type SettingKey, settingKeys } from '../../src/settings/keys.ts';
import { messagesPage } from './messages.ts';

const root = path.join(import.meta.dirname, '../..');
const note = '<!-- Written by `npm run reference` from the code. -->\n\n';

/** Every command's `--help`, of the plugin and of the server. */
function commandsPage(): string {
  const program = path.join(root, 'cmd/kubectl-tka.ts');
  const help = (...words: string[]) =>
    execFileSync(process.execPath, [program, ...words, '--help'], { encoding: 'utf8' });
  const overview = help();
  const [, listed = ''] = /^Available Commands:\n((?: {2}.*\n)*)/m.exec(overview) ?? [];
  const names = [...listed.matchAll(/^ {2}(\S+)/gm)].map(([, name = '']) => name);
  const page = (title: string, text: string) => `## ${title}\n\n\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
  const server = (command: Command, words: string): string[] => [
    page(words, command.helpInformation()),
    ...command.commands.flatMap((sub) => server(sub, `${words} ${sub.name()}`)),
  ];
  const sections = [
    ...[page('kubectl tka', overview), ...names.map((name) => page(name, help(name)))],
    ...server(serverCommands({}, AbortSignal.abort()), 'tka-server'),
  ];
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

function serverConfigPage(): string {
  const sections = Map.groupBy(Object.keys(configKeys) as ConfigKey[], (key) => key.split('.', 1)[0] ?? '');
  const tables = [...sections].map(([name, keys]) => {
    const rows = keys.map((key) => {
      const { what, meaning, fallback } = configKeys[key];
      const value = shownValue(key, fallback);
      const isNone = value === null || value === '' || (typeof value === 'object' && Object.keys(value).length === 0);
      return `| \`${key}\` | ${what} | ${isNone ? '' : `\`${value}\``} | \`${variableOf(key)}\` | ${meaning} |`;
    });
    return `## ${name}

| key | value | default | environment variable | meaning |
| --- | --- | --- | --- | --- |
${rows.join('\n')}
`;
  });
  return `# Configuration of the server

${note}The file is YAML: \`tka-server serve --config FILE\`, else \`/etc/tka/config.yaml\`. A key with dots is a map in a map; upper and lower
case do not matter. The environment variable of a key beats the file; an empty variable does not count. A wrong value stops the server
with exit status 2. An unknown key, and a key without effect, is a warning in the log at start. See also [The server](../server.md).

${tables.join('\n')}`;
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

/** What the server exports on Linux. */
function metricsPage(): string {
  const nothing = () => undefined;
  const { server, controller } = createMetrics({
    version: '',
    commit: '',
    ready: () => false,
    members: nothing,
    certificateUntil: nothing,
    cluster: nothing,
  });
  type Metric = { readonly name: string; readonly help: string; readonly type: string; readonly labelNames: string[] };
  const table = (metrics: readonly Metric[]) => {
    const rows = metrics.map(({ name, type, labelNames, help }) => {
      const labels = labelNames.map((label) => `\`${label}\``).join(', ');
      return `| \`${name}\` | ${type} | ${labels} | ${help.replace(/\.$/, '')} |`;
    });
    return `| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n${rows.sort().join('\n')}\n`;
  };
  const [first, second] = [server, controller].map(
    (registry) => registry.getMetricsAsArray() as unknown as readonly Metric[],
  );
  const isOfProcess = ({ name }: Metric) => /^(?:process|nodejs)_/.test(name);
  return `# Metrics

${note}The server exports these on \`health.port\` (8080), for Prometheus. A histogram has the series \`_bucket\` (with the label \`le\`), \`_sum\`
and \`_count\`. The reasons of \`tka_sign_ins_refused_total\` are explained in the [runbook](../runbooks/README.md#tkasigninsrefused).
How to collect them, the dashboard and the alerts: [Monitoring](../monitoring.md).

## /metrics: API and mesh

${table((first ?? []).filter((metric) => !isOfProcess(metric)))}
## /metrics/controller: sign-ins in the cluster

${table(second ?? [])}
## /metrics: the process

${table((first ?? []).filter(isOfProcess))}`;
}

/** The generated pages: their texts by file name. */
export const pages: Readonly<Record<string, () => string>> = {
  'commands.md': commandsPage,
  'settings.md': settingsPage,
  'server-config.md': serverConfigPage,
  'messages.md': messages,
  'metrics.md': metricsPage,
};

if (import.meta.main) {
  for (const [name, page] of Object.entries(pages)) fs.writeFileSync(path.join(import.meta.dirname, name), page());
}
