import { type Cluster, confirmCluster, listClusters } from '../discovery/clusters.ts';
import { shortName } from '../discovery/naming.ts';
import { TkaError, UsageError } from '../errors.ts';
import { type ContextSpec, editKubeconfig, type KubeconfigView, readKubeconfig } from '../kubeconfig/index.ts';
import type { Previous } from '../session/session.ts';
import type { Session } from '../session/store.ts';
import { when } from '../terminal.ts';
import { type ClusterDescription, Unavailable } from '../tka/answers.ts';
import { cleanText } from '../tka/text.ts';
import { type Context, requireEntryServer } from './context.ts';
import { contextFor, contextOf, listOptions, loginTarget } from './target.ts';

interface LoginFlags {
  readonly context?: string;
  readonly switch?: boolean;
  readonly allContexts?: boolean;
  readonly insecureSkipTlsVerify?: boolean;
}

/** `login [NAME]`: options in, one sign-in, one edit of the kubeconfig. */
export async function login(context: Context, [name]: readonly string[], flags: LoginFlags): Promise<void> {
  if (flags.allContexts) {
    if (name !== undefined) throw new UsageError('login takes either a name or --all-contexts');
    return writeAllContexts(context, flags.insecureSkipTlsVerify === true);
  }
  const { sessions, settings, terminal } = context;
  if (flags.context !== undefined && flags.context.trim() === '') throw new UsageError('--context is empty');
  // A kubeconfig that cannot be edited, or a name that cannot be had, is found out before anything changes anywhere.
  const view = await readKubeconfig(context.kubeconfig);
  const { server, cluster, unlisted } = await loginTarget(context, name, view);
  const memberName = cluster?.name ?? null;
  const nameIn = (v: KubeconfigView) =>
    contextFor(v, { server, memberName }, { tailnet: settings.tailnet, wanted: flags.context });
  refuseForeign(view, nameIn(view));
  if (cluster !== undefined) await confirmCluster({ ...cluster, server }, listOptions(context, view));

  const { session, previous } = await sessions
    .signIn(server, { insecure: flags.insecureSkipTlsVerify === true, apiServer: cluster?.apiEndpoint })
    .catch((error) => {
      if (unlisted !== true || !(error instanceof Unavailable)) throw error;
      throw new TkaError(`no cluster is called ${cleanText(name ?? '')}, and as a host: ${error.message}`, {
        hints: ['kubectl tka clusters shows the names', ...error.hints],
        cause: error,
      });
    });
  let written = '';
  let before: ReturnType<typeof contextOf>;
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    written = nameIn(v);
    before = v.ours.find((c) => c.name === written);
    return {
      upsert: [specOf(context, written, server, session)],
      ...(flags.switch !== false && { currentContext: written }),
    };
  });
  sayWhoYouAre(context, session, previous, memberName);
  if (before?.apiServer !== undefined && before.apiServer !== session.apiServer) {
    terminal.warn(
      `the API server of context "${written}" has changed: it was ${before.apiServer}, and is ${session.apiServer}`,
    );
  }
  if (settings.quiet) return;
  if (flags.switch === false) {
    terminal.out(`Context "${written}" is ready; the current context stays ${quoted(edit.currentContext)}.\n`);
  } else if (edit.previousContext === written) {
    terminal.out(`Context "${written}" is the current context, as before.\n`);
  } else {
    terminal.out(`Context "${written}" is the current context; before, it was ${quoted(edit.previousContext)}.\n`);
  }
}

function quoted(name: string | undefined): string {
  return name === undefined ? 'none' : `"${name}"`;
}

function sayWhoYouAre(
  context: Context,
  session: Session,
  previous: Previous | undefined,
  memberName: string | null,
): void {
  const { terminal, settings } = context;
  const { server, username, role, until } = session;
  const name = shortName(server, settings.tailnet, memberName);
  if (!settings.quiet) {
    terminal.out(`Signed in to ${name} (${server}) as ${username}, role ${role}, until ${when(Date.parse(until))}.\n`);
  }
  if (previous !== undefined && previous.username !== username) {
    terminal.warn(`you are ${username} now; before, you were ${previous.username}`);
  }
  if (previous !== undefined && previous.role !== role) {
    terminal.warn(
      `your role is ${role} now; before, it was ${previous.role}. some servers apply a changed role only after a logout`,
    );
    terminal.hint(`kubectl tka logout ${server} && kubectl tka login ${server}`);
  }
}

