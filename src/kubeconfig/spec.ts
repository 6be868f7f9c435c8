import { dirname, resolve } from 'node:path';
import { TkaError } from '../util/errors.ts';
import { foldersIn, isExecutable } from '../util/search-path.ts';
import { quoted } from '../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../util/url.ts';
import { markName } from './glance.ts';
import type { KubeconfigEntry } from './source.ts';
import type { Field } from './splice.ts';
import { isPlainMap, type Plain, type PlainMap } from './value.ts';
import { type ContextSiblings, markOf, siblingsOf, textOf } from './view.ts';

/** A managed context as it should be. */
export interface ContextSpec {
  readonly name: string;
  /** URL of the TKA server. */
  readonly server: string;
  /** URL of the Kubernetes API server. */
  readonly apiServer: string;
  /**
   * Base64 of PEM; empty or undefined for none. Left out with insecureSkipTlsVerify, since kubectl refuses both
   * together.
   */
  readonly caData?: string | undefined;
  readonly insecureSkipTlsVerify?: boolean | undefined;
  /** The cluster's other TKA servers, at least one; undefined keeps what an entry has for the same server. */
  readonly siblings?: ContextSiblings | undefined;
  /** The namespace; undefined keeps what an entry has. */
  readonly namespace?: string | undefined;
  /** What named the server: a list, or the user. Written to a new context, and to one that gets another server. */
  readonly namedBy?: string | undefined;
  /** The command for kubectl to run. An entry keeps its own command if that is a bare name or can be run. */
  readonly command: string;
  /** True if the user chose the command: it then replaces an entry's own. */
  readonly isCommandChosen?: true;
  readonly installHint: string;
}

export const otherName = 'use another name: kubectl tka login --context OTHER-NAME';

/**
 * Returns a valid spec with its URLs in canonical form. Throws TkaError for values that must not get into a kubeconfig.
 */
export function checkSpec(spec: ContextSpec): ContextSpec {
  if (spec.name === '') throw new TkaError('a context needs a name', { hints: [otherName] });
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff\p{Cs}]/u.test(spec.name)) {
    throw new TkaError(`context name ${quoted(spec.name)} contains control characters`, { hints: [otherName] });
  }
  if (spec.command === '') throw new TkaError(`context ${quoted(spec.name)} needs a command for kubectl to run`);
  const caData = (spec.caData ?? '').replace(/\s+/g, '');
  // kubectl refuses the whole file for one entry whose CA is not base64.
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(caData)) {
    throw new TkaError(`the CA of ${quoted(spec.name)} is not base64`);
  }
  return {
    ...spec,
    server: canonicalServer(spec.server),
    apiServer: canonicalApiServer(spec.apiServer),
    caData: spec.insecureSkipTlsVerify === true ? '' : caData,
    command: spec.command.toWellFormed(),
    installHint: spec.installHint.toWellFormed(),
  };
}

const extensions = (spec: ContextSpec, more: PlainMap = {}): Plain => {
  const keys = { ...more, server: spec.server };
  return [{ extension: Object.fromEntries(Object.entries(keys).sort()), name: markName }];
};

const contextKeys = ({ siblings, namedBy }: ContextSpec): PlainMap => ({
  ...(siblings && { ...siblings, servers: [...siblings.servers] }),
  ...(namedBy !== undefined && { namedBy }),
});

const argsOf = (spec: ContextSpec): string[] => ['credential', '--server', spec.server, '--api-server', spec.apiServer];

// Fields are in kubectl's order, so that a file looks the same after kubectl rewrites it.

/** Returns a new cluster entry. */
export function newCluster(name: string, spec: ContextSpec): PlainMap {
  const cluster: PlainMap = {};
  if (spec.caData) cluster['certificate-authority-data'] = spec.caData;
  cluster.extensions = extensions(spec);
  if (spec.insecureSkipTlsVerify === true) cluster['insecure-skip-tls-verify'] = true;
  cluster.server = spec.apiServer;
  return { cluster, name };
}

/** Returns a new user entry. */
export function newUser(name: string, spec: ContextSpec): PlainMap {
  const exec: PlainMap = {
    apiVersion: 'client.authentication.k8s.io/v1',
    args: argsOf(spec),
    command: spec.command,
    installHint: spec.installHint,
    interactiveMode: 'Never',
    provideClusterInfo: false,
  };
  return { name, user: { exec, extensions: extensions(spec) } };
}

/** Returns a new context entry. */
export const newContext = (name: string, cluster: string, user: string, spec: ContextSpec): PlainMap => ({
  context: {
    cluster,
    extensions: extensions(spec, contextKeys(spec)),
    ...(spec.namespace !== undefined && { namespace: spec.namespace }),
    user,
  },
  name,
});

function markField(body: string, entry: KubeconfigEntry, spec: ContextSpec): Field[] {
  const mark = markOf(entry);
  if (!mark || mark.server === spec.server) return [];
  return [[[body, 'extensions', mark.index, 'extension', 'server'], spec.server]];
}

