// The routes of the API: who gets which answer, with status codes and headers as the Go server has them.
import Negotiator from 'negotiator';
import { stringify } from 'yaml';
import { checkToken } from '../../tka/token.ts';
import { apiPath, type KubeconfigAnswer, type LoginAnswer } from '../../tka/types.ts';
import { jsonAnswer, notFound, type RouteAnswer } from './answers.ts';
import { type Access, type Caller, type HandlerOptions, Refusal, type RequestHead } from './contract.ts';
import { memberlistJson, memberlistPage } from './memberlist.ts';
import { openApi, openApiPage } from './openapi.ts';
import { documentPath, statusPath } from './page.ts';

/** What the routes serve. */
export type Served = Pick<HandlerOptions, 'signIns' | 'clusterInfo' | 'members'>;

/** A request whose caller is identified. */
export interface Call {
  readonly caller: Caller;
  readonly request: RequestHead;
  readonly options: Served;
  /** Aborted when the caller hangs up. */
  readonly signal: AbortSignal;
  readonly retryAfter: Readonly<Record<'Retry-After', string>>;
}

type Methods<Route> = Readonly<Partial<Record<string, Route>>>;

const yamlTypes = new Set(['application/yaml', 'text/yaml', 'application/x-yaml']);

const loginBody = ({ username, role, until, node }: LoginAnswer): LoginAnswer => ({
  username,
  role,
  until,
  ...(node !== undefined && { node }),
});

function notSignedIn(status: 401 | 404, { username }: Caller): Refusal {
  return new Refusal(status, {
    message: 'User not signed in',
    advice: ["run 'tka login' to sign in first"],
    cause: { message: `TkaSignin.tka.specht-labs.de "tka-user-${username}" not found` },
  });
}

/**
 * Throws if the caller's policy is invalid, because no token may depend on it. A caller without a grant passes: the
 * sign-ins handle that.
 */
function mustBeClear({ problem, revoked }: Caller): void {
  if (problem !== undefined && revoked !== true) throw problem;
}

/**
 * Throws if the policy grants the caller no role. Without a grant, this request also ends the access that the device
 * has.
 */
async function mustHaveRole({ caller, options: { signIns } }: Call): Promise<void> {
  const { role, problem, revoked } = caller;
  if (role !== '' || problem === undefined) return;
  // If the cluster cannot be reached now, the next request ends it.
  if (revoked === true) await signIns.get(caller).catch(() => undefined);
  throw problem;
}

/** Throws as mustHaveRole does, but lets in those who can only sign in to joined clusters: they need the list as well. */
async function mayList(call: Call): Promise<void> {
  const { problem, mayList: isListed } = call.caller;
  await mustHaveRole(call).catch((error: unknown) => {
    if (isListed !== true || problem?.reason !== 'no_grant') throw error;
  });
}

/** Returns the access that a kubeconfig gives its caller, as the token states it. */
function accessOf({ role }: Caller, { users }: KubeconfigAnswer): Access {
  const [user] = Object.values(users);
  const claims = checkToken(user?.token ?? '', Date.now());
  if (typeof claims === 'string') return { role };
  const { expires, account } = claims;
  const until = new Date(expires).toISOString().replace('.000Z', 'Z');
  return { role, until, ...(account !== undefined && { account }) };
}

/** Returns whether the caller wants a page. A caller that accepts anything is a program and gets JSON. */
function wantsPage(request: RequestHead): boolean {
  return new Negotiator(request).mediaType(['application/json', 'text/html']) === 'text/html';
}

const varied = (answer: RouteAnswer): RouteAnswer => ({ ...answer, headers: { ...answer.headers, Vary: 'Accept' } });

