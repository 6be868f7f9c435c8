// Tokens of sign-ins, and the kubeconfig that contains one.
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
  /** Provisions a sign-in that lacks a part. */
  readonly repair: (signIn: TkaSignin) => Promise<TkaSignin | undefined>;
  /** Returns the parts of a sign-in from this replica's copies, or undefined if the copies may be old. */
  readonly knownParts: (name: string) => Parts | undefined;
  readonly readParts: (name: string, signal?: AbortSignal) => Promise<Parts>;
}

/** Names in the kubeconfig for clients. */
export interface KubeconfigNames {
  readonly clusterName: string;
  readonly contextPrefix: string;
  readonly userPrefix: string;
}

/** A token (undefined if the sign-in has no account any more), or `pending` while a part of the sign-in is missing. */
export type Minted = { readonly token: string | undefined } | 'pending';

/** The API server's minimum lifetime of a token. */
export const minimumMs = 10 * 60_000;

/**
 * Mints a token for a sign-in that is in force. Uses the copies of the watch unless `fresh` is set. Throws a Refusal if
 * the sign-in's account or binding belongs to someone else.
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
  // A leading Go operator adopts other objects of these names and reports success, so check the owners here.
  if (binding !== undefined && ownerOfBinding(binding, namespace) === undefined)
    throw blockedRefusal(signIn.spec.username, foreignBinding(name, binding).text);
  if (account !== undefined && ownerOfAccount(account) === undefined)
    throw blockedRefusal(signIn.spec.username, foreignAccount(name, namespace).text);
  if (account === undefined || !isWhole(parts, signIn, namespace)) {
    // Another process removed a part: make it again.
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
  // The API server mints by name. If the account was replaced meanwhile, the token belongs to the new one.
  return accountUidIn(token) === account.metadata.uid ? { token } : 'pending';
}

/** Returns the kubeconfig for a client. */
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

/** Returns the UID of a token's ServiceAccount, or undefined if the token names none. */
function accountUidIn(token: string): string | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return claims['kubernetes.io'].serviceaccount.uid;
  } catch {
    return undefined;
  }
}
