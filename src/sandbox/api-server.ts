// A STAND-IN for the Kubernetes API: TLS, bearer tokens, a little RBAC, and a few invented objects. It is enough for
// kubectl's get, delete, auth and version. It is not Kubernetes, and says so in `kubectl version` and in a header.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { discovery, type KubeObject, makeObjects, type Resource, resources, tableOf } from './api-objects.ts';
import type { Certificates } from './certificates.ts';
import { type ReviewSpec, readAccessReview } from './protobuf.ts';
import type { TokenUser } from './sign-ins.ts';

const readVerbs = ['get', 'list', 'watch'];
const allVerbs = [...readVerbs, 'create', 'update', 'patch', 'delete', 'deletecollection'];
const verbsOfRole = new Map([
  ['viewer', readVerbs],
  ['view', readVerbs],
  ['cluster-admin', allVerbs],
]);
const bodyLimit = 1 << 20;

const version = {
  major: '1',
  minor: '35',
  gitVersion: 'v1.35.0-tka-sandbox',
  gitCommit: '0000000000000000000000000000000000000000',
  gitTreeState: 'clean',
  buildDate: '2026-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'none',
  platform: 'sandbox/loopback',
};

/** A refusal. It is sent as a Status document, like those of a kube-apiserver. */
class Failure extends Error {
  readonly code: number;
  readonly reason: string;
  readonly details: Readonly<Record<string, string>> | undefined;

  constructor(code: number, reason: string, message: string, details?: Readonly<Record<string, string>>) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.details = details;
  }
}

export interface ApiOptions {
  /** The cluster's name, which is also part of its objects' names. */
  readonly name: string;
  readonly certificates: Certificates;
  /** Returns the user of a token, or undefined for a 401. */
  readonly authenticate: (token: string) => TokenUser | undefined;
}

/** Makes the stand-in's TLS server, and the handler for its requests. */
export function createApiServer(options: ApiOptions): { readonly server: Server; readonly handler: RequestListener } {
  const { key, cert } = options.certificates;
  const server = createServer({ key, cert, keepAliveTimeout: 60_000 });
  // Ignore failed handshakes, such as those of a client with another CA.
  server.on('tlsClientError', () => {});
  return { server, handler: apiHandler(options) };
}

function apiHandler({ name, authenticate }: ApiOptions): RequestListener {
  const objects = makeObjects(name);
  return (request, response) => {
    response.setHeader('X-TKA-Sandbox', 'stand-in for a Kubernetes API server');
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) return void response.destroy();
      const failure = error instanceof Failure ? error : new Failure(500, 'InternalError', 'internal error');
      const { code, reason, details } = failure;
      const status = { status: 'Failure', message: failure.message, reason, ...(details && { details }), code };
      send(response, code, { kind: 'Status', apiVersion: 'v1', metadata: {}, ...status });
    });
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const token = /^bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const user = token === undefined ? undefined : authenticate(token);
    if (user === undefined) throw new Failure(401, 'Unauthorized', 'Unauthorized');

    const url = new URL(request.url ?? '/', 'https://sandbox');
    const path = url.pathname.replace(/(.)\/+$/, '$1');
    if (request.method === 'GET') {
      if (path === '/version') return send(response, 200, version);
      if (['/healthz', '/livez', '/readyz'].includes(path)) return void response.end('ok');
      const found = discovery(path);
      if (found !== undefined) return send(response, 200, found);
    }
    const review = /^\/apis\/(authentication|authorization)\.k8s\.io\/(v1|v1beta1)\/(selfsubject(\w*)reviews)$/.exec(
      path,
    );
    if (review !== null && request.method === 'POST') {
      const [, group, groupVersion, name = '', subject] = review;
      const body = await readBody(request);
      // The other reviews have no spec to read: they are about the caller.
      const status = reviewStatus(name, user, subject === 'access' ? specOf(request, body) : {});
      if (status === undefined) throw notFound();
      const kind = `SelfSubject${{ access: 'Access', rules: 'Rules' }[subject ?? ''] ?? ''}Review`;
      const apiVersion = `${group}.k8s.io/${groupVersion}`;
      return send(response, 201, { kind, apiVersion, metadata: { creationTimestamp: null }, spec: {}, status });
    }
    return objectAnswer(request, response, url, path, user);
  }

  function objectAnswer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    path: string,
    user: TokenUser,
  ): void {
    const target = targetOf(path);
    const resource = resources.find((r) => r.name === target?.resource);
    if (target === undefined || resource === undefined) throw notFound();
    const query = url.searchParams;
    const watch = query.get('watch') === 'true' || query.get('watch') === '1';
    const verb = verbOf(request.method ?? '', target.name !== undefined, watch);
    authorize(user, verb, resource, target);
    const all = objects.get(resource.name) ?? [];
    const matching = all.filter(
      (o) => (target.namespace === undefined || o.metadata.namespace === target.namespace) && selected(o, query),
    );
    const accept = request.headers.accept ?? '';
    if (verb === 'watch' || verb === 'list') {
      if (verb === 'watch') openWatch(response);
      else send(response, 200, present(resource, matching, accept, true));
      return;
    }
    const one = matching.find((o) => o.metadata.name === target.name);
    if (verb !== 'get' && verb !== 'delete') {
      throw new Failure(405, 'MethodNotAllowed', 'the sandbox only reads and deletes');
    }
    if (one === undefined) {
      const details = { name: target.name ?? '', kind: resource.name };
      throw new Failure(404, 'NotFound', `${resource.name} "${target.name}" not found`, details);
    }
    if (verb === 'delete') all.splice(all.indexOf(one), 1);
    send(response, 200, present(resource, [one], accept, false));
  }
}

