// The Helm chart: it renders the same as kustomize, accepts the values of the guides, and a real API server accepts it.
import * as fs from 'node:fs';
import { createServer } from 'node:http';
import * as path from 'node:path';
import type { KubernetesObject, V1Container, V1Pod, V1PodSpec } from '@kubernetes/client-node';
import { Registry } from 'prom-client';
import { test as base, beforeAll, describe, expect } from 'vitest';
import { parse, stringify } from 'yaml';
import { clusterNameOf, loadConfig } from '../../src/server/config/config.ts';
import { close, listen } from '../../src/server/http/listen.ts';
import { createHealth } from '../../src/server/telemetry/health.ts';
import { misfits } from '../deploy/consistency.ts';
import { allOf, configIn, deploy, only, overlay, render } from '../deploy/render.ts';
import { unrestricted } from '../deploy/restricted.ts';
import { start } from '../fixtures/program.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { as, ownCluster } from './deployed.ts';
import { chart, Helm, objectsIn, type Values } from './helm.ts';
import { makeFolder } from './processes.ts';
import { absent, kubectl, until } from './support.ts';

interface Fixtures {
  readonly cluster: Awaited<ReturnType<typeof ownCluster>>;
}

const test = base.extend<{ $file: Fixtures }>({
  cluster: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the parameter's shape
    async ({}, use) => {
      await using own = await ownCluster('127.0.0.17');
      await own.kube.create('/api/v1/namespaces', {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'tka-system', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
      });
      for (const kind of ['ServiceMonitor', 'PrometheusRule']) await own.kube.create(crds, operatorKind(kind));
      await use(own);
    },
    { scope: 'file' },
  ],
});

const endpoint = 'https://join.example.com';
const crds = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const guided = (hostname: string, labels: object, gossip: object) => ({
  tka: {
    tailscale: { hostname, tailnet: 'your-tailnet.ts.net' },
    gossip: { enabled: true, port: 7946, ...gossip },
    clusterInfo: { apiEndpoint: `https://api.${hostname}.example.com:6443`, labels },
  },
});

/** Values that users may set. The first two are those of the guide to several clusters. */
const valueSets: readonly (readonly [string, Values])[] = [
  ['the guide’s first cluster', guided('tka-prod-us', { environment: 'production', region: 'us-west-2' }, {})],
  [
    'the guide’s second cluster',
    guided('tka-prod-eu', { region: 'eu-west-1' }, { bootstrapPeers: ['tka-prod-us.your-tailnet.ts.net:7946'] }),
  ],
  ['nothing', {}],
  [
    'the production guide’s configuration',
    {
      tka: {
        tailscale: { hostname: 'tka', port: 443, tailnet: 'your-tailnet.ts.net', capName: 'specht-labs.de/cap/tka' },
        server: { readTimeout: '30s', readHeaderTimeout: '10s', writeTimeout: '60s', idleTimeout: '300s' },
        operator: {
          namespace: 'tka-system',
          clusterName: 'prod-login-cluster',
          contextPrefix: 'tka-',
          userPrefix: 'tka-user-',
        },
        otel: { endpoint: 'jaeger-collector.monitoring.svc.cluster.local:14250', insecure: false },
      },
    },
  ],
  [
    'an image by digest from a private registry',
    {
      image: { repository: 'registry.example.com/tka', digest: `sha256:${'a'.repeat(64)}`, pullPolicy: 'Always' },
      imagePullSecrets: [{ name: 'registry' }],
    },
  ],
  ['an OAuth client', { tailscale: { auth: { existingSecret: 'oauth', key: 'secret', oauth: true, tag: 'tag:k8s' } } }],
  ['gossip keys', { tka: { gossip: { enabled: true } }, gossipKeys: { existingSecret: 'mesh', key: 'keys' } }],
  [
    'monitoring',
    {
      monitoring: {
        enabled: true,
        namespace: 'observability',
        labels: { release: 'prometheus' },
        dashboard: { labels: { dashboards: 'mine' } },
      },
    },
  ],
  ['monitoring without a dashboard', { monitoring: { enabled: true, dashboard: { enabled: false } } }],
  [
    'another port of the API server, more egress',
    {
      networkPolicy: {
        apiServerPorts: [16443, 8443],
        extraEgress: [{ to: [{ ipBlock: { cidr: '192.0.2.0/24' } }], ports: [{ protocol: 'TCP', port: 3128 }] }],
      },
    },
  ],
  [
    'three replicas on chosen nodes',
    {
      replicas: 3,
      roles: ['view', 'edit', 'cluster-admin'],
      resources: { requests: { cpu: '1', memory: '1Gi' }, limits: { memory: '1Gi' } },
      nodeSelector: { 'kubernetes.io/os': 'linux' },
      tolerations: [{ operator: 'Exists' }],
      affinity: { nodeAffinity: {} },
      priorityClassName: 'system-cluster-critical',
      podAnnotations: { 'example.com/team': 'platform' },
      podLabels: { team: 'platform' },
    },
  ],
  [
    'a login server',
    {
      tka: { federation: { endpoint: 'https://join.example.com', capName: 'example.com/cap/joined' } },
      federation: {
        loginServer: {
          enabled: true,
          certificateSecret: 'join-certificate',
          service: {
            type: 'NodePort',
            port: 8443,
            annotations: { 'example.com/pool': 'public' },
            spec: { externalTrafficPolicy: 'Local' },
          },
        },
      },
    },
  ],
  [
    'a joined cluster without Tailscale',
    {
      tka: {
        tailscale: { hostname: 'tka-edge' },
        federation: { loginServer: 'https://join.example.com:8443', roles: ['view'], maxPeriod: '4h' },
      },
      tailscale: { enabled: false },
      federation: { joinedCluster: { enabled: true, caConfigMap: 'corporate-ca' } },
      extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://proxy.example.com:3128' }],
      networkPolicy: { extraEgress: [{ ports: [{ protocol: 'TCP', port: 3128 }] }] },
    },
  ],
  ['no policies', { networkPolicy: { enabled: false }, admissionPolicy: { enabled: false } }],
];

