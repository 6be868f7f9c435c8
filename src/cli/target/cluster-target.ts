import { type Cluster, resolved } from '../../discovery/clusters.ts';
import type { Origin } from '../../discovery/trust.ts';
import type { OurContext } from '../../kubeconfig/index.ts';
import type { TkaError } from '../../util/errors.ts';
import type { ContextsByCluster } from './contexts-by-cluster.ts';

/** What a NAME on the command line stands for. */
export interface ClusterTarget {
  /** Canonical URL of the TKA server. */
  readonly server: string;
  /** The cluster that was named so, or that the server is one of; undefined where no list has it. */
  readonly cluster: Cluster | undefined;
  /** The managed context of the cluster; undefined for none. */
  readonly ours?: OurContext | undefined;
  /** Where the server comes from. */
  readonly origin: Origin;
  /** True, or why, for a name that was looked for among the clusters in vain, and is taken for a host's. */
  readonly unlisted?: boolean | TkaError;
}

/** A cluster as a target. `contexts` are our contexts by cluster. Throws UnresolvedCluster. */
export function targetOf(cluster: Cluster, contexts: ContextsByCluster): ClusterTarget {
  return { server: resolved(cluster).server, cluster, ours: contexts.get(cluster)?.[0], origin: cluster.provenance };
}

export const isUrl = (name: string) => name.includes('://');

/** Returns a server that the user named as a target. What a list says about it does not count. */
export const namedTarget = (server: string): ClusterTarget => ({ server, cluster: undefined, origin: 'named' });
