// CHANGELOG.md in the format of Keep a Changelog: a section `## [VERSION] - DATE` per release, the newest first.

/**
 * Returns the changelog with the entries of [Unreleased] in a dated section of a version, or undefined if there are no
 * entries. `home` is the project's page, for the links at the end.
 */
export function changelogOf(text: string, version: string, date: string, home: string): string | undefined {
  const changes = notesOf(text, 'Unreleased');
  if (changes === undefined) return undefined;
  const links = text.split('\n').filter((line) => /^\[[^\]]+\]: /.test(line) && !line.startsWith('[Unreleased]:'));
  const before = /^\[([^\]]+)\]: /.exec(links[0] ?? '')?.[1];
  const own = before === undefined ? `releases/tag/v${version}` : `compare/v${before}...v${version}`;
  const body = text.replace(/^\[[^\]]+\]: .*\n?/gm, '').trimEnd();
  const heading = '## [Unreleased]';
  return [
    body.replace(heading, () => `${heading}\n\n## [${version}] - ${date}`),
    '',
    `[Unreleased]: ${home}/compare/v${version}...HEAD`,
    `[${version}]: ${home}/${own}`,
    ...links,
    '',
  ].join('\n');
}

/** Returns the section of a version (or `Unreleased`) without its heading, or undefined if it is missing or empty. */
export function notesOf(text: string, version: string): string | undefined {
  const sections = text.replace(/^\[[^\]]+\]: .*\n?/gm, '').split(/^(?=## )/m);
  const section = sections.find((one) => one.startsWith(`## [${version}]`));
  const notes = section?.split('\n').slice(1).join('\n').trim() ?? '';
  return notes === '' ? undefined : `${notes}\n`;
}
