// The manifests of deploy/ as kubectl's own kustomize renders them.
import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type {
  KubernetesObject,
  V1ClusterRoleBinding,
  V1ConfigMap,
  V1NetworkPolicy,
  V1PodDisruptionBudget,
  V1Role,
  V1RoleBinding,
  V1Service,
  V1StatefulSet,
  V1ValidatingAdmissionPolicyBinding,
} from '@kubernetes/client-node';
import { parseAllDocuments, stringify } from 'yaml';

/** Kinds whose content the tests read. */
export interface Kinds {
  ClusterRoleBinding: V1ClusterRoleBinding;
  ConfigMap: V1ConfigMap;
  NetworkPolicy: V1NetworkPolicy;
  PodDisruptionBudget: V1PodDisruptionBudget;
  PrometheusRule: KubernetesObject & {
    readonly spec: { readonly groups: readonly { readonly rules: readonly { readonly expr: string }[] }[] };
  };
  Role: V1Role;
  RoleBinding: V1RoleBinding;
  Service: V1Service;
  ServiceMonitor: KubernetesObject & {
    readonly spec: {
      readonly selector: { readonly matchLabels: Record<string, string> };
      readonly endpoints: readonly { readonly port: string; readonly path: string }[];
    };
  };
  StatefulSet: V1StatefulSet;
  ValidatingAdmissionPolicyBinding: V1ValidatingAdmissionPolicyBinding;
}

export const deploy = path.join(import.meta.dirname, '../../deploy');

/** Why the manifests cannot be rendered here; undefined if they can. */
export const noKubectl = spawnSync('kubectl', ['kustomize', '--help']).status === 0 ? undefined : 'no kubectl';

/** Returns the objects of a folder with a kustomization. */
export function render(folder: string): KubernetesObject[] {
  const text = execFileSync('kubectl', ['kustomize', folder], { encoding: 'utf8', stdio: 'pipe' });
  return parseAllDocuments(text).map((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0];
    return document.toJS() as KubernetesObject;
  });
}

/** Writes a kustomization on top of deploy/ into an empty folder, and returns the folder. */
export function overlay(
  folder: string,
  kustomization: {
    readonly resources?: readonly string[];
    readonly components?: readonly string[];
    readonly [key: string]: unknown;
  },
): string {
  const from = (other: string): string => path.relative(folder, path.join(fs.realpathSync(deploy), other));
  const { resources = [], components = [], ...rest } = kustomization;
  fs.writeFileSync(
    path.join(folder, 'kustomization.yaml'),
    stringify({ resources: ['.', ...resources].map(from), components: components.map(from), ...rest }),
  );
  return folder;
}

/** Returns the objects of a kind. */
export function allOf<K extends keyof Kinds>(objects: readonly KubernetesObject[], kind: K): Kinds[K][] {
  return objects.filter((object) => object.kind === kind) as Kinds[K][];
}

/** Returns the server's configuration in these objects. Throws if there is none. */
export function configIn(objects: readonly KubernetesObject[]): string {
  const config = allOf(objects, 'ConfigMap').find(({ data }) => data?.['config.yaml'] !== undefined);
  if (config === undefined) throw new Error('no ConfigMap with a config.yaml');
  return config.data?.['config.yaml'] ?? '';
}

/** Returns the only object of a kind. Throws if there is another number. */
export function only<K extends keyof Kinds>(objects: readonly KubernetesObject[], kind: K): Kinds[K] {
  const [first, ...others] = allOf(objects, kind);
  if (first === undefined || others.length > 0) throw new Error(`not one ${kind}, but ${others.length + 1}`);
  return first;
}
