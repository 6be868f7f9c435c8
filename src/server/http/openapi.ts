// The OpenAPI 3.1 description of the API. A test compares it with the routes and their answers.
import { apiPath } from '../../tka/types.ts';
import type { RouteAnswer } from './answers.ts';
import type { RequestHead } from './contract.ts';
import { documentPath, escaped, pageAnswer, statusPath } from './page.ts';

interface Response {
  readonly description: string;
  readonly headers?: object;
  readonly content?: object;
}
interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly object[];
  readonly responses: Readonly<Record<string, Response>>;
}

const schema = (name: string) => ({ schema: { $ref: `#/components/schemas/${name}` } });
const json = (name: string) => ({ 'application/json': schema(name) });
const text = (what: string) => ({ 'text/plain': { schema: { type: 'string', const: what } } });

const retryAfter = { 'Retry-After': { description: 'Seconds.', schema: { type: 'integer', minimum: 0 } } };
const requestId = {
  'X-Request-Id': { description: 'The ID of the request, also in the log of the server.', schema: { type: 'string' } },
};

const response = (description: string, content?: object, headers: object = {}): Response => ({
  description,
  headers: { ...requestId, ...headers },
  ...(content !== undefined && { content }),
});

const tooLarge = response('The request has a body, which the API does not accept.', json('Error'));

const tooMany = response(
  'Too many requests or connections. The answer comes after a second; retry after Retry-After.',
  json('Error'),
  retryAfter,
);

/** Returns an operation for callers that tailscaled identifies. */
const operation = (operationId: string, summary: string, responses: Readonly<Record<string, Response>>): Operation => ({
  operationId,
  summary,
  responses: {
    400: response(
      'A tagged device that `identity.allowTagged` does not allow, or a policy whose grants cannot be read.',
      json('Error'),
    ),
    403: response(
      'No grant, not a device of the tailnet, a request through Funnel, or a request from a web page of another site.',
      json('Error'),
    ),
    421: response(
      'The Host header is not a name of the server: a web page may have pointed its own name at the server.',
      json('Error'),
    ),
    413: tooLarge,
    429: tooMany,
    503: response(
      'tailscaled cannot identify the caller or is too busy, or the previous sign-in is still being deleted. Retry.',
      json('Error'),
      retryAfter,
    ),
    ...responses,
  },
});

/** Returns an operation for everybody. */
const open = (operationId: string, summary: string, responses: Readonly<Record<string, Response>>): Operation => ({
  operationId,
  summary,
  responses: { ...responses, 413: tooLarge, 429: tooMany },
});

const page = { 'text/html': { schema: { type: 'string' } } };
const unchanged = response('The page has not changed: If-None-Match is its ETag.');

const failed = (headers: object = {}) => response('An error in the cluster; see the body.', json('Error'), headers);

const policy = response(
  'The tailnet policy is invalid for this cluster, or an object in the cluster blocks the sign-in; see the body.',
  json('Error'),
);
const logoutComplete = {
  'Tka-Logout': {
    description:
      '`complete`: the account is deleted too, and the next login is safe at once. Absent: wait 1.5 s before the next login.',
    schema: { const: 'complete' },
  },
};

const roleApplied = {
  'Tka-Role': {
    description:
      '`applied`: the role of the answer is in force. Absent: an earlier sign-in may keep its role until a logout.',
    schema: { const: 'applied' },
  },
};

const notSignedIn = (headers: object = {}) =>
  response(
    'Not signed in, or the policy now grants this device less than at sign-in. Sign in again.',
    json('Error'),
    headers,
  );

