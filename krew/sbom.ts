// What is in the archives: the packages in the bundle, and Node.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { bundledPackages } from '../build.ts';
import { targets as all, Failed, locked, nodeFolder, npm, ownTarget, root, type Target } from './targets.ts';

interface Component {
  readonly 'bom-ref': string;
  readonly type: string;
  readonly name: string;
  readonly version: string;
}

interface Bom {
  serialNumber?: string;
  metadata: { timestamp: string; component: { name: string; 'bom-ref': string; properties?: unknown } };
  components: Component[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

/** A CycloneDX document (JSON, version 1.5) of what ships for these targets; the same for the same package-lock.json. */
export async function sbom(targets: readonly Target[], time: Date): Promise<string> {
  const { name } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const bom: Bom = JSON.parse(
    npm(['sbom', '--sbom-format', 'cyclonedx', '--sbom-type', 'application', '--package-lock-only']),
  );
  const self = bom.metadata.component['bom-ref'];
  const names = [...(await bundledPackages()), ...targets.map((target) => target.node)];
  const shipped = new Set(names.map((name) => `${packageName(name)}@${locked(name).version}`));
  const nodes = [...new Set(targets.map((target) => locked(target.node).version))].map((version) => ({
    'bom-ref': `node@${version}`,
    type: 'platform',
    name: 'node',
    version,
    scope: 'required',
    cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:*:*:*:*`,
    purl: `pkg:generic/node@${version}`,
    licenses: [{ license: { id: 'MIT' } }],
  }));
  bom.metadata.timestamp = time.toISOString();
  bom.metadata.component.name = name;
  delete bom.metadata.component.properties;
  bom.components = [...bom.components.filter((component) => shipped.has(component['bom-ref'])), ...nodes];
  bom.dependencies = [
    { ref: self, dependsOn: [...shipped, ...nodes.map((node) => node['bom-ref'])].sort() },
    ...bom.dependencies
      .filter(({ ref }) => shipped.has(ref))
      .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((needed) => shipped.has(needed)) })),
    ...nodes.map((node) => ({ ref: node['bom-ref'], dependsOn: [] })),
  ];
  delete bom.serialNumber;
  const hash = createHash('sha256').update(JSON.stringify(bom)).digest('hex');
  // The form of a UUID whose content is somebody's own (version 8).
  const uuid = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`;
  return `${JSON.stringify({ ...bom, serialNumber: `urn:uuid:${uuid}` }, undefined, 2)}\n`;
}

/** Returns the name of the package in a folder of node_modules: `x` for `@y/z/node_modules/x`. */
const packageName = (folder: string) => folder.replace(/^.+\/node_modules\//, '');

/** Returns the licences of all that is in the bundle, and of Node: they must go where the code goes. */
export async function thirdPartyLicences(): Promise<string> {
  const texts = (await bundledPackages()).map((place): [string, string] => {
    const name = packageName(place);
    const { version } = locked(place);
    const folder = path.join(root, 'node_modules', place);
    const file = fs.readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const installed = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
    if (installed.version !== version) throw new Failed(`${name}@${version} is not what is installed`, 'npm ci');
    if (file !== undefined) return [`${name} ${version}`, fs.readFileSync(path.join(folder, file), 'utf8')];
    return [`${name} ${version}`, `${installed.license}\n`];
  });
  // Node's packages for Windows lack it.
  const own = ownTarget();
  const node = await nodeFolder(own === undefined || own.os === 'windows' ? (all[0] as Target) : own);
  texts.push(['Node.js', fs.readFileSync(path.join(node, 'LICENSE'), 'utf8')]);
  const rule = '='.repeat(78);
  return texts.map(([title, text]) => `${rule}\n${title}\n${rule}\n\n${text.trim()}\n`).join('\n');
}