type Access = Pick<Session, 'apiServer' | 'caData' | 'insecureSkipTlsVerify'>;

function specOf(context: Context, name: string, server: string, access: Access): ContextSpec {
  return {
    name,
    server,
    apiServer: access.apiServer,
    caData: access.caData,
    insecureSkipTlsVerify: access.insecureSkipTlsVerify,
    command: context.command,
    installHint:
      'kubectl-tka gets the tokens for this cluster, and is not installed here.\nInstall it with: kubectl krew install tka',
  };
}

function refuseForeign(view: KubeconfigView, name: string): void {
  if (!view.contexts.has(name) || view.ours.some((c) => c.name === name)) return;
  throw new TkaError(`the kubeconfig has a context ${JSON.stringify(name)} that is not ours`, {
    hints: ['choose another name: --context NAME'],
  });
}

const parallel = 32;

// Without a sign-in: what a context needs is in each server's /cluster-info.
async function writeAllContexts(context: Context, insecure: boolean): Promise<void> {
  const { terminal, settings, sessions } = context;
  const view = await readKubeconfig(context.kubeconfig);
  const options = listOptions(context, view);
  const clusters = await listClusters(requireEntryServer(settings), options);
  let failures = 0;
  const fail = (cluster: Cluster, error: unknown) => {
    failures++;
    terminal.warn(`${cluster.name}: ${error instanceof TkaError ? error.message : String(error)}`);
    for (const hint of error instanceof TkaError ? error.hints : []) terminal.hint(hint);
  };
  const ask = async (cluster: Cluster): Promise<[Cluster & { server: string }, ClusterDescription] | undefined> => {
    try {
      if (cluster.server === null) throw new TkaError(cluster.reason ?? 'its TKA server is not known');
      const placed = { ...cluster, server: cluster.server };
      const info = await confirmCluster(placed, options);
      refuseSurprises(view, placed, info, insecure);
      if (info.insecureSkipTlsVerify) sessions.store.giveInsecureConsent(placed.server, info.apiServer);
      return [placed, info];
    } catch (error) {
      fail(cluster, error);
      return undefined;
    }
  };
  const described: [Cluster & { server: string }, ClusterDescription][] = [];
  for (let at = 0; at < clusters.length; at += parallel) {
    for (const found of await Promise.all(clusters.slice(at, at + parallel).map(ask)))
      if (found !== undefined) described.push(found);
  }
  let names: string[] = [];
  const edit = await editKubeconfig(context.kubeconfig, (v) => {
    const taken = new Set<string>();
    const upsert: ContextSpec[] = [];
    names = [];
    for (const [cluster, info] of described) {
      const name = contextFor(
        v,
        { server: cluster.server, memberName: cluster.name },
        { tailnet: settings.tailnet, taken },
      );
      taken.add(name);
      names.push(name);
      upsert.push(specOf(context, name, cluster.server, info));
    }
    return { upsert };
  });
  if (!settings.quiet) {
    const what = edit.changedFiles.length === 0 ? 'were there already' : 'are in the kubeconfig';
    terminal.out(`${names.length} contexts ${what}: ${names.join(', ')}.\n`);
    terminal.out(
      `The current context stays ${quoted(edit.currentContext)}; kubectl signs in to each when it first needs to.\n`,
    );
  }
  if (failures > 0) throw new TkaError(`${failures} of ${clusters.length} clusters got no context`);
}

function refuseSurprises(
  view: KubeconfigView,
  cluster: Cluster & { server: string },
  info: ClusterDescription,
  insecure: boolean,
) {
  const existing = contextOf(view, cluster.server);
  const changed = existing?.apiServer !== undefined && existing.apiServer !== info.apiServer;
  if (changed || (existing?.caData !== undefined && existing.caData !== info.caData)) {
    throw new TkaError(
      `its ${changed ? `API server (${existing?.apiServer})` : 'CA'} has changed: the context stays as it is`,
      {
        hints: [`if that is right: kubectl tka login ${cluster.server}`],
      },
    );
  }
  if (info.insecureSkipTlsVerify && !insecure) {
    throw new TkaError('its TKA server asks to reach the API server without a look at its certificate', {
      hints: ['if you accept that, add --insecure-skip-tls-verify'],
    });
  }
}
