import * as fs from 'node:fs';
import { cacheFolder, entryName, stateFolder } from '../credential/entry.ts';
import type { Cluster } from '../discovery/clusters.ts';
import { rememberedClusters } from '../discovery/find.ts';
import { ListMemory } from '../discovery/memory.ts';
import { isSelectable } from '../discovery/selector.ts';
import { kubeconfigFiles, kubectlHome } from '../kubeconfig/files.ts';
import { glanceContexts } from '../kubeconfig/glance.ts';
import { homeFolder } from '../paths.ts';
import type { Candidate } from './complete.ts';

/** What this machine remembers of clusters, each part read when it is first asked for. */
export class Known {
  readonly #env: NodeJS.ProcessEnv;
  readonly #kubeconfig: string | undefined;
  #clusters: Cluster[] | undefined;

  /** `kubeconfig` is the file that --kubeconfig names. */
  constructor(env: NodeJS.ProcessEnv, kubeconfig: string | undefined) {
    this.#env = env;
    this.#kubeconfig = kubeconfig;
  }

  #all(): Cluster[] {
    this.#clusters ??= new ListMemory(stateFolder(this.#env, homeFolder(this.#env)))
      .all()
      .flatMap((list) => rememberedClusters(list));
    return this.#clusters;
  }

  /** Clusters, and contexts of ours that are called otherwise. */
  names(): Candidate[] {
    return [...this.#all().map(row), ...this.contexts()];
  }

  /** Contexts of ours. */
  contexts(): Candidate[] {
    const env = this.#env;
    const named = { env, home: kubectlHome(env), cwd: process.cwd(), explicit: this.#kubeconfig };
    return glanceContexts(kubeconfigFiles(named)).map((name) => [name, 'context']);
  }

  /** What can be logged out of: contexts of ours, and clusters with a token on this machine. */
  held(): Candidate[] {
    const folder = cacheFolder(this.#env);
    const entries = new Set(folder !== undefined && fs.existsSync(folder) ? fs.readdirSync(folder) : []);
    const signedIn = ({ server }: Cluster) => server !== null && entries.has(entryName(server) ?? '');
    return [...this.#all().filter(signedIn).map(row), ...this.contexts()];
  }

  /** TKA servers. */
  servers(): Candidate[] {
    return this.#all().flatMap(({ server, name }): Candidate[] => (server === null ? [] : [[server, name]]));
  }

  /** Keys of labels, with some of their values. */
  labelKeys(): Candidate[] {
    const values = new Map<string, Set<string>>();
    for (const [key, value] of this.#labels()) {
      const known = values.get(key) ?? new Set();
      values.set(key, known.add(value));
    }
    return [...values].map(([key, known]) => {
      const some = [...known].filter((value) => value !== '').slice(0, 3);
      return [key, [...some, ...(known.size > 3 ? ['…'] : [])].join(', ')];
    });
  }

  /** Values that clusters have for a label. */
  labelValues(key: string): Candidate[] {
    const counts = new Map<string, number>();
    for (const [name, value] of this.#labels()) if (name === key) counts.set(value, (counts.get(value) ?? 0) + 1);
    counts.delete('');
    return [...counts].map(([value, count]) => [value, count === 1 ? '1 cluster' : `${count} clusters`]);
  }

  #labels(): [string, string][] {
    return this.#all().flatMap(({ labels }) => [...labels].filter(([key, value]) => isSelectable(key, value)));
  }
}

function row({ name, labels }: Cluster): Candidate {
  const shown = [...labels].filter(([key, value]) => isSelectable(key, value)).map(([key, value]) => `${key}=${value}`);
  return [name, shown.slice(0, 4).join(',') || 'cluster'];
}
