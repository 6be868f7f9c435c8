import * as fs from 'node:fs';
import type { Cluster, ResolvedCluster } from '../../discovery/clusters.ts';
import { isJoined, isOnlyJoined } from '../../discovery/joined.ts';
import { shellWord } from '../../kubeconfig/damage.ts';
import type { ContextSpec, KubeconfigChange, KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { parseSource } from '../../kubeconfig/source.ts';
import { isBareCommand } from '../../kubeconfig/spec.ts';
import type { Siblings } from '../../session/siblings.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { TkaError } from '../../util/errors.ts';
import { contextsByCluster, ownName } from '../target/contexts.ts';
import { type AccessChange, accessChanges } from './changes.ts';
import { assignNames, type ContextTemplate, candidateNames } from './names.ts';

/** A cluster whose TKA server has described how to reach its API server. */
export interface SyncAnswer {
  readonly cluster: ResolvedCluster;
  readonly info: ClusterDescription;
  /**
   * The other servers of the cluster that confirmed it; undefined if the server does not state enough, as the Go server
   * does.
   */
  readonly siblings: Siblings | undefined;
}

/** Why a cluster's context could not be brought up to date. */
export interface SyncProblem {
  readonly cluster: Cluster;
  readonly error: TkaError;
  /** True for a failure that the list predicts: a dead member does not answer. */
  readonly expected: boolean;
}

export interface SyncInput {
  /** The whole list, not only the selected clusters. */
  readonly all: readonly Cluster[];
  readonly answers: readonly SyncAnswer[];
  readonly tailnet: string;
  readonly template: ContextTemplate | undefined;
  readonly acceptChanges: boolean;
  /** Returns whether the user accepted that TLS verification of this API server is skipped. */
  readonly mayBeInsecure: (answer: SyncAnswer) => boolean;
  /** Returns whether a context keeps the command that kubectl runs. */
  readonly runs: (context: OurContext, spec: ContextSpec) => boolean;
  /** Returns whether an earlier memberlist named the server of a context. */
  readonly wasListed: (context: OurContext) => boolean;
  /** Removes contexts whose servers were listed before and no longer are. */
  readonly prunes: boolean;
  readonly specOf: (name: string, answer: SyncAnswer, server: string) => ContextSpec;
  /** Context names that cannot be written, and why. */
  readonly blocked: ReadonlyMap<string, TkaError>;
}

/** The edit of a kubeconfig, and the messages for the user. */
export interface SyncPlan {
  readonly change: KubeconfigChange & { readonly upsert: readonly ContextSpec[] };
  readonly added: readonly string[];
  readonly updated: readonly string[];
  readonly unchanged: readonly string[];
  readonly renamed: readonly { readonly from: string; readonly to: string }[];
  /** How the access of each updated or renamed context changes; nothing where only other details do. */
  readonly changes: ReadonlyMap<string, readonly AccessChange[]>;
  readonly pruned: readonly OurContext[];
  /** Unlisted contexts that stay despite pruning. */
  readonly spared: readonly OurContext[];
  /** One line for each accepted change, and for each context that keeps its name although another was wanted. */
  readonly notices: readonly string[];
  /** Hints for the notices. */
  readonly hints: readonly string[];
  readonly problems: readonly SyncProblem[];
}

interface Renaming {
  readonly context: OurContext;
  readonly answer: SyncAnswer;
}

/** Plans the edit of a kubeconfig. Pure, except that it reads the files of contexts to rename. */
export function planSync(view: KubeconfigView, input: SyncInput): SyncPlan {
  const plan = {
    added: [] as string[],
    updated: [] as string[],
    unchanged: [] as string[],
    renamed: [] as { from: string; to: string }[],
    notices: [] as string[],
    hints: [] as string[],
    changes: new Map<string, readonly AccessChange[]>(),
    problems: [] as SyncProblem[],
  };
  const upsert: ContextSpec[] = [];
  const ours = contextsOf(view, input);
  const fail = ({ cluster }: SyncAnswer, error: TkaError) => plan.problems.push({ cluster, error, expected: false });

  const { candidates, nameless, evasions } = candidatesOf(view, input);
  const usable = oneEach(input.answers).filter((answer) => {
    const error =
      nameless.get(answer.cluster.server) ??
      objection(answer, ours.get(answer.cluster.server) ?? [], input, plan.notices);
    if (error !== undefined) fail(answer, error);
    return error === undefined;
  });
  const renames = input.template === undefined ? [] : renamingsOf(usable, ours, candidates, view, plan);
  const renamed = new Map(renames.map((renaming) => [renaming.answer.cluster.server, renaming]));
  const kept = new Map(
    [...ours].flatMap(([server, [first]]) =>
      renamed.has(server) || first === undefined ? [] : [[server, first.name] as const],
    ),
  );
  const names = assignNames(candidates, kept, new Set(view.ours.map(({ name }) => name)));

  const remove: string[] = [];
  let currentContext: string | undefined;
  for (const answer of usable) {
    const { server } = answer.cluster;
    const existing = ours.get(server) ?? [];
    const renaming = renamed.get(server);
    for (const context of existing) {
      if (context === renaming?.context) continue;
      const blocked = input.blocked.get(context.name);
      if (blocked !== undefined) {
        fail(answer, blocked);
        continue;
      }
      const spec = input.specOf(context.name, answer, serverFor(context, answer, input));
      upsert.push(spec);
      const isUpdate = differs(context, answer, input, spec);
      (isUpdate ? plan.updated : plan.unchanged).push(context.name);
      if (isUpdate) plan.changes.set(context.name, changesOf(context, answer, input));
    }
    if (existing.length > 0 && renaming === undefined) continue;
    const name = names.get(server);
    const error = name === undefined ? noName() : input.blocked.get(name);
    if (name === undefined || error !== undefined) {
      fail(answer, withHint(error ?? noName(), answer));
      continue;
    }
    plan.notices.push(...[evasions.get(name) ?? []].flat());
    const [wanted = name] = candidates.get(server) ?? [];
    if (name !== wanted)
      plan.notices.push(`${answer.cluster.name}: the name "${wanted}" is taken; its context is "${name}"`);
    if (renaming === undefined) {
      upsert.push(input.specOf(name, answer, server));
      plan.added.push(name);
    } else {
      const { namedBy, command = '' } = renaming.context;
      const spec = input.specOf(name, answer, serverFor(renaming.context, answer, input));
      const isKept = isBareCommand(command) && spec.isCommandChosen !== true;
      upsert.push({ ...spec, ...(isKept && { command }), namedBy });
      plan.renamed.push({ from: renaming.context.name, to: name });
      plan.changes.set(name, changesOf(renaming.context, answer, input));
      remove.push(renaming.context.name);
      // Follow the rename, like `kubectl config rename-context`.
      if (renaming.context.name === view.currentContext) currentContext = name;
    }
  }

  const { pruned, spared } = pruning(view, ours, input);
  remove.push(...pruned.map(({ name }) => name));
  const change = { upsert, remove, ...(currentContext !== undefined && { currentContext }) };
  return { ...plan, change, pruned, spared };
}

/**
 * Returns the managed contexts of the cluster of each server. Skips a context whose server was listed before and no
 * longer is, if the cluster has another context.
 */
function contextsOf(view: KubeconfigView, input: SyncInput): Map<string, readonly OurContext[]> {
  const ours = new Map<string, readonly OurContext[]>();
  for (const [cluster, contexts] of contextsByCluster(view, input.all)) {
    const servers = serversOf(cluster);
    const there = contexts.filter((context) => servers.has(context.server) || !input.wasListed(context));
    for (const server of servers) ours.set(server, there.length > 0 ? there : contexts);
  }
  return ours;
}

function serversOf({ server, servers }: Cluster): Set<string> {
  return new Set([server, ...servers.map((each) => each.server)].filter((each) => each !== null));
}

/**
 * Returns the server for a context. It keeps its own one, even if that is another server of the cluster or has another
 * name, unless that server was listed before and no longer is. Then the cluster's TKA server has moved.
 */
function serverFor(context: OurContext, { cluster }: SyncAnswer, { wasListed }: SyncInput): string {
  return !serversOf(cluster).has(context.server) && wasListed(context) ? cluster.server : context.server;
}

// The list can name one server twice.
function oneEach(answers: readonly SyncAnswer[]): SyncAnswer[] {
  const seen = new Set<string>();
  return answers.filter(({ cluster: { server } }) => !seen.has(server) && seen.add(server));
}

/**
 * Returns the possible names for each cluster with a server, and a notice for each name that evades an unmanaged entry.
 * Uses the whole list, so that the selection and missing answers do not change names.
 */
function candidatesOf(view: KubeconfigView, input: SyncInput) {
  const candidates = new Map<string, readonly string[]>();
  const evasions = new Map<string, string>();
  const own = (wanted: string): string => {
    const { name, notice } = ownName(view, wanted);
    if (notice !== undefined) evasions.set(name, notice);
    return name;
  };
  const nameless = new Map<string, TkaError>();
  // If several clusters name the same server, the one that it serves gives the name.
  for (const cluster of [...input.answers.map((answer) => answer.cluster), ...input.all]) {
    const { server } = cluster;
    if (server === null || candidates.has(server) || nameless.has(server)) continue;
    try {
      candidates.set(server, [...new Set(candidateNames({ ...cluster, server }, input).map(own))]);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      nameless.set(server, error);
    }
  }
  return { candidates, nameless, evasions };
}

/** Returns why an answer must not be applied; undefined if it may be. */
function objection(
  answer: SyncAnswer,
  existing: readonly OurContext[],
  input: SyncInput,
  notices: string[],
): TkaError | undefined {
  const { cluster, info } = answer;
  if (info.insecureSkipTlsVerify && !input.mayBeInsecure(answer)) {
    return new TkaError('its TKA server asks to reach the API server without TLS verification', {
      hints: [`if you accept that: kubectl tka login ${cluster.server} --no-switch --insecure-skip-tls-verify`],
    });
  }
  const lines = existing.flatMap((context) =>
    changesOf(context, answer, input).map(({ what, from, to }) => `its ${what} has changed: ${from} → ${to}`),
  );
  if (lines.length === 0) return undefined;
  const changes = [...new Set(lines)].join('; ');
  if (!input.acceptChanges) {
    return new TkaError(changes, {
      hints: ['if these changes are expected: kubectl tka sync --accept-changes'],
    });
  }
  notices.push(`${cluster.name}: ${changes}`);
  return undefined;
}

/** Returns the contexts to rename because their name is not one that the template gives; at most one per server. */
function renamingsOf(
  answers: readonly SyncAnswer[],
  ours: ReadonlyMap<string, readonly OurContext[]>,
  candidates: ReadonlyMap<string, readonly string[]>,
  view: KubeconfigView,
  plan: { notices: string[]; hints: string[] },
): Renaming[] {
  const richer = new Map<string, ReadonlySet<string>>();
  const hasMore = ({ name, file }: OurContext) => {
    const known = richer.get(file) ?? richerContexts(file);
    richer.set(file, known);
    return known.has(name);
  };
  return answers.flatMap((answer) => {
    const { server } = answer.cluster;
    const existing = ours.get(server) ?? [];
    const wanted = candidates.get(server) ?? [];
    const [first] = existing;
    if (first === undefined || existing.some(({ name }) => wanted.includes(name))) return [];
    const context = existing.find(({ name }) => name === view.currentContext) ?? first;
    if (!hasMore(context)) return [{ context, answer }];
    // Renaming writes a new context, which would lose what the user added, such as a namespace.
    const why = 'it has settings of yours, such as a namespace';
    plan.notices.push(`context "${context.name}" keeps its name instead of "${wanted[0]}": ${why}`);
    plan.hints.push(`kubectl config rename-context ${shellWord(context.name)} ${shellWord(wanted[0] ?? '')}`);
    return [];
  });
}

/** Returns the contexts of a file that hold more than we write. */
function richerContexts(file: string): Set<string> {
  const { contexts } = parseSource(file, fs.readFileSync(file)).entries;
  const rich = contexts.filter(({ body }) => {
    const extensions = Array.isArray(body.extensions) ? body.extensions.length : 0;
    return extensions > 1 || Object.keys(body).some((key) => !['cluster', 'user', 'extensions'].includes(key));
  });
  return new Set(rich.map(({ name }) => name));
}

function changesOf(context: OurContext, answer: SyncAnswer, input: SyncInput): AccessChange[] {
  const [from, to] = [context.server, serverFor(context, answer, input)];
  return [...(from === to ? [] : [{ what: 'TKA server' as const, from, to }]), ...accessChanges(context, answer.info)];
}

function differs(context: OurContext, answer: SyncAnswer, input: SyncInput, spec: ContextSpec): boolean {
  return context.apiServer === undefined || changesOf(context, answer, input).length > 0 || !input.runs(context, spec);
}

function noName(): TkaError {
  return new TkaError('all its possible names are taken');
}

function withHint(error: TkaError, { cluster }: SyncAnswer): TkaError {
  return new TkaError(error.message, {
    hints: [`use another name: kubectl tka login ${cluster.server} --no-switch --context NAME`],
    cause: error,
  });
}

/** `ours` are the contexts that contextsOf() returns: one that it skips may be removed. */
function pruning(
  view: KubeconfigView,
  ours: ReadonlyMap<string, readonly OurContext[]>,
  { all, prunes, wasListed }: SyncInput,
) {
  const [pruned, spared]: [OurContext[], OurContext[]] = [[], []];
  if (!prunes) return { pruned, spared };
  const servers = new Set(all.flatMap((cluster) => [...serversOf(cluster)]));
  const endpoints = new Set(all.flatMap((cluster) => (isOnlyJoined(cluster) ? [] : cluster.apiEndpoint)));
  const listed = new Set([...ours.values()].flat());
  for (const context of view.ours) {
    if (servers.has(context.server) || listed.has(context)) continue;
    if (!isJoined(context) && endpoints.has(context.apiServer ?? '')) continue;
    (wasListed(context) ? pruned : spared).push(context);
  }
  return { pruned, spared };
}
