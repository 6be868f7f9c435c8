// What a sign-in is made of in the cluster, as the Go operator names and writes it; and how to read it back.
import { createHash, randomUUID } from 'node:crypto';
import { formatGoDuration, goDuration } from '../../util/duration.ts';
import type { Caller } from '../http/contract.ts';
import { segment } from '../kubernetes/kube.ts';

const group = 'tka.specht-labs.de';
const apiVersion = `${group}/v1alpha1`;

/** The parts of an object's metadata that are used here. */
export interface Metadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** Set as soon as it is being deleted: a finalizer keeps it meanwhile. */
  readonly deletionTimestamp?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly { readonly apiVersion: string; readonly kind: string; readonly uid: string }[];
}

export interface TkaSignin {
  readonly metadata: Metadata;
  readonly spec: { readonly username: string; readonly role: string; readonly validity_period: string };
  readonly status?: {
    readonly provisioned: boolean;
    readonly valid_until: string;
    readonly signed_in: string;
    /** The ID of the attempt that it answers. The Go operator writes none, and its CRD keeps none. */
    readonly attempt?: string;
  };
}

/**
 * Returns a sign-in as the API server gave it, with a spec. One made by hand may have none, where the
 * CustomResourceDefinition does not require it (0.1.0's): then its period is none.
 */
export const withSpec = (signIn: TkaSignin): TkaSignin =>
  (signIn as Partial<TkaSignin>).spec === undefined
    ? { ...signIn, spec: { username: '', role: '', validity_period: '' } }
    : signIn;

export interface ServiceAccount {
  readonly metadata: Metadata;
}

export interface ClusterRoleBinding {
  readonly metadata: Metadata;
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly kind: string; readonly name: string; readonly namespace?: string }[];
}

const attempted = `${group}/last-attempted-sign-in`;
const validUntil = `${group}/sign-in-valid-until`;
// These are ours; the Go operator does not know them.
const login = `${group}/login`;
const attemptId = `${group}/attempt`;
const devices = `${group}/devices`;
const problem = `${group}/problem`;
const ownerName = `${group}/sign-in`;
const ownerUid = `${group}/sign-in-uid`;
const ownerNamespace = `${group}/namespace`;

/** The paths of the API, one function per collection; with a name, of one object in it. */
export const paths = {
  signIns: (namespace: string, name?: string) =>
    `/apis/${apiVersion}/namespaces/${segment(namespace)}/tkasignins${part(name)}`,
  accounts: (namespace: string, name?: string) =>
    `/api/v1/namespaces/${segment(namespace)}/serviceaccounts${part(name)}`,
  bindings: (name?: string) => `/apis/rbac.authorization.k8s.io/v1/clusterrolebindings${part(name)}`,
  roles: (name: string) => `/apis/rbac.authorization.k8s.io/v1/clusterroles${part(name)}`,
  leases: (namespace: string, name?: string) =>
    `/apis/coordination.k8s.io/v1/namespaces/${segment(namespace)}/leases${part(name)}`,
  namespaces: (name: string) => `/api/v1/namespaces${part(name)}`,
  configMaps: (namespace: string, name: string) => `/api/v1/namespaces/${segment(namespace)}/configmaps${part(name)}`,
} as const;

function part(name: string | undefined): string {
  return name === undefined ? '' : `/${segment(name)}`;
}

/** Milliseconds of the epoch as RFC 3339, cut to seconds, as Go prints it. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');

function time(text: string | undefined): number | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** The name that the Go server gives every sign-in of a username, and we to those of the tailnet's own domain. */
export const plainName = (username: string): string => `tka-user-${username}`;

const isName = (name: string): boolean =>
  name.length <= 240 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name);

/**
 * Returns the names that a caller's sign-in for a role may have, the first choice first. A plain name says whose it is in
 * the tailnet's own domain only. The others carry a hash of login and role, `tka-login-jurgen-0f3a…`: 80 bits, so that
 * nobody finds a login with the hash of somebody else's.
 */
