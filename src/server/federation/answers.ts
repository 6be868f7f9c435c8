// Reads the answers of joined clusters, which are untrusted: shapes are checked, texts are cleaned, and only known
// fields pass.
import { parseClusterInfo, parseKubeconfig } from '../../tka/answers.ts';
import { errorWords, type RawAnswer, rfc3339 } from '../../tka/raw-answer.ts';
import { storeThrough } from '../../tka/sign-in-store.ts';
import type { ClusterInfo, ErrorBody, KubeconfigAnswer, LoginAnswer } from '../../tka/types.ts';
import { TkaError } from '../../util/errors.ts';
import { isObject, type Json, own, parseJson } from '../../util/json.ts';
import { cleanText, quoted } from '../../util/text.ts';
import { type Caller, Refusal } from '../http/contract.ts';
import { assertionRefused, type JoinedCluster, type TunnelAnswer, tunnelBodyLimit } from './contract.ts';

/** An answer that is not used. The message says why. */
export class InvalidAnswer extends Error {
  override readonly name = 'InvalidAnswer';
}

// The limits of Kubernetes for names of objects, with room for a prefix.
const nameLimit = 320;
const storeLimit = 110;

/** Returns the sign-in of this caller. Throws InvalidAnswer for anything else. */
export function readSignIn(answer: TunnelAnswer, caller: Caller): LoginAnswer {
  const body = jsonOf(answer);
  const [username, role, until] = ['username', 'role', 'until'].map((key) => own(body, key));
  if (username !== caller.username) throw new InvalidAnswer('it is not about this user');
  if (!isName(role)) throw new InvalidAnswer('it has no valid role');
  if (typeof until !== 'string' || !rfc3339.test(until) || Number.isNaN(Date.parse(until))) {
    throw new InvalidAnswer('it has no valid end');
  }
  return { username, role, until, ...(caller.tagged && { node: caller.tagged.node }) };
}

/**
 * Returns the kubeconfig with a token for this cluster. Its entries have names of the login server: with those of the
 * cluster it could replace other entries of a user's kubeconfig. Throws InvalidAnswer for anything else.
 */
export function readKubeconfig(answer: TunnelAnswer, { name, apiEndpoint }: JoinedCluster): KubeconfigAnswer {
  jsonOf(answer);
  const access = parsed(() => parseKubeconfig(rawOf(answer), 'it', Date.now()));
  if (access === 'pending') throw new InvalidAnswer('it has no token');
  mustHaveEndpoint(access.apiServer, apiEndpoint);
  const entry = `tka-${name}`;
  return {
    kind: 'Config',
    apiVersion: 'v1',
    clusters: {
      [entry]: {
        server: apiEndpoint,
        ...(access.caData !== '' && { 'certificate-authority-data': access.caData }),
        ...(access.insecureSkipTlsVerify && { 'insecure-skip-tls-verify': true }),
      },
    },
    users: { [entry]: { token: access.token } },
    contexts: { [entry]: { cluster: entry, user: entry } },
    'current-context': entry,
  };
}

/**
 * Returns how to reach this cluster. The labels of its administrator at the login server win over its own. Throws
 * InvalidAnswer for anything else.
 */
export function readClusterInfo(answer: TunnelAnswer, cluster: JoinedCluster, primary: string): ClusterInfo {
  jsonOf(answer);
  const info = parsed(() => parseClusterInfo(rawOf(answer), 'it'));
  mustHaveEndpoint(info.apiServer, cluster.apiEndpoint);
  const store = info.signInStore;
  return {
    server_url: cluster.apiEndpoint,
    insecure_skip_tls_verify: info.insecureSkipTlsVerify,
    ca_data: info.caData,
    labels: { ...Object.fromEntries(info.labels), ...cluster.labels },
    cluster: cluster.name,
    ...(store !== null && store.length <= storeLimit && { sign_in_store: storeThrough(store, primary) }),
  };
}

// The statuses with which a TKA server refuses a caller.
const refusals = new Set([400, 403, 422, 429, 500, 503]);

/** Returns the refusal of a joined cluster, in the words of the login server. Throws InvalidAnswer for anything else. */
export function readRefusal(answer: TunnelAnswer, name: string): Refusal {
  const { status, headers } = answer;
  if (!refusals.has(status)) throw new InvalidAnswer(`HTTP ${status}`);
  jsonOf(answer);
  const words = errorWords(answer.body);
  if (words === undefined) throw new InvalidAnswer(`HTTP ${status} without a reason`);
  // Only the message and the advice pass: a missing grant is for the login server to state.
  const message = `cluster ${quoted(name)} ${status >= 500 ? 'failed' : 'refused'}`;
  const advice = words.advice.slice(0, 16).map((line) => `cluster ${quoted(name)} advises: ${line}`);
  const body: ErrorBody = { message, ...(advice.length > 0 && { advice }), cause: { message: words.message } };
  const seconds = /^[0-9]{1,2}$/.test(headers['retry-after'] ?? '') ? Number(headers['retry-after']) : 1;
  const mayRetry = status === 429 || status === 503;
  return new Refusal(status, body, mayRetry ? { retryAfterSeconds: Math.max(1, seconds) } : {});
}

/** Returns whether this 401 is about the login server. Without it, a 401 means that the caller is not signed in. */
export function isAssertionRefused({ body }: TunnelAnswer): boolean {
  return errorWords(body)?.message.startsWith(assertionRefused) === true;
}

/** Returns the object in a JSON answer. Throws InvalidAnswer if there is none. */
function jsonOf({ status, headers, body }: TunnelAnswer): Json {
  if (!/^application\/json(?:;|$)/.test(headers['content-type'] ?? '')) {
    throw new InvalidAnswer(`HTTP ${status} that is not JSON`);
  }
  const value = body.length > tunnelBodyLimit ? undefined : parseJson(body);
  if (!isObject(value)) throw new InvalidAnswer(`HTTP ${status} that is not a JSON object`);
  return value;
}

const rawOf = ({ status, headers, body }: TunnelAnswer): RawAnswer => ({ status, headers, body });

/** Runs a parser of the client. Throws InvalidAnswer with its words. */
function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof TkaError) throw new InvalidAnswer(error.message);
    throw error;
  }
}

function mustHaveEndpoint(stated: string, known: string): void {
  if (stated === known) return;
  throw new InvalidAnswer(`it names the API server ${cleanText(stated)}, but the cluster has joined with ${known}`);
}

const isName = (value: unknown): value is string =>
  typeof value === 'string' && value !== '' && cleanText(value, nameLimit) === value;
