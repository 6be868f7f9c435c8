// The libraries that Node needs on Linux besides glibc, for systems without them or with older ones. They come from
// Debian 11: the newest ones that work with glibc 2.28, the version that Node itself needs.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { Failed, type Target, Unavailable } from './targets.ts';

const suite = 'bullseye';
const source = 'gcc-10 10.2.1-6';

interface Package {
  readonly name: string;
  readonly version: string;
  readonly arch: 'amd64' | 'arm64';
  /** SHA-256 of the .deb file, in hex. */
  readonly sha256: string;
  /** The files to take from it: names in the archive by paths in the package. */
  readonly files: Readonly<Record<string, string>>;
}

function gcc(name: string, arch: Package['arch'], sha256: string, file: string, from: string): Package {
  return { name, version: '10.2.1-6', arch, sha256, files: { [file]: from } };
}

const [amd64, arm64] = ['usr/lib/x86_64-linux-gnu', 'usr/lib/aarch64-linux-gnu'] as const;
const packages: readonly Package[] = [
  gcc(
    'libatomic1',
    'amd64',
    'e8f1d04653698ab185c1144f35f905a1de87571c12ea630b65be669a2823d8c7',
    'libatomic.so.1',
    `${amd64}/libatomic.so.1.2.0`,
  ),
  gcc(
    'libgcc-s1',
    'amd64',
    'e478f2709d8474165bb664de42e16950c391f30eaa55bc9b3573281d83a29daf',
    'libgcc_s.so.1',
    'lib/x86_64-linux-gnu/libgcc_s.so.1',
  ),
  gcc(
    'libstdc++6',
    'amd64',
    '5c155c58935870bf3b4bfe769116841c0d286a74f59eccfd5645693ac23f06b1',
    'libstdc++.so.6',
    `${amd64}/libstdc++.so.6.0.28`,
  ),
  gcc(
    'libatomic1',
    'arm64',
    'd0b8a02896479a6eac49019d71142da9561482759f40eb7aeb15cfdc7d3e39ec',
    'libatomic.so.1',
    `${arm64}/libatomic.so.1.2.0`,
  ),
  gcc(
    'libgcc-s1',
    'arm64',
    'e2fcdb378d3c1ad1bcb64d4fb6b37aab44011152beca12a4944f435a2582df1f',
    'libgcc_s.so.1',
    'lib/aarch64-linux-gnu/libgcc_s.so.1',
  ),
  gcc(
    'libstdc++6',
    'arm64',
    '7869aa540cc46e9f3d4267d5bde2af0e5b429a820c1d6f1a4cfccfe788c31890',
    'libstdc++.so.6',
    `${arm64}/libstdc++.so.6.0.28`,
  ),
];
// Both packages have the same licence files: their licence, and the GPL that it refers to.
const licences: readonly Package[] = [
  gcc(
    'gcc-10-base',
    'amd64',
    'be65535e94f95fbf04b104e8ab36790476f063374430f7dfc6c516cbe2d2cd1e',
    'copyright',
    'usr/share/doc/gcc-10-base/copyright',
  ),
  {
    name: 'base-files',
    version: '11.1+deb11u11',
    arch: 'amd64',
    sha256: 'a7cc59f25ad7f3b87c000f33baf12678592be2c62776d03cf8f0f935f846acdc',
    files: { 'GPL-3': 'usr/share/common-licenses/GPL-3' },
  },
];

const run = promisify(execFile);

/** A library next to the program in an archive for Linux. */
export interface Library {
  /** Its file name, which is the name that Node asks for. */
  readonly name: string;
  readonly data: Buffer;
}

/** The Debian packages that a target's libraries are from. */
export function libraryPackages(target: Target): readonly Package[] {
  return target.os === 'linux' ? packages.filter(({ arch }) => arch === target.arch) : [];
}

/**
 * Returns a target's libraries. Throws Unavailable if they cannot be downloaded, and Failed if a download does not have
 * the pinned hash.
 */
export async function libraries(target: Target): Promise<readonly Library[]> {
  const wanted = libraryPackages(target);
  if (wanted.length === 0) return [];
  return (await contents(wanted)).map(([name, data]) => ({ name, data }));
}

/** Returns the licence of the libraries, and the place of their source. */
export async function libraryLicence(): Promise<string> {
  const texts = new Map(await contents(licences));
  return [
    `libatomic.so.1, libgcc_s.so.1 and libstdc++.so.6 are Debian's, unchanged. Their source is Debian's source package`,
    `${source}. Debian's notice about it and the GPL, version 3, follow.\n`,
    texts.get('copyright')?.toString(),
    texts.get('GPL-3')?.toString(),
  ].join('\n');
}

