// Invented objects for the API stand-in: as documents, as tables and in discovery.

/** The fields of a Kubernetes object that the stand-in reads. */
export interface KubeObject {
  readonly kind: string;
  readonly apiVersion: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly creationTimestamp: string;
    readonly [key: string]: unknown;
  };
  readonly spec: { readonly nodeName?: string; readonly [key: string]: unknown };
  readonly status: {
    readonly phase?: string;
    readonly podIP?: string;
    readonly addresses?: readonly { readonly type: string; readonly address: string }[];
    readonly nodeInfo?: { readonly kubeletVersion: string; readonly osImage: string };
    readonly [key: string]: unknown;
  };
}

/** A resource that the stand-in serves. Columns with priority 1 appear only with `-o wide`. */
export interface Resource {
  readonly name: string;
  readonly singular: string;
  readonly kind: string;
  readonly short: string;
  readonly namespaced: boolean;
  readonly columns: readonly {
    readonly name: string;
    readonly priority?: 1;
    readonly cell: (object: KubeObject) => string;
  }[];
}

const verbs = ['delete', 'get', 'list', 'watch'];
const age = { name: 'Age', cell: (o: KubeObject) => ageOf(o.metadata.creationTimestamp) };
const nameColumn = { name: 'Name', cell: (o: KubeObject) => o.metadata.name };

/** All resources with objects. */
export const resources: readonly Resource[] = [
  {
    name: 'namespaces',
    singular: 'namespace',
    kind: 'Namespace',
    short: 'ns',
    namespaced: false,
    columns: [nameColumn, { name: 'Status', cell: (o) => o.status.phase ?? '' }, age],
  },
  {
    name: 'nodes',
    singular: 'node',
    kind: 'Node',
    short: 'no',
    namespaced: false,
    columns: [
      nameColumn,
      { name: 'Status', cell: () => 'Ready' },
      { name: 'Roles', cell: (o) => (o.metadata.name.includes('control') ? 'control-plane' : '<none>') },
      age,
      { name: 'Version', cell: (o) => o.status.nodeInfo?.kubeletVersion ?? '' },
      { name: 'Internal-IP', priority: 1, cell: (o) => o.status.addresses?.[0]?.address ?? '' },
      { name: 'OS-Image', priority: 1, cell: (o) => o.status.nodeInfo?.osImage ?? '' },
    ],
  },
  {
    name: 'pods',
    singular: 'pod',
    kind: 'Pod',
    short: 'po',
    namespaced: true,
    columns: [
      nameColumn,
      { name: 'Ready', cell: () => '1/1' },
      { name: 'Status', cell: (o) => o.status.phase ?? '' },
      { name: 'Restarts', cell: () => '0' },
      age,
      { name: 'IP', priority: 1, cell: (o) => o.status.podIP ?? '' },
      { name: 'Node', priority: 1, cell: (o) => o.spec.nodeName ?? '' },
    ],
  },
];

