import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { isFresh } from '../../credential/entry.ts';
import type { Cluster } from '../../discovery/clusters.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import {
  type ContextSpec,
  editKubeconfig,
  type KubeconfigView,
  kubeconfigFiles,
  type OurContext,
} from '../../kubeconfig/index.ts';
import { Unavailable } from '../../network/failure.ts';
import { type Session, timeLeft } from '../../session/session.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';
import { contextSpec, specOf } from '../contexts/spec.ts';
import { type ContextsByCluster, contextsByCluster } from '../target/contexts-by-cluster.ts';
import { trustOf } from '../target/trust.ts';

/** Minimum remaining lifetime of a token that kubectl is started with, in milliseconds; as `credential` has it. */
const lastUse = 30_000;

/** How kubectl is pointed at a cluster. */
export interface KubectlConfig {
  readonly kubeconfig: string;
  /** Flags that go before kubectl's command; mostly none, since a kubectl plugin bears none there. */
  readonly flags: readonly string[];
}

/**
 * Points kubectl at clusters: through the user's kubeconfig with another current context laid over it where there is a
 * context of ours, else through a kubeconfig of its own. All that it writes is in a private folder, and no token is.
 */
export class KubectlAccess {
  readonly #context: Context;
  readonly #contexts: ContextsByCluster;
  readonly #needsToken: boolean;
  readonly #trust: TrustPolicy;
  #folder: string | undefined;
  #removed = false;

  /** `clusters` are all there are. */
  constructor(context: Context, view: KubeconfigView, clusters: readonly Cluster[], needsToken: boolean) {
    this.#context = context;
    this.#contexts = contextsByCluster(view, clusters);
    this.#needsToken = needsToken;
    this.#trust = trustOf(context, view);
  }

  /**
   * Throws TkaError where a cluster cannot or must not be reached: not placed, missing, logged out of, not what it was
   * listed as, not signed in to. A token that is still valid is used whether or not its TKA server answers or is listed,
   * as kubectl does.
   */
  async of(cluster: Cluster, number: number, warn: (line: string) => void): Promise<KubectlConfig> {
    const ours = this.#contexts.get(cluster)?.[0];
    const server = ours?.server ?? cluster.server;
    if (server !== null && this.#context.sessions.store.signedOut.read(server) !== undefined)
      throw new TkaError(`signed out of ${server}`, { hints: [`kubectl tka login ${server}`] });
    const held = server === null ? undefined : this.#validSession(server, ours?.apiServer ?? cluster.apiEndpoint);
    if (held === undefined && cluster.state === 'missing') {
      throw new TkaError(cluster.reason ?? 'no memberlist names it any more', {
        hints: [server === null ? 'kubectl tka clusters' : `kubectl tka login ${server}`],
      });
    }
    if (ours !== undefined) {
      const provenance = ours.server === cluster.server ? cluster.provenance : 'known';
      if (held === undefined && this.#needsToken)
        await this.#trust.require({ ...cluster, server: ours.server, provenance });
      await this.#signIn(ours.server, ours.apiServer, warn);
      return this.#through(ours, number);
    }
    const spec = await this.#specOf(cluster, held);
    await this.#signIn(spec.server, spec.apiServer, warn);
    const file = this.#file(number);
    const { env } = this.#context;
    const files = kubeconfigFiles({ explicit: file, env, home: undefined, cwd: '/' });
    await editKubeconfig(files, () => ({ upsert: [spec], currentContext: spec.name }));
    return file.includes(path.delimiter)
      ? { kubeconfig: '', flags: ['--kubeconfig', file] }
      : { kubeconfig: file, flags: [] };
  }

  #validSession(server: string, apiServer: string): Session | undefined {
    const session = this.#context.sessions.store.read(server);
    return session?.apiServer === apiServer && timeLeft(session) > lastUse ? session : undefined;
  }

  async #specOf(cluster: Cluster, held: Session | undefined): Promise<ContextSpec> {
    const fromSession = (session: Session) => specOf(this.#context, 'cluster', session.server, session);
    if (held !== undefined && isFresh(held, Date.now())) return fromSession(held);
    return contextSpec(this.#context, 'cluster', cluster, this.#trust).catch((error: unknown) => {
      if (held === undefined || !(error instanceof Unavailable)) throw error;
      this.#context.terminal.log(`${error.message}: using what the last sign-in said`);
      return fromSession(held);
    });
  }

  // kubectl would do that, but where it fails, it fails five times over, each time with its own words around ours.
  async #signIn(server: string, apiServer: string | undefined, warn: (line: string) => void): Promise<void> {
    if (!this.#needsToken) return;
    const sessions = this.#context.sessions.saying(warn);
    await sessions.credential({ server, apiServer, parent: process.pid });
  }

  #through(ours: OurContext, number: number): KubectlConfig {
    const { files } = this.#context.kubeconfig;
    const overlay = this.#file(number);
    // Of several files kubectl takes the first that names a current context.
    if (![overlay, ...files].some((file) => file.includes(path.delimiter))) {
      const text = JSON.stringify({ apiVersion: 'v1', kind: 'Config', 'current-context': ours.name });
      fs.writeFileSync(overlay, `${text}\n`, { mode: 0o600 });
      return { kubeconfig: [overlay, ...files].join(path.delimiter), flags: [] };
    }
    const [only = ''] = files;
    const flags = ['--context', ours.name];
    return files.length === 1
      ? { kubeconfig: '', flags: ['--kubeconfig', only, ...flags] }
      : { kubeconfig: files.join(path.delimiter), flags };
  }

  /** A hint with names of clusters in the place of their servers. */
  inHint(hint: string): string {
    return this.#context.remembered.inHint(hint);
  }

  /** Takes away all that was written. Never throws. */
  remove(): void {
    this.#removed = true;
    if (this.#folder === undefined) return;
    try {
      fs.rmSync(this.#folder, { recursive: true, force: true });
    } catch {
      // What is left holds no secret.
    }
  }

  #file(number: number): string {
    // After the end, nobody would take it away.
    if (this.#removed) throw new TkaError('interrupted');
    try {
      this.#folder ??= fs.mkdtempSync(path.join(os.tmpdir(), 'kubectl-tka-'));
    } catch (cause) {
      throw new TkaError(`no folder for temporary files: ${systemCode(cause)}`, { cause, hints: ['set TMPDIR'] });
    }
    return path.join(this.#folder, `${number}.yaml`);
  }
}