export function namesOf({ username, login, ownDomain, role }: Caller): readonly string[] {
  const hash = createHash('sha256').update(`${login}\0${role}`).digest('hex').slice(0, 20);
  const readable = username
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, (other) => (/^\p{M}+$/u.test(other) ? '' : '-'))
    .slice(0, 30)
    .replace(/^-+|-+$/g, '');
  const hashed = `tka-login-${readable === '' ? '' : `${readable}-`}${hash}`;
  return ownDomain === true && isName(plainName(username)) ? [plainName(username), hashed] : [hashed];
}

export const bindingName = (name: string): string => `${name}-binding`;

/** Returns the name of the sign-in whose binding has this name; undefined where it can be no sign-in's. */
export const signInOfBinding = (binding: string): string | undefined => /^(.+)-binding$/s.exec(binding)?.[1];

/** Returns the login that signed in; undefined where nothing says it: the Go server writes none, and drops it. */
export const loginOf = ({ metadata }: { readonly metadata: Metadata }): string | undefined =>
  metadata.annotations?.[login];

/** Says whether a sign-in is this caller's: it states the login, or it has the caller's plain name and states none. */
export function isOf(signIn: TkaSignin, { username, login, ownDomain }: Caller): boolean {
  const stated = loginOf(signIn);
  if (stated !== undefined) return stated === login;
  return ownDomain === true && signIn.metadata.name === plainName(username);
}

/** Says whether a sign-in is being deleted. Nothing may bring it back. */
export const isLeaving = ({ metadata }: TkaSignin): boolean => metadata.deletionTimestamp !== undefined;

// What a device was granted when it last signed in: from when (milliseconds of the epoch), for how long.
interface Use {
  readonly at: number;
  readonly periodMs: number;
}

// Stands for devices that nothing names.
const anyDevice = '*';
// More of them, and the first to end are told apart no longer.
const mostDevices = 16;

const useEnd = ({ at, periodMs }: Use, now: number): number => Math.min(at, now) + periodMs;

/** Which devices use a sign-in: `{"nBLYv…": "2026-11-21T08:00:00Z 8h0m0s"}`. Undefined where nothing readable says so. */
function usesOf({ metadata }: TkaSignin): ReadonlyMap<string, Use> | undefined {
  let stated: unknown;
  try {
    stated = JSON.parse(metadata.annotations?.[devices] ?? 'null');
  } catch {
    return undefined;
  }
  if (typeof stated !== 'object' || stated === null || Array.isArray(stated)) return undefined;
  const uses = new Map<string, Use>();
  for (const [device, text] of Object.entries(stated)) {
    const [at = '', period = ''] = String(text).split(' ', 2);
    const use = { at: Date.parse(at), periodMs: goDuration(period) ?? Number.NaN };
    if (Number.isNaN(use.at + use.periodMs)) return undefined;
    uses.set(device, use);
  }
  return uses;
}

/** What a device was granted under a sign-in; undefined where it did not sign in under it. */
function useOf(signIn: TkaSignin, device: string, now: number): Use | undefined {
  const uses = usesOf(signIn);
  if (uses !== undefined) return uses.get(device) ?? uses.get(anyDevice);
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in) ?? now;
  return { at: start, periodMs: goDuration(signIn.spec.validity_period) ?? 0 };
}

/** The annotation that adds a caller's device to those that use a sign-in. */
function devicesWith(signIn: TkaSignin | undefined, { device = anyDevice, periodMs }: Caller, now: number): string {
  const old = signIn === undefined ? [] : (usesOf(signIn) ?? [[anyDevice, useOf(signIn, anyDevice, now) as Use]]);
  const uses = new Map([...old].filter(([name, use]) => name !== device && useEnd(use, now) > now));
  uses.set(device, { at: now, periodMs });
  const latest = [...uses].sort(([, a], [, b]) => useEnd(b, now) - useEnd(a, now));
  const [folded] = latest.splice(mostDevices);
  if (folded !== undefined && !latest.some(([name]) => name === anyDevice)) latest.push([anyDevice, folded[1]]);
  return JSON.stringify(
    Object.fromEntries(
      latest.map(([name, { at, periodMs }]) => [name, `${rfc3339(at)} ${formatGoDuration(periodMs)}`]),
    ),
  );
}