const podOf = (objects: readonly KubernetesObject[]): V1PodSpec => {
  const { spec } = only(objects, 'StatefulSet').spec?.template ?? {};
  if (spec === undefined) throw new Error('no pod');
  return spec;
};
const variable = ({ env = [] }: V1Container, name: string) => env.find((one) => one.name === name);
const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'tka-system' } };

describe.skipIf(absent !== undefined)('the chart', () => {
  let helm: Helm;
  // Helm may have to be built.
  beforeAll(async () => {
    helm = await Helm.find();
  }, 1_200_000);

  test('renders the same as kustomize', async () => {
    const values = { monitoring: { enabled: true } };
    const expected = render(overlay(testFolder(), { components: ['monitoring'] }));
    expect(byName(await helm.render(values))).toEqual(byName(expected));
  });

  test.for<[string, Values, readonly string[]]>([
    [
      'a login server',
      { federation: { loginServer: { enabled: true } }, tka: { federation: { endpoint } } },
      ['login-server'],
    ],
    [
      'a joined cluster without Tailscale',
      { federation: { joinedCluster: { enabled: true } }, tailscale: { enabled: false } },
      ['joined-cluster', 'without-tailscale'],
    ],
    [
      'both sides',
      {
        federation: { loginServer: { enabled: true }, joinedCluster: { enabled: true } },
        tka: { federation: { endpoint } },
      },
      ['login-server', 'joined-cluster'],
    ],
  ])('renders the same as kustomize: %s', async ([, values, components]) => {
    const expected = render(
      overlay(testFolder(), {
        resources: ['federation'],
        components: components.map((name) => `federation/${name}`),
      }),
    );
    const namespace = (objects: readonly KubernetesObject[]) =>
      objects.filter(({ kind, metadata }) => kind === 'Namespace' && metadata?.name === 'tka-federation');
    const made = await helm.render(values);
    expect(byName(made)).toEqual(byName(expected));
    expect(namespace(made)).toEqual(namespace(expected));
  });

  test.for(valueSets)('is consistent with %s, and the configuration is valid', async ([, values]) => {
    const objects = await helm.render(values);
    expect(misfits([namespace, ...objects]).filter((problem) => !/Secret|corporate-ca/.test(problem))).toEqual([]);
    expect(unrestricted(podOf(objects))).toEqual([]);
    const file = path.join(makeFolder(), 'config.yaml');
    fs.writeFileSync(file, configIn(objects));
    const set = only(objects, 'StatefulSet');
    const config = await loadConfig(file, { TKA_TAILSCALE_HOSTNAME: set.metadata?.name ?? '' });
    expect(config.get('tailscale.hostname')).toBe(set.metadata?.name);
    expect(set.metadata?.name).toBe(tkaOf(values).tailscale?.hostname ?? 'tka');
    expect(clusterNameOf(config)).toBe(tkaOf(values).operator?.clusterName ?? set.metadata?.name);
  });

  test('puts values in their places', async () => {
    const valuesOf = (name: string) => valueSets.find(([each]) => each === name)?.[1] ?? {};
    const of = async (name: string) => {
      const objects = await helm.render(valuesOf(name));
      const { initContainers, containers, ...pod } = podOf(objects);
      const [tailscale, server] = [initContainers?.[0], containers[0]];
      if (tailscale === undefined || server === undefined) throw new Error('no containers');
      return { objects, pod, tailscale, server };
    };
    const oauth = (await of('an OAuth client')).tailscale;
    expect(variable(oauth, 'TS_OAUTH_SECRET')?.valueFrom).toEqual({ secretKeyRef: { name: 'oauth', key: 'secret' } });
    expect(variable(oauth, 'TS_AUTHKEY')?.value).toBe('$(TS_OAUTH_SECRET)?ephemeral=false&preauthorized=true');
    expect(variable(oauth, 'TS_EXTRA_ARGS')?.value).toBe('--advertise-tags=tag:k8s');
    const mesh = (await of('gossip keys')).server;
    expect(variable(mesh, 'TKA_GOSSIP_KEY')?.valueFrom).toEqual({ secretKeyRef: { name: 'mesh', key: 'keys' } });
    const digest = await of('an image by digest from a private registry');
    expect(digest.server.image).toBe(`registry.example.com/tka@sha256:${'a'.repeat(64)}`);
    expect(digest.pod.imagePullSecrets).toEqual([{ name: 'registry' }]);
    const three = await of('three replicas on chosen nodes');
    expect(only(three.objects, 'StatefulSet').spec?.replicas).toBe(3);
    expect(three.pod).toMatchObject({ nodeSelector: { 'kubernetes.io/os': 'linux' }, affinity: { nodeAffinity: {} } });
    expect(JSON.stringify(three.objects)).toContain('"resourceNames":["view","edit","cluster-admin"]');
    const ports = ({ objects }: { objects: KubernetesObject[] }) =>
      allOf(objects, 'NetworkPolicy').flatMap(({ spec }) =>
        (spec?.egress ?? []).flatMap((rule) => (rule.ports ?? []).map(({ port }) => port)),
      );
    expect(ports(await of('another port of the API server, more egress'))).toEqual([
      53, 53, 443, 3478, 41641, 16443, 8443, 3128,
    ]);
    expect(ports(await of('the production guide’s configuration'))).toContain(14250);
    expect(allOf((await of('no policies')).objects, 'NetworkPolicy')).toEqual([]);
    const monitored = (await of('monitoring')).objects;
    expect(JSON.stringify(monitored)).toContain('"kubernetes.io/metadata.name":"observability"');
    for (const kind of ['ServiceMonitor', 'PrometheusRule'] as const)
      expect(only(monitored, kind).metadata?.labels).toMatchObject({ release: 'prometheus' });
    const boards = (objects: KubernetesObject[]) =>
      allOf(objects, 'ConfigMap').filter(({ metadata }) => metadata?.name === 'tka-dashboard');
    expect(boards(monitored)[0]?.metadata?.labels).toMatchObject({ dashboards: 'mine' });
    expect(boards((await of('monitoring without a dashboard')).objects)).toEqual([]);

    const login = await of('a login server');
    const service = allOf(login.objects, 'Service').find(({ metadata }) => metadata?.name === 'tka-federation');
    expect(service?.metadata?.annotations).toEqual({ 'example.com/pool': 'public' });
    expect(service?.spec).toMatchObject({
      type: 'NodePort',
      externalTrafficPolicy: 'Local',
      ports: [{ port: 8443, targetPort: 'federation' }],
    });
    expect(login.pod.volumes).toContainEqual({
      name: 'federation-certificate',
      secret: { secretName: 'join-certificate', optional: true },
    });
    const joined = await helm.render(valuesOf('a joined cluster without Tailscale'));
    const [server] = podOf(joined).containers;
    if (server === undefined) throw new Error('no server');
    expect(variable(server, 'TKA_FEDERATION_CAFILE')?.value).toBe('/etc/tka/federation-ca/ca.crt');
    expect(server.volumeMounts).toContainEqual({
      name: 'federation-ca',
      mountPath: '/etc/tka/federation-ca',
      readOnly: true,
    });
    expect(podOf(joined).volumes).toContainEqual({ name: 'federation-ca', configMap: { name: 'corporate-ca' } });
    expect(variable(server, 'HTTPS_PROXY')?.value).toBe('http://proxy.example.com:3128');
    // The port of the login server, and that of the proxy.
    expect(ports({ objects: joined })).toEqual([53, 53, 443, 6443, 8443, 3128]);
  });

  test('restarts the servers if the configuration changes, and only then', async () => {
    const annotation = async (labels: object) =>
      only(await helm.render({ tka: { clusterInfo: { labels } } }), 'StatefulSet').spec?.template.metadata?.annotations;
    expect(await annotation({ a: 'b' })).toEqual(await annotation({ a: 'b' }));
    expect(await annotation({ a: 'b' })).not.toEqual(await annotation({ a: 'c' }));
  });

  test.for([
    [{ replicas: 0 }, /replicas/],
    [{ replica: 2 }, /replica/],
    [{ roles: [] }, /roles/],
    [{ image: { tag: 1 } }, /tag/],
    [{ tka: { tailscale: { hostname: 'Prod US' } } }, /hostname/],
    [{ tka: { gossip: { bootstrapPeers: 'tka-prod-us:7946' } } }, /bootstrapPeers/],
    [{ federation: { loginServer: { enabled: true } } }, /needs tka\.federation\.endpoint: .*https:\/\//],
    [
      {
        federation: { loginServer: { enabled: true } },
        tka: { federation: { endpoint } },
        tailscale: { enabled: false },
      },
      /a login server needs tailscale\.enabled/,
    ],
    [{ tailscale: { enabled: false } }, /federation\.joinedCluster\.enabled is needed/],
    [{ federation: { loginServer: { service: { type: 'ExternalName' } } } }, /type/],
  ] as const)('refuses %j', async ([values, problem]) => {
    await expect(helm.run(['template', 'tka', chart], values)).rejects.toThrow(problem);
  });

  test('has a test that fails while the server is not ready, and runs on the servers’ nodes', async ({ cluster }) => {
    const text = await helm.run(['template', 'tka', chart, '--show-only', 'templates/tests/ready.yaml']);
    const pod = objectsIn(text).find(({ kind }) => kind === 'Pod') as V1Pod | undefined;
    const [container] = pod?.spec?.containers ?? [];
    if (pod?.spec === undefined || container === undefined) throw new Error('no pod');
    expect(unrestricted(pod.spec)).toEqual([]);
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } };
    await cluster.kube.create('/api/v1/namespaces/tka-system/serviceaccounts', account);
    // The namespace enforces the restricted standard.
    await cluster.kube.create('/api/v1/namespaces/tka-system/pods?dryRun=All', pod);
    const [node, ...args] = container.command ?? [];
    expect(node).toBe('/opt/tka/lib/node');
    expect(args.join(' ')).toContain('http://tka-server:8080/ready');
    let problem: string | undefined = 'the server has no certificate yet';
    const metrics = { server: new Registry(), controller: new Registry() };
    const server = createServer(createHealth({ unready: () => problem, metrics }));
    const port = await listen(server, '127.0.0.1', 0);
    const run = () =>
      start(
        process.execPath,
        args.map((arg) => arg.replace('tka-server:8080', `127.0.0.1:${port}`)),
        {},
      ).ran;
    try {
      expect(await run()).toMatchObject({ status: 1, stdout: expect.stringMatching(/^503 .*no certificate yet/) });
      problem = undefined;
      expect(await run()).toMatchObject({ status: 0, stdout: expect.stringMatching(/^200 /) });
    } finally {
      await close(server);
    }
  });

  test('passes helm lint', async () => {
    expect(await helm.run(['lint', chart, '--strict'])).toContain('1 chart(s) linted, 0 chart(s) failed');
  });

  test('names the version of the project', () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(deploy, '../package.json'), 'utf8'));
    const { version: own, appVersion } = parse(fs.readFileSync(path.join(chart, 'Chart.yaml'), 'utf8'));
    expect([own, appVersion]).toEqual([version, version]);
  });

  test('is installed, upgraded with each set of values, and uninstalled without losing sign-ins', async ({
    cluster,
  }) => {
    const { access } = cluster;
    const config = kubeconfigOf(access);
    for (const [name, values] of valueSets) {
      await helm.run(['upgrade', '--install', 'tka', chart, '--wait=hookOnly'], values, config);
      const deployed = objectsIn(await helm.run(['get', 'manifest', 'tka'], {}, config));
      const sets = JSON.parse(
        (await kubectl(as(access), 'get', 'statefulsets', '-n', 'tka-system', '-o', 'json')).stdout,
      );
      expect(
        sets.items.map(({ metadata }: KubernetesObject) => metadata?.name),
        name,
      ).toEqual([only(deployed, 'StatefulSet').metadata?.name]);
    }
    const created = await kubectl(as(access), 'apply', '-f', signInFile());
    expect(created.stderr).toBe('');
    await helm.run(['uninstall', 'tka', '--wait=hookOnly'], {}, config);
    const left = await kubectl(
      as(access),
      'get',
      'tkasignins,statefulsets,roles,networkpolicies',
      '-n',
      'tka-system',
      '-o',
      'name',
    );
    expect(left.stdout.trim()).toBe('tkasignin.tka.specht-labs.de/tka-user-dora');
    await helm.run(['upgrade', '--install', 'tka', chart, '--wait=hookOnly'], {}, config);
    await helm.run(['uninstall', 'tka', '--wait=hookOnly'], {}, config);
  });

  test('takes over the objects that kustomize applied', async () => {
    await using own = await ownCluster('127.0.0.18');
    expect((await kubectl(as(own.access), 'apply', '-k', deploy)).stderr).toBe('');
    const config = kubeconfigOf(own.access);
    const upgrade = ['upgrade', '--install', 'tka', chart, '--wait=hookOnly'];
    await expect(helm.run(upgrade, {}, config)).rejects.toThrow(/cannot be imported into the current release/);
    await helm.run([...upgrade, '--take-ownership', '--force-conflicts'], {}, config);
    await helm.run(upgrade, {}, config);
  });

  test('a cluster of version 0.1.0 is upgraded with the commands of the README', async () => {
    await using own = await ownCluster('127.0.0.19');
    const [, commands = ''] =
      /## Coming from 0\.1\.0\n[\s\S]*?```sh\n([\s\S]*?)```/.exec(
        fs.readFileSync(path.join(deploy, 'README.md'), 'utf8'),
      ) ?? [];
    const run = (...args: string[]) => kubectl(as(own.access), ...args);
    const before = path.join(makeFolder(), 'before.yaml');
    const old = JSON.stringify(render(deploy))
      .replaceAll('"app.kubernetes.io/component":"tka-server",', '')
      .replaceAll('"app.kubernetes.io/name":"tka"', '"app.kubernetes.io/name":"tka-server"');
    fs.writeFileSync(
      before,
      JSON.parse(old)
        .map((object: object) => stringify(object))
        .join('---\n'),
    );
    expect((await run('apply', '-f', before)).status).toBe(0);
    const { spec } = only(JSON.parse(old) as KubernetesObject[], 'StatefulSet');
    const labels = { 'app.kubernetes.io/name': 'tka-server' };
    const volumes = [...(spec?.template.spec?.volumes ?? []), { name: 'state', emptyDir: {} }];
    await own.kube.create('/api/v1/namespaces/tka-system/pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'tka-0', labels },
      spec: { ...spec?.template.spec, volumes },
    });
    expect((await run('apply', '-k', deploy)).stderr).toContain('updates to statefulset spec for fields other than');
    for (const command of commands.trim().split('\n')) {
      const running = run(...command.split(' ').slice(1));
      if (command.includes(' delete ')) await orphan(own);
      const { status, stderr } = await running;
      expect({ command, status, stderr }).toEqual({ command, status: 0, stderr: '' });
    }
    const again = await run('apply', '-k', deploy);
    expect(again, again.stderr).toMatchObject({ status: 0 });
    const pods = await run('get', 'pods', '-n', 'tka-system', '-l', 'app.kubernetes.io/name=tka', '-o', 'name');
    expect(pods.stdout.trim()).toBe('pod/tka-0');
  });
});

