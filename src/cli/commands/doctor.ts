import { UnresolvedCluster } from '../../discovery/clusters.ts';
import { ListMemory } from '../../discovery/memory.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { progressBar } from '../../terminal/progress.ts';
import { NoGrant } from '../../tka/no-grant.ts';
import { TkaError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { type Claimed, checkApi } from '../doctor/api.ts';
import { type CheckName, Checks, checkNames, consequence, failedBy, skipped, type Verdict } from '../doctor/check.ts';
import { checkKubeconfig, type Found, findKubeconfig } from '../doctor/kubeconfig.ts';
import {
  checkCache,
  checkClock,
  checkConfiguration,
  checkKubectl,
  checkPath,
  checkTailscaled,
} from '../doctor/machine.ts';
import { type Diagnosis, showReport } from '../doctor/print.ts';
import { checkServer } from '../doctor/server.ts';
import { checkSession, heldSession } from '../doctor/session.ts';
import { withMissingGrant } from '../no-grant.ts';
import { type ClusterTarget, NoCluster } from '../target/by-name.ts';
import { contextOf, nameOfServer } from '../target/contexts.ts';
import { heldTarget } from '../target/held-target.ts';
import { loginTarget } from '../target/login-target.ts';

/** Runs `doctor [NAME]`: checks everything that a cluster needs. Changes nothing. Throws TkaError if a check fails. */
export async function doctor(
  context: Context,
  [name]: readonly string[],
  flags: { readonly output?: 'json' },
): Promise<void> {
  const checks = new Checks();
  const text = () =>
    `checking ${name === undefined ? 'everything' : cleanText(name)} ${progressBar(checks.size, checkNames.length)}`;
  await showReport(context, await context.terminal.waiting(text, () => examine(context, name, checks)), flags.output);
}

/** Runs all checks. Throws UsageError if the name is ambiguous. */
async function examine(given: Context, name: string | undefined, checks: Checks): Promise<Diagnosis> {
  const context = silent(given);
  const { env, paths, settings } = context;
  const kubectl = checkKubectl(env);
  checks.set('configuration', await checkConfiguration(context));
  checks.set('tailscaled', await checkTailscaled(context.tailnet, settings.tag));
  const found = await findKubeconfig(context.kubeconfig);
  const chosen = await choose(context, name, found.view, checks);
  let cluster: string | null = null;
  if ('server' in chosen) {
    const { server } = chosen;
    cluster = chosen.cluster?.name ?? nameOfServer(context, found.view, server);
    await examineCluster(context, checks, found, chosen);
    // For example, a subnet router or a proxy needs no tailscaled here.
    if (checks.has('tcp', 'ok')) checks.weaken('tailscaled', `${server} is reached without it`);
  } else {
    if (found.problem !== undefined) checks.set('kubeconfig', failedBy(found.problem));
    checks.set(chosen.of, chosen.verdict);
  }
  checks.set('kubectl', await kubectl);
  checks.set('path', checkPath(env, context.command));
  checks.set('cache', checkCache(paths, env));
  if (!('server' in chosen)) {
    const { of, verdict } = chosen;
    checks.setRest(checkNames, consequence(of, verdict) ?? skipped(verdict.detail));
  }
  const list = checks.list();
  return {
    cluster,
    checks: list.map((check) => ({ ...check, hint: check.hint && context.remembered.inHint(check.hint) })),
  };
}

async function examineCluster(context: Context, checks: Checks, found: Found, chosen: ClusterTarget): Promise<void> {
  const { server } = chosen;
  const told = await checkServer(context, checks, chosen);
  const session = checkSession(context, checks, server, told);
  const held = heldSession(context, server);
  const kept = held === 'damaged' ? undefined : held;
  const ours = chosen.ours ?? contextOf(found.view, server);
  const claimed = whereTheApiIs(told.info, kept, ours);
  const skew = await checkApi(context, checks, server, claimed, session);
  checks.set('kubeconfig', checkKubeconfig(context, found, { server, ours }, told.info, kept));
  checks.set('clock', checkClock(told.skew ?? skew));
}

// If the TKA server does not answer, kubectl uses the API server it already knows.
function whereTheApiIs(
  info: Omit<Claimed, 'by'> | undefined,
  kept: Omit<Claimed, 'by'> | undefined,
  ours: OurContext | undefined,
): Claimed | undefined {
  const access = ({ apiServer, caData, insecureSkipTlsVerify }: Omit<Claimed, 'by'>, by: string): Claimed => {
    return { apiServer, caData, insecureSkipTlsVerify, by };
  };
  if (info !== undefined) return access(info, 'the TKA server');
  if (kept !== undefined) return access(kept, 'the last sign-in');
  if (ours?.apiServer === undefined) return undefined;
  return access({ ...ours, apiServer: ours.apiServer, caData: ours.caData ?? '' }, 'the kubeconfig');
}

/** Why there is no server to check, as the verdict on the check that found it out. */
interface NotChosen {
  readonly of: CheckName;
  readonly verdict: Verdict;
}

/** Returns the server to check, or why there is none. */
async function choose(
  context: Context,
  name: string | undefined,
  view: KubeconfigView,
  checks: Checks,
): Promise<ClusterTarget | NotChosen> {
  const none = (verdict: Verdict, of: CheckName = 'name'): NotChosen => ({ of, verdict });
  try {
    if (name !== undefined) {
      const target = await loginTarget(context, name, view);
      // kubectl uses the server of the context, which can be another one of the cluster.
      const ours = view.ours.find((each) => each.name === name);
      return ours === undefined ? { ...target, ours: undefined } : { ...target, server: ours.server, ours };
    }
    const { server } = await heldTarget(context, undefined, view, 'doctor');
    return { server, cluster: undefined, origin: 'known' };
  } catch (error) {
    if (!(error instanceof TkaError) || (name !== undefined && error.exitCode === 2)) throw error;
    if (error instanceof NoGrant) return none(failedBy(await withMissingGrant(context, error)), 'grant');
    // There is a list of clusters, so tailscaled is not what is missing.
    if (error instanceof NoCluster) checks.weaken('tailscaled', 'the clusters are listed without it');
    if (error instanceof UnresolvedCluster || error instanceof NoCluster) return none(failedBy(error));
    if (checks.has('configuration', 'failed')) return none(skipped('depends on configuration'));
    // There are several servers, and the user named none.
    const hint = error.exitCode === 2 ? 'kubectl tka doctor NAME' : error.hints[0];
    return none(skipped(error.message, hint ?? null));
  }
}

/** The last known lists of clusters, read-only. */
class ReadOnlyMemory extends ListMemory {
  override write(): void {}
}

// doctor prints only its checks, and changes nothing.
function silent(context: Context): Context {
  const { terminal, paths } = context;
  return {
    ...context,
    memory: new ReadOnlyMemory(paths.state),
    terminal: { ...terminal, notice: terminal.log, warn: terminal.log, hint: terminal.log },
  };
}
