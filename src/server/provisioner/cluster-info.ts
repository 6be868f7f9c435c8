// The cluster info for clients, from the configuration or from a ConfigMap such as kubeadm's. Also the identity of the
// cluster, which other servers and clients compare.
import { setTimeout as delay } from 'node:timers/promises';
import { parse } from 'yaml';
import type { ClusterInfo } from '../../tka/types.ts';
import { Refusal } from '../http/contract.ts';
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type Metadata, paths } from './objects.ts';

/** Location and key names of a ConfigMap. */
export interface ConfigMapRef {
  readonly name: string;
  readonly namespace: string;
  readonly keys: {
    readonly apiEndpoint: string;
    readonly caData: string;
    readonly insecure: string;
    readonly kubeconfig: string;
  };
}

/** A ConfigMap with the cluster info, and the labels to add. */
export interface ConfigMapSource {
  readonly ref: ConfigMapRef;
  readonly labels: ClusterInfo['labels'];
}

const keepMs = 60_000;

const retryMs = 1_000;

/** Provides the cluster info. Reads a ConfigMap again every minute; if that fails, the last result stays in use. */
export class ClusterInfoSource {
  readonly #kube: Kube;
  readonly #source: ClusterInfo | ConfigMapSource;
  readonly #log: Log;
  #known: { readonly info: ClusterInfo; readonly at: number } | undefined;
  #problem: string | undefined;

  constructor(kube: Kube, source: ClusterInfo | ConfigMapSource, log: Log) {
    this.#kube = kube;
    this.#source = source;
    this.#log = log;
    if ('ref' in source) this.#problem = 'the cluster info has not been read yet';
  }

  /** Returns why there is no cluster info, or undefined if there is. */
  problem(): string | undefined {
    return this.#problem;
  }

  /** Returns the cluster info. Throws a Refusal if the ConfigMap has never been read. */
  async read(): Promise<ClusterInfo> {
    if (!('ref' in this.#source)) return this.#source;
    if (this.#known !== undefined && performance.now() - this.#known.at <= keepMs) return this.#known.info;
    const { ref, labels } = this.#source;
    try {
      this.#known = { info: await readClusterInfo(this.#kube, ref, labels), at: performance.now() };
      this.#problem = undefined;
    } catch (error) {
      const hints = [
        `set clusterInfo.apiEndpoint and clusterInfo.caData, or create ConfigMap ${ref.namespace}/${ref.name}`,
      ];
      this.#log.warn({ err: error, hints }, 'clusterInfo.apiEndpoint is not set, and the ConfigMap could not be read');
      if (this.#known === undefined) throw this.#refusal((error as Error).message);
    }
    return this.#known.info;
  }

  /** Retries until the first success, even if no client asks: the server is not ready before that. */
  async readFirst(signal: AbortSignal): Promise<void> {
    while (this.#problem !== undefined && !signal.aborted) {
      await this.read().catch(() => delay(retryMs, undefined, { signal }).catch(() => undefined));
    }
  }

  #refusal(message: string): Refusal {
    this.#problem = `clusterInfo.apiEndpoint is not set, and ${message}`;
    return new Refusal(500, {
      message: 'Failed to load cluster info',
      advice: ["set clusterInfo.apiEndpoint and clusterInfo.caData in the TKA server's configuration"],
      cause: { message },
    });
  }
}

/**
 * Reads the endpoint and CA from the keys of a ConfigMap, or else from the kubeconfig in it. Throws an Error that names
 * the ConfigMap if it has neither.
 */
export async function readClusterInfo(
  kube: Kube,
  { name, namespace, keys }: ConfigMapRef,
  labels: Readonly<Record<string, string>>,
): Promise<ClusterInfo> {
  const where = `ConfigMap ${namespace}/${name}`;
  const found = await kube.get<{ readonly data?: Readonly<Record<string, string>> }>(paths.configMaps(namespace, name));
  if (found === undefined) throw new KubeError(`the ${where} does not exist`, 404);
  const { data = {} } = found;
  let server = data[keys.apiEndpoint] ?? '';
  let ca = data[keys.caData] ?? '';
  let insecure = /^(?:true|1)$/i.test(data[keys.insecure] ?? '');
  const kubeconfig = data[keys.kubeconfig] ?? '';
  if (server === '' && ca === '' && kubeconfig !== '') {
    const cluster = clusterIn(kubeconfig);
    if (cluster === undefined) throw new Error(`the kubeconfig in the ${where} has no cluster`);
    server = cluster.server;
    ca = cluster['certificate-authority-data'] ?? '';
    insecure ||= cluster['insecure-skip-tls-verify'] === true;
  }
  if (!URL.canParse(server)) throw new Error(`the ${where} has no API endpoint under "${keys.apiEndpoint}"`);
  return { server_url: server, insecure_skip_tls_verify: insecure, ca_data: ca.replaceAll(/\s/g, ''), labels };
}

interface KubeconfigCluster {
  readonly server: string;
  readonly 'certificate-authority-data'?: string;
  readonly 'insecure-skip-tls-verify'?: boolean;
}

function clusterIn(text: string): KubeconfigCluster | undefined {
  try {
    const cluster = parse(text)?.clusters?.[0]?.cluster;
    return typeof cluster?.server === 'string' ? cluster : undefined;
  } catch {
    return undefined;
  }
}

interface SignInStoreOptions {
  readonly kube: Kube;
  /** Namespace of the sign-ins. */
  readonly namespace: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The UID of this namespace identifies a cluster: every cluster has the namespace, and nobody can delete it. */
const witness = 'kube-system';

const firstRetryMs = 1_000;

const lastRetryMs = 60_000;

/**
 * Reads the UID of the namespace kube-system once, in the background, with retries. Returns a function that returns
 * `UID/namespace`, or undefined while the UID is unknown.
 */
export function signInStore({ kube, namespace, log, signal }: SignInStoreOptions): () => string | undefined {
  let store: string | undefined;

  async function read(): Promise<void> {
    for (let retryMs = firstRetryMs; !signal.aborted; retryMs = Math.min(2 * retryMs, lastRetryMs)) {
      try {
        const found = await kube.get<{ readonly metadata?: Partial<Metadata> }>(paths.namespaces(witness), signal);
        const uid = found?.metadata?.uid;
        if (typeof uid !== 'string' || !/^[!-~]{1,100}$/.test(uid)) throw new Error('it has no UID');
        store = `${uid}/${namespace}`;
        return;
      } catch (error) {
        if (signal.aborted) return;
        const hints = isStatus(error, 403) ? ['apply deploy/ again: it allows the server to get this namespace'] : [];
        log.warn({ err: error, hints }, `cannot read namespace ${witness}: clients will not fail over to this server`);
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  void read();
  return () => store;
}
