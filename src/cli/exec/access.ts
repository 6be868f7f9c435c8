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
import { type ContextsByCluster, contextsByCluster } from '../target/contexts.ts';
import { trustOf } from '../target/trust.ts';

/** Minimum remaining lifetime of a token when kubectl starts, in milliseconds. The same as in `credential`. */
const lastUse = 30_000;

/** The environment variable and flags that point kubectl at a cluster. */
export interface KubectlConfig {
  readonly kubeconfig: string;
  /** Flags before kubectl's command. Usually empty: kubectl rejects flags before the name of a plugin. */
  readonly flags: readonly string[];
}

/**
 * Points kubectl at clusters. A cluster with a managed context uses the user's kubeconfig with another current context;
 * any other cluster gets a kubeconfig of its own. Writes only to a private folder, and never writes a token.
 */
export class KubectlAccess {
  readonly #context: Context;
  readonly #contexts: ContextsByCluster;
  readonly #needsToken: boolean;
  readonly #trust: TrustPolicy;
  #folder: string | undefined;
  #removed = false;

  /** `clusters` are all known clusters, not only the selected ones. */
  constructor(context: Context, view: KubeconfigView, clusters: readonly Cluster[], needsToken: boolean) {
    this.#context = context;
    this.#contexts = contextsByCluster(view, clusters);
    this.#needsToken = needsToken;
    this.#trust = trustOf(context, view);
  }

  /**
   * Returns the configuration for a cluster; `number` names its file. Throws TkaError if the cluster cannot or must not
   * be used: not resolved, missing, signed out, not trusted, or no token. Like kubectl, it uses a token that is still
   * valid even if the TKA server does not answer or is no longer listed.
   */
  async of(cluster: Cluster, number: number, warn: (line: string) => void): Promise<KubectlConfig> {
    const found = await this.find(cluster);
    const { server, apiServer } = found.ours ?? found.spec;
    await this.#signIn(server, apiServer, warn);
    return found.ours === undefined ? this.#ownKubeconfig(found.spec, number) : this.#overlay(found.ours, number);
  }

  /** Returns the managed context of a cluster, or the data for one. Does not sign in. Throws TkaError like of(). */
  async find(cluster: Cluster): Promise<{ ours: OurContext } | { ours: undefined; spec: ContextSpec }> {
    const ours = this.#contexts.get(cluster)?.[0];
    const server = ours?.server ?? cluster.server;
    if (server !== null && this.#context.sessions.store.signedOut.read(server) !== undefined)
      throw new TkaError(`signed out of ${server}`, { hints: [`kubectl tka login ${server}`] });
    const held = server === null ? undefined : this.#validSession(server, ours?.apiServer ?? cluster.apiEndpoint);
    if (held === undefined && cluster.state === 'missing') {
      throw new TkaError(cluster.reason ?? 'no longer listed by any TKA server', {
        hints: [server === null ? 'kubectl tka clusters' : `kubectl tka login ${server}`],
      });
    }
    if (ours === undefined) return { ours, spec: await this.#specOf(cluster, held) };
    const provenance = ours.server === cluster.server ? cluster.provenance : 'known';
    if (held === undefined && this.#needsToken)
      await this.#trust.require({ ...cluster, server: ours.server, provenance });
    return { ours };
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

  // kubectl would sign in by itself, but on failure it tries five times and wraps our error each time.
  async #signIn(server: string, apiServer: string | undefined, warn: (line: string) => void): Promise<void> {
    if (!this.#needsToken) return;
    const sessions = this.#context.sessions.saying(warn);
    await sessions.credential({ server, apiServer, parent: process.pid });
  }

  /** Writes a kubeconfig with one context. */
  async #ownKubeconfig(spec: ContextSpec, number: number): Promise<KubectlConfig> {
    const file = this.#file(number);
    const files = kubeconfigFiles({ explicit: file, env: this.#context.env, home: undefined, cwd: '/' });
    await editKubeconfig(files, () => ({ upsert: [spec], currentContext: spec.name }));
    return file.includes(path.delimiter)
      ? { kubeconfig: '', flags: ['--kubeconfig', file] }
      : { kubeconfig: file, flags: [] };
  }

  /**
   * Puts a file with another current context before the user's files: kubectl takes `current-context` from the first
   * file that has one.
   */
  #overlay(ours: OurContext, number: number): KubectlConfig {
    const { files } = this.#context.kubeconfig;
    const overlay = this.#file(number);
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

  /** Returns a hint with cluster names instead of server URLs. */
  inHint(hint: string): string {
    return this.#context.remembered.inHint(hint);
  }

  /** Removes all files it wrote. Never throws. */
  remove(): void {
    this.#removed = true;
    if (this.#folder === undefined) return;
    try {
      fs.rmSync(this.#folder, { recursive: true, force: true });
    } catch {
      // The files hold no secret, so leftovers are harmless.
    }
  }

  #file(number: number): string {
    // Nothing would delete a folder created after remove().
    if (this.#removed) throw new TkaError('interrupted');
    try {
      this.#folder ??= fs.mkdtempSync(path.join(os.tmpdir(), 'kubectl-tka-'));
    } catch (cause) {
      throw new TkaError(`no directory for temporary files: ${systemCode(cause)}`, { cause, hints: ['set TMPDIR'] });
    }
    return path.join(this.#folder, `${number}.yaml`);
  }
}