/** Routes by path and method. The caller is identified before they run. */
export const apiRoutes: ReadonlyMap<string, Methods<(call: Call) => RouteAnswer | Promise<RouteAnswer>>> = new Map(
  Object.entries({
    [`${apiPath}/login`]: {
      async POST({ caller, options }: Call): Promise<RouteAnswer> {
        mustBeClear(caller);
        const { signIns } = options;
        if (caller.problem !== undefined) {
          // This request also ends the access that the caller has.
          await signIns.get(caller);
          throw caller.problem;
        }
        // The Go server answers with the changed role but keeps the old one until a logout. Without this header,
        // clients warn about that.
        const { role, until, account, ...rest } = await signIns.signIn(caller);
        const headers = signIns.appliesRoles === true ? { 'Tka-Role': 'applied' } : {};
        const access = { role, until, ...(account !== undefined && { account }) };
        return { ...jsonAnswer(202, loginBody({ role, until, ...rest }), headers), access };
      },
      async GET({ caller, options, retryAfter }: Call): Promise<RouteAnswer> {
        mustBeClear(caller);
        const found = await options.signIns.get(caller);
        if (found === undefined) throw notSignedIn(401, caller);
        const { answer, provisioned } = found;
        return provisioned ? jsonAnswer(200, loginBody(answer)) : jsonAnswer(202, loginBody(answer), retryAfter);
      },
    },
    [`${apiPath}/kubeconfig`]: {
      async GET({ caller, request, options, signal, retryAfter }: Call): Promise<RouteAnswer> {
        mustBeClear(caller);
        const answer = await options.signIns.kubeconfig(caller, signal);
        if (answer === undefined) throw notSignedIn(401, caller);
        if (answer === 'pending') return { status: 202, headers: retryAfter };
        const access = accessOf(caller, answer);
        const chunked = { 'Transfer-Encoding': 'chunked', 'Cache-Control': 'no-store' };
        if (!yamlTypes.has(request.headers.accept ?? '')) return { ...jsonAnswer(200, answer, chunked), access };
        // kubectl reads YAML 1.1, where `no` and `on` must be quoted.
        const body = stringify(answer, { version: '1.1', sortMapEntries: true, lineWidth: 0 });
        return { status: 200, headers: { 'Content-Type': 'application/yaml', ...chunked }, body, access };
      },
    },
    [`${apiPath}/logout`]: {
      async POST({ caller, options }: Call): Promise<RouteAnswer> {
        const ended = await options.signIns.signOut(caller);
        if (ended === undefined) throw notSignedIn(404, caller);
        // The Go server cleans up later, and by name. It does not send this header, so its clients wait before they log
        // in again.
        const { answer, complete, accounts } = ended;
        const access = {
          role: answer.role,
          until: answer.until,
          ...(accounts !== undefined && { account: accounts.join(',') }),
        };
        return { ...jsonAnswer(200, loginBody(answer), complete ? { 'Tka-Logout': 'complete' } : {}), access };
      },
    },
    [`${apiPath}/cluster-info`]: {
      async GET(call: Call): Promise<RouteAnswer> {
        await mustHaveRole(call);
        return jsonAnswer(200, await call.options.clusterInfo(call.caller));
      },
    },
    [statusPath]: {
      async GET(call: Call): Promise<RouteAnswer> {
        await mayList(call);
        const { request, options } = call;
        const rows = options.members?.();
        if (rows === undefined) return notFound;
        return varied(wantsPage(request) ? memberlistPage(request, rows, Date.now()) : memberlistJson(rows));
      },
    },
  }),
);

type OpenRoute = (request: RequestHead, options: Served) => RouteAnswer;

const hasStatus = ({ members }: Served): boolean => members?.() !== undefined;

/** Routes for everybody. They reveal nothing about this server except whether it has gossip. */
export const openRoutes: ReadonlyMap<string, Methods<OpenRoute>> = new Map(
  Object.entries({
    '/': {
      // The Go server has no route here, so programs get its 404.
      GET(request: RequestHead, options: Served): RouteAnswer {
        if (!wantsPage(request)) return varied(notFound);
        return varied({ status: 302, headers: { Location: hasStatus(options) ? statusPath : documentPath } });
      },
    },
    [documentPath]: {
      GET(request: RequestHead, options: Served): RouteAnswer {
        return varied(wantsPage(request) ? openApiPage(request, hasStatus(options)) : jsonAnswer(200, openApi));
      },
    },
  }),
);
