import type { KubernetesObject, V1LabelSelector } from '@kubernetes/client-node';
import { allOf, only } from './render.ts';

// Objects that each cluster has or that the user creates.
const given = new Set(['ConfigMap/kube-root-ca.crt', 'Secret/tka-tailscale', 'Secret/tka-federation-tls']);

/** Returns what does not fit together in these objects: unknown names, selectors that select nothing. */
export function misfits(objects: readonly KubernetesObject[]): string[] {
  const problems: string[] = [];
  const need = (good: unknown, what: string): void => {
    if (!good) problems.push(what);
  };
  // kustomize gives these a namespace, which the API server drops.
  const isClusterWide = (kind = ''): boolean => kind.startsWith('ValidatingAdmissionPolicy');
  const names = objects.map(({ kind, metadata }) => {
    const namespace = isClusterWide(kind) ? undefined : metadata?.namespace;
    return `${kind}/${namespace === undefined ? '' : `${namespace}/`}${metadata?.name}`;
  });
  for (const [index, name] of names.entries()) need(names.indexOf(name) === index, `twice: ${name}`);
  const set = only(objects, 'StatefulSet');
  const namespace = set.metadata?.namespace;
  for (const { kind, metadata } of objects) {
    const of = isClusterWide(kind) ? undefined : metadata?.namespace;
    need(of === undefined || names.includes(`Namespace/${of}`), `${kind} ${metadata?.name}: no Namespace ${of}`);
  }
  const exists = (kind: string, name: string | undefined, where: string, of: string | undefined): void => {
    const isThere =
      names.includes(`${kind}/${of === undefined ? '' : `${of}/`}${name}`) || given.has(`${kind}/${name}`);
    need(isThere, `${where}: no ${kind} ${name}`);
  };

  for (const binding of [...allOf(objects, 'RoleBinding'), ...allOf(objects, 'ClusterRoleBinding')]) {
    const where = `${binding.kind} ${binding.metadata?.name}`;
    exists(binding.roleRef.kind, binding.roleRef.name, where, binding.metadata?.namespace);
    for (const { kind, name, namespace: of } of binding.subjects ?? []) exists(kind, name, where, of);
  }

  for (const { metadata, spec } of allOf(objects, 'ValidatingAdmissionPolicyBinding')) {
    exists('ValidatingAdmissionPolicy', spec?.policyName, `policy binding ${metadata?.name}`, undefined);
  }

  const { template, selector, serviceName, volumeClaimTemplates = [] } = set.spec ?? { selector: {}, template: {} };
  const labels = template.metadata?.labels ?? {};
  const selects = (what: V1LabelSelector | undefined, where: string, from = labels): void => {
    const wanted = Object.entries(what?.matchLabels ?? {});
    need(wanted.length > 0 && wanted.every(([key, value]) => from[key] === value), `${where}: selects nothing`);
  };
  const pod = template.spec ?? { containers: [] };
  selects(selector, 'StatefulSet');
  for (const { labelSelector } of pod.topologySpreadConstraints ?? []) selects(labelSelector, 'topology spread');
  for (const budget of allOf(objects, 'PodDisruptionBudget')) selects(budget.spec?.selector, 'PodDisruptionBudget');
  for (const policy of allOf(objects, 'NetworkPolicy')) selects(policy.spec?.podSelector, `${policy.metadata?.name}`);
  exists('ServiceAccount', pod.serviceAccountName, 'StatefulSet', namespace);
  exists('Service', serviceName, 'StatefulSet', namespace);

  const containers = [...(pod.initContainers ?? []), ...pod.containers];
  const ports = new Map(containers.flatMap(({ ports = [] }) => ports.map((port) => [port.name, port.containerPort])));
  const volumes = new Set<string | undefined>(volumeClaimTemplates.map(({ metadata }) => metadata?.name));
  for (const { name, configMap, secret, projected } of pod.volumes ?? []) {
    volumes.add(name);
    if (configMap && configMap.optional !== true) exists('ConfigMap', configMap.name, `volume ${name}`, namespace);
    if (secret && secret.optional !== true) exists('Secret', secret.secretName, `volume ${name}`, namespace);
    for (const source of projected?.sources ?? []) {
      if (source.configMap) exists('ConfigMap', source.configMap.name, `volume ${name}`, namespace);
    }
  }
  const mounted = new Set<string>();
  for (const { name, env = [], volumeMounts = [], startupProbe, livenessProbe, readinessProbe } of containers) {
    for (const mount of volumeMounts) {
      mounted.add(mount.name);
      need(volumes.has(mount.name), `${name}: no volume ${mount.name}`);
    }
    for (const { valueFrom } of env) {
      if (valueFrom?.secretKeyRef) exists('Secret', valueFrom.secretKeyRef.name, name, namespace);
      if (valueFrom?.configMapKeyRef) exists('ConfigMap', valueFrom.configMapKeyRef.name, name, namespace);
    }
    for (const port of [startupProbe, livenessProbe, readinessProbe].map((probe) => probe?.httpGet?.port)) {
      need(typeof port !== 'string' || ports.has(port), `${name}: no port ${port}`);
    }
  }
  for (const volume of volumes) need(mounted.has(volume ?? ''), `volume ${volume}: nobody's`);

  const services = allOf(objects, 'Service');
  for (const { metadata, spec } of services) {
    selects({ matchLabels: spec?.selector ?? {} }, `Service ${metadata?.name}`);
    for (const { name, port, targetPort } of spec?.ports ?? []) {
      const there = ports.get(String(targetPort));
      // Without an address of its own it cannot translate ports.
      const isThere = spec?.clusterIP === 'None' ? there === port : there !== undefined;
      need(isThere, `Service ${metadata?.name}: port ${name} goes nowhere`);
    }
  }
  for (const monitor of allOf(objects, 'ServiceMonitor')) {
    const wanted = Object.entries(monitor.spec.selector.matchLabels);
    const selected = services.filter(({ metadata }) =>
      wanted.every(([key, value]) => metadata?.labels?.[key] === value),
    );
    need(selected.length === 1, `ServiceMonitor: selects ${selected.length} Services`);
    for (const { port } of monitor.spec.endpoints) {
      need(
        selected[0]?.spec?.ports?.some(({ name }) => name === port),
        `ServiceMonitor: no port ${port}`,
      );
    }
  }
  for (const policy of allOf(objects, 'NetworkPolicy')) {
    for (const { port } of (policy.spec?.ingress ?? []).flatMap(({ ports = [] }) => ports)) {
      need(typeof port !== 'string' || ports.has(port), `${policy.metadata?.name}: no port ${port}`);
    }
  }
  return problems;
}