/** Returns the fields to change in a managed cluster. */
export function clusterFields(entry: KubeconfigEntry, spec: ContextSpec): Field[] {
  const fields: Field[] = [];
  const { body } = entry;
  if (body.server !== spec.apiServer) fields.push([['cluster', 'server'], spec.apiServer]);
  // Go's base64 ignores line breaks only. A CA with other white space breaks the whole file, so repair it.
  const ca = (textOf(body['certificate-authority-data']) ?? '').replace(/[\r\n]+/g, '');
  if (ca !== spec.caData) fields.push([['cluster', 'certificate-authority-data'], spec.caData ?? '']);
  const insecure = spec.insecureSkipTlsVerify === true;
  if ((body['insecure-skip-tls-verify'] ?? false) !== insecure) {
    fields.push([['cluster', 'insecure-skip-tls-verify'], insecure]);
  }
  return [...fields, ...markField('cluster', entry, spec)];
}

/** Returns the fields to change in a managed user; `runs` tells whether a command can be run. */
export function userFields(entry: KubeconfigEntry, spec: ContextSpec, runs: (command: string) => boolean): Field[] {
  const fields: Field[] = [];
  const exec = isPlainMap(entry.body.exec) ? entry.body.exec : {};
  const want = (newUser('', spec).user as PlainMap).exec as PlainMap;
  for (const key of ['apiVersion', 'installHint', 'interactiveMode'] as const) {
    if (exec[key] !== want[key]) fields.push([['user', 'exec', key], want[key] as Plain]);
  }
  if ((exec.provideClusterInfo ?? false) !== false) fields.push([['user', 'exec', 'provideClusterInfo'], false]);
  const command = textOf(exec.command) ?? '';
  if (!keepsCommand(command, spec, runs)) fields.push([['user', 'exec', 'command'], spec.command]);
  const args = argsOf(spec);
  const found = Array.isArray(exec.args) ? exec.args : [];
  if (found.length !== args.length) fields.push([['user', 'exec', 'args'], args]);
  else {
    for (const [i, arg] of args.entries()) if (found[i] !== arg) fields.push([['user', 'exec', 'args', i], arg]);
  }
  return [...fields, ...markField('user', entry, spec)];
}

/** Returns the fields to change in a managed context. */
export function contextFields(entry: KubeconfigEntry, cluster: string, user: string, spec: ContextSpec): Field[] {
  const fields: Field[] = [];
  if (entry.body.cluster !== cluster) fields.push([['context', 'cluster'], cluster]);
  if (entry.body.user !== user) fields.push([['context', 'user'], user]);
  const { namespace } = spec;
  if (namespace !== undefined && entry.body.namespace !== namespace) fields.push([['context', 'namespace'], namespace]);
  const mark = markOf(entry);
  if (mark && mark.server !== spec.server && spec.namedBy !== undefined) {
    fields.push([['context', 'extensions', mark.index, 'extension', 'namedBy'], spec.namedBy]);
  }
  return [...fields, ...markField('context', entry, spec), ...siblingFields(entry, spec)];
}

/**
 * Returns the fields to change in what a context stores about its cluster's servers. A server that is added or removed
 * is no reason to change the file: one that still exists is enough to find the others.
 */
function siblingFields(entry: KubeconfigEntry, spec: ContextSpec): Field[] {
  const [mark, kept] = [markOf(entry), siblingsOf(entry)];
  if (mark === undefined) return [];
  // What the former server stated is no longer valid. (An empty list has no form that suits every layout.)
  const none = kept && { cluster: kept.cluster, signInStore: '', servers: [spec.server] };
  const wanted = spec.siblings ?? (mark.server === spec.server ? undefined : none);
  if (wanted === undefined) return [];
  const isSame = kept?.cluster === wanted.cluster && kept.signInStore === wanted.signInStore;
  const isEnough = wanted.servers.length === 0 || wanted.servers.some((server) => kept?.servers.includes(server));
  if (isSame && isEnough && mark.server === spec.server) return [];
  const path = ['context', 'extensions', mark.index, 'extension'];
  const { cluster, signInStore, servers } = wanted;
  return [
    [[...path, 'cluster'], cluster],
    [[...path, 'servers'], [...servers]],
    [[...path, 'signInStore'], signInStore],
  ];
}

/** Returns whether a command is a bare name, which kubectl looks up on PATH: `kubectl-tka`. */
export const isBareCommand = (command: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(command);

/**
 * Returns whether an entry keeps its command when it is written again. A bare name stays even if it is not on PATH
 * here: such kubeconfigs are made for several machines.
 */
export function keepsCommand(
  command: string,
  { command: wanted, isCommandChosen }: Pick<ContextSpec, 'command' | 'isCommandChosen'>,
  runs: (command: string) => boolean,
): boolean {
  if (command === wanted) return true;
  return isCommandChosen !== true && command !== '' && (isBareCommand(command) || runs(command));
}

/**
 * Returns whether kubectl could run an exec command. A bare name must be on PATH; a name with a separator is relative
 * to the kubeconfig's folder, as in client-go. Never throws.
 */
export function usableCommand(command: string, file: string, searchPath = process.env.PATH): boolean {
  const windows = process.platform === 'win32';
  const suffixes = windows ? ['', ...(process.env.PATHEXT ?? '.EXE;.CMD;.BAT').split(';')] : [''];
  const placed = command.includes('/') || (windows && command.includes('\\'));
  const folders = placed ? [dirname(file)] : foldersIn(searchPath ?? '');
  return folders.some((folder) => suffixes.some((suffix) => isExecutable(resolve(folder, command + suffix))));
}
