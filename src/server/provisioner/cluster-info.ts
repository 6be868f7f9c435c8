// What clients are told of the cluster: from the configuration, or from a ConfigMap such as kubeadm's.
import { parse } from 'yaml';
import type { ClusterInfo } from '../../tka/types.ts';
import { KubeError } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { paths } from './objects.ts';

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
