import type { Cluster } from '../../discovery/clusters.ts';
import { type KubeconfigView, readKubeconfig } from '../../kubeconfig/index.ts';
import { hintsOf, TkaError, UsageError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { checkNamespace, withExecCommand } from '../contexts/spec.ts';
import { nameOrNone } from '../login/report.ts';
import { type SignInOptions, signInTo } from '../login/sign-in.ts';
import { type ClusterTarget, chooseClusters, clusterNames, targetOf } from '../target/by-name.ts';
import { allClusters } from '../target/clusters.ts';
import { contextsByCluster } from '../target/contexts.ts';
import { loginTarget } from '../target/login-target.ts';
import { expandNames, isGlob, isPattern } from '../target/patterns.ts';

interface LoginFlags {
  readonly selector?: string;
  readonly context?: string;
  readonly namespace?: string;
  readonly switch?: boolean;
  readonly allContexts?: boolean;
  readonly execCommand?: string;
  readonly insecureSkipTlsVerify?: boolean;
}

/** Runs `login [NAME...]`: one sign-in and one edit of the kubeconfig per name. */
export async function login(opened: Context, names: readonly string[], flags: LoginFlags): Promise<void> {
  const isMany = names.length > 1 || flags.selector !== undefined;
  checkFlags(names, flags, isMany);
  const context = withExecCommand(opened, flags.execCommand);
  if (flags.allContexts) return writeAllContexts(context, flags.selector);
  // Find out that the kubeconfig cannot be edited before anything changes.
  const view = await readKubeconfig(context.kubeconfig);
  const { namespace } = flags;
  const targets = isMany || names.some(isPattern) ? await targetsOf(context, view, names, flags.selector) : undefined;
  // A name may contain a comma or an asterisk, and then it is one.
  if (targets !== undefined && (isMany || targets.some(({ name }) => name !== names[0]))) {
    checkFlags(names, flags, true);
    return signInToMany(context, view, targets, namespace);
  }
  const [name] = names;
  await signInTo(context, view, await loginTarget(context, name, view), {
    name,
    wanted: flags.context,
    namespace,
    isSwitch: flags.switch !== false,
    insecure: flags.insecureSkipTlsVerify === true,
  });
}

function checkFlags(names: readonly string[], flags: LoginFlags, isMany: boolean): void {
  if (flags.allContexts && names.length > 0) throw new UsageError('names and --all-contexts cannot be combined');
  checkNamespace(flags.namespace);
  if (flags.context?.trim() === '') throw new UsageError('--context is empty');
  // This flag can send the user's token to the wrong server, so it is not for many clusters at once.
  if ((isMany || flags.allContexts) && flags.insecureSkipTlsVerify)
    throw new UsageError('--insecure-skip-tls-verify works for one cluster at a time', {
      hints: ['kubectl tka login NAME --insecure-skip-tls-verify'],
    });
  if (names.length > 0 && flags.selector !== undefined) throw new UsageError('names and a selector cannot be combined');
  if (isMany && flags.context !== undefined) throw new UsageError('--context works for one cluster at a time');
}

/** One of several clusters to sign in to. */
interface NamedTarget {
  readonly name: string;
  readonly find: () => Promise<ClusterTarget>;
}

async function targetsOf(
  context: Context,
  view: KubeconfigView,
  names: readonly string[],
  selector: string | undefined,
): Promise<NamedTarget[]> {
  const ofName = (name: string): NamedTarget => ({ name, find: () => loginTarget(context, name, view) });
  if (selector === undefined && !names.some(isPattern)) return [...new Set(names)].map(ofName);
  const all = await allClusters(context, view).catch((error: unknown) => {
    // Without a list of clusters, names may still be those of hosts.
    if (selector !== undefined || names.some(isGlob) || !(error instanceof TkaError) || error.exitCode !== 1)
      throw error;
    context.terminal.log(`cannot look for names with a comma among the clusters: ${error.message}`);
    return [];
  });
  const contexts = contextsByCluster(view, all);
  const found = (cluster: Cluster): NamedTarget => ({
    name: cluster.name,
    find: async () => targetOf(cluster, contexts),
  });
  if (selector !== undefined) return chooseClusters(all, [], selector, view).map(found);
  const expanded = expandNames(names, clusterNames(all, view));
  const typed = new Set(expanded.flatMap(({ name, match }) => (match === undefined ? [name] : [])));
  return expanded.flatMap(({ name, match }) => {
    if (match === undefined) return [ofName(name)];
    return typed.has(name) ? [] : [found(match)];
  });
}

/** Signs in to each cluster in turn. Does not change the current context; the user picks it with `use`. */
async function signInToMany(
  context: Context,
  view: KubeconfigView,
  targets: readonly NamedTarget[],
  namespace: string | undefined,
): Promise<void> {
  let failures = 0;
  for (const { name, find } of targets) {
    const options: SignInOptions = { name, wanted: undefined, namespace, isSwitch: false, insecure: false };
    try {
      await signInTo(context, view, await find(), options);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      failures++;
      context.terminal.warn(`${cleanText(name)}: ${error.message}`);
      for (const hint of hintsOf(error, name)) context.terminal.hint(hint);
    }
  }
  if (failures > 0) {
    throw new TkaError(`${failures} of ${targets.length} sign-ins failed`, { hints: ['the warnings above say why'] });
  }
}

// Needs no sign-in: each server's /cluster-info has all that a context needs.
async function writeAllContexts(context: Context, selector: string | undefined): Promise<void> {
  const { syncContexts } = await import('../sync/sync.ts');
  const { currentContext, error } = await syncContexts(context, selector === undefined ? {} : { selector });
  if (!context.settings.quiet) {
    const current = nameOrNone(currentContext);
    context.terminal.out(`The current context is still ${current}. kubectl signs in to each cluster on first use.\n`);
  }
  if (error !== undefined) throw error;
}
