import { shortName } from '../../discovery/naming.ts';
import { acceptHint, type TrustPolicy } from '../../discovery/trust.ts';
import {
  checkWritable,
  editKubeconfig,
  type KubeconfigView,
  type OurContext,
  previewKubeconfig,
  readKubeconfig,
} from '../../kubeconfig/index.ts';
import { Unavailable } from '../../network/failure.ts';
import type { Previous } from '../../session/login.ts';
import { roleNotice, roleRemedy } from '../../session/roles.ts';
import type { Session } from '../../session/session.ts';
import { askYesNo, canAsk } from '../../terminal/ask.ts';
import { when } from '../../terminal/output.ts';
import type { ClusterDescription } from '../../tka/answers.ts';
import { hintsOf, systemCode, TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { rememberSwitch } from '../contexts/previous.ts';
import { inContext, keepSiblings, siblingsToKeep } from '../contexts/siblings.ts';
import { specOf } from '../contexts/spec.ts';
import { chooseClusters, NoCluster } from '../target/by-name.ts';
import { type ClusterTarget, targetOf } from '../target/cluster-target.ts';
import { allClusters } from '../target/clusters.ts';
import { confirmed } from '../target/confirmed.ts';
import { type ContextTarget, contextFor, contextOf } from '../target/context-name.ts';
import { contextsByCluster } from '../target/contexts-by-cluster.ts';
import { clusterOfServer } from '../target/listed-server.ts';
import { loginTarget } from '../target/login-target.ts';
import { liftSignedOut } from '../target/same-cluster.ts';
import { trustOf } from '../target/trust.ts';

/** How long a server may take to describe its cluster, beside the sign-in, in milliseconds. */
const describeTimeout = 2000;

interface LoginFlags {
  readonly selector?: string;
  readonly context?: string;
  readonly switch?: boolean;
  readonly allContexts?: boolean;
  readonly insecureSkipTlsVerify?: boolean;
}

/** `login [NAME...]`: for each name one sign-in and one edit of the kubeconfig. */
export async function login(context: Context, names: readonly string[], flags: LoginFlags): Promise<void> {
  const many = names.length > 1 || flags.selector !== undefined;
  if (flags.allContexts) {
    if (names.length > 0) throw new UsageError('login takes either names or --all-contexts');
    if (flags.insecureSkipTlsVerify) throw onlyOneInsecure();
    return writeAllContexts(context, flags.selector);
  }
  if (flags.context?.trim() === '') throw new UsageError('--context is empty');
  if (many && flags.insecureSkipTlsVerify) throw onlyOneInsecure();
  if (many && flags.context !== undefined) throw new UsageError('--context names one context, but several are meant');
  // A kubeconfig that cannot be edited is found out before anything changes anywhere.
  const view = await readKubeconfig(context.kubeconfig);
  if (!many) return signInTo(context, view, await loginTarget(context, names[0], view), flags, names[0]);
  if (names.length > 0 && flags.selector !== undefined) throw new UsageError('give either names or a selector');
  const all = flags.selector === undefined ? [] : await allClusters(context, view);
  const chosen = flags.selector === undefined ? undefined : chooseClusters(all, [], flags.selector, view);
  const contexts = contextsByCluster(view, all);
  let failures = 0;
  const each = async (name: string, target: () => Promise<ClusterTarget>) => {
    try {
      // Which of several would be the current one? None: that is for `use` to say.
      await signInTo(context, view, await target(), { ...flags, switch: false }, name);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      failures++;
      context.terminal.warn(`${cleanText(name)}: ${error.message}`);
      for (const hint of hintsOf(error, name)) context.terminal.hint(hint);
    }
  };
  for (const cluster of chosen ?? []) {
    await each(cluster.name, async () => targetOf(cluster, contexts));
  }
  for (const name of chosen === undefined ? new Set(names) : [])
    await each(name, () => loginTarget(context, name, view));
  if (failures > 0) {
    throw new TkaError(`${failures} of ${chosen?.length ?? new Set(names).size} sign-ins failed`, {
      hints: ['the warnings above say why'],
    });
  }
}

async function signInTo(
  context: Context,
  view: KubeconfigView,
  target: ClusterTarget,
  flags: LoginFlags,
  name: string | undefined,
): Promise<void> {
  const { sessions, settings, terminal } = context;
  const { server, cluster, unlisted } = target;
  const trust = trustOf(context, view);
  const named = cluster === undefined ? await described(context, view, target, trust) : undefined;
  const what = named?.what ?? contextTarget(target);
  const nameIn = (v: KubeconfigView) => contextFor(v, what, { tailnet: settings.tailnet, wanted: flags.context });
  refuseForeign(view, nameIn(view));
  // A name that is taken by a cluster or user, or a file that cannot be edited safely, is no reason to sign in first.
  const previews = await previewKubeconfig(context.kubeconfig, (v) => {
    const name = nameIn(v);
    const known = v.ours.find((c) => c.name === name);
    const apiServer = known?.apiServer ?? cluster?.apiEndpoint ?? 'https://not-known-yet.invalid';
    const access = {
      apiServer,
      caData: known?.caData ?? '',
      insecureSkipTlsVerify: known?.insecureSkipTlsVerify ?? false,
    };
    return {
      upsert: [specOf(context, name, server, access)],
      ...(flags.switch !== false && { currentContext: name }),
    };
  });
  checkWritable(previews);
  await requireTrust(context, trust, target, name);
  const client = (url: string) => sessions.client(url, cluster?.apiEndpoint);
  const confirmation = cluster && (await confirmed(context, { ...cluster, server }, trust, client));
  // It is another of the cluster's servers that speaks for it.
  if (confirmation !== undefined && confirmation.server !== server)
    return signInTo(context, view, { ...target, server: confirmation.server }, flags, name);
  if (confirmation !== undefined) requireSameCluster(view, nameIn(view), confirmation);
  // A server that was named by its URL signs in whatever it answers to this.
  const siblings = Promise.resolve(confirmation ?? named?.info).then(
    (info) => info && siblingsToKeep(context, trust, { server, info }, cluster?.servers ?? []),
  );

  const { session, previous } = await sessions
    .signIn(server, { insecure: flags.insecureSkipTlsVerify === true, apiServer: cluster?.apiEndpoint })
    .catch((error) => {
      if (!unlisted || !(error instanceof Unavailable)) throw error;
      const why = unlisted === true ? `no cluster named ${quoted(name ?? '')}` : unlisted.message;
      throw new TkaError(`${why}; and as a host: ${error.message}`, {
        hints: ['kubectl tka clusters shows the names', ...error.hints],
        cause: error,
      });
    });
  const kept = await siblings;
  let written = '';
  let before: ReturnType<typeof contextOf>;
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    written = nameIn(v);
    before = v.ours.find((c) => c.name === written);
    return {
      upsert: [specOf(context, written, server, session, inContext(kept))],
      ...(flags.switch !== false && { currentContext: written }),
    };
  });
  keepSiblings(context, server, kept);
  liftSignedOut(context, view, server);
  await rememberAccepted(context, trust, target);
  if (flags.switch !== false) rememberSwitch(context, edit);
  sayWhoYouAre(context, session, previous, what.clusterName);
  if (before?.apiServer !== undefined && before.apiServer !== session.apiServer) {
    terminal.warn(
      `the API server of context "${written}" has changed: it was ${before.apiServer}, and is ${session.apiServer}`,
    );
  }
  if (settings.quiet) return;
  if (flags.switch === false) {
    terminal.out(`Context "${written}" is ready; the current context stays ${nameOrNone(edit.currentContext)}.\n`);
  } else if (edit.previousContext === written) {
    terminal.out(`Context "${written}" is the current context, as before.\n`);
  } else {
    terminal.out(`Context "${written}" is the current context; before, it was ${nameOrNone(edit.previousContext)}.\n`);
  }
}

