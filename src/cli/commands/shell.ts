import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { editKubeconfig, emptyView, kubeconfigFiles, type OurContext, readKubeconfig } from '../../kubeconfig/index.ts';
import { hintsOf, systemCode, TkaError, UsageError } from '../../util/errors.ts';
import { cleanText, quoted } from '../../util/text.ts';
import type { Context } from '../context/context.ts';
import { shellCluster } from '../contexts/in-shell.ts';
import { checkNamespace } from '../contexts/spec.ts';
import { KubectlAccess } from '../exec/access.ts';
import { findKubectl } from '../exec/args.ts';
import { forEachToTell, signOut } from '../logout/sign-out.ts';
import { makeShellFolder, removeShellFolder } from '../shell/folder.ts';
import { runOnTerminal, userShell } from '../shell/run.ts';
import { chooseClusters } from '../target/by-name.ts';
import { clustersToUse } from '../target/clusters.ts';

interface ShellFlags {
  readonly namespace?: string;
  readonly revoke?: boolean;
}

/** Runs `shell NAME [-n NAMESPACE] [-- COMMAND]`: starts a shell, or a command, whose kubectl uses one cluster. */
export async function shell(
  context: Context,
  [name, extra]: readonly string[],
  { namespace, revoke = false }: ShellFlags,
  rest: readonly string[] | undefined,
): Promise<void> {
  if (!name) throw new UsageError('a cluster name is required', { hints: ['kubectl tka clusters shows the names'] });
  if (extra !== undefined) throw new UsageError(`unexpected argument ${quoted(extra)}: a shell is for one cluster`);
  if (rest?.length === 0) throw new UsageError('no command after --', { hints: ['kubectl tka shell NAME'] });
  checkNamespace(namespace);
  const view = await readKubeconfig(context.kubeconfig);
  const all = await clustersToUse(context, view);
  const [cluster, ...others] = chooseClusters(all, [name], undefined, view, 'shell');
  if (cluster === undefined || others.length > 0)
    throw new UsageError(`${quoted(name)} means several clusters`, { hints: ['a shell is for one cluster'] });
  const found = await new KubectlAccess(context, view, all, true).find(cluster);
  const file = makeShellFolder(context);
  const remove = () => removeShellFolder(file);
  // Covers every end of this process except SIGKILL.
  process.on('exit', remove);
  const label = cleanText(cluster.name, 100) || 'cluster';
  if (found.ours === undefined) await write(file, { upsert: [{ ...found.spec, name: label, namespace }] }, label);
  else await copy(context, file, found.ours, namespace);

  const env: NodeJS.ProcessEnv = { ...context.env, KUBECONFIG: file, TKA_CLUSTER: forPrompt(label) };
  delete env.TKA_NAMESPACE;
  if (namespace !== undefined) env.TKA_NAMESPACE = namespace;
  if (rest === undefined) greet(context, label, namespace);
  const status = await runOnTerminal(rest ?? [userShell(env)], env, rest === undefined);
  remove();
  const { server, apiServer } = found.ours ?? found.spec;
  const isRevoked = !revoke || (await signedOut(context, server, apiServer));
  const exitCode = status === 0 && !isRevoked ? 1 : status;
  if (exitCode !== 0) throw new TkaError(`exit status ${exitCode}`, { exitCode, heard: true });
}

type Change = Awaited<ReturnType<Parameters<typeof editKubeconfig>[1]>>;

async function write(file: string, change: Change, currentContext: string): Promise<void> {
  const files = kubeconfigFiles({ explicit: file, env: {}, home: undefined, cwd: '/' });
  await editKubeconfig(files, () => ({ ...change, currentContext }));
}

/** Copies a managed context with everything that the user has added to it, such as a proxy and a namespace. */
async function copy(context: Context, file: string, ours: OurContext, namespace: string | undefined): Promise<void> {
  const { files } = context.kubeconfig;
  const [only = ''] = files;
  const flag = files.length === 1 ? ['--kubeconfig', only] : [];
  const env = { ...context.env, KUBECONFIG: files.join(path.delimiter) };
  // --raw keeps the CA; the user is an exec command, and no token.
  const args = [...flag, 'config', 'view', '--context', ours.name, '--minify', '--flatten', '--raw'];
  try {
    const text = execFileSync(findKubectl(context.env), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    fs.writeFileSync(file, text, { mode: 0o600 });
  } catch (cause) {
    if (cause instanceof TkaError) throw cause;
    const said = cleanText(String((cause as { stderr?: unknown }).stderr ?? '').replace(/^error: /, ''));
    throw new TkaError(`cannot write ${file}: ${said || systemCode(cause)}`, { cause });
  }
  await write(file, namespace === undefined ? {} : { namespace: { context: ours.name, namespace } }, ours.name);
}

// A prompt may evaluate the variable, and the name is what a server states.
const forPrompt = (name: string) => name.replace(/[^\p{L}\p{N}._:@/+-]/gu, '_');

function greet(context: Context, name: string, namespace: string | undefined): void {
  const where = namespace === undefined ? '' : `, namespace ${quoted(namespace)},`;
  const outer = shellCluster(context);
  const back = outer === undefined ? '' : ` to ${quoted(outer)}`;
  context.terminal.notice(`kubectl uses cluster ${quoted(name)}${where} in this shell; exit to return${back}`);
}

/** Signs out of a cluster; prints why that failed and returns false. */
async function signedOut(context: Context, server: string, apiServer: string | undefined): Promise<boolean> {
  const { terminal, sessions } = context;
  const isSignedIn = sessions.store
    .list()
    .some((session) => session.server === server || session.apiServer === apiServer);
  if (!isSignedIn) return true;
  // stdout is the command's.
  const quiet: Context = { ...context, terminal: { ...terminal, out: (text) => terminal.notice(text.trimEnd()) } };
  const view = await readKubeconfig(context.kubeconfig).catch(() => emptyView);
  const failed = await forEachToTell(quiet, view, [server], (each, group) => signOut(quiet, view, each, group));
  for (const { error } of failed) {
    terminal.warn(`${error.message}`);
    for (const hint of hintsOf(error, server)) terminal.hint(hint);
  }
  return failed.length === 0;
}