interface Target {
  readonly namespace: string | undefined;
  readonly resource: string;
  readonly name: string | undefined;
}

function targetOf(path: string): Target | undefined {
  const parts = path.split('/').slice(1).map(decodeURIComponent);
  if (parts[0] !== 'api' || parts[1] !== 'v1' || parts.length < 3) return undefined;
  const rest = parts.slice(2);
  // `namespaces/X` alone is the namespace object.
  const namespace = rest[0] === 'namespaces' && rest.length > 2 ? rest[1] : undefined;
  const [resource, name, ...more] = namespace === undefined ? rest : rest.slice(2);
  return resource === undefined || more.length > 0 ? undefined : { namespace, resource, name };
}

function verbOf(method: string, named: boolean, watch: boolean): string {
  if (method === 'GET') return named ? 'get' : watch ? 'watch' : 'list';
  if (method === 'DELETE') return named ? 'delete' : 'deletecollection';
  const verb = { POST: 'create', PUT: 'update', PATCH: 'patch' }[method];
  if (verb === undefined) throw new Failure(405, 'MethodNotAllowed', `method ${method} is not allowed`);
  return verb;
}

const verbsOf = ({ role }: TokenUser): readonly string[] => verbsOfRole.get(role) ?? [];

function authorize(user: TokenUser, verb: string, resource: Resource, { namespace, name }: Target): void {
  if (verbsOf(user).includes(verb)) return;
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const what = name === undefined ? resource.name : `${resource.name} "${name}"`;
  throw new Failure(
    403,
    'Forbidden',
    `${what} is forbidden: User "${user.username}" cannot ${verb} resource "${resource.name}" in API group "" ${scope}`,
    { ...(name === undefined ? {} : { name }), kind: resource.name },
  );
}

function reviewStatus(kind: string, user: TokenUser, spec: ReviewSpec): object | undefined {
  const verbs = verbsOf(user);
  if (kind === 'selfsubjectreviews') {
    const groups = ['system:serviceaccounts', 'system:serviceaccounts:tka-dev', 'system:authenticated'];
    return { userInfo: { username: user.username, uid: user.uid, groups } };
  }
  if (kind === 'selfsubjectaccessreviews') {
    const { resourceAttributes: r, nonResourceAttributes: n } = spec;
    const verb = r?.verb ?? n?.verb ?? '';
    const reviews = ['authentication.k8s.io', 'authorization.k8s.io'].includes(r?.group ?? '') && verb === 'create';
    const allowed = reviews || (n !== undefined && verb === 'get') || verbs.includes(verb);
    const all = verb === '*' && user.role === 'cluster-admin';
    return allowed || all ? { allowed: true, reason: `RBAC: allowed by role "${user.role}"` } : { allowed: false };
  }
  if (kind === 'selfsubjectrulesreviews') {
    const own = [
      { verbs: ['create'], apiGroups: ['authentication.k8s.io'], resources: ['selfsubjectreviews'] },
      {
        verbs: ['create'],
        apiGroups: ['authorization.k8s.io'],
        resources: ['selfsubjectaccessreviews', 'selfsubjectrulesreviews'],
      },
    ];
    const granted = user.role === 'cluster-admin' ? ['*'] : verbs;
    const bound = granted.length === 0 ? [] : [{ verbs: granted, apiGroups: ['*'], resources: ['*'] }];
    return {
      resourceRules: [...bound, ...own],
      nonResourceRules: [{ verbs: ['get'], nonResourceURLs: ['/api', '/api/*', '/apis', '/apis/*', '/version'] }],
      incomplete: false,
    };
  }
  return undefined;
}

/** Evaluates `metadata.name=x` and `key=value` selectors. Other selectors never select too much. */
function selected(object: KubeObject, query: URLSearchParams): boolean {
  const terms = (text: string | null) => (text ?? '').split(',').filter((term) => term !== '');
  const { labels = {}, name, namespace } = object.metadata;
  const fields: Record<string, string | undefined> = { 'metadata.name': name, 'metadata.namespace': namespace };
  const holds = (values: Readonly<Record<string, string | undefined>>) => (term: string) => {
    const [, key = '', not = '', value] = /^([^=!]+)(?:(!?)={1,2}(.*))?$/.exec(term) ?? [];
    if (value === undefined) return Object.hasOwn(values, key);
    return (values[key] === value) !== (not === '!');
  };
  return (
    terms(query.get('fieldSelector')).every(holds(fields)) && terms(query.get('labelSelector')).every(holds(labels))
  );
}

function present(resource: Resource, found: readonly KubeObject[], accept: string, list: boolean): unknown {
  const table = /as=Table;v=(v1|v1beta1)/.exec(accept);
  if (table !== null) return tableOf(resource, found, table[1] as string);
  if (!list) return found[0];
  return { kind: `${resource.kind}List`, apiVersion: 'v1', metadata: { resourceVersion: '1' }, items: found };
}

/** Keeps a watch open without events: objects never change, and deletions are not reported. */
function openWatch(response: ServerResponse): void {
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.flushHeaders();
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > bodyLimit) throw new Failure(413, 'RequestEntityTooLarge', 'request entity too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function specOf(request: IncomingMessage, body: Buffer): ReviewSpec {
  try {
    if (request.headers['content-type'] === 'application/vnd.kubernetes.protobuf') return readAccessReview(body);
    return JSON.parse(body.toString()).spec ?? {};
  } catch {
    throw new Failure(400, 'BadRequest', 'the sandbox cannot read this review');
  }
}

const notFound = () => new Failure(404, 'NotFound', 'the server could not find the requested resource');

function send(response: ServerResponse, code: number, body: unknown): void {
  response.statusCode = code;
  response.setHeader('Content-Type', 'application/json');
  response.end(`${JSON.stringify(body)}\n`);
}