/** What a server states of its cluster; undefined where it does not. */
async function describe(context: Context, server: string): Promise<ClusterDescription | undefined> {
  const client = context.client(server);
  try {
    return await client.clusterInfo({ timeout: Math.min(context.askTimeout, describeTimeout) });
  } catch (error) {
    context.terminal.log(`${server} does not describe its cluster: ${error}`);
    return undefined;
  } finally {
    await client.close();
  }
}

function contextTarget({ server, cluster, ours }: ClusterTarget): ContextTarget {
  const servers = cluster?.servers.map((each) => each.server) ?? [];
  return { server, clusterName: cluster?.name ?? null, servers, known: ours?.name };
}

/**
 * Which cluster a server is of that the user named: as the last lists have it, else as it says itself. A context that
 * leads to the same API server with the same CA is that cluster's. A server that is known to have no tag is believed
 * neither: it gets a context of its own.
 */
async function described(
  context: Context,
  view: KubeconfigView,
  { server }: ClusterTarget,
  trust: TrustPolicy,
): Promise<{ what: ContextTarget; info: Promise<ClusterDescription | undefined> }> {
  const asked = describe(context, server);
  const remembered = await clusterOfServer(context, server, context.remembered.all);
  const unknown = { what: { server, clusterName: remembered?.name ?? null }, info: asked };
  if (contextOf(view, server) !== undefined || (await trust.isTagged(server)) === false) return unknown;
  const info = await asked;
  if (info === undefined) return unknown;
  const clusterName = info.cluster ?? (remembered?.apiEndpoint === info.apiServer ? remembered.name : null);
  const isSame = (ours: OurContext) => {
    if (ours.apiServer !== info.apiServer || (ours.caData ?? '') !== info.caData) return false;
    const other = context.remembered.of(ours.server)?.name ?? clusterName;
    return clusterName === null || other === clusterName;
  };
  return { what: { server, clusterName, known: view.ours.find(isSame)?.name }, info: asked };
}

