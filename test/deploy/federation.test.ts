// The manifests of both sides of a federation.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { KubernetesObject, V1PodSpec } from '@kubernetes/client-node';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/server/config/config.ts';
import { variableOf } from '../../src/server/config/keys.ts';
import { federationNamespace } from '../../src/server/federation/objects.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { misfits } from './consistency.ts';
import { allOf, configIn, deploy, noKubectl, only, overlay, render } from './render.ts';
import { unrestricted } from './restricted.ts';

const rendered = (components: readonly string[], more: object = {}): KubernetesObject[] => {
  const folder = overlay(testFolder(), {
    resources: ['federation'],
    components: components.map((name) => `federation/${name}`),
    ...more,
  });
  return render(folder);
};
const podOf = (objects: readonly KubernetesObject[]): V1PodSpec => {
  const { spec } = only(objects, 'StatefulSet').spec?.template ?? {};
  if (spec === undefined) throw new Error('no pod');
  return spec;
};
const server = (objects: readonly KubernetesObject[]) => {
  const [container] = podOf(objects).containers;
  if (container === undefined) throw new Error('no server');
  return container;
};
/** Loads the server's configuration as its pod has it. */
const configOf = async (objects: readonly KubernetesObject[]) => {
  const file = path.join(testFolder(), 'config.yaml');
  fs.writeFileSync(file, configIn(objects));
  const env = (server(objects).env ?? []).map(({ name, value }) => [name, value ?? 'x']);
  return await loadConfig(file, { TKA_FEDERATION_ENDPOINT: 'https://join.example.com', ...Object.fromEntries(env) });
};
const secretRules = (objects: readonly KubernetesObject[]) =>
  [...allOf(objects, 'Role'), ...(objects.filter(({ kind }) => kind === 'ClusterRole') as typeof roles)].flatMap(
    ({ metadata, rules }) =>
      (rules ?? [])
        .filter(({ resources }) => resources?.some((name) => name === 'secrets' || name === '*'))
        .map(({ verbs, resourceNames }) => ({ namespace: metadata?.namespace, verbs, resourceNames })),
  );
const roles = allOf([], 'Role');

describe.skipIf(noKubectl)(`the manifests of a federation${noKubectl === undefined ? '' : ` (${noKubectl})`}`, () => {
  const sides = ['login-server', 'joined-cluster', 'joined-cluster, without-tailscale', 'login-server, joined-cluster'];

  it.each(sides)('fit together and meet the restricted standard: %s', (side) => {
    for (const more of [{}, { nameSuffix: '-prod-us' }, { namePrefix: 'acme-' }]) {
      const objects = rendered(side.split(', '), more);
      expect(misfits(objects)).toEqual([]);
      expect(unrestricted(podOf(objects))).toEqual([]);
    }
  });

  it('are in the namespace that the server uses, which meets the restricted standard too', () => {
    for (const side of sides) {
      const objects = rendered(side.split(', '));
      const namespace = objects.find(
        ({ kind, metadata }) => kind === 'Namespace' && metadata?.name === federationNamespace,
      );
      expect(namespace?.metadata?.labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' });
    }
  });

  // kustomize would move the Role to that namespace, where the server may not read Secrets.
  it('cannot be rendered with another namespace by mistake', () => {
    expect(() => rendered(['login-server'], { namespace: 'access' })).toThrow(/namespace transformation/);
  });

  it('let a login server read Secrets in the namespace of the federation only', () => {
    expect(secretRules(rendered(['login-server']))).toEqual([
      {
        namespace: federationNamespace,
        verbs: ['get', 'list', 'watch', 'create', 'patch'],
        resourceNames: undefined,
      },
    ]);
  });

  it('let a joined cluster read its own two Secrets only', () => {
    expect(secretRules(rendered(['joined-cluster']))).toEqual([
      { namespace: federationNamespace, verbs: ['create'], resourceNames: undefined },
      {
        namespace: federationNamespace,
        verbs: ['get', 'patch'],
        resourceNames: ['tka-cluster-info', 'tka-join-status'],
      },
    ]);
  });

  it('make a server a login server, with its certificate and a port that can be reached', async () => {
    const objects = rendered(['login-server']);
    const config = await configOf(objects);
    const { ports, volumeMounts } = server(objects);
    const port = ports?.find(({ name }) => name === 'federation')?.containerPort;
    expect(config.get('federation.listen')).toBe(`:${port}`);
    const folder = volumeMounts?.find(({ name }) => name === 'federation-certificate')?.mountPath;
    expect(config.get('federation.certFile')).toBe(`${folder}/tls.crt`);
    expect(config.get('federation.keyFile')).toBe(`${folder}/tls.key`);
    expect(podOf(objects).volumes?.find(({ name }) => name === 'federation-certificate')?.secret).toEqual({
      secretName: 'tka-federation-tls',
      // Without the certificate the pod must start: sign-ins to the own cluster need none.
      optional: true,
    });
    const service = allOf(objects, 'Service').find(({ metadata }) => metadata?.name === 'tka-federation');
    expect(service?.spec).toMatchObject({ type: 'LoadBalancer', ports: [{ port: 443, targetPort: 'federation' }] });
    const policy = allOf(objects, 'NetworkPolicy').find(({ metadata }) => metadata?.name === 'tka-federation');
    expect(policy?.spec?.ingress).toEqual([{ ports: [{ protocol: 'TCP', port: 'federation' }] }]);
    // The mesh listens on another port.
    expect(port).not.toBe(config.get('gossip.port'));
  });

  it('mount the join Secret where the server looks for it, as soon as it exists', async () => {
    const objects = rendered(['joined-cluster']);
    const config = await configOf(objects);
    const folder = server(objects).volumeMounts?.find(({ name }) => name === 'join');
    expect(folder).toMatchObject({ mountPath: config.get('federation.joinFolder'), readOnly: true });
    expect(podOf(objects).volumes?.find(({ name }) => name === 'join')?.secret).toEqual({
      secretName: 'tka-join',
      optional: true,
    });
  });

  it('leave out Tailscale completely', () => {
    const objects = rendered(['joined-cluster', 'without-tailscale']);
    const pod = podOf(objects);
    expect(pod.initContainers).toBeUndefined();
    expect(only(objects, 'StatefulSet').spec?.volumeClaimTemplates).toBeUndefined();
    expect(pod.volumes?.map(({ name }) => name).sort()).toEqual(['config', 'join', 'run', 'token']);
    // Without TS_SOCKET, the server does not wait for tailscaled.
    expect(JSON.stringify(pod)).not.toMatch(/tailscale\/|TS_|1055/);
    const { ingress, egress } = only(objects, 'NetworkPolicy').spec ?? {};
    expect(ingress).toEqual([]);
    const ports = egress?.flatMap(({ ports = [] }) => ports.map(({ protocol, port }) => `${protocol} ${port}`));
    expect(ports).toEqual(['UDP 53', 'TCP 53', 'TCP 443', 'TCP 6443']);
  });

  it('set variables that the server knows', () => {
    const objects = rendered(['login-server', 'joined-cluster', 'without-tailscale']);
    const set = (server(objects).env ?? []).map(({ name }) => name).filter((name) => name.startsWith('TKA_'));
    const known = [
      'federation.listen',
      'federation.certFile',
      'federation.keyFile',
      'tailscale.hostname',
      'operator.namespace',
      'admin.socket',
    ] as const;
    expect(set.sort()).toEqual(known.map(variableOf).sort());
  });

  it('are not in the usual manifests', () => {
    const text = JSON.stringify(render(deploy));
    expect(text).not.toMatch(/federation|tkacluster|tka-join/i);
  });
});
