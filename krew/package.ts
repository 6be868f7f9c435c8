// npm run package [-- --target NAME ...] [--out FOLDER]: the archives of a version, what they hash to and contain, and
// krew's manifest. From one commit they are always the same.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { bundle, launcher } from '../build.ts';
import { type Entry, tarGz, zip } from './archive.ts';
import { makeExecutable, Unavailable } from './executable.ts';
import { manifest, type Shipped } from './manifest.ts';
import { sbom, thirdPartyLicences } from './sbom.ts';
import { ownTarget, root, type Target, targets } from './targets.ts';

const largest = 45e6;
const completions = 'src/cli/completion';

export interface Made {
  readonly files: readonly string[];
  /** The targets that this machine cannot make, and why. */
  readonly leftOut: readonly { readonly target: Target; readonly reason: Unavailable }[];
}

/** Writes archives, checksums.txt, the SBOM and krew's manifest. Throws where an archive is larger than 45 MB. */
export async function makePackages(
  wanted: readonly Target[],
  out: string,
  plugin = path.join(root, 'krew', 'tka.yaml'),
): Promise<Made> {
  const { name, version, homepage } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const time = commitTime();
  const program = await bundle();
  const notices = await thirdPartyLicences();
  fs.mkdirSync(out, { recursive: true });
  for (const old of fs.readdirSync(out)) if (isOurs(old)) fs.rmSync(path.join(out, old));
  const leftOut: Made['leftOut'][number][] = [];
  const made: Promise<Shipped>[] = [];
  for (const target of wanted) {
    const executable = path.join(out, `.${target.name}`);
    try {
      await makeExecutable(target, program, executable);
      const entries = contents(target, fs.readFileSync(executable), notices);
      const file = `${name}-${version}-${target.name}.${target.os === 'windows' ? 'zip' : 'tar.gz'}`;
      made.push(write(target, path.join(out, file), entries, time));
    } catch (reason) {
      if (!(reason instanceof Unavailable)) throw reason;
      leftOut.push({ target, reason });
    } finally {
      fs.rmSync(executable, { force: true });
    }
  }
  const shipped = await Promise.all(made);
  if (shipped.length === 0) return { files: [], leftOut };
  const bom = `${name}-${version}.cdx.json`;
  fs.writeFileSync(
    path.join(out, bom),
    await sbom(
      shipped.map(({ target }) => target),
      time,
    ),
  );
  const listed = [...shipped, { file: bom, sha256: sha256(fs.readFileSync(path.join(out, bom))) }];
  fs.writeFileSync(path.join(out, 'checksums.txt'), listed.map(({ sha256, file }) => `${sha256}  ${file}\n`).join(''));
  const yaml = manifest({ version, homepage, downloads: `${homepage}/releases/download` }, shipped);
  fs.writeFileSync(plugin, yaml);
  const files = [...listed.map(({ file }) => path.join(out, file)), path.join(out, 'checksums.txt')];
  return { files: [...files, plugin], leftOut };
}

function contents(target: Target, executable: Uint8Array, notices: string): Entry[] {
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
    windows
      ? copy('kubectl_complete-tka.cmd', 'cmd/kubectl_complete-tka.cmd', 0o755)
      : copy('kubectl_complete-tka', 'cmd/kubectl_complete-tka.sh', 0o755),
    ...scripts.sort().map((name) => copy(`completions/${name}`, path.join(completions, name))),
    copy('LICENSE'),
    copy('README.md'),
    file('THIRD_PARTY_LICENSES', notices),
  ];
}

async function write(target: Target, file: string, entries: readonly Entry[], time: Date): Promise<Shipped> {
  const data = target.os === 'windows' ? zip(entries, time) : await tarGz(entries, time);
  if (data.length > largest) throw new Error(`${path.basename(file)} has ${data.length} bytes, more than 45 MB`);
  fs.writeFileSync(file, data);
  return { target, file: path.basename(file), sha256: sha256(data) };
}

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function isOurs(name: string): boolean {
  return /^\.?kubectl-tka-.*\.(?:tar\.gz|zip|cdx\.json)$|^checksums\.txt$/.test(name);
}

/** SOURCE_DATE_EPOCH (seconds), else the time of the commit, else that of a file without one. */
function commitTime(): Date {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) return new Date(Number(given) * 1000);
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

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { target: { type: 'string', multiple: true }, out: { type: 'string', default: 'release' } },
  });
  const wanted = values.target?.map((name) => (name === 'own' ? ownTarget() : targets.find((t) => t.name === name)));
  if (wanted?.includes(undefined)) {
    process.stderr.write(`error: no such target\nhint: own, ${targets.map((target) => target.name).join(', ')}\n`);
    return 2;
  }
  const { files, leftOut } = await makePackages(
    (wanted as Target[] | undefined) ?? targets,
    path.resolve(root, values.out),
  );
  for (const file of files) process.stdout.write(`${path.relative(root, file)}\n`);
  for (const { target, reason } of leftOut) {
    process.stderr.write(`warning: ${target.name} is left out: ${reason.message}\nhint: ${reason.hint}\n`);
  }
  return files.length === 0 || (wanted !== undefined && leftOut.length > 0) ? 1 : 0;
}

if (import.meta.main) process.exitCode = await main();
