import type { KubeconfigView } from '../../kubeconfig/index.ts';
import { Unavailable } from '../../network/failure.ts';
import type { LoginResult } from '../../session/login.ts';
import { TkaError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { inContext, keepSiblings, siblingsToKeep } from '../contexts/siblings.ts';
import type { ClusterTarget } from '../target/cluster-target.ts';
import { confirmed } from '../target/confirmed.ts';
import type { ContextTarget } from '../target/context-name.ts';
import { namedByOf } from '../target/named-by.ts';
import { liftSignedOut } from '../target/same-cluster.ts';
import { trustOf } from '../target/trust.ts';
import { type ContextOptions, ContextWriter } from './context-writer.ts';
import { rememberAccepted, requireTrust } from './first-use.ts';
import { describeNamed } from './named-server.ts';
import { reportContext, reportSession } from './report.ts';

export interface SignInOptions extends ContextOptions {
  /** What the user called the cluster or server; undefined for the configured one. */
  readonly name: string | undefined;
  /** Accepts that the API server is reached without TLS verification. */
  readonly insecure: boolean;
}

/** Signs in to one cluster and writes its context. Throws TkaError. */
export async function signInTo(
  context: Context,
  view: KubeconfigView,
  target: ClusterTarget,
  options: SignInOptions,
): Promise<void> {
  const { server, cluster } = target;
  const { log } = context.terminal;
  const trust = trustOf(context, view);
  const named = cluster === undefined ? await describeNamed(context, view, server, trust) : undefined;
  const contextTarget = named?.contextTarget ?? contextTargetOf(target);
  const writer = new ContextWriter(context, contextTarget, options);

  log(`checking that a context for ${server} can be written`);
  await writer.check(view, cluster?.apiEndpoint);
  await requireTrust(context, trust, target, options.name);

  const client = (url: string) => context.sessions.client(url, cluster?.apiEndpoint);
  const confirmation = cluster && (await confirmed(context, { ...cluster, server }, trust, client));
  if (confirmation !== undefined && confirmation.server !== server) {
    log(`${confirmation.server} confirmed the cluster in the place of ${server}: signing in there`);
    return signInTo(context, view, { ...target, server: confirmation.server }, options);
  }
  if (confirmation !== undefined) writer.requireSameCluster(view, confirmation);
  // Runs beside the sign-in, which does not depend on it.
  const siblingsFound = Promise.resolve(confirmation ?? named?.info).then(
    (info) => info && siblingsToKeep(context, trust, { server, info }, cluster?.servers ?? []),
  );

  log(`signing in to ${server}`);
  const result = await signIn(context, target, options);
  const siblings = await siblingsFound;

  log(`writing the context for ${server}`);
  const namedBy = await namedByOf(context, target);
  const written = await writer.write(result.session, { siblings: inContext(siblings), namedBy });
  keepSiblings(context, server, siblings);
  liftSignedOut(context, view, server);
  await rememberAccepted(context, trust, target);
  reportSession(context, result, contextTarget.clusterName);
  reportContext(context, written, { apiServer: result.session.apiServer, isSwitch: options.isSwitch });
}

function contextTargetOf({ server, cluster, ours }: ClusterTarget): ContextTarget {
  const servers = cluster?.servers.map((each) => each.server) ?? [];
  return { server, clusterName: cluster?.name ?? null, servers, known: ours?.name };
}

/** Signs in. For a name that may be a mistyped cluster, the error says so. */
async function signIn(
  { sessions }: Context,
  { server, cluster, unlisted }: ClusterTarget,
  { name, insecure }: SignInOptions,
): Promise<LoginResult> {
  try {
    return await sessions.signIn(server, { insecure, apiServer: cluster?.apiEndpoint });
  } catch (error) {
    if (!unlisted || !(error instanceof Unavailable)) throw error;
    const why = unlisted === true ? `no cluster named ${quoted(name ?? '')}` : unlisted.message;
    const hints = ['kubectl tka clusters shows the names', ...error.hints];
    throw new TkaError(`${why}; and as a host: ${error.message}`, { hints, cause: error });
  }
}
