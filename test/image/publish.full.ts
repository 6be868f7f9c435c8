// npm run test:debian: .ci/publish pushes image and chart to a real registry on this machine, where they are found by
// digest.
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { makePackages } from '../../krew/package.ts';
import { pin } from '../../krew/pin.ts';
import { root, targets } from '../../krew/targets.ts';
import { helmProgram } from '../cluster/helm.ts';
import { freePort } from '../fixtures/ports.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { onPath, version } from '../krew/packages.ts';
import { Buildah } from './buildah.ts';
import { named, obstacle } from './pod.ts';

const missing = ['docker-registry', 'go'].find((name) => !onPath(name));
const lacks = obstacle('buildah') ?? (missing === undefined ? undefined : `no ${missing}`);

describe.skipIf(lacks)(named('.ci/publish', lacks), () => {
  const folder = fileFolder('tka-publish-');
  const clone = path.join(folder, 'clone');
  let registry: string;
  let env: NodeJS.ProcessEnv;
  /** Runs .ci/publish and returns the digest that it prints. */
  const publish = async (what: string): Promise<string> => {
    const { stdout } = await promisify(execFile)('.ci/publish', [what], {
      cwd: clone,
      env: { ...env, GITHUB_OUTPUT: '' },
    });
    return /^digest=(sha256:[0-9a-f]{64})$/m.exec(stdout)?.[1] ?? expect.unreachable(stdout);
  };
  const get = async (name: string, accept: string) => {
    const response = await fetch(`http://${registry}/v2/${name}`, { headers: { accept } });
    expect(response.status, name).toBe(200);
    return Buffer.from(await response.arrayBuffer());
  };
  const sha256 = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

  beforeAll(async () => {
    const port = await freePort('127.0.0.1');
    registry = `127.0.0.1:${port}`;
    const config = path.join(folder, 'registry.json');
    const storage = { filesystem: { rootdirectory: path.join(folder, 'registry') } };
    fs.writeFileSync(config, JSON.stringify({ version: '0.1', storage, http: { addr: registry } }));
    const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    const listening = new Promise<void>((resolve) => {
      let said = '';
      child.stderr.on('data', (text) => {
        said += text;
        if (said.includes('listening on')) resolve();
      });
    });
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('the registry ended')));
    ended.catch(() => {});
    await Promise.race([listening, ended]);

    const bin = path.join(folder, 'bin');
    fs.mkdirSync(bin);
    const helm = await helmProgram();
    if (path.isAbsolute(helm)) fs.symlinkSync(helm, path.join(bin, 'helm'));
    const buildah = new Buildah(folder);
    const home = { HOME: folder, PATH: `${bin}${path.delimiter}${process.env.PATH}` };
    env = { ...buildah.env, ...home, REGISTRY: `${registry}/own` };
    fs.mkdirSync(path.join(clone, 'release'), { recursive: true });
    fs.cpSync(path.join(root, '.ci'), path.join(clone, '.ci'), { recursive: true });
    fs.copyFileSync(path.join(root, 'package.json'), path.join(clone, 'package.json'));
    // The images have no real content; the test needs one for each architecture.
    for (const arch of ['amd64', 'arm64']) {
      const files = path.join(folder, arch);
      fs.mkdirSync(files);
      fs.writeFileSync(path.join(files, 'arch'), arch);
      buildah.imageOf(`localhost/${arch}`, files, arch);
      const archive = path.join(clone, 'release', `tka-server-${version}-linux-${arch}.tar`);
      buildah.run('push', `localhost/${arch}`, `oci-archive:${archive}`);
    }
    await makePackages(
      targets.filter(({ name }) => name === 'windows-amd64'),
      path.join(clone, 'release'),
    );
    return () => child.kill('SIGKILL');
  });

  it('pushes one image for both architectures, which npm run pin finds too', async () => {
    const digest = await publish('image');
    const list = await get(`own/tka-server/manifests/${version}`, 'application/vnd.oci.image.index.v1+json');
    expect(sha256(list)).toBe(digest);
    const platforms = JSON.parse(list.toString()).manifests.map(({ platform }: { platform: object }) => platform);
    expect(platforms).toMatchObject([
      { os: 'linux', architecture: 'amd64' },
      { os: 'linux', architecture: 'arm64' },
    ]);
    const project = path.join(folder, 'project');
    fs.mkdirSync(path.join(project, 'deploy'), { recursive: true });
    const name = `${registry}/own/tka-server:${version}`;
    fs.writeFileSync(path.join(project, 'deploy', 'Containerfile'), `FROM ${name}\n`);
    expect(await pin(project)).toEqual([`${name} is ${digest}`]);
  });

  it('pushes the chart of the release', async () => {
    const digest = await publish('chart');
    const manifest = await get(`own/charts/tka/manifests/${version}`, 'application/vnd.oci.image.manifest.v1+json');
    expect(sha256(manifest)).toBe(digest);
    const [layer] = JSON.parse(manifest.toString()).layers;
    const pushed = await get(`own/charts/tka/blobs/${layer.digest}`, '*/*');
    expect(pushed.equals(fs.readFileSync(path.join(clone, 'release', `tka-${version}.tgz`)))).toBe(true);
    // Helm renders it as it renders the folder.
    const template = async (chart: string) =>
      (await promisify(execFile)('helm', ['template', 'tka', chart], { env })).stdout;
    const archive = path.join(clone, 'release', `tka-${version}.tgz`);
    expect(await template(archive)).toBe(await template(path.join(root, 'deploy', 'chart')));
  });
});