type Tka = {
  readonly tailscale?: { readonly hostname?: string };
  readonly operator?: { readonly clusterName?: string };
};
const tkaOf = ({ tka = {} }: Values): Tka => tka as Tka;

/** Returns objects by kind and name, without the names that differ between the two ways of rendering. */
function byName(objects: readonly KubernetesObject[]): Record<string, unknown> {
  const plain = objects.filter(({ kind }) => kind !== 'Namespace').map((object) => structuredClone(object));
  const sort = (list: { name: string }[] | undefined) => list?.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const object of plain) {
    // kustomize adds a hash to the ConfigMap's name, and a namespace to objects without one.
    if (object.kind === 'ConfigMap' && object.metadata?.name?.startsWith('tka-server')) {
      Object.assign(object, { metadata: { name: 'tka-server', namespace: 'tka-system' }, data: configOf(object) });
    }
    if (object.kind?.startsWith('ValidatingAdmissionPolicy')) delete object.metadata?.namespace;
    if (object.kind !== 'StatefulSet') continue;
    const set = only([object], 'StatefulSet');
    delete set.spec?.template.metadata?.annotations;
    for (const volume of set.spec?.template.spec?.volumes ?? [])
      if (volume.configMap) volume.configMap.name = 'tka-server';
    // Their order has no meaning.
    sort(set.spec?.template.spec?.volumes);
    for (const container of set.spec?.template.spec?.containers ?? []) {
      container.imagePullPolicy = 'IfNotPresent';
      for (const list of [container.env, container.volumeMounts]) sort(list);
    }
  }
  return Object.fromEntries(plain.map((object) => [`${object.kind} ${object.metadata?.name}`, object]));
}

