import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import { kubectls, kubectl as onPath } from '../fixtures/kubectl.ts';
import { fileFolder } from '../fixtures/temporary.ts';
import { run } from './helpers.ts';

// The machine's kubectl, plus the oldest, a middle and the newest of the versions beside it.
const chosen = [...new Set([kubectls[0], kubectls[kubectls.length >> 1], kubectls.at(-1)])];
const programs = [onPath, ...chosen].filter((program) => program !== undefined);
const dir = fileFolder();

let mesh: SandboxMesh;
let c: SandboxCluster;
let homes = 0;
beforeAll(async () => {
  mesh = await startMesh({ clusters: [{ name: 'prod-us' }] });
  c = mesh.cluster('prod-us');
});
afterAll(() => mesh?.close());

function kubeconfig(token: string, name: string): string {
  const file = join(dir, name);
  const config = {
    kind: 'Config',
    apiVersion: 'v1',
    'current-context': 'x',
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
    clusters: [{ name: 'x', cluster: { server: c.apiServer, 'certificate-authority-data': c.caData } }],
    users: [{ name: 'x', user: { token } }],
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

/** A separate HOME for each call, for an empty discovery cache. */
function kubectl(program: string, args: string, config: string) {
  const HOME = join(dir, `home-${++homes}`);
  return run(program, args.split(' '), { HOME, KUBECONFIG: config, PATH: process.env.PATH });
}

describe.skipIf(onPath === undefined)('kubectl against the stand-in', () => {
  test.each(programs.map((program) => [program.replace(/.*\//, ''), program]))('%s', async (_, program) => {
    const viewer = kubeconfig(c.issueToken({ role: 'viewer' }), 'viewer');
    const admin = kubeconfig(c.issueToken({ role: 'cluster-admin' }), 'admin');
    const steps: [args: string, code: number, output: RegExp, config?: string][] = [
      ['get namespaces', 0, /^NAME +STATUS +AGE\n[\s\S]*shop-prod-us +Active/],
      ['get nodes -o wide', 0, /prod-us-worker-1 +Ready .*TKA sandbox/],
      ['get pods -A', 0, /^NAMESPACE +NAME +READY[\s\S]*kube-system +coredns-prod-us-1 +1\/1/],
      ['get pods', 0, /hello-prod-us-1 +1\/1/],
      ['get pods -A -o name', 0, /^pod\/hello-prod-us-1\n/],
      ['get pod hello-prod-us-1 -o jsonpath={.spec.nodeName}', 0, /^prod-us-worker-1$/],
      ['get ns -l kubernetes.io/metadata.name=default -o name', 0, /^namespace\/default\n$/],
      ['get pod nope', 1, /pods "nope" not found/],
      ['auth whoami', 0, /Username +system:serviceaccount:tka-dev:tka-user-alice/],
      ['auth can-i list pods', 0, /^yes/],
      ['auth can-i delete pods', 1, /^no/],
      ['auth can-i delete pods', 0, /^yes/, admin],
      ['auth can-i --list', 0, /\[get list watch\]/],
      ['version -o json', 0, /"gitVersion": "v1.35.0-tka-sandbox"/],
      ['delete pod hello-prod-us-1', 1, /Forbidden.*tka-user-alice" cannot delete resource "pods"/],
      ['get ns', 1, /must be logged in|Unauthorized/, kubeconfig('not-a-token', 'nobody')],
    ];
    await Promise.all(
      steps.map(async ([args, code, output, config = viewer]) => {
        const got = await kubectl(program, args, config);
        expect(got.stdout + got.stderr, args).toMatch(output);
        expect(got.code, args).toBe(code);
      }),
    );
  });

  test('a token is refused as soon as its ServiceAccount is deleted', async () => {
    const program = onPath as string;
    const config = kubeconfig(c.issueToken({ role: 'viewer' }), 'revoked');
    expect((await kubectl(program, 'get ns', config)).code).toBe(0);
    c.deleteServiceAccount();
    expect(await kubectl(program, 'get ns', config)).toMatchObject({ code: 1, stdout: '' });
  });

  test('an admin can delete a pod', async () => {
    const program = onPath as string;
    const config = kubeconfig(c.issueToken({ role: 'cluster-admin' }), 'admin');
    expect((await kubectl(program, 'delete pod hello-prod-us-1', config)).stdout).toMatch(
      /pod "hello-prod-us-1".*deleted/,
    );
    expect((await kubectl(program, 'get pods', config)).stderr).toMatch(/No resources found/);
  });
});
