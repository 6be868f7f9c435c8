// npm run package [-- --target NAME ... --allow-missing --images FOLDER --out FOLDER]: creates the archives of a
// version, the chart, checksums, SBOM and krew's manifest. The results of one commit are always the same.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { bundle, launcher } from '../build.ts';
import { type Entry, tarGz, zip } from './archive.ts';
import { makeExecutable } from './executable.ts';
import { k8sManifest } from './k8s.ts';
import { type Library, libraries, libraryLicence } from './libraries.ts';
import { manifest, type Shipped } from './manifest.ts';
import { sbom, thirdPartyLicences } from './sbom.ts';
import { Failed, ownTarget, root, type Target, targets, Unavailable } from './targets.ts';

const largest = 45e6;
const completions = 'src/cli/completion';

export interface Made {
  readonly files: readonly string[];
  /** The targets that this machine cannot make, with the reasons. */
  readonly leftOut: readonly { readonly target: Target; readonly reason: Unavailable }[];
}

/**
 * Writes archives, the SBOM, krew's manifest, the chart, tka-k8s.yaml and checksums.txt, and replaces those of the previous run. With `images`,
 * includes the SBOMs of the images that `npm run image` wrote to that folder. Throws Failed if an archive is larger than
 * 45 MB, a download fails, an SBOM is missing, or, without `allowMissing`, a target cannot be made here. The files of the
 * previous run stay then.
 */
export async function makePackages(
  wanted: readonly Target[],
  out: string,
  { allowMissing = false, images }: { readonly allowMissing?: boolean; readonly images?: string | undefined } = {},
): Promise<Made> {
  const { name, version, homepage } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const time = commitTime();
  const imageSboms = images === undefined ? [] : readSboms(images, version);
  const program = await bundle();
  const notices = await thirdPartyLicences();
  fs.mkdirSync(out, { recursive: true });
  // Move everything at the end, so that `out` always has the complete files of one run.
  const work = fs.mkdtempSync(path.join(out, '.making-'));
  const clear = () => fs.rmSync(work, { recursive: true, force: true, maxRetries: 3 });
  process.once('exit', clear);
  try {
    const leftOut: Made['leftOut'][number][] = [];
    const made: Promise<Shipped>[] = [];
    for (const target of wanted) {
      let beside: readonly Library[];
      try {
        beside = await libraries(target);
      } catch (reason) {
        if (!(reason instanceof Unavailable)) throw reason;
        if (!allowMissing) throw new Failed(`${target.name} cannot be created: ${reason.message}`, reason.hint);
        leftOut.push({ target, reason });
        continue;
      }
      const executable = path.join(work, target.name);
      await makeExecutable(target, program, executable);
      const licences = beside.length === 0 ? notices : `${notices}\n${await libraryLicence()}`;
      const entries = contents(target, fs.readFileSync(executable), beside, licences);
      fs.rmSync(executable);
      const file = `${name}-${version}-${target.name}.${target.os === 'windows' ? 'zip' : 'tar.gz'}`;
      made.push(write(target, path.join(work, file), entries, time));
    }
    const shipped = await Promise.all(made);
    const files: string[] = [];
    if (shipped.length > 0) {
      const bom = `${name}-${version}.cdx.json`;
      const platforms = shipped.map(({ target }) => target);
      fs.writeFileSync(path.join(work, bom), await sbom(platforms, time));
      const release = { version, homepage, downloads: `${homepage}/releases/download` };
      fs.writeFileSync(path.join(work, 'tka.yaml'), manifest(release, shipped));
      const chart = `tka-${version}.tgz`;
      fs.writeFileSync(path.join(work, chart), await tarGz(chartFiles(), time));
      fs.writeFileSync(path.join(work, 'tka-k8s.yaml'), k8sManifest());
      for (const { name, text } of imageSboms) fs.writeFileSync(path.join(work, name), text);
      files.push(
        ...shipped.map(({ file }) => file),
        bom,
        'tka.yaml',
        'tka-k8s.yaml',
        chart,
        ...imageSboms.map(({ name }) => name),
      );
      const sums = files.map((file) => `${sha256(fs.readFileSync(path.join(work, file)))}  ${file}\n`).join('');
      fs.writeFileSync(path.join(work, 'checksums.txt'), sums);
      files.push('checksums.txt');
    }
    // Remove the checksums first, and add the new ones last.
    for (const old of fs.readdirSync(out).filter(isOurs).sort()) fs.rmSync(path.join(out, old), { force: true });
    for (const file of files) fs.renameSync(path.join(work, file), path.join(out, file));
    return { files: files.map((file) => path.join(out, file)), leftOut };
  } finally {
    clear();
    process.off('exit', clear);
  }
}

function contents(target: Target, executable: Uint8Array, beside: readonly Library[], licences: string): Entry[] {
  const windows = target.os === 'windows';
  const file = (name: string, data: Uint8Array | string, mode: Entry['mode'] = 0o644): Entry => {
    return { name, data: Buffer.from(data), mode };
  };
  const copy = (name: string, from = name, mode: Entry['mode'] = 0o644): Entry => {
    return file(name, fs.readFileSync(path.join(root, from)), mode);
  };
  const scripts = fs.readdirSync(path.join(root, completions)).filter((name) => name.startsWith('kubectl-tka.'));
  return [
    ...(target.os === 'windows'
      ? [file('kubectl-tka.exe', executable, 0o755)]
      : [file('kubectl-tka', launcher(target.os, 'executable'), 0o755), file('lib/kubectl-tka', executable, 0o755)]),
    ...beside.map(({ name, data }) => file(`lib/${name}`, data)),
    windows
      ? copy('kubectl_complete-tka.cmd', 'cmd/kubectl_complete-tka.cmd', 0o755)
      : copy('kubectl_complete-tka', 'cmd/kubectl_complete-tka.sh', 0o755),
    ...scripts.sort().map((name) => copy(`completions/${name}`, path.join(completions, name))),
    copy('LICENSE'),
    copy('README.md'),
    file('THIRD_PARTY_LICENSES', licences),
  ];
}

