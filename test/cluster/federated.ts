// A login server with two replicas, and clusters that join it through a load balancer, all as built programs.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { stringify } from 'yaml';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { federationPaths, type Secret, type TkaCluster, textsOf } from '../../src/server/federation/objects.ts';
import { freePort } from '../fixtures/ports.ts';
import { TemporaryFolder } from '../fixtures/temporary.ts';
import { type Line, TkaServerProcess } from '../server/program.ts';
import { type Access, kubeconfigFile } from './api-server.ts';
import { type Fixture, until } from './fixture.ts';

/** The certificate of the login server as files, and its authority. */
export async function certificateFiles(): Promise<{ certFile: string; keyFile: string; caFile: string }> {
  const { ca, key, cert } = await makeCertificates('127.0.0.1');
  const folder = new TemporaryFolder('tka-federation-').path;
  const file = (name: string, text: string): string => {
    fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    return path.join(folder, name);
  };
  return { certFile: file('tls.crt', cert), keyFile: file('tls.key', key), caFile: file('ca.crt', ca) };
}

/** Creates a join token for a cluster at the login server, as an administrator does. Resolves when it is filled. */
export async function joinToken(
  { kube, access }: Fixture,
  cluster: string,
  annotations: Readonly<Record<string, string>> = {},
): Promise<{ readonly name: string; readonly endpoint: string; readonly token: string }> {
  const group = 'tka.specht-labs.de';
  const own = Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`${group}/${key}`, value]));
  const { metadata } = await kube.create<Secret>(federationPaths.secrets(), {
    apiVersion: 'v1',
    kind: 'Secret',
    type: `${group}/join-token`,
    metadata: { generateName: 'join-token-', annotations: { [`${group}/cluster-name`]: cluster, ...own } },
  });
  let filled = { endpoint: '', token: '' };
  await until<Secret>(access, federationPaths.secrets(), metadata.name, (found) => {
    const texts = found && textsOf(found);
    filled = { endpoint: texts?.get('endpoint') ?? '', token: texts?.get('token') ?? '' };
    return filled.token !== '';
  });
  return { name: metadata.name, ...filled };
}

/**
 * Resolves when the TkaCluster of this name passes. Rejects after 90 s: a joined server may dial again only after 30 s.
 */
export async function clusterIs(
  { access }: Fixture,
  name: string,
  passes: (found: TkaCluster | undefined) => boolean | undefined,
): Promise<void> {
  // A watch lasts up to 30 s.
  for (const deadline = performance.now() + 90_000; ; ) {
    try {
      return await until<TkaCluster>(access, federationPaths.clusters(), name, passes, 25_000);
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
  }
}

/** Resolves when the joined cluster's join status passes. */
export const statusIs = (
  { access }: Fixture,
  passes: (status: ReadonlyMap<string, string>) => boolean | undefined,
): Promise<void> =>
  until<Secret>(access, federationPaths.secrets(), 'tka-join-status', (found) => passes(textsOf(found ?? {})));

/** One replica of a joined cluster's TKA server, across restarts. It has no tailscaled. */
export class JoinedProcess implements AsyncDisposable {
  readonly name: string;
  readonly fixture: Fixture;
  readonly #folder = new TemporaryFolder('tka-joined-');
  readonly #more: Readonly<Record<string, unknown>>;
  readonly #through: Access;
  readonly #ended: Line[] = [];
  #process: TkaServerProcess | undefined;

  /** `through` is how it reaches its API server; default: directly. */
  constructor(name: string, fixture: Fixture, federation: Readonly<Record<string, unknown>>, through = fixture.access) {
    this.name = name;
    this.fixture = fixture;
    this.#more = federation;
    this.#through = through;
  }

  get #joinFolder(): string {
    return path.join(this.#folder.path, 'join');
  }

  /** Writes the join Secret as the kubelet mounts it: a change replaces a symbolic link. */
  mount({ endpoint, token }: { readonly endpoint: string; readonly token: string }): void {
    const folder = this.#joinFolder;
    fs.mkdirSync(folder, { recursive: true });
    const version = `..${process.hrtime.bigint()}`;
    fs.mkdirSync(path.join(folder, version));
    fs.writeFileSync(path.join(folder, version, 'endpoint'), endpoint);
    fs.writeFileSync(path.join(folder, version, 'token'), token);
    fs.symlinkSync(version, path.join(folder, '..data_tmp'));
    fs.renameSync(path.join(folder, '..data_tmp'), path.join(folder, '..data'));
    for (const name of ['endpoint', 'token'])
      if (!fs.existsSync(path.join(folder, name))) fs.symlinkSync(`..data/${name}`, path.join(folder, name));
  }

  async start(): Promise<void> {
    const { access, namespace, token } = this.fixture;
    const health = await freePort('127.0.0.1');
    this.#process = new TkaServerProcess(
      stringify({
        health: { host: '127.0.0.1', port: health },
        operator: { namespace, clusterName: this.name },
        clusterInfo: {
          apiEndpoint: access.server,
          caData: Buffer.from(access.ca).toString('base64'),
          // Rules must not see them.
          labels: { env: 'prod', said: 'itself' },
        },
        federation: { joinFolder: this.#joinFolder, ...this.#more },
      }),
      { KUBECONFIG: kubeconfigFile(this.#through, token) },
    );
    await this.#process.said(/^tka-server starts/);
  }

  /** Its log lines, of all its processes. */
  get lines(): readonly Line[] {
    return [...this.#ended, ...(this.#process?.lines ?? [])];
  }

  get stdout(): string {
    return this.#process?.stdout ?? '';
  }

  said(what: RegExp): Promise<Line> {
    if (this.#process === undefined) throw new Error(`${this.name} is not running`);
    return this.#process.said(what);
  }

  /** SIGSTOP suspends it, SIGCONT wakes it. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.child.kill(signal);
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.signal(signal);
    await this.#process?.ended;
    await this.#forget();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#forget();
    this.#folder[Symbol.dispose]();
  }

  async #forget(): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
    this.#ended.push(...(this.#process?.lines ?? []));
    this.#process = undefined;
  }
}
