import { readKubeconfig } from '../../kubeconfig/index.ts';
import { keepsCommand, usableCommand } from '../../kubeconfig/spec.ts';
import type { TkaError } from '../../util/errors.ts';
import { searchPathOf } from '../../util/search-path.ts';
import { parseSelector } from '../../util/selector.ts';
import type { Context } from '../context/context.ts';
import { inContext, keepAllSiblings, siblingsOf } from '../contexts/siblings.ts';
import { specOf } from '../contexts/spec.ts';
import { chooseClusters } from '../target/by-name.ts';
import { allClustersTold } from '../target/clusters.ts';
import { contextsByCluster } from '../target/contexts.ts';
import { byList, listedBefore } from '../target/named-by.ts';
import { trustOf } from '../target/trust.ts';
import { askAll } from './ask.ts';
import { parseTemplate } from './names.ts';
import { planSync, type SyncInput } from './plan.ts';
import { reportSync } from './report.ts';
import { type WrittenSync, writeSync } from './write.ts';

export interface SyncFlags {
  readonly selector?: string;
  readonly prune?: boolean;
  readonly dryRun?: boolean;
  /** Prints the edit as a diff, and writes nothing. */
  readonly diff?: boolean;
  readonly contextTemplate?: string;
  readonly acceptChanges?: boolean;
}

/** The result of a sync. */
export interface SyncOutcome {
  readonly currentContext: string | undefined;
  /** The error that names the clusters that could not be synced; undefined if all were. */
  readonly error: TkaError | undefined;
}

/**
 * Asks the TKA server of each chosen cluster how to reach its API server, and updates the kubeconfig in one edit. Does
 * not sign in. Prints the result. Throws TkaError if nothing could be done.
 */
export async function syncContexts(context: Context, flags: SyncFlags): Promise<SyncOutcome> {
  const { settings, sessions, terminal, kubeconfig } = context;
  parseSelector(flags.selector ?? '');
  const template = flags.contextTemplate === undefined ? undefined : parseTemplate(flags.contextTemplate);
  const view = await readKubeconfig(kubeconfig);
  const all = await allClustersTold(context, view);
  const chosen = flags.selector === undefined ? all : chooseClusters(all, [], flags.selector, view);
  if (all.length === 0) terminal.notice('no clusters found');
  const known = new Set<string | null>(view.ours.map(({ server }) => server));
  const { answers, problems } = await askAll(context, chosen, {
    first: ({ server }) => known.has(server),
    trust: trustOf(context, view),
  });

  const namedBy = await byList(context);
  // If no server answered, the list may be outdated.
  const prune = flags.prune === true && answers.length > 0;
  if (flags.prune === true && !prune) terminal.warn('no TKA server answered, so nothing is removed');
  const { store } = sessions;
  const input: Omit<SyncInput, 'blocked'> = {
    all,
    answers,
    tailnet: settings.tailnet,
    template,
    acceptChanges: flags.acceptChanges === true,
    mayBeInsecure: ({ cluster, info }) => store.consents.read(cluster.server) === info.apiServer,
    runs: ({ command = '', file }, spec) =>
      keepsCommand(command, spec, () => usableCommand(command, file, searchPathOf(context.env))),
    wasListed: listedBefore(
      namedBy,
      all.flatMap(({ servers }) => servers),
      view,
    ),
    prunes: prune,
    specOf: (name, { cluster, info, siblings }, server) => {
      return specOf(context, name, server, info, {
        siblings: inContext(siblingsOf(server, cluster.server, siblings)),
        namedBy,
      });
    },
  };
  const dryRun = flags.dryRun === true || flags.diff === true;
  const written = await writeSync(kubeconfig, (v, blocked) => planSync(v, { ...input, blocked }), dryRun);
  const error = reportSync(context, {
    written,
    chosen,
    problems: [...problems, ...written.plan.problems],
    before: contextsByCluster(view, all),
    shows: flags.diff === true ? 'diff' : dryRun ? 'plan' : 'result',
  });
  if (!dryRun) keep(context, written, known);
  return { currentContext: written.currentContext, error };
}

/** Stores data beside the kubeconfig that later commands need. */
function keep(context: Context, { plan }: WrittenSync, known: ReadonlySet<string | null>): void {
  const { sessions } = context;
  const servers = new Set(plan.change.upsert.map(({ server }) => server));
  // `forget` removes a context and marks its server as signed out. A new context makes the server usable again. After
  // `logout` the context still exists, so the mark stays.
  for (const server of servers) if (!known.has(server)) sessions.store.signedOut.recall(server);
  keepAllSiblings(context, plan.change.upsert);
}