/** Returns the files of the chart's archive, as from `helm package`: in a folder with the chart's name. */
function chartFiles(): Entry[] {
  const chart = path.join(root, 'deploy', 'chart');
  const names = fs.readdirSync(chart, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const files = names.map((entry) => path.relative(chart, path.join(entry.parentPath, entry.name))).sort();
  // Helm reads Chart.yaml first.
  const first = (name: string) => (name === 'Chart.yaml' ? 0 : 1);
  return files
    .sort((a, b) => first(a) - first(b))
    .map((name) => {
      const data = fs.readFileSync(path.join(chart, name));
      return { name: `tka/${name.replaceAll(path.sep, '/')}`, data, mode: 0o644 };
    });
}

/** Reads the SBOMs of the images for both architectures. Throws Failed if one is missing. */
function readSboms(folder: string, version: string): { readonly name: string; readonly text: string }[] {
  return targets
    .filter(({ os }) => os === 'linux')
    .map((target) => {
      const name = `tka-server-${version}-${target.name}.cdx.json`;
      try {
        return { name, text: fs.readFileSync(path.join(folder, name), 'utf8') };
      } catch {
        throw new Failed(`${name} not found in ${folder}`, `npm run image, on a machine with ${target.arch}`);
      }
    });
}

async function write(target: Target, file: string, entries: readonly Entry[], time: Date): Promise<Shipped> {
  const data = target.os === 'windows' ? zip(entries, time) : await tarGz(entries, time);
  if (data.length > largest) throw new Failed(`${path.basename(file)} has ${data.length} bytes, more than 45 MB`);
  fs.writeFileSync(file, data);
  return { target, file: path.basename(file), sha256: sha256(data) };
}

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function isOurs(name: string): boolean {
  return /^\.?kubectl-tka-.*\.(?:tar\.gz|zip|cdx\.json)$|^tka(?:-server)?-\d.*\.(?:tgz|cdx\.json)$|^checksums\.txt$|^tka(?:-k8s)?\.yaml$/.test(
    name,
  );
}

/** Returns SOURCE_DATE_EPOCH (seconds), or else the time of the commit, or else the time of a file. */
export function commitTime(): Date {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) {
    if (!/^\d{1,10}$/.test(given)) throw new Failed(`SOURCE_DATE_EPOCH must be a number of seconds: ${given}`);
    return new Date(Number(given) * 1000);
  }
  try {
    const seconds = execFileSync('git', ['log', '-1', '--format=%ct'], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'ignore'],
      encoding: 'utf8',
    });
    return new Date(Number(seconds) * 1000);
  } catch {
    return new Date(Date.UTC(1980, 0));
  }
}

export interface Options {
  readonly wanted: readonly Target[];
  readonly out: string;
  readonly allowMissing: boolean;
  /** The folder with the images' SBOMs, if they are wanted. */
  readonly images: string | undefined;
}

/** Parses the command line. Throws Failed with status 2 if it is invalid. */
export function options(args: readonly string[]): Options {
  const known = ['own', ...targets.map((target) => target.name)].join(', ');
  const usage = (message: string) =>
    new Failed(message, `--target NAME (${known}), --allow-missing, --images FOLDER, --out FOLDER`, 2);
  const parse = () => {
    const options = {
      target: { type: 'string', multiple: true },
      'allow-missing': { type: 'boolean', default: false },
      images: { type: 'string' },
      out: { type: 'string', default: 'release' },
    } as const;
    try {
      return parseArgs({ args: [...args], options }).values;
    } catch (error) {
      throw usage((error as Error).message.split('. ', 1)[0] ?? '');
    }
  };
  const { target: names = targets.map(({ name }) => name), out, images, 'allow-missing': allowMissing } = parse();
  const wanted = names.map((name) => {
    const found = name === 'own' ? ownTarget() : targets.find((t) => t.name === name);
    if (found === undefined) throw usage(`unknown target: ${name}`);
    return found;
  });
  return {
    wanted: [...new Set(wanted)],
    out: path.resolve(root, out),
    allowMissing,
    images: images === undefined ? undefined : path.resolve(root, images),
  };
}

async function main(): Promise<number> {
  // Exit through the event that cleans up.
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ] as const) {
    process.on(signal, () => process.exit(128 + number));
  }
  try {
    const { wanted, out, ...rest } = options(process.argv.slice(2));
    const { files, leftOut } = await makePackages(wanted, out, rest);
    for (const file of files) process.stdout.write(`${path.relative(root, file)}\n`);
    for (const { target, reason } of leftOut) {
      process.stderr.write(`warning: ${target.name} skipped: ${reason.message}\nhint: ${reason.hint}\n`);
    }
    return files.length === 0 ? 1 : 0;
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    process.stderr.write(error.told());
    return error.status;
  }
}

if (import.meta.main) process.exitCode = await main();
