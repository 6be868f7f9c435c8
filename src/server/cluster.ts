// The cluster that this server serves: how to reach it, and its part of the configuration.
import { KubeConfig } from '@kubernetes/client-node';
import { TkaError } from '../util/errors.ts';
import { type Config, clusterNameOf } from './config/config.ts';
import type { Log } from './log/log.ts';
import type { ProvisionerOptions } from './provisioner/provisioner.ts';

/**
 * Returns the kubeconfig that KUBECONFIG names, or else the configuration of the cluster that this pod runs in. Throws
 * TkaError if there is neither.
 */
export function loadKubeConfig(env: NodeJS.ProcessEnv): KubeConfig {
  const kubeConfig = new KubeConfig();
  try {
    if (env.KUBECONFIG) kubeConfig.loadFromDefault();
    else if (env.KUBERNETES_SERVICE_HOST) kubeConfig.loadFromCluster();
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n', 1)[0] ?? '') : '';
    throw new TkaError(`cannot read the kubeconfig: ${why}`, { cause, hints: ['kubectl config view'] });
  }
  if (kubeConfig.getCurrentCluster() != null) return kubeConfig;
  throw new TkaError('no cluster to serve: KUBECONFIG names no cluster, and this is not a pod with a ServiceAccount', {
    hints: ['export KUBECONFIG=/path/to/kubeconfig'],
  });
}

/** Returns the provisioner's options from the configuration. */
export function provisionerOptions(config: Config, kubeConfig: KubeConfig, log: Log): ProvisionerOptions {
  const labels = config.get('clusterInfo.labels');
  const apiEndpoint = config.get('clusterInfo.apiEndpoint');
  const clusterInfo: ProvisionerOptions['clusterInfo'] =
    apiEndpoint !== undefined
      ? {
          server_url: apiEndpoint,
          insecure_skip_tls_verify: config.get('clusterInfo.insecureSkipTLSVerify'),
          ca_data: config.get('clusterInfo.caData'),
          labels,
        }
      : {
          ref: {
            name: config.get('clusterInfo.configMapRef.name'),
            namespace: config.get('clusterInfo.configMapRef.namespace'),
            keys: {
              apiEndpoint: config.get('clusterInfo.configMapRef.keys.apiEndpoint'),
              caData: config.get('clusterInfo.configMapRef.keys.caData'),
              insecure: config.get('clusterInfo.configMapRef.keys.insecure'),
              kubeconfig: config.get('clusterInfo.configMapRef.keys.kubeconfig'),
            },
          },
          labels,
        };
  return {
    kubeConfig,
    namespace: config.get('operator.namespace'),
    leaseNamespace: config.get('operator.leaseNamespace'),
    cluster: clusterNameOf(config),
    clusterName: config.get('operator.clusterName'),
    contextPrefix: config.get('operator.contextPrefix'),
    userPrefix: config.get('operator.userPrefix'),
    clusterInfo,
    log,
  };
}
