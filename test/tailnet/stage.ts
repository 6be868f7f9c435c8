// The environment of these tests: a tailnet, real API servers, and the built programs. It configures only what a
// machine without a public certificate authority needs: a port other than 443, and the path of tailscaled's socket.
import { expect } from 'vitest';
import { type ApiServer, type Etcd, kubeconfigFile, startApiServer, startEtcd } from '../cluster/api-server.ts';
import { findAssets } from '../cluster/assets.ts';
import { Fixture } from '../cluster/fixture.ts';
import type { Listed } from '../e2e/tailnet.ts';
import { Home } from '../fixtures/home.ts';
import { type Env, type Ran, type RunOptions, start } from '../fixtures/program.ts';
import { type Line, TkaServerProcess } from '../server/program.ts';
import { tailnetAssets } from './assets.ts';
import { address, makeSwitch, removeSwitch } from './network.ts';
import { type Device, proxy, suffix, Tailnet } from './tailnet.ts';

export const port = 8123;
export const reader = 'test-reader';
export const admin = 'test-admin';
/** Returns the URL of the TKA server of a device. */
export const url = (name: string): string => `http://${name}.${suffix}:${port}`;

/** Returns the result of a program, which must succeed. */
export async function ok(running: Promise<Ran>): Promise<Ran> {
  const ran = await running;
  expect(ran.status, ran.stderr).toBe(0);
  return ran;
}

const askScript = `
const [, method, url] = process.argv;
const options = { method, headers: { accept: 'application/json' }, signal: AbortSignal.timeout(2000) };
const ask = async () => { const answer = await fetch(url, options); return { status: answer.status, body: await answer.text() }; };
process.stdout.write(JSON.stringify(await ask().catch((error) => ({ status: 0, body: String(error) + " " + String(error.cause) }))));
`;

export interface Plan {
  readonly apiServers: number;
  /** Devices with a TKA server, and the fixture of each: servers with the same fixture belong to the same cluster. */
  readonly servers: Readonly<Record<string, string>>;
  /** The other devices. */
  readonly others: readonly string[];
  /** Devices whose tailscaled has no network device, as in a pod. */
  readonly userspace: readonly string[];
  /** The namespace of all TKA servers, if each has an API server of its own. Default: one for each cluster. */
  readonly namespace?: string;
}

export class Stage {
  readonly tailnet: Tailnet;
  readonly home: Home;
  readonly #plan: Plan;
  readonly #etcd: Etcd;
  readonly #apiServers: readonly ApiServer[];
  readonly #devices = new Map<string, Device>();
  readonly #fixtures = new Map<string, Fixture>();
  readonly #servers = new Map<string, TkaServerProcess>();

  private constructor(plan: Plan, tailnet: Tailnet, home: Home, etcd: Etcd, apiServers: readonly ApiServer[]) {
    this.#plan = plan;
    this.tailnet = tailnet;
    this.home = home;
    this.#etcd = etcd;
    this.#apiServers = apiServers;
  }

  static async set(plan: Plan): Promise<Stage> {
    const say = (): void => undefined;
    const assets = await findAssets(say);
    if (typeof assets === 'string') throw new Error(assets);
    makeSwitch(1 + plan.apiServers);
    const etcd = await startEtcd(assets);
    const numbers = Array.from({ length: plan.apiServers }, (_, i) => 2 + i);
    const [tailnet, apiServers] = await Promise.all([
      tailnetAssets(say).then((programs) => Tailnet.start(programs)),
      Promise.all(numbers.map((number) => startApiServer(assets, etcd, address(number)))),
    ]);
    const stage = new Stage(plan, tailnet, new Home(), etcd, apiServers);
    const names = [...Object.keys(plan.servers), ...plan.others];
    await Promise.all([
      ...names.map(async (name, i) => {
        const options = { userspace: plan.userspace.includes(name) };
        stage.#devices.set(name, await tailnet.join(name, 10 + i, options));
      }),
      ...[...new Set(Object.values(plan.servers))].map(async (name, i) => {
        const access = apiServers[i % apiServers.length] as ApiServer;
        stage.#fixtures.set(name, await Fixture.make(access, plan.namespace));
      }),
    ]);
    return stage;
  }

  async strike(): Promise<void> {
    for (const one of this.#servers.values()) await one[Symbol.asyncDispose]();
    for (const one of this.#fixtures.values()) one.kube.close();
    this.home.remove();
    await Promise.all([this.tailnet.stop(), ...this.#apiServers.map((one) => one.stop())]);
    await this.#etcd.stop();
    removeSwitch();
  }

  device = (name: string): Device => this.#devices.get(name) as Device;
  server = (name: string): TkaServerProcess => this.#servers.get(name) as TkaServerProcess;

  /** Returns the API server with this index, for a cluster without a device. */
  apiServer = (index: number): ApiServer => this.#apiServers[index] as ApiServer;

  /** Returns the namespace and API server of a device's TKA server. */
  fixture = (name: string): Fixture => this.#fixtures.get(this.#plan.servers[name] ?? '') as Fixture;

  /** Starts the TKA server of a device, for the cluster of its fixture; `settings` override the usual ones. */
  serve = async (name: string, settings: object = {}): Promise<TkaServerProcess> => {
    const { access, namespace, token } = this.fixture(name);
    const config = {
      tailscale: { hostname: name, port },
      operator: { namespace },
      clusterInfo: { apiEndpoint: access.server, caData: Buffer.from(access.ca).toString('base64') },
      gossip: { enabled: true, interval: '400ms', stalenessThreshold: 8, deadThreshold: 16 },
      ...settings,
    };
    const { socket } = this.device(name);
    const env = { KUBECONFIG: kubeconfigFile(access, token), TS_SOCKET: socket, ALL_PROXY: `socks5h://${proxy}` };
    const started = new TkaServerProcess(config, env, undefined, this.device(name).within());
    this.#servers.set(name, started);
    return started;
  };

  /** Returns the options to run a program on a device. */
  at = (name: string, env: Env = {}): RunOptions => ({
    env: { TS_SOCKET: this.device(name).socket, TKA_TAILSCALE_PORT: String(port), ...env },
    within: this.device(name).within(this.home.dir),
  });

  /** Runs our program on the laptop, or on another device. */
  run = (args: string, options = this.at('laptop')): Promise<Ran> => this.home.run(args, options);
  kubectl = (args: string, options = this.at('laptop')): Promise<Ran> => this.home.kubectl(args, options);

  /** Returns the clusters that the laptop, or another device, lists. */
  clusters = async (args = '', options = this.at('laptop')): Promise<Listed[]> =>
    JSON.parse((await ok(this.run(`clusters -o json ${args}`, options))).stdout);

  /** Returns a server's answer to a plain request from the laptop; status 0 if there is none within two seconds. */
  ask = async (method: string, name: string, route: string): Promise<{ status: number; body: string }> => {
    const args = ['--input-type=module', '-e', askScript, method, `${url(name)}/api/v1alpha1/${route}`];
    return JSON.parse((await ok(start(process.execPath, args, this.home.env, this.at('laptop')).ran)).stdout);
  };

  /** Returns the requests that a server has answered, by the end of their path. */
  requests = (name: string, route = ''): Line[] =>
    this.server(name).lines.filter(({ msg, path }) => msg === 'request' && String(path).endsWith(route));

  /** Grants this role to everyone. */
  grant = (role: string): Promise<void> => this.tailnet.grant({ role, period: '1h', priority: 1 });
}