const paths: Readonly<Record<string, Readonly<Record<string, Operation>>>> = {
  [`${apiPath}/login`]: {
    post: operation('login', 'Sign in, or extend the sign-in', {
      202: response('Signed in; the kubeconfig may take a moment.', json('Login'), roleApplied),
      422: response(
        'The tailnet policy is invalid for this cluster: the role does not exist, or the period is invalid or under 10 minutes. Or an object in the cluster blocks the sign-in.',
        json('Error'),
      ),
      500: failed(),
    }),
    get: operation('getLogin', 'The current sign-in and its end', {
      200: response('Signed in, and access is provisioned.', json('Login')),
      202: response('Signed in, but access is not provisioned yet.', json('Login'), retryAfter),
      401: notSignedIn(),
      422: policy,
      500: failed(),
    }),
  },
  [`${apiPath}/kubeconfig`]: {
    get: operation('getKubeconfig', 'A new token for the cluster, as a kubeconfig whose lists are maps by name', {
      200: response('JSON, or YAML if the Accept header is exactly a YAML type.', {
        ...json('Kubeconfig'),
        'application/yaml': schema('Kubeconfig'),
      }),
      202: response('Access is not provisioned yet. Empty body.', undefined, retryAfter),
      401: notSignedIn(retryAfter),
      422: policy,
      500: failed(retryAfter),
    }),
  },
  [`${apiPath}/logout`]: {
    post: operation('logout', 'Sign out on all devices', {
      200: response('The sign-in that was ended.', json('Login'), logoutComplete),
      404: response('Not signed in.', json('Error')),
      500: failed(),
    }),
  },
  [`${apiPath}/cluster-info`]: {
    get: operation('getClusterInfo', 'How to reach the cluster', {
      200: response('The cluster.', json('ClusterInfo')),
      500: failed(),
    }),
  },
  [statusPath]: {
    get: {
      ...operation('getMemberlist', 'The servers of the mesh', {
        200: response('All members, including this one; a page if the Accept header prefers text/html.', {
          ...json('Memberlist'),
          ...page,
        }),
        304: unchanged,
        404: response('A server without gossip.', text('404 page not found')),
      }),
      parameters: [
        {
          name: 'q',
          in: 'query',
          description:
            'For the page: only show clusters with all of these words in a name, URL, state, version or label.',
          schema: { type: 'string' },
        },
      ],
    },
  },
  '/': {
    get: open('getStart', 'Redirect to the status page', {
      302: response('For browsers: the status page, or this document on a server without gossip.', undefined, {
        Location: { description: 'A path.', schema: { enum: [statusPath, documentPath] } },
      }),
      404: response('For programs.', text('404 page not found')),
    }),
  },
  [documentPath]: {
    get: open('getOpenApi', 'This document', {
      200: response('A page if the Accept header prefers text/html.', {
        'application/json': { schema: { type: 'object' } },
        ...page,
      }),
      304: unchanged,
    }),
  },
};

/** Further errors of a joined cluster, by status. */
const joinedErrors = {
  403: response('The policy grants nothing in this cluster.', json('Error')),
  404: response('No cluster of this name has joined.', json('Error')),
  409: response('The name or the API server of the cluster belongs to another cluster as well.', json('Error')),
  422: response('The sign-ins of this cluster are suspended.', json('Error')),
  502: response('The cluster gave an answer that is not used: see the body.', json('Error')),
  503: response(
    'The cluster has no tunnel to this replica of the login server, or does not answer. Retry, or ask another replica.',
    json('Error'),
    retryAfter,
  ),
};

const joinedPrefix = '/clusters/{cluster}';

const string = { type: 'string' };
const strings = { type: 'object', additionalProperties: string };
const object = (properties: Readonly<Record<string, object>>, required = Object.keys(properties)) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});
const mapOf = (value: object) => ({ type: 'object', additionalProperties: value });