/** Makes a few objects whose names contain the cluster's name. */
export function makeObjects(cluster: string): Map<string, KubeObject[]> {
  const created = (hours: number) => new Date(Date.now() - hours * 3_600_000).toISOString().replace(/\.\d+Z$/, 'Z');
  let serial = 0;
  const object = (kind: string, name: string, rest: Pick<KubeObject, 'spec' | 'status'>, meta: object): KubeObject => ({
    kind,
    apiVersion: 'v1',
    metadata: {
      name,
      uid: `00000000-0000-4000-8000-${String(++serial).padStart(12, '0')}`,
      resourceVersion: '1',
      creationTimestamp: created(24 * 30 - serial),
      ...meta,
    },
    ...rest,
  });
  const node = (name: string, index: number) =>
    object(
      'Node',
      `${cluster}-${name}`,
      {
        spec: {},
        status: {
          conditions: [{ type: 'Ready', status: 'True' }],
          addresses: [{ type: 'InternalIP', address: `10.0.0.${10 + index}` }],
          nodeInfo: { kubeletVersion: 'v1.35.0-tka-sandbox', osImage: 'TKA sandbox' },
        },
      },
      { labels: { 'kubernetes.io/hostname': `${cluster}-${name}` } },
    );
  const pod = (namespace: string, app: string, index: number) =>
    object(
      'Pod',
      `${app}-${cluster}-${index}`,
      {
        spec: { nodeName: `${cluster}-worker-1`, containers: [{ name: app, image: `example.com/${app}:1` }] },
        status: {
          phase: 'Running',
          podIP: `10.1.0.${10 + serial}`,
          conditions: [{ type: 'Ready', status: 'True' }],
          containerStatuses: [{ name: app, ready: true, restartCount: 0, state: { running: {} } }],
        },
      },
      { namespace, labels: { app } },
    );
  const namespaces = ['default', 'kube-public', 'kube-system', `shop-${cluster}`, 'tka-dev'].map((name) =>
    object(
      'Namespace',
      name,
      { spec: { finalizers: ['kubernetes'] }, status: { phase: 'Active' } },
      { labels: { 'kubernetes.io/metadata.name': name } },
    ),
  );
  return new Map([
    ['namespaces', namespaces],
    ['nodes', ['control-1', 'worker-1', 'worker-2'].map(node)],
    [
      'pods',
      [
        pod('default', 'hello', 1),
        pod('kube-system', 'coredns', 1),
        pod('kube-system', 'coredns', 2),
        pod(`shop-${cluster}`, 'web', 1),
        pod('tka-dev', 'tka-server', 1),
      ],
    ],
  ]);
}

/** Formats objects as the Table that kubectl asks for. */
export function tableOf(resource: Resource, found: readonly KubeObject[], version: string): object {
  return {
    kind: 'Table',
    apiVersion: `meta.k8s.io/${version}`,
    metadata: { resourceVersion: '1' },
    columnDefinitions: resource.columns.map(({ name, priority = 0 }) => ({
      name,
      type: 'string',
      format: name === 'Name' ? 'name' : '',
      description: '',
      priority,
    })),
    rows: found.map((object) => ({ cells: resource.columns.map(({ cell }) => cell(object)), object })),
  };
}

function ageOf(timestamp: string): string {
  const hours = Math.floor((Date.now() - Date.parse(timestamp)) / 3_600_000);
  return hours < 48 ? `${hours}h` : `${Math.floor(hours / 24)}d`;
}

const reviewOf = (kind: string) => ({
  name: `${kind.toLowerCase()}s`,
  singularName: kind.toLowerCase(),
  namespaced: false,
  kind,
  verbs: ['create'],
});

// Groups with their versions, the preferred version first. '' is the core group.
const groups: readonly { group: string; versions: readonly string[]; list: readonly object[] }[] = [
  {
    group: '',
    versions: ['v1'],
    list: resources.map(({ name, singular, namespaced, kind, short }) => ({
      name,
      singularName: singular,
      namespaced,
      kind,
      verbs,
      shortNames: [short],
    })),
  },
  { group: 'authentication.k8s.io', versions: ['v1', 'v1beta1'], list: [reviewOf('SelfSubjectReview')] },
  {
    group: 'authorization.k8s.io',
    versions: ['v1'],
    list: [reviewOf('SelfSubjectAccessReview'), reviewOf('SelfSubjectRulesReview')],
  },
];

/**
 * Answers a discovery path (/api, /apis and below, /openapi/v3). Returns undefined for other paths. There is no
 * aggregated discovery, so kubectl asks group by group.
 */
export function discovery(path: string): object | undefined {
  if (path === '/openapi/v3') return { paths: {} };
  if (path === '/api') return { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
  if (path === '/apis') {
    const named = groups.filter(({ group }) => group !== '').map(groupOf);
    return { kind: 'APIGroupList', apiVersion: 'v1', groups: named };
  }
  for (const { group, versions, list } of groups) {
    const root = group === '' ? '/api' : `/apis/${group}`;
    if (!versions.some((version) => path === `${root}/${version}`)) continue;
    const groupVersion = path.replace(/^\/apis?\//, '');
    return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources: list };
  }
  return undefined;
}

function groupOf({ group, versions }: (typeof groups)[number]) {
  const all = versions.map((version) => ({ groupVersion: `${group}/${version}`, version }));
  return { name: group, versions: all, preferredVersion: all[0] };
}
