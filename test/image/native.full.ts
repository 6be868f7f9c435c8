// npm run test:debian: builds the image from a base image of Debian's packages, starts it as its pod would, and reads
// its SBOM.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { readImage } from '../../krew/image.ts';
import { imageSbom } from '../../krew/sbom.ts';
import { root } from '../../krew/targets.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { copyProject, own, version } from '../krew/packages.ts';
import { Buildah } from './buildah.ts';
import { debian, named, obstacle, start } from './pod.ts';

const lacks = obstacle('buildah');

describe.skipIf(lacks)(named('the image', lacks), () => {
  const folder = fileFolder('tka-image-');
  const clone = path.join(folder, 'clone');
  const archive = path.join(folder, `tka-server-${version}-${own.name}.tar`);
  const bom = () => fs.readFileSync(archive.replace(/tar$/, 'cdx.json'), 'utf8');
  let buildah: Buildah;

  beforeAll(() => {
    buildah = new Buildah(folder);
    const system = path.join(folder, 'debian');
    debian(system, own.arch, ['ca-certificates', 'libatomic1', 'libstdc++6'], 'minbase');
    // Node and npm in the places of the image that the Containerfile names.
    const npm = execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim();
    for (const [from, to] of [
      [path.join(root, 'node_modules', own.node, 'bin/node'), 'usr/local/bin/node'],
      [path.join(fs.realpathSync(npm), '../..'), 'usr/local/lib/node_modules/npm'],
    ] as const) {
      fs.cpSync(from, path.join(system, to), { recursive: true, dereference: true });
    }
    fs.symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', path.join(system, 'usr/local/bin/npm'));
    // The authorities that this machine trusts, including those of a proxy.
    const authorities = '/etc/ssl/certs/ca-certificates.crt';
    fs.cpSync(authorities, path.join(system, authorities));
    fs.mkdirSync(path.join(system, 'usr/local/etc'), { recursive: true });
    fs.writeFileSync(path.join(system, 'usr/local/etc/npmrc'), `cafile=${authorities}\n`);
    // The digest is that of the base image of a release.
    copyProject(clone);
    const containerfile = path.join(clone, 'deploy/Containerfile');
    const text = fs.readFileSync(containerfile, 'utf8').replaceAll(/@sha256:[0-9a-f]{64}/g, '');
    fs.writeFileSync(containerfile, text);
    buildah.imageOf(/^FROM (docker\.io\/\S+)/m.exec(text)?.[1] ?? '', system, own.arch);
    const options = { encoding: 'utf8', env: { ...buildah.env, SOURCE_DATE_EPOCH: '1700000000' } } as const;
    const ran = spawnSync(process.execPath, [path.join(clone, 'krew/image.ts'), '--out', folder], options);
    expect(ran.status, ran.stderr).toBe(0);
    expect(ran.stdout).toContain(path.basename(archive));
  });

  it('has the user, the entry point and the time, and starts with a read-only root', async () => {
    const container = buildah.run('from', `oci-archive:${archive}`);
    const { OCIv1 } = JSON.parse(buildah.run('inspect', container));
    expect(OCIv1).toMatchObject({
      created: '2023-11-14T22:13:20Z',
      architecture: own.arch,
      config: { User: '65532:65532', Entrypoint: ['/opt/tka/tka-server'] },
    });
    await start(buildah.run('mount', container), 18_180, OCIv1.config.Entrypoint);
  });

  it('has at most 180 MB, and lists its packages', async () => {
    const { packages, debian, size } = await readImage(archive);
    expect(size).toBeGreaterThan(50e6);
    expect(size).toBeLessThan(180e6);
    expect(debian).toBe('13');
    expect(packages.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['coreutils', 'dash', 'libatomic1', 'libc6', 'libgcc-s1', 'libstdc++6']),
    );
    for (const { version, arch } of packages) expect([version, arch]).toEqual([expect.stringMatching(/^\d/), own.arch]);
  });

  it('has an SBOM with those packages, Node, and the packages of the bundle, which is the same each time', async () => {
    const { packages, debian } = await readImage(archive);
    expect(await imageSbom(own, debian, packages, new Date(1_700_000_000_000))).toBe(bom());
    const { metadata, components } = JSON.parse(bom());
    expect(metadata).toMatchObject({
      timestamp: '2023-11-14T22:13:20.000Z',
      component: { type: 'container', name: 'tka-server', version },
    });
    const names = components.map(({ name }: { name: string }) => name);
    expect(names).toEqual(expect.arrayContaining(['node', own.node, 'pino', '@kubernetes/client-node', 'libc6']));
    const libc = components.find(({ name }: { name: string }) => name === 'libc6');
    expect(libc.purl).toMatch(new RegExp(`^pkg:deb/debian/libc6@2\\.\\d+[^?]*\\?arch=${own.arch}&distro=debian-13$`));
  });
});
