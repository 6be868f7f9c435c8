import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { V1Container, V1PodSpec } from '@kubernetes/client-node';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { clusterNameOf, loadConfig } from '../../src/server/config/config.ts';
import { variableOf } from '../../src/server/config/keys.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { misfits } from './consistency.ts';
import { allOf, configIn, deploy, noKubectl, only, overlay, render } from './render.ts';
import { unrestricted } from './restricted.ts';

const { version } = JSON.parse(fs.readFileSync(path.join(deploy, '../package.json'), 'utf8'));

describe.skipIf(noKubectl)(`the manifests in deploy/${noKubectl === undefined ? '' : ` (${noKubectl})`}`, () => {
  const objects = noKubectl === undefined ? render(deploy) : [];
  const pod = (from = objects): V1PodSpec => {
    const { spec } = only(from, 'StatefulSet').spec?.template ?? {};
    if (spec === undefined) throw new Error('no pod');
    return spec;
  };
  const container = (name: string): V1Container => {
    const { initContainers = [], containers } = pod();
    const found = [...initContainers, ...containers].find((one) => one.name === name);
    if (found === undefined) throw new Error(`no container ${name}`);
    return found;
  };
  const variable = (name: string, of: V1Container) => of.env?.find((one) => one.name === name);
  const mountOf = (of: V1Container, volume: string) => of.volumeMounts?.find(({ name }) => name === volume);

  it('fit together, unchanged and with the documented additions', () => {
    expect(misfits(objects)).toEqual([]);
    const more = overlay(testFolder(), { nameSuffix: '-prod-us', components: ['monitoring'] });
    const added = render(more);
    expect(misfits(added)).toEqual([]);
    expect(only(added, 'StatefulSet').metadata).toMatchObject({ name: 'tka-prod-us', namespace: 'tka-system' });
    expect(added.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['ServiceMonitor', 'PrometheusRule']));
  });

  it('follow the namespace of an overlay', () => {
    const more = overlay(testFolder(), { namespace: 'access', components: ['monitoring'] });
    const moved = render(more);
    expect(misfits(moved)).toEqual([]);
    expect(JSON.stringify(moved)).not.toContain('tka-system');
    // The server stores its sign-ins in its own namespace.
    const { name, valueFrom } = variable('TKA_OPERATOR_NAMESPACE', container('server')) ?? {};
    expect(name).toBe(variableOf('operator.namespace'));
    expect(valueFrom).toEqual({ fieldRef: { fieldPath: 'metadata.namespace' } });
  });

  it.each([
    ['a volume', (spec: V1PodSpec) => spec.volumes?.pop(), /server: no volume token/],
    ['a port', (spec: V1PodSpec) => delete spec.containers[0]?.ports, /server: no port health/],
    ['an account', (spec: V1PodSpec) => Object.assign(spec, { serviceAccountName: 'x' }), /no ServiceAccount x/],
  ])('are reported as inconsistent without %s', (_, spoil, problem) => {
    const spoilt = structuredClone(objects);
    spoil(pod(spoilt));
    expect(misfits(spoilt).join('\n')).toMatch(problem);
  });

  it('meet the restricted pod security standard', () => {
    expect(unrestricted(pod())).toEqual([]);
    const namespace = objects.find(({ kind }) => kind === 'Namespace');
    expect(namespace?.metadata?.labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' });
    const loose = structuredClone(pod());
    delete loose.securityContext;
    delete loose.initContainers?.[0]?.securityContext;
    loose.volumes?.push({ name: 'host', hostPath: { path: '/' } });
    expect(unrestricted(loose)).toEqual(
      expect.arrayContaining(['volume host: hostPath', 'server: may be root', 'tailscale: keeps capabilities']),
    );
  });

  it('use images with a version', () => {
    expect(container('server').image).toMatch(new RegExp(`/tka-server:${version.replaceAll('.', '\\.')}$`));
    expect(container('tailscale').image).toMatch(/^docker\.io\/tailscale\/tailscale:v\d+\.\d+\.\d+$/);
  });

  it('let the server ask tailscaled, and give tailscaled no access to the cluster', () => {
    const server = container('server');
    const tailscale = container('tailscale');
    const socket = variable('TS_SOCKET', server)?.value;
    expect(variable('TS_SOCKET', tailscale)?.value).toBe(socket);
    for (const one of [server, tailscale]) {
      expect(path.posix.dirname(socket ?? '')).toBe(mountOf(one, 'socket')?.mountPath);
    }
    const proxy = `socks5://${variable('TS_SOCKS5_SERVER', tailscale)?.value}`;
    expect(variable('ALL_PROXY', server)?.value).toBe(proxy);
    expect(proxy).toMatch(/\/\/127\.0\.0\.1:\d+$/);
    // As another user, the server may ask who a caller is and for the certificate, and change nothing.
    expect(server.securityContext?.runAsUser).not.toBe(tailscale.securityContext?.runAsUser);
    expect(variable('TS_PERMIT_CERT_UID', tailscale)?.value).toBe(String(server.securityContext?.runAsUser));
    expect(mountOf(tailscale, 'state')?.mountPath).toBe(variable('TS_STATE_DIR', tailscale)?.value);
    expect(pod().securityContext?.fsGroup).toBe(tailscale.securityContext?.runAsGroup);
    expect(mountOf(server, 'state')).toBeUndefined();
    expect(pod().automountServiceAccountToken).toBe(false);
    expect(mountOf(tailscale, 'token')).toBeUndefined();
    expect(mountOf(server, 'token')?.mountPath).toBe('/var/run/secrets/kubernetes.io/serviceaccount');
  });

  it('have a folder in memory for the admin socket, which only the server mounts', () => {
    const server = container('server');
    const socket = variable(variableOf('admin.socket'), server)?.value ?? '';
    // root owns the folder of a volume, so the server makes its own folder in it.
    expect(path.posix.join(socket, '../..')).toBe(mountOf(server, 'run')?.mountPath);
    expect(mountOf(server, 'run')?.readOnly).toBeUndefined();
    expect(mountOf(container('tailscale'), 'run')).toBeUndefined();
    expect(pod().volumes?.find(({ name }) => name === 'run')?.emptyDir).toMatchObject({ medium: 'Memory' });
  });

  it('have two replicas, each with its own name and state', () => {
    const { spec } = only(objects, 'StatefulSet');
    expect(spec?.replicas).toBe(2);
    expect(spec?.volumeClaimTemplates?.map(({ metadata }) => metadata?.name)).toEqual(['state']);
    expect(only(objects, 'PodDisruptionBudget').spec?.maxUnavailable).toBe(1);
    // The tailscale container starts before the server and stops after it.
    expect(container('tailscale').restartPolicy).toBe('Always');
  });

  it.each([
    [{}, 'tka', 0, 'tka'],
    [{}, 'tka', 1, 'tka-1'],
    [{}, 'tka', 10, 'tka-10'],
    [{ nameSuffix: '-prod-us' }, 'tka-prod-us', 0, 'tka-prod-us'],
    [{ nameSuffix: '-prod-us' }, 'tka-prod-us', 2, 'tka-prod-us-2'],
    [{ namePrefix: 'acme-', nameSuffix: '-0' }, 'acme-tka-0', 0, 'acme-tka-0'],
  ])('with %j name the cluster %s, and the node of pod %i %s', async (change, cluster, ordinal, node) => {
    const more = overlay(testFolder(), change);
    const rendered = render(more);
    const { initContainers = [], containers } = pod(rendered);
    const { env } = containers[0] ?? {};
    expect(env?.find(({ name }) => name === 'TKA_TAILSCALE_HOSTNAME')).toEqual({
      name: 'TKA_TAILSCALE_HOSTNAME',
      value: only(rendered, 'StatefulSet').metadata?.name,
    });
    const config = await loadConfig(undefined, {
      TKA_CLUSTERINFO_APIENDPOINT: 'https://api.example.com',
      TKA_TAILSCALE_HOSTNAME: cluster,
    });
    expect(only(rendered, 'StatefulSet').metadata?.name).toBe(cluster);
    expect(clusterNameOf(config)).toBe(cluster);
    const sidecar = initContainers[0];
    expect(variable('TS_HOSTNAME', sidecar as V1Container)?.valueFrom).toEqual({
      fieldRef: { fieldPath: 'metadata.name' },
    });
    // The command of the sidecar, which here prints what it would start.
    const [shell = '', flag = '', script = ''] = sidecar?.command ?? [];
    const said = path.join(more, 'containerboot');
    fs.writeFileSync(said, '#!/bin/sh\nprintf %s "$TS_HOSTNAME"\n', { mode: 0o755 });
    expect(script).toMatch(/ exec \/usr\/local\/bin\/containerboot$/);
    const here = script.replace('/usr/local/bin/containerboot', `'${said}'`);
    const options = { env: { TS_HOSTNAME: `${cluster}-${ordinal}` }, encoding: 'utf8' } as const;
    expect(execFileSync(shell, [flag, here], options)).toBe(node);
  });

  it('keep the first node’s name of 0.1.0 with the patch in the README', () => {
    const readme = fs.readFileSync(path.join(deploy, 'README.md'), 'utf8');
    const [, given = ''] = readme.match(/```yaml\n(patches:\n[\s\S]*?)```/) ?? [];
    const more = overlay(testFolder(), parse(given));
    const [sidecar] = pod(render(more)).initContainers ?? [];
    expect(sidecar?.command).toBeUndefined();
    expect(variable('TS_HOSTNAME', sidecar as V1Container)?.valueFrom).toEqual({
      fieldRef: { fieldPath: 'metadata.name' },
    });
  });

  it('open the network for DNS, Tailscale and the API server', () => {
    const { ingress, egress, policyTypes } = only(objects, 'NetworkPolicy').spec ?? {};
    const ports = (rules: readonly { readonly ports?: readonly { protocol?: string; port?: unknown }[] }[] = []) =>
      rules.flatMap(({ ports = [] }) => ports.map(({ protocol, port }) => `${protocol} ${port}`)).sort();
    expect(policyTypes).toEqual(['Ingress', 'Egress']);
    expect(ports(ingress)).toEqual(['UDP 41641']);
    expect(ports(egress)).toEqual(['TCP 443', 'TCP 53', 'TCP 6443', 'UDP 3478', 'UDP 41641', 'UDP 53']);
    expect(variable('TS_TAILSCALED_EXTRA_ARGS', container('tailscale'))?.value).toBe('--port=41641');
  });

  it('have a valid server configuration', async () => {
    const folder = testFolder();
    const file = path.join(folder, 'config.yaml');
    fs.writeFileSync(file, configIn(objects));
    const config = await loadConfig(file, { TKA_TAILSCALE_HOSTNAME: 'tka' });
    expect(config.get('tailscale.hostname')).toBe('tka');
    const server = container('server');
    expect(config.get('health.port')).toBe(server.ports?.find(({ name }) => name === 'health')?.containerPort);
    // The server chooses its addresses; only health listens on all of them.
    expect(config.get('server.host')).toBeUndefined();
    expect(server.args?.at(-1)).toBe(`${mountOf(server, 'config')?.mountPath}/config.yaml`);
    const name = config.get('clusterInfo.configMapRef.name');
    const role = objects.find(({ metadata }) => metadata?.name === 'tka-server-cluster-info');
    expect(role).toMatchObject({ kind: 'ClusterRole', rules: [{ resources: ['configmaps'], resourceNames: [name] }] });
    const sysctl = pod().securityContext?.sysctls?.[0];
    expect(Number(sysctl?.value)).toBeLessThanOrEqual(config.get('tailscale.port'));
  });

  it('name the roles in one place', () => {
    const rules = objects.flatMap((object) => ('rules' in object ? (object.rules as readonly Rule[]) : []));
    const binding = rules.filter(({ verbs }) => verbs.some((verb) => /^(?:bind|escalate|impersonate|\*)$/.test(verb)));
    expect(binding).toEqual([
      {
        apiGroups: ['rbac.authorization.k8s.io'],
        resources: ['clusterroles'],
        verbs: ['bind'],
        resourceNames: ['view', 'edit'],
      },
    ]);
    const all = rules.flatMap(({ apiGroups, resources }) => [...apiGroups, ...resources]);
    expect(all).not.toContain('*');
    expect(all).not.toContain('secrets');
  });

  it('monitor the server', () => {
    const more = overlay(testFolder(), { components: ['monitoring'] });
    const added = render(more);
    expect(only(added, 'ServiceMonitor').spec.endpoints.map((endpoint) => endpoint.path)).toEqual([
      '/metrics',
      '/metrics/controller',
    ]);
    expect(allOf(added, 'NetworkPolicy')).toHaveLength(2);
    expect(only(added, 'PrometheusRule').spec.groups).toHaveLength(1);
    const dashboard = allOf(added, 'ConfigMap').find(({ metadata }) => metadata?.labels?.grafana_dashboard === '1');
    expect(JSON.parse(dashboard?.data?.['tka-server.json'] ?? '').title).toBe('TKA server');
  });
});

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}
