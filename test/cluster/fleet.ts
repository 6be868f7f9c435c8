// A mesh of built tka-servers, several for each cluster, each a process that can be killed, suspended and restarted;
// and the tailnet of a user who knows only the clusters' names.
import { type StandInPeer, startTailscaled, type Tailscaled } from '../../src/sandbox/tailscaled.ts';
import { apiPath } from '../../src/tka/types.ts';
import { freePort } from '../fixtures/ports.ts';
import { type Line, TkaServerProcess } from '../server/program.ts';
import { type Access, kubeconfigFile } from './api-server.ts';
import type { Fixture } from './fixture.ts';

/** What all servers of a mesh share. */
export interface Mesh {
  readonly port: number;
  readonly gossipPort: number;
  /** The addresses of the first servers. */
  readonly hosts: readonly string[];
  /** The nodes of all its servers, as the tailnet knows them. A server adds its own when it starts. */
  readonly peers: StandInPeer[];
  /** Identifies callers. */
  readonly whois: Tailscaled['whois'];
}

export interface ReplicaConfig {
  /** Its name in the tailnet; a cluster has the name of its first server. */
  readonly name: string;
  readonly cluster: string;
  readonly host: string;
  /** Where it stores its sign-ins. */
  readonly fixture: Fixture;
  /** How it reaches its API server; default: directly. */
  readonly through?: Access;
  /** The API server that it states; default: its own. */
  readonly states?: Access;
  /** `federation.*`; default: none. */
  readonly federation?: Readonly<Record<string, unknown>>;
}

const suffix = 'example.ts.net';

/** One TKA server, across restarts. */
export class ReplicaProcess implements AsyncDisposable {
  readonly config: ReplicaConfig;
  readonly #mesh: Mesh;
  readonly #ended: Line[] = [];
  #process: TkaServerProcess | undefined;
  #tailscaled: Tailscaled | undefined;

  constructor(mesh: Mesh, config: ReplicaConfig) {
    this.#mesh = mesh;
    this.config = config;
  }

  /** Canonical URL. */
  get server(): string {
    return `http://${this.config.name}.${suffix}:${this.#mesh.port}`;
  }

  /** Starts it; resolves when it serves requests. */
  async start(): Promise<void> {
    const { name, cluster, host, fixture, through = fixture.access, states = fixture.access, federation } = this.config;
    const { port, gossipPort, hosts, peers, whois } = this.#mesh;
    const self = { hostName: name, addresses: [host], tags: ['tag:tka'] };
    if (!peers.some(({ hostName }) => hostName === name)) peers.push(self);
    this.#tailscaled ??= await startTailscaled({ self, peers, tun: true, whois });
    const config = {
      tailscale: { hostname: name, port },
      health: { host, port: await freePort(host) },
      operator: { namespace: fixture.namespace, clusterName: cluster },
      clusterInfo: { apiEndpoint: states.server, caData: Buffer.from(states.ca).toString('base64') },
      gossip: {
        enabled: true,
        port: gossipPort,
        interval: '200ms',
        stalenessThreshold: 10,
        deadThreshold: 25,
        bootstrapPeers: hosts.map((peer) => `${peer}:${gossipPort}`),
        key: 'k'.repeat(32),
      },
      ...(federation && { federation }),
    };
    this.#process = new TkaServerProcess(config, {
      KUBECONFIG: kubeconfigFile(through, fixture.token),
      TS_SOCKET: this.#tailscaled.socketPath,
    });
    await this.#process.said(/listens for gossip/);
  }

  /** Whether it has a process, suspended or not. */
  get isRunning(): boolean {
    const { exitCode, signalCode } = this.#process?.child ?? {};
    return exitCode === null && signalCode === null;
  }

  /** Kills its process, or stops it gracefully with SIGTERM; its node stays. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.signal(signal);
    await this.#process?.ended;
    await this.#forget();
  }

  /** Stops it gracefully, and removes its node from the tailnet, as scaling down does. */
  async remove(): Promise<void> {
    this.signal('SIGTERM');
    await this.#process?.ended;
    await this.#forget();
    const { peers } = this.#mesh;
    const at = peers.findIndex(({ hostName }) => hostName === this.config.name);
    if (at >= 0) peers.splice(at, 1);
  }

  /** SIGSTOP suspends it, SIGCONT wakes it. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.child.kill(signal);
  }

  /** Its log lines, of all its processes. */
  get lines(): readonly Line[] {
    return [...this.#ended, ...(this.#process?.lines ?? [])];
  }

  /** Its completed requests; those without a status were ended by the caller. */
  asked(method: string, route: string): readonly Line[] {
    const isIt = (line: Line) => line.msg === 'request' && line.method === method && line.path === `${apiPath}${route}`;
    return this.lines.filter(isIt);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#forget();
    await this.#tailscaled?.close();
  }

  async #forget(): Promise<void> {
    const ended = this.#process;
    await ended?.[Symbol.asyncDispose]();
    this.#ended.push(...(ended?.lines ?? []));
    this.#process = undefined;
  }
}
