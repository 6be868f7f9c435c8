// What clients are told of the cluster: from the configuration, or from a ConfigMap such as kubeadm's;
// and which cluster it is, for other servers and clients to compare.
import { setTimeout as delay } from 'node:timers/promises';
import { parse } from 'yaml';
import type { ClusterInfo } from '../../tka/types.ts';
import { Refusal } from '../http/contract.ts';
import { isStatus, KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import type { Log } from '../log/log.ts';
import { type Metadata, paths } from './objects.ts';

/** Where a ConfigMap is, and what its keys are called. */
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

/** A ConfigMap that says what clients are told, and the labels to add. */
export interface ConfigMapSource {
  readonly ref: ConfigMapRef;
  readonly labels: ClusterInfo['labels'];
}

const keepMs = 60_000;

const retryMs = 1_000;

/** What clients are told of the cluster. A ConfigMap is read again every minute; while it cannot be, the last one counts. */
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

  /** Why there is none; undefined where there is. */
  problem(): string | undefined {
    return this.#problem;
  }

  /** Returns it. Throws a Refusal where the ConfigMap could never be read. */
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

  /** Reads it until that works once, though no client asks: the server is not ready without it. */
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
 * Reads the cluster's endpoint and CA from a ConfigMap: from its keys, else from the kubeconfig in it. Throws an Error
 * that names the ConfigMap when it says neither.
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
    if (cluster === undefined) throw new Error(`the kubeconfig in the ${where} names no cluster`);
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
  /** Where the sign-ins are. */
  readonly namespace: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** The UID of this namespace identifies a cluster: every cluster has it, and nobody can delete it. */
const witness = 'kube-system';

const firstRetryMs = 1_000;

const lastRetryMs = 60_000;

/**
 * Reads the UID of the namespace kube-system once, in the background, and again later if it cannot be read. Returns a
 * function that answers `UID/namespace`, or undefined while the UID is not known.
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
        const hints = isStatus(error, 403) ? ['apply deploy/ again: it lets the server get this namespace'] : [];
        log.warn(
          { err: error, hints },
          `the namespace ${witness} cannot be read: clients do not fail over to this server`,
        );
        await delay(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  void read();
  return () => store;
}
