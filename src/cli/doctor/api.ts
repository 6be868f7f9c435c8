// The checks of the Kubernetes API server. They send only requests that create nothing.

import { failureOf } from '../../network/failure.ts';
import type { Client } from '../../network/http.ts';
import type { Session } from '../../session/session.ts';
import { roleRemedy } from '../../session/session.ts';
import { tryToken } from '../../session/tools.ts';
import type { ClusterAccess } from '../../tka/answers.ts';
import { TkaError } from '../../util/errors.ts';
import { own, parseJson, texts } from '../../util/json.ts';
import { withoutSlashes } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { type Checks, consequence, dependsOn, failed, failedBy, ok, skipped, type Verdict, warning } from './check.ts';

const timeout = 5000;
const limit = 4 * 1024 * 1024;

/** How to reach the API server, and who says so. */
export interface Claimed extends ClusterAccess {
  /** The source of that claim: `the TKA server`. */
  readonly by: string;
}

interface Question {
  readonly path: string;
  readonly token?: string;
  /** A request with a body is a POST. */
  readonly body?: unknown;
}

interface ApiAnswer {
  readonly status: number;
  readonly date: string | undefined;
  /** The parsed JSON body. */
  readonly body: unknown;
}

/**
 * Sets the verdicts on the API server, the token and RBAC. `session` holds the token to try, if there is one. Returns
 * the API server's clock minus ours in milliseconds, if its answer has a time.
 */
export async function checkApi(
  context: Context,
  checks: Checks,
  server: string,
  claimed: Claimed | undefined,
  session: Session | undefined,
): Promise<number | undefined> {
  const { verdict, skew } =
    claimed === undefined
      ? { verdict: skipped('its address is not known yet'), skew: undefined }
      : await reach(context, server, claimed);
  const reached = checks.set('api-server', verdict);
  const blocked = consequence('api-server', reached) ?? mayTry(checks, claimed, session);
  if (blocked !== undefined || session === undefined) {
    checks.setRest(['token-accepted', 'rbac'], blocked ?? dependsOn('token'));
    return skew;
  }
  const accepted = checks.set('token-accepted', await accepts(context, server, session));
  checks.set('rbac', consequence('token-accepted', accepted) ?? (await rbac(context, server, session)));
  return skew;
}

// Send a token only to the API server that it was issued for.
function mayTry(checks: Checks, claimed: Claimed | undefined, session: Session | undefined): Verdict | undefined {
  if (session === undefined) return dependsOn(checks.has('sign-in', 'ok') ? 'token' : 'sign-in');
  if (claimed === undefined || claimed.apiServer === session.apiServer) return undefined;
  return skipped(`depends on kubeconfig: the token is for ${session.apiServer}, which is another API server`);
}

async function reach(context: Context, server: string, claimed: Claimed) {
  const { apiServer, insecureSkipTlsVerify, caData, by } = claimed;
  const started = performance.now();
  let answer: ApiAnswer;
  try {
    answer = await ask(context, claimed, { path: '/version' });
  } catch (error) {
    const known = ownError(error);
    if (known !== undefined) return { verdict: failedBy(known), skew: undefined };
    const { what, kind } = failureOf(error);
    const isTls = kind === 'tls' || kind === 'authority';
    const why = isTls ? `${what} (with the CA from ${by})` : what;
    const hint = isTls
      ? 'ask the administrator of the TKA server to correct clusterInfo.caData'
      : `check it: curl -k ${apiServer}/version`;
    return { verdict: failed(`${apiServer}: ${why}`, hint), skew: undefined };
  }
  const time = Date.parse(answer.date ?? '');
  const skew = Number.isNaN(time) ? undefined : time + 500 - Date.now();
  const took = `${Math.max(1, Math.round(performance.now() - started))} ms`;
  if (!insecureSkipTlsVerify) {
    return {
      verdict: ok(`${apiServer} answers, TLS verified with ${caData === '' ? "the system's CAs" : 'its CA'}, ${took}`),
      skew,
    };
  }
  const agreed = context.sessions.store.consents.read(server) === apiServer;
  const what = `TLS verification of ${apiServer} is skipped, as ${by} asks`;
  const hint = agreed ? null : `kubectl tka login ${server} --insecure-skip-tls-verify`;
  return { verdict: warning(`${what}${agreed ? ' and you accepted' : ', and you have not accepted it'}`, hint), skew };
}

/** Returns the TkaError among the causes of an error, such as a proxy's: its message is already written for users. */
function ownError(error: unknown): TkaError | undefined {
  for (let e = error; e instanceof Error; e = e.cause) if (e instanceof TkaError) return e;
  return undefined;
}

