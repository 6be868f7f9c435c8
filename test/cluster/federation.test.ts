// The walk-through of docs/federation.md with its own commands: deploy/ on both sides, and the servers as their pods run
// them, with exactly the rights of the manifests.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { federationPaths, type Secret, type TkaCluster, textsOf } from '../../src/server/federation/objects.ts';
import { paths, type TkaSignin } from '../../src/server/provisioner/objects.ts';
import { placesOf } from '../../src/tailscale/places.ts';
import { freePort } from '../fixtures/ports.ts';
import { program, TkaServerProcess } from '../server/program.ts';
import { kubeconfigFile } from './api-server.ts';
import { apply, type Deployed, insideItsPod, listed, ownCluster, startAsItsPod } from './deployed.ts';
import { makeFolder } from './processes.ts';
import { absent, kubectl, Person } from './support.ts';

const page = fs.readFileSync(path.join(import.meta.dirname, '../../docs/federation.md'), 'utf8');

/** Returns the commands of the first block after a text of the page. */
function commandsAfter(text: string): string[] {
  const [, rest] = page.split(text);
  const [, block] = /^```sh\n([\s\S]*?)^```/m.exec(rest ?? '') ?? [];
  if (block === undefined) throw new Error(`docs/federation.md has no commands after ${JSON.stringify(text)}`);
  return block.trim().split('\n');
}

// A developer's own: the joined server would serve in that tailnet too.
const tailscaledHere = placesOf({ env: {} }).some((place) => 'socketPath' in place && fs.existsSync(place.socketPath));

const inPod = 'kubectl exec -n tka-system tka-0 -c server -- ';
const namespace = 'tka-system';
const join = 'tka-join.yaml';

/** One side of the federation: its cluster, and a folder where its administrator types commands. */
class Side {
  readonly deployed: Deployed;
  readonly folder: string;
  readonly #kubeconfig: string;

  constructor(deployed: Deployed, folder: string) {
    this.deployed = deployed;
    this.folder = folder;
    this.#kubeconfig = kubeconfigFile(deployed.access);
  }

  /** Runs a command of the page as the administrator. Returns its output. */
  async type(command: string): Promise<string> {
    // There is no kubelet: what kubectl would run in the pod runs with the rights of the pod.
    const isInPod = command.startsWith(inPod);
    const shown = isInPod ? command.slice(inPod.length).replace(/^tka-server/, `'${program}'`) : command;
    const { access, token } = this.deployed;
    const KUBECONFIG = isInPod ? kubeconfigFile(access, token) : this.#kubeconfig;
    const env = { PATH: process.env.PATH, HOME: this.folder, KUBECONFIG };
    const options = { cwd: this.folder, env, encoding: 'utf8', timeout: 60_000 } as const;
    return (await promisify(execFile)('/bin/sh', ['-c', shown], options)).stdout;
  }

  async typeAll(commands: readonly string[]): Promise<void> {
    for (const command of commands) await this.type(command);
  }

  /** Returns the texts of a Secret; none if it is missing. */
  async secret(path: string): Promise<ReadonlyMap<string, string>> {
    return textsOf((await this.deployed.kube.get<Secret>(path)) ?? {});
  }
}

/** Mounts the join Secret into a folder, as the kubelet does. */
async function mount(edge: Side, folder: string): Promise<void> {
  const texts = await edge.secret(`/api/v1/namespaces/${namespace}/secrets/tka-join`);
  for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name));
  for (const [name, text] of texts) fs.writeFileSync(path.join(folder, name), text);
}

/** Returns the server's log lines that say that a right is missing. */
const forbidden = ({ lines }: TkaServerProcess) => lines.filter((line) => JSON.stringify(line).includes('forbidden'));

const nodeOf = { hostName: 'tka', addresses: ['100.64.0.1'], tags: ['tag:tka'] };

async function deployed(host: string, components: readonly string[]): Promise<Deployed> {
  const own = await ownCluster(host);
  onTestFinished(() => own[Symbol.asyncDispose]());
  const change = { resources: ['federation'], components: components.map((name) => `federation/${name}`) };
  return await apply(own.access, own.kube, namespace, change);
}

