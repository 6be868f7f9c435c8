// npm run image [-- --out FOLDER]: builds the server's image for this machine's architecture with buildah, as an archive
// (`tka-server-0.1.0-linux-amd64.tar`, in the OCI layout), and writes its SBOM: `….cdx.json`.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import * as zlib from 'node:zlib';
import * as tar from 'tar';
import { commitTime } from './package.ts';
import { type DebianPackage, imageSbom } from './sbom.ts';
import { Failed, ownTarget, root, type Target } from './targets.ts';

const largest = 180e6;

/** Builds the image into a folder. Returns the archive and its SBOM. Throws Failed if it is larger than 180 MB. */
async function makeImage(target: Target, out: string): Promise<string[]> {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const time = commitTime();
  fs.mkdirSync(out, { recursive: true });
  const file = path.join(out, `tka-server-${version}-${target.name}`);
  const image = `localhost/tka-server:${version}`;
  const containerfile = path.join(root, 'deploy', 'Containerfile');
  const seconds = String(time.getTime() / 1000);
  buildah('build', '--layers=false', '--timestamp', seconds, '--file', containerfile, '--tag', image, root);
  fs.rmSync(`${file}.tar`, { force: true });
  buildah('push', image, `oci-archive:${file}.tar`);
  const { packages, debian, size } = await readImage(`${file}.tar`);
  if (size > largest) throw new Failed(`the image has ${size} bytes, more than 180 MB`);
  if (packages.length === 0) throw new Failed('the image has no list of its packages');
  fs.writeFileSync(`${file}.cdx.json`, await imageSbom(target, debian, packages, time));
  return [`${file}.tar`, `${file}.cdx.json`];
}

function buildah(...args: readonly string[]): void {
  try {
    execFileSync('buildah', args, { cwd: root, stdio: ['ignore', 2, 'inherit'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw new Failed(`buildah ${args[0]} failed`);
    throw new Failed('buildah not found', 'apt-get install buildah');
  }
}

interface Contents {
  /** Sorted by name. */
  readonly packages: readonly DebianPackage[];
  /** Debian's release: 13. */
  readonly debian: string;
  /** Size of its files, in bytes. */
  readonly size: number;
}

/** Reads an image's archive. Throws Failed if it is not an image. */
export async function readImage(archive: string): Promise<Contents> {
  const blobs = new Map<string, Buffer>();
  await eachFile(fs.createReadStream(archive), (name, data) => blobs.set(name, data));
  const json = (name: string) => {
    const data = blobs.get(name);
    if (data === undefined) throw new Failed(`${path.basename(archive)} has no ${name}`);
    return JSON.parse(data.toString());
  };
  const blob = ({ digest }: { readonly digest: string }) => `blobs/${digest.replace(':', '/')}`;
  const texts = new Map<string, string>();
  let size = 0;
  for (const layer of json(blob(json('index.json').manifests[0])).layers) {
    const data = blobs.get(blob(layer)) ?? Buffer.alloc(0);
    const unpacked = layer.mediaType.endsWith('gzip') ? zlib.gunzipSync(data) : data;
    await eachFile(Readable.from([unpacked]), (name, content) => {
      size += content.length;
      if (/^(?:etc\/os-release|var\/lib\/dpkg\/status\.d\/[^/]+)$/.test(name)) texts.set(name, content.toString());
    });
  }
  const debian = /^VERSION_ID="?(\d+)"?$/m.exec(texts.get('etc/os-release') ?? '')?.[1] ?? '';
  texts.delete('etc/os-release');
  const packages = [...texts.values()].map((text): DebianPackage => {
    const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(text)?.[1] ?? '';
    return { name: field('Package'), version: field('Version'), arch: field('Architecture') };
  });
  return { packages: packages.sort((a, b) => (a.name < b.name ? -1 : 1)), debian, size };
}

/** Reads a .tar. Calls `take` with the name and the content of each file. */
async function eachFile(from: NodeJS.ReadableStream, take: (name: string, data: Buffer) => void): Promise<void> {
  const parser = new tar.Parser({
    strict: true,
    onReadEntry: (entry) => {
      const parts: Buffer[] = [];
      entry.on('data', (part: Buffer) => parts.push(part));
      entry.on('end', () => entry.type === 'File' && take(entry.path.replace(/^\.?\//, ''), Buffer.concat(parts)));
    },
  });
  await pipeline(from, parser as unknown as NodeJS.WritableStream);
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const target = ownTarget();
    if (target?.os !== 'linux') throw new Failed('the image can only be built on Linux');
    const { out } = parse(args);
    for (const file of await makeImage(target, path.resolve(root, out))) {
      process.stdout.write(`${path.relative(root, file)}\n`);
    }
    return 0;
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    process.stderr.write(error.told());
    return error.status;
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: { out: { type: 'string', default: 'release' } } }).values;
  } catch (error) {
    throw new Failed((error as Error).message.split('. ', 1)[0] ?? '', 'npm run image -- --out FOLDER', 2);
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
