// The SBOM of the archives: the packages in the bundle, Node, and its libraries on Linux. The SBOM of the image: the same for
// the server, and the Debian packages of its files.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { bundledPackages } from '../build.ts';
import { libraryPackages } from './libraries.ts';
import { targets as all, Failed, lockedPackages, nodeFolder, root, type Target } from './targets.ts';

interface Component {
  readonly 'bom-ref': string;
  readonly [key: string]: unknown;
}

const licence = (id: string) => [/[ (]/.test(id) ? { expression: id } : { license: { id } }];

/** A Debian package with files in the image. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly arch: string;
}

/**
 * Returns a CycloneDX document (JSON, version 1.5) of the contents of these targets. Uses only package-lock.json and not
 * npm, because npm versions write different documents.
 */
export async function sbom(targets: readonly Target[], time: Date): Promise<string> {
  const { name, version, license } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const libraries = targets.flatMap(libraryPackages).map((library): Component => {
    return {
      ...debianComponent(library, '11'),
      scope: 'required',
      hashes: [{ alg: 'SHA-256', content: library.sha256 }],
      licenses: licence('GPL-3.0-or-later WITH GCC-exception-3.1'),
    };
  });
  const self = { 'bom-ref': `${name}@${version}`, type: 'application', name, version, licenses: licence(license) };
  return document(self, await bundledPackages('kubectl-tka'), targets, libraries, time);
}

/** Returns the same for an image of a target, with packages of a Debian release: `13`. */
export async function imageSbom(
  target: Target,
  debian: string,
  packages: readonly DebianPackage[],
  time: Date,
): Promise<string> {
  const { version, license } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const name = 'tka-server';
  const libraries = packages.map((each): Component => ({ ...debianComponent(each, debian), scope: 'required' }));
  const ref = `${name}@${version}?arch=${target.arch}`;
  const self = { 'bom-ref': ref, type: 'container', name, version, licenses: licence(license) };
  return document(self, await bundledPackages('tka-server'), [target], libraries, time);
}

function debianComponent({ name, version, arch }: DebianPackage, release: string): Component {
  const [encoded, exact] = [name, version].map(encodeURIComponent);
  const purl = `pkg:deb/debian/${encoded}@${exact}?arch=${arch}&distro=debian-${release}`;
  return { 'bom-ref': purl, type: 'library', name, version, purl };
}

function document(
  self: Component,
  bundled: readonly string[],
  targets: readonly Target[],
  libraries: readonly Component[],
  time: Date,
): string {
  const lock = lockedPackages();
  const places = [...bundled, ...new Set(targets.map((target) => target.node))];
  const ref = (place: string) => `${packageName(place)}@${lock(place).version}`;
  const packages = places.map((place): Component => {
    const { version, integrity, license } = lock(place);
    return {
      'bom-ref': ref(place),
      type: 'library',
      name: packageName(place),
      version,
      scope: 'required',
      purl: `pkg:npm/${packageName(place).replace('@', '%40')}@${version}`,
      hashes: [{ alg: 'SHA-512', content: Buffer.from(integrity.slice(7), 'base64').toString('hex') }],
      licenses: licence(license),
    };
  });
  const nodes = [...new Set(targets.map((target) => lock(target.node).version))].map(
    (version): Component => ({
      'bom-ref': `node@${version}`,
      type: 'platform',
      name: 'node',
      version,
      scope: 'required',
      cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:*:*:*:*`,
      purl: `pkg:generic/node@${version}`,
      licenses: licence('MIT'),
    }),
  );
  const components = [...packages, ...nodes, ...libraries];
  const needed = new Map(places.map((place) => [ref(place), dependencies(place, bundled).map(ref)]));
  const bom = {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { timestamp: time.toISOString(), component: self },
    components,
    dependencies: [
      { ref: self['bom-ref'], dependsOn: components.map((component) => component['bom-ref']) },
      ...components.map((component) => ({
        ref: component['bom-ref'],
        dependsOn: needed.get(component['bom-ref']) ?? [],
      })),
    ],
  };
  const hash = createHash('sha256').update(JSON.stringify(bom)).digest('hex');
  // A UUID of version 8, whose content is free to choose.
  const uuid = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`;
  return `${JSON.stringify({ ...bom, serialNumber: `urn:uuid:${uuid}` }, undefined, 2)}\n`;
}

/** Returns the folders in node_modules of the bundled dependencies of a package, resolved like Node does. */
function dependencies(place: string, bundled: readonly string[]): string[] {
  return Object.keys(lockedPackages()(place).dependencies ?? {}).flatMap((name) => {
    for (let folder = place; ; folder = folder.replace(/(?:^|\/node_modules\/)(?:@[^/]+\/)?[^/]+$/, '')) {
      const found = folder === '' ? name : `${folder}/node_modules/${name}`;
      if (bundled.includes(found)) return [found];
      if (folder === '') return [];
    }
  });
}

/** Returns the name of the package in a folder of node_modules: `x` for `@y/z/node_modules/x`. */
const packageName = (folder: string) => folder.replace(/^.+\/node_modules\//, '');

/** Returns the licences of all packages in the bundle and of Node. They must be distributed with the code. */
export async function thirdPartyLicences(): Promise<string> {
  const lock = lockedPackages();
  const texts = (await bundledPackages('kubectl-tka')).map((place): [string, string] => {
    const name = packageName(place);
    const { version } = lock(place);
    const folder = path.join(root, 'node_modules', place);
    const file = fs.readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const installed = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
    if (installed.version !== version) throw new Failed(`the installed ${name} is not version ${version}`, 'npm ci');
    if (file !== undefined) return [`${name} ${version}`, fs.readFileSync(path.join(folder, file), 'utf8')];
    return [`${name} ${version}`, `${installed.license}\n`];
  });
  // The licence is the same for all platforms; Node's packages for Windows lack it.
  const node = await nodeFolder(all[0] as Target);
  texts.push(['Node.js', fs.readFileSync(path.join(node, 'LICENSE'), 'utf8')]);
  const rule = '='.repeat(78);
  return texts.map(([title, text]) => `${rule}\n${title}\n${rule}\n\n${text.trim()}\n`).join('\n');
}