export const openApi = {
  openapi: '3.1.0',
  info: {
    title: 'TKA: Tailscale Kubernetes Auth',
    version: 'v1alpha1',
    description:
      'Short-lived access to a Kubernetes cluster for the users of a tailnet. Clients send no credentials: tailscaled identifies the caller, and the tailnet policy grants the role.',
    license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
  },
  servers: [
    { url: '/' },
    {
      url: joinedPrefix,
      description: `A cluster that has joined this login server. Only the calls of ${apiPath} exist. Their further errors are in components.responses.`,
      variables: { cluster: { default: 'NAME', description: 'The name of the joined cluster.' } },
    },
  ],
  security: [],
  paths,
  components: {
    responses: Object.fromEntries(
      Object.entries(joinedErrors).map(([status, error]) => [`joined-${status}`, error] as const),
    ),
    schemas: {
      Error: object(
        {
          message: string,
          advice: { type: 'array', items: string },
          cause: { $ref: '#/components/schemas/Error' },
          capability: { type: 'string', description: 'The capability that the caller lacks, if there is no grant.' },
          cluster: {
            type: 'string',
            description: 'The joined cluster in which there is no grant. Absent for the cluster of the server itself.',
          },
          login: { type: 'string', description: 'The login of the caller without a grant.' },
          tags: {
            type: 'array',
            items: string,
            description: 'The tags of a calling device without a grant, which has no login.',
          },
        },
        ['message'],
      ),
      Login: object(
        {
          username: string,
          role: string,
          until: { type: 'string', format: 'date-time' },
          node: {
            type: 'string',
            description: 'The name of a tagged device, whose `username` is its ID in the tailnet.',
          },
        },
        ['username', 'role', 'until'],
      ),
      Kubeconfig: object({
        kind: { const: 'Config' },
        apiVersion: { const: 'v1' },
        clusters: mapOf(
          object(
            {
              server: { type: 'string', format: 'uri' },
              'certificate-authority-data': { type: 'string', contentEncoding: 'base64' },
              'insecure-skip-tls-verify': { type: 'boolean' },
            },
            ['server'],
          ),
        ),
        users: mapOf(object({ token: string })),
        contexts: mapOf(object({ cluster: string, user: string })),
        'current-context': string,
      }),
      ClusterInfo: object(
        {
          server_url: { type: 'string', format: 'uri' },
          insecure_skip_tls_verify: { type: 'boolean' },
          ca_data: { type: 'string', contentEncoding: 'base64', description: 'PEM; may be empty.' },
          labels: strings,
          cluster: { ...string, description: 'The name of the cluster.' },
          sign_in_store: {
            ...string,
            description:
              'Where the sign-ins are stored: `UID of the namespace kube-system/namespace`. Servers with the same value serve the same sign-ins. Absent while the server cannot read the UID.',
          },
        },
        ['server_url', 'insecure_skip_tls_verify', 'ca_data', 'labels'],
      ),
      Memberlist: {
        type: 'array',
        items: object(
          {
            apiEndpoint: { type: 'string', format: 'uri', description: 'URL of the Kubernetes API server.' },
            apiPort: { type: 'integer', description: 'Port of the TKA server.' },
            labels: { ...strings, type: ['object', 'null'] },
            name: { ...string, description: 'Name of the server.' },
            cluster: { ...string, description: 'Name of its cluster. Absent for servers of version 0.1.0.' },
            server: {
              type: 'string',
              format: 'uri',
              description: 'URL of the TKA server. That of a joined cluster ends in `/clusters/NAME`.',
            },
            state: { enum: ['healthy', 'suspected', 'dead'] },
            lastSeen: { type: 'string', format: 'date-time' },
            version: string,
            through: {
              ...string,
              description: 'Of a joined cluster: the name of the cluster of its login server. Absent otherwise.',
            },
            direct: {
              type: 'boolean',
              description: 'True if a server of this joined cluster is in the mesh as well. Absent otherwise.',
            },
          },
          ['apiEndpoint', 'apiPort', 'labels'],
        ),
      },
    },
  },
};

interface Call {
  readonly method: string;
  readonly path: string;
  readonly operation: Operation;
}

const calls: readonly Call[] = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
);

/** Errors that several calls share, with those calls. The page lists each error once. */
const errors = [
  ...Map.groupBy(
    calls.flatMap((call) =>
      Object.entries(call.operation.responses)
        .filter(([status]) => Number(status) >= 400)
        .map(([status, { description }]) => ({ status, description, call })),
    ),
    ({ status, description }) => `${status} ${description}`,
  ).values(),
]
  .filter((uses) => uses.length > 1)
  .map((uses) => {
    const [{ status, description }] = uses as [(typeof uses)[number]];
    return { status, description, calls: new Set(uses.map(({ call }) => call)) };
  })
  .sort((a, b) => Number(a.status) - Number(b.status));

const isApi = ({ path }: Call): boolean => path.startsWith(apiPath);
const apiCalls = calls.filter(isApi);

/** Returns the description as a page for a browser. */
export function openApiPage(request: RequestHead, hasStatus: boolean): RouteAnswer {
  const { title, description, version } = openApi.info;
  const body = `<h1>${escaped(title)}</h1>
<p>Version ${version}. ${escaped(description)}</p>
<p class="dim">This page as an OpenAPI document: <code>curl</code> this address.</p>
<section aria-labelledby="calls">
<h2 id="calls">Calls</h2>
${calls.map(callMarkup).join('\n')}
</section>
<section aria-labelledby="errors">
<h2 id="errors">Errors of several calls</h2>
<p>The body is an <a href="#Error">Error</a>.</p>
<dl class="codes">
${errors.map(errorMarkup).join('\n')}
</dl>
</section>
<section aria-labelledby="joined">
<h2 id="joined">Joined clusters</h2>
<p>On a login server, every call of <code>${escaped(apiPath)}</code> also exists under <code>${escaped(joinedPrefix)}</code>, for the cluster of this name. Further errors there:</p>
<dl class="codes">
${Object.entries(joinedErrors)
  .map(([status, { description }]) => `<dt>${status}</dt><dd>${escaped(description)}</dd>`)
  .join('\n')}
</dl>
</section>
<section aria-labelledby="schemas">
<h2 id="schemas">Bodies</h2>
${Object.entries(openApi.components.schemas)
  .map(([name, each]) => schemaMarkup(name, each))
  .join('\n')}
</section>`;
  return pageAnswer(request, { title, path: documentPath, hasStatus, body: () => body, content: body });
}

