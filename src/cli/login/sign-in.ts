import { isJoined } from '../../discovery/joined.ts';
import type { TrustPolicy } from '../../discovery/trust.ts';
import type { KubeconfigView, OurContext } from '../../kubeconfig/index.ts';
import { Unavailable } from '../../network/failure.ts';
import type { LoginResult } from '../../session/login.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { describeCluster } from '../../tka/client.ts';
import { TkaError } from '../../util/errors.ts';
import { quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { inContext, keepSiblings, siblingsToKeep } from '../contexts/siblings.ts';
import { type ClusterTarget, clusterOfServer } from '../target/by-name.ts';
import { type ContextTarget, contextOf } from '../target/contexts.ts';
import { namedByOf } from '../target/named-by.ts';
import { liftSignedOut } from '../target/same-cluster.ts';
import { confirmed, trustOf } from '../target/trust.ts';
import { type ContextOptions, ContextWriter } from './context-writer.ts';
import { rememberAccepted, requireTrust } from './first-use.ts';
import { reportContext, reportSession } from './report.ts';

export interface SignInOptions extends ContextOptions {
  /** The name of the cluster or server as typed; undefined for the configured one. */
  readonly name: string | undefined;
  /** Accepts that TLS verification of the API server is skipped. */
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
  // Runs in parallel with the sign-in, which does not depend on it.
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
  reportContext(context, written, { server, apiServer: result.session.apiServer, isSwitch: options.isSwitch });
}

/** A way through a login server gets a context of its own, because its account differs. */
function contextTargetOf({ server, cluster, ours }: ClusterTarget): ContextTarget {
  const isAlike = (each: { server: string | null }) => isJoined(each) === isJoined({ server });
  const servers = cluster?.servers.filter(isAlike).map((each) => each.server) ?? [];
  const { name = null, through = null } = cluster ?? {};
  const known = ours !== undefined && isAlike(ours) ? ours.name : undefined;
  return { server, clusterName: name, through, servers, known };
}

/** Signs in. If the name may be a mistyped cluster name, the error says so. */
async function signIn(
  { sessions, terminal }: Context,
  { server, cluster, unlisted }: ClusterTarget,
  { name, insecure }: SignInOptions,
): Promise<LoginResult> {
  try {
    const signInOptions = { insecure, apiServer: cluster?.apiEndpoint };
    return await terminal.waiting(`asking ${server} for a token`, () => sessions.signIn(server, signInOptions));
  } catch (error) {
    if (!unlisted || !(error instanceof Unavailable)) throw error;
    const why = unlisted === true ? `no cluster named ${quoted(name ?? '')}` : unlisted.message;
    const hints = ['kubectl tka clusters shows the names', ...error.hints];
    throw new TkaError(`${why}; as a host name: ${error.message}`, { hints, cause: error });
  }
}

/** Timeout for a server to describe its cluster, in parallel with the sign-in; in milliseconds. */
const describeTimeout = 2000;

/**
 * Finds the cluster of a server that the user named: from the last lists, else from the server itself (`info`). A
 * context with the same API server and the same CA belongs to that cluster. A server that is known to have no tag is
 * not trusted in this, and neither is a joined cluster, which can state anything: they get a context of their own.
 */
async function describeNamed(
  context: Context,
  view: KubeconfigView,
  server: string,
  trust: TrustPolicy,
): Promise<{ contextTarget: ContextTarget; info: Promise<ClusterDescription | undefined> }> {
  const client = context.client(server);
  const asked = describeCluster(client, Math.min(context.askTimeout, describeTimeout)).catch((error) => {
    context.terminal.log(`${server} does not describe its cluster: ${error}`);
    return undefined;
  });
  const remembered = await clusterOfServer(context, server, context.remembered.all);
  const { name = null, through = null } = remembered ?? {};
  const byList = { contextTarget: { server, clusterName: name, through }, info: asked };
  if (isJoined({ server })) {
    const replica = view.ours.find(({ siblings }) => siblings?.servers.includes(server));
    return { ...byList, contextTarget: { ...byList.contextTarget, known: replica?.name } };
  }
  if (contextOf(view, server) !== undefined || (await trust.isTagged(server)) === false) return byList;
  const info = await asked;
  if (info === undefined) return byList;
  const clusterName = info.cluster ?? (remembered?.apiEndpoint === info.apiServer ? remembered.name : null);
  const isSame = (ours: OurContext) => {
    if (isJoined(ours) || ours.apiServer !== info.apiServer || (ours.caData ?? '') !== info.caData) return false;
    const other = context.remembered.of(ours.server)?.name ?? clusterName;
    return clusterName === null || other === clusterName;
  };
  return { contextTarget: { server, clusterName, known: view.ours.find(isSame)?.name }, info: asked };
}
