import type { V1PodSpec } from '@kubernetes/client-node';

const volumeTypes = new Set([
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'persistentVolumeClaim',
  'projected',
  'secret',
]);
const safeSysctls = new Set([
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.ping_group_range',
]);

/**
 * Returns what the Pod Security Standard "restricted" forbids in a pod
 * (https://kubernetes.io/docs/concepts/security/pod-security-standards/), and in addition: a writable root file system,
 * no memory limit.
 */
export function unrestricted(pod: V1PodSpec): string[] {
  const problems: string[] = [];
  const forbid = (bad: unknown, what: string): void => {
    if (bad) problems.push(what);
  };
  forbid(pod.hostNetwork || pod.hostPID || pod.hostIPC, "a namespace of the host's");
  for (const { name } of pod.securityContext?.sysctls ?? []) forbid(!safeSysctls.has(name), `sysctl ${name}`);
  for (const { name, ...volume } of pod.volumes ?? []) {
    for (const type of Object.keys(volume)) forbid(!volumeTypes.has(type), `volume ${name}: ${type}`);
  }
  for (const { name, securityContext: own = {}, ports = [], resources } of [
    ...(pod.initContainers ?? []),
    ...pod.containers,
  ]) {
    const both = { ...pod.securityContext, ...own };
    forbid(both.runAsNonRoot !== true, `${name}: may be root`);
    forbid(both.runAsUser === undefined || both.runAsUser === 0, `${name}: no user of its own`);
    forbid(!/^(?:RuntimeDefault|Localhost)$/.test(both.seccompProfile?.type ?? ''), `${name}: no seccomp profile`);
    forbid(own.privileged, `${name}: privileged`);
    forbid(own.allowPrivilegeEscalation !== false, `${name}: may gain privileges`);
    forbid(!own.capabilities?.drop?.includes('ALL'), `${name}: keeps capabilities`);
    forbid(
      own.capabilities?.add?.some((added) => added !== 'NET_BIND_SERVICE'),
      `${name}: adds capabilities`,
    );
    forbid(own.procMount !== undefined && own.procMount !== 'Default', `${name}: /proc`);
    forbid(
      ports.some(({ hostPort }) => hostPort),
      `${name}: a port of the host's`,
    );
    forbid(own.readOnlyRootFilesystem !== true, `${name}: writes to its image`);
    forbid(resources?.limits?.memory === undefined, `${name}: no limit of memory`);
  }
  return problems;
}