async function accepts(context: Context, server: string, session: Session): Promise<Verdict> {
  const answer = await tryToken(session.token, session, context.network, context.terminal.log);
  const login = `kubectl tka login ${server}`;
  if (answer === 'accepted') return ok(`the API server accepts the token`);
  if (answer === 'refused') return failed(`${session.apiServer} refuses the token (HTTP 401)`, login);
  return failed(`${session.apiServer} gave no answer to the token`, login);
}

async function rbac(context: Context, server: string, session: Session): Promise<Verdict> {
  const remedy = roleRemedy(server);
  const post = async (group: string, kind: string, spec?: unknown) => {
    const apiVersion = `${group}.k8s.io/v1`;
    const path = `/apis/${apiVersion}/${kind.toLowerCase()}s`;
    const body = { kind, apiVersion, ...(spec !== undefined && { spec }) };
    const answer = await ask(context, session, { path, token: session.token, body });
    return { status: answer.status, said: own(answer.body, 'status') };
  };
  try {
    // Kubernetes before 1.28 has no v1 of SelfSubjectReview.
    const review = await post('authentication', 'SelfSubjectReview');
    const user = review.status < 300 ? own(own(review.said, 'userInfo'), 'username') : undefined;
    const rules = await post('authorization', 'SelfSubjectRulesReview', { namespace: 'default' });
    if (rules.status >= 300) return warning(`cannot ask for permissions (HTTP ${rules.status})`);
    const granted = allowed(own(rules.said, 'resourceRules'));
    const name = typeof user === 'string' ? user : 'the token’s user';
    if (granted.length > 0) {
      const may = `${name} may ${granted.join(', ')}`;
      const given = await verbsOf(context, session);
      if (given === undefined || agree(given, granted)) return ok(may);
      return warning(
        `${may}, but the role ${session.role} allows to ${given.join(', ')}: the role is not in force`,
        remedy,
      );
    }
    if (own(rules.said, 'incomplete') === true)
      return warning(`the API server does not list all permissions of ${name}`);
    return failed(`${name} may do nothing: the role ${session.role} is not bound, or empty`, remedy);
  } catch (error) {
    return failed(`${session.apiServer}: ${failureOf(error).what}`, `kubectl tka login ${server}`);
  }
}

/** Returns the verbs of the session's ClusterRole; undefined if this token may not read it. */
async function verbsOf(context: Context, session: Session): Promise<string[] | undefined> {
  const path = `/apis/rbac.authorization.k8s.io/v1/clusterroles/${encodeURIComponent(session.role)}`;
  const answer = await ask(context, session, { path, token: session.token });
  const verbs = answer.status === 200 ? allowed(own(answer.body, 'rules')) : [];
  if (verbs.length > 0) return verbs;
  // Every cluster has this role.
  return session.role === 'cluster-admin' ? [anything] : undefined;
}

// Other bindings can add verbs, but none removes one.
function agree(given: readonly string[], granted: readonly string[]): boolean {
  if (granted.includes(anything)) return given.includes(anything);
  return given.every((verb) => granted.includes(verb));
}

const anything = 'do anything (*)';

/** Returns the verbs of rules, without the self-review rules that every user has. */
function allowed(rules: unknown): string[] {
  const verbs = new Set<string>();
  for (const rule of Array.isArray(rules) ? rules : []) {
    const resources = texts(own(rule, 'resources'), 1000);
    if (resources.every((name) => /^selfsubject\w*reviews$/.test(name))) continue;
    for (const verb of texts(own(rule, 'verbs'), 1000)) if (/^(?:[a-z]{1,30}|\*)$/.test(verb)) verbs.add(verb);
  }
  return verbs.has('*') ? [anything] : [...verbs].sort();
}

async function ask(context: Context, access: ClusterAccess, { path, token, body }: Question): Promise<ApiAnswer> {
  const url = new URL(access.apiServer);
  const { terminal, network } = context;
  const client: Client = network.client(url.origin, {
    connectTimeout: timeout,
    insecure: access.insecureSkipTlsVerify,
    ...(access.caData !== '' && { ca: Buffer.from(access.caData, 'base64').toString('latin1') }),
  });
  try {
    const answer = await client.request({
      method: body === undefined ? 'GET' : 'POST',
      path: withoutSlashes(url.pathname) + path,
      headers: {
        accept: 'application/json',
        'user-agent': 'kubectl-tka',
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(timeout),
    });
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of answer.body) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > limit) break;
    }
    terminal.log(`${access.apiServer}${path}: ${answer.statusCode}, ${size} bytes`);
    const { date } = answer.headers;
    return {
      status: answer.statusCode,
      date: typeof date === 'string' ? date : undefined,
      body: parseJson(Buffer.concat(chunks).toString('utf8')),
    };
  } finally {
    await client.destroy().catch(() => {});
  }
}