/** Returns the configuration without the host name, which is only in the pod's environment with kustomize. */
function configOf(object: KubernetesObject): unknown {
  const { tailscale: _, federation: __, ...config } = parse(configIn([object]));
  return config;
}

function operatorKind(kind: string): object {
  const plural = `${kind.toLowerCase()}s`;
  const openAPIV3Schema = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.monitoring.coreos.com` },
    spec: {
      group: 'monitoring.coreos.com',
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema } }],
    },
  };
}

function kubeconfigOf(access: Parameters<typeof as>[0]): object {
  const list = (map: object, kind: string) => Object.entries(map).map(([name, it]) => ({ name, [kind]: it }));
  const { clusters, users, contexts, ...rest } = as(access);
  return {
    ...rest,
    clusters: list(clusters, 'cluster'),
    users: list(users, 'user'),
    contexts: list(contexts, 'context'),
  };
}

function signInFile(): string {
  const file = path.join(makeFolder(), 'sign-in.yaml');
  const spec = { username: 'dora', role: 'view', validity_period: '1h0m0s' };
  const metadata = { name: 'tka-user-dora', namespace: 'tka-system' };
  fs.writeFileSync(file, stringify({ apiVersion: 'tka.specht-labs.de/v1alpha1', kind: 'TkaSignin', metadata, spec }));
  return file;
}

/** Does what the garbage collector does in a cluster: removes a StatefulSet that was deleted without its pods. */
async function orphan({ access, kube }: Fixtures['cluster']): Promise<void> {
  const path = '/apis/apps/v1/namespaces/tka-system/statefulsets';
  await until(access, path, 'tka', (set?: KubernetesObject) => set?.metadata?.deletionTimestamp !== undefined);
  await kube.patch(`${path}/tka`, { metadata: { finalizers: null } });
}