/** Throws TkaError where a context is to get another TKA server, and that one names another CA for the API server. */
function requireSameCluster(
  view: KubeconfigView,
  name: string,
  { server, caData, apiServer }: ClusterDescription & { readonly server: string },
): void {
  const ours = view.ours.find((each) => each.name === name);
  if (ours === undefined || ours.server === server || ours.apiServer !== apiServer) return;
  if ((ours.caData ?? '') === caData) return;
  throw new TkaError(`${server} names another CA for ${apiServer} than context "${name}" has from ${ours.server}`, {
    hints: [`if you trust it, name it by its URL: kubectl tka login ${server}`],
  });
}

/**
 * Warns of the first sign-in to a server without the tag. If a bare word was all that named it, the user has to agree on
 * a terminal, since a typo can be the name of anyone's device. Throws TkaError if the server must not be used.
 */
async function requireTrust(
  context: Context,
  trust: TrustPolicy,
  target: ClusterTarget,
  name: string | undefined,
): Promise<void> {
  const { server, origin, cluster, unlisted } = target;
  const verdict = await trust.verdict(server, origin);
  if (verdict === 'use') return;
  if (verdict === 'refuse')
    return trust.require({
      server,
      provenance: 'tailnet',
      name: cluster?.name ?? shortName(server, context.settings.tailnet),
    });
  const why = await trust.whyNot(server);
  if (verdict === 'warn') return context.terminal.warn(`${why}; make sure you trust it (first sign-in)`);
  if (canAsk()) {
    if (!(await askYesNo(`${why}, and you have not used it before. Sign in to it?`)))
      throw new TkaError('cancelled', { exitCode: 130, hints: [acceptHint(server)] });
    return trust.accept(server);
  }
  if (unlisted instanceof NoCluster)
    throw new TkaError(unlisted.message, {
      hints: [...unlisted.hints, `for a server that is not listed: kubectl tka login ${server}`],
      cause: unlisted,
    });
  if (unlisted instanceof TkaError) {
    throw new TkaError(`cannot look for ${quoted(name ?? '')}: ${unlisted.message}`, {
      hints: [...unlisted.hints, acceptHint(server)],
      cause: unlisted,
    });
  }
  throw new TkaError(`${why}, and you have not used it before`, { hints: [acceptHint(server)] });
}

/** Remembers a server without the tag that the user named: it may then be used wherever a list states it. */
async function rememberAccepted(
  context: Context,
  trust: TrustPolicy,
  { server, origin }: ClusterTarget,
): Promise<void> {
  if (origin !== 'named' && !trust.wasAccepted(server)) return;
  if ((await trust.isTagged(server)) === true) return;
  try {
    context.accepted.add(server);
  } catch (error) {
    context.terminal.warn(`cannot remember that you trust ${server}: ${systemCode(error) ?? error}`);
  }
}

function nameOrNone(name: string | undefined): string {
  return name === undefined ? 'none' : quoted(name);
}

function sayWhoYouAre(
  context: Context,
  session: Session,
  previous: Previous | undefined,
  clusterName: string | null,
): void {
  const { terminal, settings } = context;
  const { server, username, role, until, clockOffset } = session;
  const name = clusterName ?? shortName(server, settings.tailnet);
  if (!settings.quiet) {
    terminal.out(
      `Signed in to ${name} (${server}) as ${username}, role ${role}, until ${when(Date.parse(until), Date.now() + clockOffset)}.\n`,
    );
  }
  if (previous !== undefined && previous.username !== username) {
    terminal.warn(`you are ${username} now; before, you were ${previous.username}`);
  }
  if (session.formerRole !== undefined) {
    terminal.warn(roleNotice(session));
    terminal.hint(roleRemedy(server));
  } else if (previous !== undefined && previous.username === username && previous.role !== role) {
    terminal.notice(`your role is ${role} now; before, it was ${previous.role}`);
  }
}

// Whoever answers in place of an unverified API server is sent the user's token.
function onlyOneInsecure(): UsageError {
  return new UsageError('--insecure-skip-tls-verify is for one cluster', {
    hints: ['kubectl tka login NAME --insecure-skip-tls-verify'],
  });
}

function refuseForeign(view: KubeconfigView, name: string): void {
  if (!view.contexts.has(name) || view.ours.some((c) => c.name === name)) return;
  throw new TkaError(`the kubeconfig has a context ${JSON.stringify(name)} that is not ours`, {
    hints: ['choose another name: --context NAME'],
  });
}

// Without a sign-in: what a context needs is in each server's /cluster-info.
async function writeAllContexts(context: Context, selector: string | undefined): Promise<void> {
  const { syncContexts } = await import('../sync/sync.ts');
  const { currentContext, error } = await syncContexts(context, selector === undefined ? {} : { selector });
  if (!context.settings.quiet) {
    context.terminal.out(
      `The current context stays ${nameOrNone(currentContext)}; kubectl signs in to each when it first needs to.\n`,
    );
  }
  if (error !== undefined) throw error;
}
