// Checks krew's manifest as krew itself does (its internal/index/validation, and its installer).
import * as fs from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { manifest } from '../../krew/manifest.ts';
import { targets } from '../../krew/targets.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { makes, needsTools, type Packages, packages, read, sha256, version } from './packages.ts';

// biome-ignore lint/suspicious/noExplicitAny: what krew would read is what is being found out
type Yaml = any;

/** Returns what krew would refuse in a manifest in a file named `name`.yaml, or install incorrectly. */
function faults(name: string, plugin: Yaml): string[] {
  const found: string[] = [];
  const must = (holds: boolean, fault: string) => holds || found.push(fault);
  must(plugin.apiVersion === 'krew.googlecontainertools.github.com/v1alpha2', 'apiVersion');
  must(plugin.kind === 'Plugin', 'kind');
  must(/^[\w-]+$/.test(plugin.metadata?.name) && plugin.metadata.name === name, 'name');
  const { version, shortDescription, platforms = [] } = plugin.spec ?? {};
  must(/^v(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-[\w.-]+)?$/.test(version), 'version');
  must(typeof shortDescription === 'string' && /^[^\r\n]+$/.test(shortDescription), 'shortDescription');
  must(platforms.length > 0, 'platforms');
  const seen: string[] = [];
  for (const { uri, sha256, bin, files, selector } of platforms) {
    const labels = selector?.matchLabels ?? {};
    must(/^https:\/\/\S+\.(?:tar\.gz|zip)$/.test(uri), 'uri');
    must(/^[a-f0-9]{64}$/.test(sha256), 'sha256');
    must(typeof bin === 'string' && /^[\w-]+(?:\.exe)?$/.test(bin), 'bin');
    must(labels.os !== 'windows' || /\.exe$/.test(bin), 'bin on Windows');
    must(files === undefined || files.length > 0, 'files');
    must(Object.keys(selector ?? {}).join() === 'matchLabels', 'selector');
    must(Object.keys(labels).sort().join() === 'arch,os', 'selector keys');
    must(['linux', 'darwin', 'windows'].includes(labels.os) && ['amd64', 'arm64'].includes(labels.arch), 'labels');
    must(!seen.includes(`${labels.os}/${labels.arch}`), 'overlapping selectors');
    seen.push(`${labels.os}/${labels.arch}`);
  }
  return found;
}

const release = { version: '1.2.3', homepage: 'https://example.com/it', downloads: 'https://example.com/it/download' };
const shipped = targets.map((target) => {
  const file = `kubectl-tka-1.2.3-${target.name}.${target.os === 'windows' ? 'zip' : 'tar.gz'}`;
  return { target, file, sha256: sha256(Buffer.from(file)) };
});

describe('the manifest of all platforms', () => {
  it.each(['1.1', '1.2'] as const)('is valid for krew, read as YAML %s', (yaml) => {
    const plugin = parse(manifest(release, shipped), { version: yaml });
    expect(faults('tka', plugin)).toEqual([]);
    expect(plugin.spec.version).toBe('v1.2.3');
    expect(plugin.spec.platforms.map(({ uri }: Yaml) => uri)).toEqual(
      shipped.map(({ file }) => `https://example.com/it/download/v1.2.3/${file}`),
    );
  });

  it('has only platforms that are shipped', () => {
    const plugin = parse(manifest(release, shipped.slice(0, 1)));
    expect(plugin.spec.platforms).toHaveLength(1);
  });

  // Shows that the rules above can fail.
  it.each<[string, (plugin: Yaml) => void]>([
    ['version', (plugin) => Object.assign(plugin.spec, { version: '1.2.3' })],
    ['name', (plugin) => Object.assign(plugin.metadata, { name: 'other' })],
    ['shortDescription', (plugin) => Object.assign(plugin.spec, { shortDescription: 'two\nlines' })],
    ['sha256', ({ spec }) => Object.assign(spec.platforms[0], { sha256: 'A'.repeat(64) })],
    ['bin on Windows', ({ spec }) => Object.assign(spec.platforms[4], { bin: 'kubectl-tka' })],
    ['overlapping selectors', ({ spec }) => spec.platforms.push(spec.platforms[0])],
  ])('is reported as invalid with a wrong %s', (fault, spoil) => {
    const plugin = parse(manifest(release, shipped));
    spoil(plugin);
    expect(faults('tka', plugin)).toEqual([fault]);
  });
});

describe.skipIf(!makes)(`the manifest of npm run package${needsTools}`, () => {
  const folder = fileFolder('tka-krew-');
  let made: Packages;
  beforeAll(async () => {
    made = await packages(folder);
  }, 300_000);

  it('names the existing archives with their real hashes, and a program in each', async () => {
    const plugin = parse(fs.readFileSync(made.plugin, 'utf8'));
    expect(faults('tka', plugin)).toEqual([]);
    expect(plugin.spec.version).toBe(`v${version}`);
    expect(plugin.spec.platforms).toHaveLength(made.archives.length);
    for (const [i, archive] of made.archives.entries()) {
      const { selector, uri, sha256: hash, bin } = plugin.spec.platforms[i];
      expect(selector.matchLabels).toEqual({ os: archive.target.os, arch: archive.target.arch });
      expect(archive.file.endsWith(uri.split('/').at(-1))).toBe(true);
      expect(hash).toBe(sha256(fs.readFileSync(archive.file)));
      const names = (await read(archive)).map(({ name }) => name);
      expect(names).toContain(bin);
      expect(names).toContain('LICENSE');
    }
  });
});
