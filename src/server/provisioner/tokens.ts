// Tokens of sign-ins, and the kubeconfig that holds one.
import type { ClusterInfo, KubeconfigAnswer } from '../../tka/types.ts';
import type { Caller } from '../http/contract.ts';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { blockedRefusal, foreignAccount, foreignBinding } from './blocked.ts';
import { paths, type TkaSignin } from './objects.ts';
import { isWhole, ownerOfAccount, ownerOfBinding, type Parts } from './parts.ts';
import { endFor } from './sign-in.ts';

export interface TokenOptions {
  readonly kube: Kube;
  readonly namespace: string;
  /** Provisions a sign-in of which something is missing. */
  readonly repair: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** Returns what a sign-in has, as this replica last heard; undefined where that may be old. */
  readonly knownParts: (name: string) => Parts | undefined;
  readonly readParts: (name: string, signal?: AbortSignal) => Promise<Parts>;
}

/** Names in the kubeconfig that a client gets. */
export interface KubeconfigNames {
  readonly clusterName: string;
  readonly contextPrefix: string;
  readonly userPrefix: string;
}

/** A token (undefined: the sign-in has no account any more), or `pending` while something of the sign-in is missing. */
export type Minted = { readonly token: string | undefined } | 'pending';

/** The API server mints no token for less. */
export const minimumMs = 10 * 60_000;

/**
 * Mints a token under a sign-in that is in force. Unless it is to be `fresh`, what the watch told last is good enough.
 * Throws a Refusal where the sign-in's account or binding is somebody else's.
 */
export async function mintToken(
  { kube, namespace, knownParts, readParts, repair }: TokenOptions,
  signIn: TkaSignin,
  caller: Caller,
  fresh: boolean,
  signal: AbortSignal | undefined,
): Promise<Minted> {
  const { name } = signIn.metadata;
  const known = fresh ? undefined : knownParts(name);
  const isKnown = known !== undefined && isWhole(known, signIn, namespace);
  const parts = isKnown ? known : await readParts(name, signal);
  const { account, binding } = parts;
  // A Go operator that leads takes what is in the way for its own, and says that all is well.
  if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
    throw blockedRefusal(signIn.spec.username, foreignBinding(name, binding).text);
  if (account !== undefined && ownerOfAccount(account) === undefined)
    throw blockedRefusal(signIn.spec.username, foreignAccount(name, namespace).text);
  if (account === undefined || !isWhole(parts, signIn, namespace)) {
    // Somebody took a part of it away.
    await repair(signIn).catch(() => undefined);
    return 'pending';
  }
  const now = Date.now();
  const left = Math.floor(((endFor(signIn, caller, now) ?? 0) - now) / 1000);
  const request = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { expirationSeconds: Math.max(minimumMs / 1000, left) },
  };
  const minted = await kube
    .create<{ readonly status: { readonly token: string } }>(
      `${paths.accounts(namespace, name)}/token`,
      request,
      signal,
    )
    .catch((error: unknown) => {
      if (!isStatus(error, 404)) throw error;
    });
  if (!minted) return { token: undefined };
  const { token } = minted.status;
  // Minted by name: not for whom it was meant, if that name has changed hands meanwhile.
  return accountUidIn(token) === account.metadata.uid ? { token } : 'pending';
}

/** Returns the kubeconfig that a client gets. */
export function kubeconfigOf(
  names: KubeconfigNames,
  { username }: Caller,
  token: string,
  info: ClusterInfo,
): KubeconfigAnswer {
  const user = `${names.userPrefix}${username}`;
  const context = `${names.contextPrefix}${username}`;
  const cluster = {
    server: info.server_url,
    ...(info.insecure_skip_tls_verify ? { 'insecure-skip-tls-verify': true } : {}),
    ...(info.ca_data === '' ? {} : { 'certificate-authority-data': info.ca_data }),
  };
  return {
    kind: 'Config',
    apiVersion: 'v1',
    clusters: { [names.clusterName]: cluster },
    users: { [user]: { token } },
    contexts: { [context]: { cluster: names.clusterName, user } },
    'current-context': context,
  };
}

/** The UID of the ServiceAccount that a token names; undefined where it names none. */
function accountUidIn(token: string): string | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return claims['kubernetes.io'].serviceaccount.uid;
  } catch {
    return undefined;
  }
}