const idOf = ({ status }: { readonly status: string }): string => `error-${status}`;

function callMarkup(call: Call): string {
  const { method, path, operation } = call;
  const shared = errors.filter((error) => error.calls.has(call));
  const own = Object.entries(operation.responses).filter(
    ([status, { description }]) =>
      !shared.some((error) => error.status === status && error.description === description),
  );
  const answers = own.map(
    ([status, { description, content = {} }]) =>
      `<dt>${status}</dt><dd>${escaped(description)}${bodiesOf(content)}</dd>`,
  );
  // Omit the errors that all API calls share.
  const some = shared.filter((error) => !isApi(call) || !apiCalls.every((each) => error.calls.has(each)));
  const links = some.map((error) => `<a href="#${idOf(error)}">${error.status}</a>`);
  const also = [...(isApi(call) ? ['<a href="#errors">the errors of every call</a>'] : []), ...links];
  return `<div class="call">
<h3><code>${method} ${escaped(path)}</code></h3>
<p>${escaped(operation.summary)}.</p>
<dl class="codes">${answers.join('')}<dt>Also</dt><dd>${also.join(', ')}</dd></dl>
</div>`;
}

/** Returns the media types of an answer, with their content. */
function bodiesOf(content: object): string {
  const bodies = Object.entries(content).map(
    ([
      type,
      {
        schema: { $ref = '' },
      },
    ]) => {
      const name = String($ref).split('/').pop() ?? '';
      return `<code>${type}</code>${name === '' ? '' : ` <a href="#${name}">${name}</a>`}`;
    },
  );
  return bodies.length === 0 ? '' : ` <span class="dim">${bodies.join(', ')}</span>`;
}

function errorMarkup({ status, description, calls: users }: (typeof errors)[number]): string {
  const every = apiCalls.every((call) => users.has(call));
  const others = [...users].filter((call) => !every || !isApi(call)).map(({ method, path }) => `${method} ${path}`);
  const who = [...(every ? [`every call of ${apiPath}`] : []), ...others].join(', ');
  return `<dt id="${idOf({ status })}">${status}</dt><dd>${escaped(description)} <span class="dim">${escaped(who)}</span></dd>`;
}

function schemaMarkup(name: string, each: object): string {
  const { items = each } = each as { readonly items?: object };
  const { properties = {}, required = [] } = items as {
    readonly properties?: Readonly<Record<string, object>>;
    readonly required?: readonly string[];
  };
  const fields = Object.entries(properties).map(([field, value]) => {
    const { description = '' } = value as { readonly description?: string };
    const optional = required.includes(field) ? '' : ', may be absent';
    const words = escaped(description).replace(/`([^`]+)`/g, '<code>$1</code>');
    const kind = `<span class="dim">${typeOf(value)}${optional}${words === '' ? '' : ':'}</span>`;
    return `<dt><code>${escaped(field)}</code></dt><dd>${kind} ${words}</dd>`;
  });
  return `<div class="call" id="${name}">
<h3>${name}${items === each ? '' : ', a list of'}</h3>
<dl>
${fields.join('\n')}
</dl>
</div>`;
}

/** Returns the type of a value in words: `text, date-time`. */
function typeOf(value: object): string {
  const {
    type,
    format,
    enum: values,
    const: only,
    items,
    $ref,
    additionalProperties,
  } = value as Record<string, unknown>;
  if (typeof $ref === 'string') return escaped($ref.split('/').pop() ?? '');
  if (only !== undefined) return `<code>${escaped(JSON.stringify(only))}</code>`;
  if (Array.isArray(values)) return values.map((each) => `<code>${escaped(JSON.stringify(each))}</code>`).join(' or ');
  if (items !== undefined) return `list of ${typeOf(items as object)}`;
  const name = typeof additionalProperties === 'object' ? 'map by name' : [type].flat().join(' or ');
  return escaped(typeof format === 'string' ? `${name}, ${format}` : name);
}
