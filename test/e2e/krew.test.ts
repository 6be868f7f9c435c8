// Installs, upgrades and removes as krew does: a folder for each version in store/tka, and a link in bin.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import type { Home } from '../fixtures/home.ts';
import { callers, kubectl, needsKubectl } from '../fixtures/kubectl.ts';
import { test } from '../fixtures/mesh.ts';
import { copyProgram } from '../fixtures/program.ts';

/** A krew folder with only our plugin. */
class Krew {
  readonly link: string;
  readonly env: { readonly PATH: string };
  readonly #store: string;
  readonly #relative: boolean;

  constructor(home: Home, relative: boolean) {
    const folder = path.join(home.dir, '.krew');
    this.link = path.join(folder, 'bin', 'kubectl-tka');
    this.env = { PATH: `${path.dirname(this.link)}:${home.env.PATH?.split(':').slice(1).join(':')}` };
    this.#store = path.join(folder, 'store', 'tka');
    this.#relative = relative;
    fs.mkdirSync(path.dirname(this.link), { recursive: true });
  }

  /** Installs a version, or upgrades to it and removes the previous one. */
  install(version: string): void {
    const program = copyProgram(path.join(this.#store, version));
    fs.rmSync(this.link, { force: true });
    fs.symlinkSync(this.#relative ? path.relative(path.dirname(this.link), program) : program, this.link);
    for (const other of fs.readdirSync(this.#store)) {
      if (other !== version) fs.rmSync(path.join(this.#store, other), { recursive: true });
    }
  }

  remove(): void {
    fs.rmSync(this.link);
    fs.rmSync(this.#store, { recursive: true });
  }
}

// Up to 0.4 krew's link is absolute, later it is relative.
describe.concurrent.each([['an absolute', false] as const, ['a relative', true] as const])('%s link', (_, relative) => {
  test('an upgrade and a removal keep sessions and kubeconfig', async ({ home, us }) => {
    const krew = new Krew(home, relative);
    krew.install('v0.1.0');
    const { env, link } = krew;
    expect(await home.run('login prod-us', { env, program: link })).toMatchObject({ status: 0, stderr: '' });
    expect(parse(fs.readFileSync(home.kubeconfig, 'utf8')).users[0].user.exec.command).toBe(link);
    const users = () => home.files(/^\.krew/);
    const before = users();

    krew.install('v0.2.0');
    expect(users()).toEqual(before);
    const status = await home.run('status -o json', { env, program: link });
    expect(JSON.parse(status.stdout)).toMatchObject([{ name: 'prod-us', username: 'alice', state: 'active' }]);
    for (const { call } of callers.filter(({ absent }) => !absent))
      expect(await call(home, 'get namespaces', { env })).toMatchObject({ status: 0, stderr: '' });
    expect(us.counts.login).toBe(1);

    const used = users();
    krew.remove();
    expect(users()).toEqual(used);
    krew.install('v0.2.0');
    expect(await home.run(['credential', '--server', us.server], { env, program: link })).toMatchObject({ status: 0 });
    expect(us.counts.login).toBe(1);
  });

  test.skipIf(kubectl === undefined)(
    `kubectl finds it, and prints what is missing once it is removed${needsKubectl}`,
    async ({ home }) => {
      const krew = new Krew(home, relative);
      krew.install('v0.1.0');
      expect(await home.kubectl('tka login prod-us', krew)).toMatchObject({ status: 0, stderr: '' });
      expect(await home.kubectl('plugin list --name-only', krew)).toMatchObject({
        stdout: expect.stringMatching(/^kubectl-tka$/m),
      });
      krew.remove();
      const { status, stderr } = await home.kubectl('get namespaces', krew);
      expect(status).toBe(1);
      expect(stderr).toContain(`${krew.link}: no such file`);
    },
  );
});