describe.skipIf(absent !== undefined || tailscaledHere)('docs/federation.md', () => {
  test('its commands make a login server, join a cluster, suspend, rotate the key, evict, rejoin and leave', async () => {
    const folder = makeFolder();
    const [login, edge] = (
      await Promise.all([
        deployed('127.0.0.31', ['login-server']),
        deployed('127.0.0.32', ['joined-cluster', 'without-tailscale']),
      ])
    ).map((side) => new Side(side, folder)) as [Side, Side];

    // 1. The login server.
    const { ca, cert, key } = await makeCertificates('127.0.0.1');
    const files = { 'ca.crt': ca, 'tls.crt': cert, 'tls.key': key };
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    await login.typeAll(commandsAfter('- **a certificate for that name**'));
    const rule = { role: listed, period: '1h', priority: 1 };
    const capabilities = { 'specht-labs.de/cap/tka-federation': [{ ...rule, clusters: ['site=paris', 'edge*'] }] };
    await using tailscaled = await startTailscaled({
      self: nodeOf,
      whois: () => ({ login: 'dora@example.com', capabilities }),
    });
    const port = await freePort('127.0.0.1');
    const endpoint = `https://127.0.0.1:${port}`;
    const { server, url, healthUrl } = await startAsItsPod(
      login.deployed,
      tailscaled,
      `federation: {endpoint: "${endpoint}"}`,
      {
        TKA_FEDERATION_LISTEN: `127.0.0.1:${port}`,
        TKA_FEDERATION_CERTFILE: path.join(folder, 'tls.crt'),
        TKA_FEDERATION_KEYFILE: path.join(folder, 'tls.key'),
      },
    );
    await using _ = server;
    await vi.waitFor(async () => expect((await fetch(`${healthUrl}/ready`)).status).toBe(200), 60_000);
    await server.said(/listening for tunnels/);
    await login.typeAll(commandsAfter('Apply it, and see that the server listens'));

    // 3. and 4. A token, and the joined cluster, which waits for it.
    const mounted = makeFolder();
    const { env, config } = await insideItsPod(edge.deployed);
    const healthPort = await freePort('127.0.0.1');
    await using joined = new TkaServerProcess(
      `${config}\nfederation: {caFile: "${path.join(folder, 'ca.crt')}", maxPeriod: 30m}`,
      { ...env, TKA_HEALTH_PORT: `${healthPort}`, TKA_FEDERATION_JOINFOLDER: mounted },
    );
    const ready = async () => {
      const answer = await fetch(`http://127.0.0.1:${healthPort}/ready`);
      return { status: answer.status, text: await answer.text() };
    };
    await vi.waitFor(
      async () => expect(await ready()).toMatchObject({ status: 503, text: expect.stringContaining('no join Secret') }),
      20_000,
    );
    const typeJoin = async (commands: readonly string[]): Promise<void> => {
      const [create = '', give = ''] = commands;
      await login.type(create);
      await edge.type(give);
      await mount(edge, mounted);
    };
    await typeJoin([...commandsAfter('## 3. A join token'), `kubectl apply -f ${join}`]);
    const [show = ''] = commandsAfter('See how it goes:');
    const status = async () => Object.fromEntries((await edge.type(show)).split('\n').map((line) => line.split(': ')));
    await vi.waitFor(async () => expect(await status()).toMatchObject({ status: 'Joined' }), 60_000);
    await vi.waitFor(async () => expect(await ready()).toMatchObject({ status: 200 }), 60_000);
    const cluster = () => login.deployed.kube.get<TkaCluster>(federationPaths.clusters('edge'));
    await vi.waitFor(async () => expect((await cluster())?.status?.connected).toBe(true), 60_000);
    const [watch = '', describeIt = ''] = commandsAfter('A changed Secret joins again. At the login server:');
    expect(await login.type(watch.replace(' --watch', ''))).toMatch(/^edge +true /m);
    expect(await login.type(describeIt)).toMatch(/Connected/);

    // 5. Sign in.
    const dora = new Person(url.replace('/api/', '/clusters/edge/api/'), { role: listed, username: 'dora' });
    const signIns = async () =>
      (await edge.deployed.kube.get<{ items: TkaSignin[] }>(paths.signIns(namespace)))?.items ?? [];
    const signIn = async (): Promise<void> => {
      await vi.waitFor(async () => expect(await dora.login()).toMatchObject({ status: 202 }), 60_000);
      await vi.waitFor(async () => expect((await dora.kubeconfig()).status).toBe(200), 60_000);
    };
    await signIn();
    const { body } = await dora.kubeconfig();
    const who = await kubectl(body, 'auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}');
    const [own] = await signIns();
    expect(who.stdout).toBe(`system:serviceaccount:${namespace}:${own?.metadata.name}`);
    expect(own?.metadata.name).toMatch(/^tka-login-/);
    expect(own?.metadata.annotations).toMatchObject({ 'tka.specht-labs.de/login-server': 'tka' });
    expect(await kubectl(body, 'get', 'pods', '-n', 'default')).toMatchObject({ status: 0 });
    // The joined cluster's own limit.
    expect(own?.spec.validity_period).toBe('30m0s');

    // 6. Suspend and resume.
    const [suspend = '', resume = ''] = commandsAfter('**Suspend.**');
    await login.type(suspend);
    await vi.waitFor(async () => expect(await dora.login()).toMatchObject({ status: 422 }), 60_000);
    await login.type(resume);
    await signIn();

    // The labels that rules see.
    const [label = ''] = commandsAfter('Then set the labels that your rules use:');
    await login.type(label);
    expect((await cluster())?.metadata.labels).toEqual({ environment: 'staging' });

    // Another key, without an interruption.
    const keys = async () =>
      (await edge.secret(federationPaths.secrets('tka-cluster-info'))).get('primaryPublicKey')?.split('\n');
    const [before] = (await keys()) ?? [];
    await login.typeAll(commandsAfter('**Rotate the signing key.**'));
    await signIn();
    await vi.waitFor(async () => {
      const now = await keys();
      expect(now?.[0]).not.toBe(before);
      expect(now).toContain(before);
    }, 90_000);
    await login.typeAll(commandsAfter('rotation are then invalid:'));
    await signIn();

    // Evict, and rejoin.
    await login.typeAll(commandsAfter('**Evict.**'));
    await vi.waitFor(async () => expect(await signIns()).toEqual([]), 60_000);
    await vi.waitFor(async () => expect(await status()).toMatchObject({ status: 'Rejected' }), 60_000);
    expect(await dora.login()).toMatchObject({ status: 404 });
    await typeJoin(commandsAfter('**Rejoin.**'));
    await vi.waitFor(async () => expect(await status()).toMatchObject({ status: 'Joined' }), 60_000);
    await signIn();

    // Leave.
    await edge.typeAll(commandsAfter('**Leave**'));
    await mount(edge, mounted);
    await vi.waitFor(async () => expect(await signIns()).toEqual([]), 60_000);

    expect([...forbidden(server), ...forbidden(joined)]).toEqual([]);
    expect(`${server.stderr}${joined.stderr}`).not.toMatch(/PRIVATE KEY|tka-join-[A-Za-z0-9_-]{20}/);
  }, 300_000);
});
