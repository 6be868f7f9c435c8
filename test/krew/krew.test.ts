// The real krew, if it is on PATH: installs from a repository as an index, upgrades, uninstalls.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Ran, start } from '../fixtures/program.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { makes, onPath, own, type Packages, packages } from './packages.ts';

const krew = ['kubectl-krew', 'krew'].find(onPath);
const lacks = [
  ...(krew === undefined ? ['krew'] : []),
  ...(onPath('git') ? [] : ['git']),
  ...(makes ? [] : ['apt-get']),
];

describe.skipIf(lacks.length > 0)(`krew${lacks.length === 0 ? '' : ` (skipped: missing ${lacks.join(', ')})`}`, () => {
  const folder = fileFolder('tka-krew-');
  const index = path.join(folder, 'index');
  const home = path.join(folder, 'home');
  const base = path.join(home, '.krew');
  const env = {
    HOME: home,
    PATH: [path.join(base, 'bin'), path.join(home, '.local', 'bin'), process.env.PATH ?? ''].join(path.delimiter),
    KREW_DEFAULT_INDEX_URI: index,
    KREW_NO_UPGRADE_CHECK: '1',
    GIT_CONFIG_SYSTEM: '/dev/null',
    NO_PROXY: '127.0.0.1',
    no_proxy: '127.0.0.1',
  };
  const run = (...args: string[]): Promise<Ran> => start(krew ?? '', args, env).ran;
  const git = (...args: string[]) => execFileSync('git', args, { cwd: index, env: { ...process.env, ...env } });
  let made: Packages;

  /** Adds a version to the index, with the archive of this machine. */
  function offer(version: string, url: string): void {
    const archive = made.archives.find(({ target }) => target === own);
    const manifest = fs.readFileSync(made.plugin, 'utf8');
    const at = `${url}/${path.basename(archive?.file ?? '')}`;
    const offered = manifest
      .replace(/^( {2}version: ).*$/m, `$1${version}`)
      .replace(/^( +uri: | {2,}- uri: ).*$/gm, `$1${at}`);
    fs.mkdirSync(path.join(index, 'plugins'), { recursive: true });
    fs.writeFileSync(path.join(index, 'plugins', 'tka.yaml'), offered);
    git('add', '--all');
    git('-c', 'user.name=Test', '-c', 'user.email=test@example.com', 'commit', '--quiet', '--message', version);
  }

  beforeAll(async () => {
    for (const each of [index, home]) fs.mkdirSync(each);
    made = await packages(folder);
    git('init', '--quiet', '--initial-branch=main');
  }, 300_000);

  it('installs, upgrades and uninstalls, and works on after `completion install`', { timeout: 300_000 }, async () => {
    const server = http.createServer((request, response) => {
      fs.createReadStream(path.join(made.dir, path.basename(request.url ?? ''))).pipe(response);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      offer('v0.9.0', url);
      expect(await run('index', 'add', 'tka', index)).toMatchObject({ status: 0 });
      expect(await run('install', 'tka/tka')).toMatchObject({ status: 0 });
      const program = path.join(base, 'bin', 'kubectl-tka');
      expect(await start(program, ['completion', 'install'], env).ran).toMatchObject({ status: 0 });
      expect(fs.realpathSync(program)).toContain('v0.9.0');
      offer('v0.9.1', url);
      expect(await run('upgrade')).toMatchObject({ status: 0 });
      expect(fs.realpathSync(program)).toContain('v0.9.1');
      expect(await run('uninstall', 'tka')).toMatchObject({ status: 0 });
      expect(await run('list')).toMatchObject({ status: 0 });
    } finally {
      server.close();
    }
  });
});