/**
 * Returns the end of a sign-in for a caller's device, which may have been granted less than another one; undefined where
 * it has not signed in.
 */
export function endFor(signIn: TkaSignin, { device = anyDevice }: Caller, now: number): number | undefined {
  const use = useOf(signIn, device, now);
  return use && Math.min(endOf(signIn, now) ?? Infinity, useEnd(use, now));
}

/** Says whether a caller's device has more by this sign-in than it is granted today: another role, or a later end. */
export function exceeds(signIn: TkaSignin, caller: Caller, now: number): boolean {
  const end = endFor(signIn, caller, now);
  return end !== undefined && (signIn.spec.role !== caller.role || end > now + caller.periodMs);
}

const annotationsOf = (signIn: TkaSignin | undefined, caller: Caller, at: number): Record<string, string> => ({
  [attempted]: rfc3339(at),
  [attemptId]: randomUUID(),
  [validUntil]: rfc3339(at + caller.periodMs),
  [login]: caller.login,
  [devices]: devicesWith(signIn, caller, at),
});

const specOf = ({ username, role, periodMs }: Caller): TkaSignin['spec'] => ({
  username,
  role,
  validity_period: formatGoDuration(periodMs),
});

/** The sign-in to create for a caller who signs in at this time (milliseconds of the epoch). */
export const newSignIn = (name: string, caller: Caller, at: number): object => ({
  apiVersion,
  kind: 'TkaSignin',
  metadata: { name, annotations: annotationsOf(undefined, caller, at) },
  spec: specOf(caller),
});

/** Returns the sign-in to create in another namespace: the same person's, with the same role and end. */
export function copyOf(signIn: TkaSignin): object {
  const { name, annotations = {} } = signIn.metadata;
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in);
  const end = endOf(signIn, Date.now());
  const isDated = start !== undefined && end !== undefined && end > start;
  const own = Object.entries(annotations).filter(([key]) => key.startsWith(`${group}/`) && key !== problem);
  return {
    apiVersion,
    kind: 'TkaSignin',
    metadata: {
      name,
      annotations: {
        ...Object.fromEntries(own),
        ...(isDated && { [attempted]: rfc3339(start), [validUntil]: rfc3339(end) }),
      },
    },
    // An end that was set sooner by hand stays.
    spec: { ...signIn.spec, ...(isDated && { validity_period: formatGoDuration(end - start) }) },
  };
}

/** The merge patch that extends a sign-in from this time on, provided that nobody has changed it meanwhile. */
export const extension = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: { ...asSeen(signIn), annotations: { ...annotationsOf(signIn, caller, at), [problem]: null } },
  spec: specOf(caller),
});

/** The merge patch that lets one more device use a sign-in, whose end stays as it is. */
export const sharing = (signIn: TkaSignin, caller: Caller, at: number): object => ({
  metadata: {
    ...asSeen(signIn),
    annotations: { [login]: caller.login, [devices]: devicesWith(signIn, caller, at) },
  },
});

const asSeen = ({ metadata: { uid, resourceVersion } }: TkaSignin) => ({ uid, resourceVersion });

/** Says whether a sign-in asks for what its caller is granted, since this very second: then there is nothing to write. */
export const asksFor = (signIn: TkaSignin, caller: Caller, at: number): boolean =>
  signIn.spec.role === caller.role &&
  goDuration(signIn.spec.validity_period) === caller.periodMs &&
  attemptOf(signIn) === at &&
  usesOf(signIn)?.get(caller.device ?? anyDevice)?.at === at;

/** When it was asked for last; undefined where nothing says so (one made by hand). A replica's clock may be ahead of ours. */
const attemptOf = ({ metadata }: TkaSignin): number | undefined => time(metadata.annotations?.[attempted]);

/** Says whether a sign-in was asked for at a time that has not come: by a replica whose clock is ahead. */
export const isAhead = (signIn: TkaSignin, now: number): boolean => (attemptOf(signIn) ?? now) > now;

/** Returns whether one of our replicas took a sign-in, by its own note. It then provisions it, too. */
export const hasAttempt = ({ metadata }: TkaSignin): boolean => metadata.annotations?.[attemptId] !== undefined;

