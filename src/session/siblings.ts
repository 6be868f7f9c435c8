// The other servers of a cluster, which may take the place of one that is away.
import type { ClusterAccess, ClusterDescription } from '../tka/answers.ts';
import { readOwn } from '../util/files.ts';
import type { Json } from '../util/json.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import { readObject } from './files.ts';
import { StateFiles } from './state-files.ts';

/** What a server stated of its cluster. Only a server that states the same may take its place. */
export interface KnownCluster extends ClusterAccess {
  readonly cluster: string;
  readonly signInStore: string;
}

/** Where else a cluster can be signed in to. */
export interface Siblings {
  readonly known: KnownCluster;
  /** Canonical URLs of servers that may be used, the best first. */
  readonly servers: readonly string[];
}

/** Returns what a server must have stated for others to take its place; undefined if it did not state all of it. */
export function knownClusterOf(info: ClusterDescription): KnownCluster | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore } = info;
  if (cluster === null || signInStore === null) return undefined;
  return { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore };
}

/** Says in what a server differs from what is known of a cluster; undefined if it does not. */
export function disagreement(known: KnownCluster, info: ClusterDescription): string | undefined {
  if (info.signInStore === null) return 'it does not state where its sign-ins are kept';
  if (info.signInStore !== known.signInStore) return 'its sign-ins are kept elsewhere';
  if (info.cluster !== known.cluster) return `it is of the cluster ${info.cluster ?? 'without a name'}`;
  return accessDisagreement(known, info);
}

/** Says in what the access to a cluster differs from what is known of it; undefined if it does not. */
export function accessDisagreement(known: ClusterAccess, access: ClusterAccess): string | undefined {
  if (access.apiServer !== known.apiServer) return `its API server is ${access.apiServer}`;
  // A context without TLS verification has no CA.
  const isSameCa = known.insecureSkipTlsVerify || access.caData === known.caData;
  if (access.insecureSkipTlsVerify !== known.insecureSkipTlsVerify || !isSameCa)
    return 'it states another CA for the API server';
  return undefined;
}

/** A CA is at most 64 KiB, and base64 of it a third longer. */
const sizeLimit = 256 * 1024;

/**
 * What servers stated of their clusters when they were last signed in to:
 * `~/.local/state/kubectl-tka/siblings/https+tka.example.ts.net`.
 */
export class SiblingNotes extends StateFiles {
  /** What a server stated of its cluster, and the cluster's other servers; undefined if that is unknown or damaged. */
  read(server: string): Siblings | undefined {
    const file = this.file(server);
    return file === undefined ? undefined : parseSiblings(readObject(file, sizeLimit));
  }

  /** Keeps that. Throws TkaError if it cannot be kept. */
  write(server: string, siblings: Siblings): void {
    const value = { server, ...siblings.known, servers: siblings.servers };
    const file = this.file(server);
    if (file === undefined || readOwn(file, sizeLimit) !== `${JSON.stringify(value)}\n`) this.put(server, value);
  }
}

function parseSiblings(value: Json | undefined): Siblings | undefined {
  const { apiServer, caData, insecureSkipTlsVerify, cluster, signInStore, servers } = value ?? {};
  if (typeof apiServer !== 'string' || typeof caData !== 'string' || typeof insecureSkipTlsVerify !== 'boolean')
    return undefined;
  if (typeof cluster !== 'string' || typeof signInStore !== 'string' || !Array.isArray(servers)) return undefined;
  try {
    const known = { apiServer: canonicalApiServer(apiServer), caData, insecureSkipTlsVerify, cluster, signInStore };
    return { known, servers: servers.map((server) => canonicalServer(String(server))) };
  } catch {
    return undefined;
  }
}