async function contents(wanted: readonly Package[]): Promise<[string, Buffer][]> {
  const folder = await fetched();
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'tka-libraries-'));
  try {
    const found: [string, Buffer][] = [];
    for (const each of wanted) {
      const into = path.join(work, each.name);
      await run('dpkg-deb', ['--extract', path.join(folder, fileName(each)), into]);
      for (const [name, from] of Object.entries(each.files)) found.push([name, fs.readFileSync(path.join(into, from))]);
    }
    return found;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw noApt();
    throw error;
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

// The file name in apt's cache. (Versions with an epoch would need an escaped colon; none of these has one.)
function fileName({ name, version, arch }: Package): string {
  return `${name}_${version}_${arch}.deb`;
}

function noApt(): Unavailable {
  return new Unavailable(
    'apt-get not found, which downloads its libraries from Debian',
    'create it on a machine with apt-get',
  );
}

/** Returns the user's folder with all packages, with checked hashes: `~/.cache/tka-libraries/bullseye`. */
async function fetched(): Promise<string> {
  const folder = path.join(os.homedir(), '.cache', 'tka-libraries', suite);
  const missing = [...packages, ...licences].filter((each) => {
    const file = path.join(folder, fileName(each));
    return !fs.existsSync(file) || sha256(file) !== each.sha256;
  });
  if (missing.length === 0) return folder;
  fs.mkdirSync(folder, { recursive: true });
  const work = fs.mkdtempSync(path.join(folder, '.fetching-'));
  try {
    await fetchInto(work, missing);
    for (const each of missing) {
      const file = path.join(work, fileName(each));
      if (sha256(file) !== each.sha256) throw new Failed(`${fileName(each)} has another hash than the pinned one`);
      fs.renameSync(file, path.join(folder, fileName(each)));
    }
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

/** Runs apt-get with private lists and a private cache, so that it needs no root and does not change the system. */
async function fetchInto(work: string, missing: readonly Package[]): Promise<void> {
  for (const folder of ['lists/partial', 'archives/partial'])
    fs.mkdirSync(path.join(work, folder), { recursive: true });
  fs.writeFileSync(path.join(work, 'status'), '');
  const settings = {
    'Dir::Etc::SourceList': path.join(work, 'sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State': work,
    'Dir::State::Status': path.join(work, 'status'),
    'Dir::Cache': work,
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64,arm64',
    'APT::Sandbox::User': os.userInfo().username,
    'Acquire::Languages': 'none',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false',
  };
  const options = Object.entries(settings).map(([key, value]) => `--option=${key}=${value}`);
  const names = missing.map(({ name, version, arch }) => `${name}:${arch}=${version}`);
  try {
    const mirror = await debianMirror();
    // Trusted because of the hashes above; the signatures of the lists may have expired.
    fs.writeFileSync(
      options[0]?.split('=').at(-1) ?? '',
      `deb [trusted=yes check-valid-until=no] ${mirror} ${suite} main\n`,
    );
    await run('apt-get', [...options, '--quiet=2', 'update'], { cwd: work });
    await run('apt-get', [...options, '--quiet=2', 'download', ...names], { cwd: work });
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === 'ENOENT') throw noApt();
    if (error instanceof Unavailable) throw error;
    const reason = /^E: (.+)$/m.exec(stderr ?? '')?.[1] ?? message.split('\n', 1)[0];
    throw new Unavailable(
      `cannot download the Debian packages with its libraries: ${reason}`,
      'set TKA_DEBIAN_MIRROR to the URL of a mirror that has Debian 11',
    );
  }
}

/** Returns the Debian mirror in TKA_DEBIAN_MIRROR, or the one of this system. Throws Unavailable. */
export async function debianMirror(): Promise<string> {
  const given = process.env.TKA_DEBIAN_MIRROR;
  if (given !== undefined) return given;
  // Ask apt for its sources: this also works if no list has been downloaded yet, as in container images.
  const { stdout } = await run('apt-get', ['--print-uris', 'update']);
  const mirror = /^'(\S+\/debian)\/dists\//m.exec(stdout)?.[1];
  if (mirror !== undefined) return mirror;
  throw new Unavailable(
    'apt has no Debian mirror, which is the source of its libraries',
    'set TKA_DEBIAN_MIRROR to the URL of a Debian mirror',
  );
}

function sha256(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}