/** Why it cannot be provisioned, where that is known. */
export const problemOf = ({ metadata }: TkaSignin): string | undefined => metadata.annotations?.[problem];

/** The merge patch that says why it cannot be provisioned, or that it can. */
export const problemPatch = ({ metadata }: TkaSignin, text: string | null): object => ({
  metadata: { resourceVersion: metadata.resourceVersion, annotations: { [problem]: text } },
});

/** Says whether our operator provisioned it: the Go operator drops what it does not know. */
export const isOurWork = ({ status }: TkaSignin): boolean => status?.attempt !== undefined;

/** Whether what was asked for last is in force: the status answers that very attempt. */
export function isSettled(signIn: TkaSignin): boolean {
  const { status, metadata } = signIn;
  if (isLeaving(signIn) || status?.provisioned !== true || time(status.valid_until) === undefined) return false;
  const [attempt, id] = [attemptOf(signIn), metadata.annotations?.[attemptId]];
  // By the time as well: 0.1.0 and the Go server leave the ID as it is, and only a CRD of ours keeps the status' one.
  if (id !== undefined && status.attempt !== undefined && status.attempt !== id) return false;
  return attempt === undefined || attempt === time(status.signed_in);
}

/** When an attempt counts from: one that lies in the future was made by a replica whose clock is ahead. */
function startOf(signIn: TkaSignin, now: number): number | undefined {
  const start = attemptOf(signIn) ?? time(signIn.status?.signed_in);
  return start && Math.min(start, now);
}

/** When it ends; undefined where nothing says so yet. A status may end it sooner than its period, never later. */
export function endOf(signIn: TkaSignin, now: number): number | undefined {
  const period = goDuration(signIn.spec.validity_period);
  const start = startOf(signIn, now);
  const granted = period === undefined || start === undefined ? undefined : start + period;
  if (!isSettled(signIn)) return granted;
  const said = time(signIn.status?.valid_until);
  return said === undefined || granted === undefined ? (said ?? granted) : Math.min(said, granted);
}

/** Whether it has ended at this time, in milliseconds of the epoch. */
export const isOver = (signIn: TkaSignin, now: number): boolean => (endOf(signIn, now) ?? Infinity) <= now;

/** The status of a sign-in that is provisioned now; undefined when its period is none. */
export function statusOf(signIn: TkaSignin, now: number): TkaSignin['status'] | undefined {
  const period = goDuration(signIn.spec.validity_period);
  if (period === undefined) return undefined;
  const id = signIn.metadata.annotations?.[attemptId];
  return {
    provisioned: true,
    signed_in: rfc3339(attemptOf(signIn) ?? time(signIn.status?.signed_in) ?? now),
    valid_until: rfc3339((startOf(signIn, now) ?? now) + period),
    ...(id !== undefined && { attempt: id }),
  };
}

/**
 * The merge patch of a sign-in's status, provided that nobody has changed the sign-in since it was read: the API server
 * does not look at the UID here, but no other object ever has the same version.
 */
export const statusPatch = ({ metadata }: TkaSignin, status: Partial<TkaSignin['status']>): object => ({
  metadata: { resourceVersion: metadata.resourceVersion },
  status,
});

const labelsOf = ({ metadata }: TkaSignin): Record<string, string> => ({
  'app.kubernetes.io/managed-by': 'tka-server',
  // A label's value has 63 characters at most; the UID is what counts.
  ...(metadata.name.length <= 63 ? { [ownerName]: metadata.name } : {}),
  [ownerUid]: metadata.uid,
});

// Whose it is, for people: a name may have a hash, and says it only up to the @.
const loginAnnotation = (signIn: TkaSignin) => {
  const stated = loginOf(signIn);
  return stated === undefined ? {} : { annotations: { [login]: stated } };
};

/** The ServiceAccount of a sign-in, which owns it. */
export const accountFor = (signIn: TkaSignin): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: {
    name: signIn.metadata.name,
    labels: labelsOf(signIn),
    ...loginAnnotation(signIn),
    ownerReferences: [
      { apiVersion, kind: 'TkaSignin', name: signIn.metadata.name, uid: signIn.metadata.uid, controller: true },
    ],
  },
});

/** The merge patch that says on a ServiceAccount of the Go operator's, or of 0.1.0's, whose it is; undefined where it does. */
export const loginPatch = (account: ServiceAccount, signIn: TkaSignin): object | undefined =>
  loginOf(signIn) === undefined || loginOf(account) === loginOf(signIn)
    ? undefined
    : { metadata: { uid: account.metadata.uid, ...loginAnnotation(signIn) } };

/** The ClusterRoleBinding of a sign-in. A namespaced object cannot own it, so labels say whose it is. */
export const bindingFor = (signIn: TkaSignin, namespace: string): object => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: {
    name: bindingName(signIn.metadata.name),
    labels: { ...labelsOf(signIn), [ownerNamespace]: namespace },
    ...loginAnnotation(signIn),
  },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: signIn.spec.role },
  subjects: [{ kind: 'ServiceAccount', name: signIn.metadata.name, namespace }],
});

/** The UID of the sign-in that a ServiceAccount belongs to; undefined when it belongs to none, and is not ours. */
export const ownerOfAccount = ({ metadata }: ServiceAccount): string | undefined =>
  metadata.ownerReferences?.find((owner) => owner.kind === 'TkaSignin' && owner.apiVersion.startsWith(`${group}/`))
    ?.uid;

/**
 * The namespace of the TKA server that made a binding: by our labels, or by the Go operator's form. undefined where no TKA
 * server made it.
 */
export function homeOf({ metadata: { labels = {}, name }, subjects = [] }: ClusterRoleBinding): string | undefined {
  const [subject, ...others] = subjects;
  if (labels[ownerUid] !== undefined) return labels[ownerNamespace];
  const isOfGo =
    others.length === 0 &&
    subject?.kind === 'ServiceAccount' &&
    // The API server takes any text here.
    /^[a-z0-9-]{1,63}$/.test(subject.namespace ?? '') &&
    subject.name.startsWith('tka-user-') &&
    bindingName(subject.name) === name;
  return isOfGo ? subject.namespace : undefined;
}

/**
 * The UID of the sign-in that a binding belongs to; `unlabelled` where it has the Go operator's form, which does not say;
 * undefined when it is not this namespace's.
 */
export function ownerOfBinding(binding: ClusterRoleBinding, namespace: string): string | 'unlabelled' | undefined {
  if (homeOf(binding) !== namespace) return undefined;
  return binding.metadata.labels?.[ownerUid] ?? 'unlabelled';
}

/** What a sign-in has in the cluster, or what is in the way of it there. */
export interface Parts {
  readonly account: ServiceAccount | undefined;
  readonly binding: ClusterRoleBinding | undefined;
}

/** Says whether these are a sign-in's own, and give it its role. */
export const isWhole = ({ account, binding }: Parts, signIn: TkaSignin, namespace: string): boolean =>
  account !== undefined &&
  ownerOfAccount(account) === signIn.metadata.uid &&
  binding !== undefined &&
  [signIn.metadata.uid, 'unlabelled'].includes(ownerOfBinding(binding, namespace) ?? '') &&
  binds(binding, signIn, namespace);

/** Whether a binding gives exactly the sign-in's role to exactly its ServiceAccount. */
export function binds(binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): boolean {
  const { roleRef, subjects = [] } = binding;
  const [subject] = subjects;
  return (
    roleRef.kind === 'ClusterRole' &&
    roleRef.name === signIn.spec.role &&
    subjects.length === 1 &&
    subject?.kind === 'ServiceAccount' &&
    subject.name === signIn.metadata.name &&
    subject.namespace === namespace
  );
}

/** The merge patch that puts our labels and the login on a binding of the Go operator's, or of 0.1.0's. */
export const labelPatch = (binding: ClusterRoleBinding, signIn: TkaSignin, namespace: string): object => ({
  metadata: {
    resourceVersion: binding.metadata.resourceVersion,
    labels: { ...labelsOf(signIn), [ownerNamespace]: namespace },
    ...loginAnnotation(signIn),
  },
});
