import { parseArgs } from 'node:util';
import { execCredential, wantedApiVersion } from '../../credential/entry.ts';
import { findPaths, type Paths } from '../../settings/paths.ts';
import { type Flags, loadSettings, readSettings } from '../../settings/settings.ts';
import { openTerminal, type Terminal } from '../../terminal/output.ts';
import { TkaError, UsageError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import { canonicalApiServer, canonicalServer } from '../../util/url.ts';
import { openConnection, openSessions, tailnetOnce } from '../context/connect.ts';
import { readLine } from '../words.ts';

const options = {
  server: { type: 'string', short: 's' },
  'api-server': { type: 'string' },
  port: { type: 'string', short: 'p' },
  tailnet: { type: 'string' },
  config: { type: 'string', short: 'c' },
  kubeconfig: { type: 'string' },
  debug: { type: 'boolean' },
  quiet: { type: 'boolean', short: 'q' },
} as const;

/** Runs `credential` if the cached path had no answer: prints one ExecCredential. Throws TkaError or UsageError. */
export async function credential(args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  const flags = parseFlags(args);
  const terminal = openTerminal({
    debug: flags.debug === true || /^(?:1|t|true)$/i.test(env.TKA_DEBUG ?? ''),
    quiet: false,
  });
  const apiVersion = wantedApiVersion(env);
  if (apiVersion === undefined) throw unknownApiVersion(env);
  if (flags.server === undefined) {
    throw new UsageError('credential requires --server URL', {
      hints: ['kubectl tka login writes a context that calls it with its flags'],
    });
  }
  const paths = await findPaths(env);
  const isUrl = /^https?:\/\//i.test(flags.server) && flags.port === undefined;
  const wanted = flags.server;
  const tailnet = tailnetOnce(env, terminal);
  const url = isUrl ? usage(() => canonicalServer(wanted)) : undefined;
  // A context has the full URL of its server, so an invalid configuration file must not stop kubectl. (Plain http needs
  // no CA.)
  const settings =
    url === undefined
      ? await loadSettings(flags, env, paths)
      : url.startsWith('https:')
        ? await usableSettings(flags, env, paths, terminal)
        : undefined;
  if (settings?.needsTailnet(wanted)) {
    const status = await tailnet().catch(() => undefined);
    settings.assumeTailnet(status?.suffix ?? '');
  }
  const server = url ?? settings?.serverNamed(wanted) ?? wanted;
  const named = flags['api-server'];
  const apiServer = named === undefined ? undefined : usage(() => canonicalApiServer(named));
  const network = openConnection(env, settings?.caFile, tailnet, terminal);
  const sessions = openSessions(paths, env, terminal, network, {
    settings: async () => settings ?? usableSettings(flags, env, paths, terminal),
    kubeconfig: flags.kubeconfig,
    tailnet,
  });
  const session = await sessions.credential({
    server,
    apiServer,
    parent: process.ppid,
    byClientGo: Boolean(env.KUBERNETES_EXEC_INFO),
  });
  terminal.out(execCredential(apiVersion, session));
}

/** Returns the readable part of the configuration: an error elsewhere must not lose `tls.caFile`. */
async function usableSettings(flags: Flags, env: NodeJS.ProcessEnv, paths: Paths, { log }: Terminal) {
  const { settings, problems } = await readSettings(flags, env, paths);
  for (const problem of [...problems, ...settings.warnings]) log(`ignored in the configuration: ${problem}`);
  return settings;
}

function parseFlags(args: readonly string[]) {
  try {
    const valued = new Set(
      Object.entries(options).flatMap(([name, option]) =>
        option.type === 'string' ? [`--${name}`, `-${'short' in option ? option.short : '-'}`] : [],
      ),
    );
    const { words } = readLine(args, (flag) => valued.has(flag));
    return parseArgs({ args: [...words], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    const message = error instanceof Error ? (error.message.split(/[.\n]/, 1)[0] ?? '') : '';
    throw new UsageError(`credential: ${cleanText(message.charAt(0).toLowerCase() + message.slice(1))}`, {
      hints: ['kubectl tka credential --help'],
    });
  }
}

function usage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof TkaError ? new UsageError(error.message, { hints: error.hints }) : error;
  }
}

function unknownApiVersion(env: NodeJS.ProcessEnv): TkaError {
  let wanted: unknown;
  try {
    wanted = JSON.parse(env.KUBERNETES_EXEC_INFO ?? '')?.apiVersion;
  } catch {
    return new TkaError('KUBERNETES_EXEC_INFO is not valid JSON', {
      hints: ['kubectl sets it; unset it to call this by hand'],
    });
  }
  const asked = typeof wanted === 'string' ? `asks for apiVersion "${cleanText(wanted)}"` : 'names no apiVersion';
  return new TkaError(`KUBERNETES_EXEC_INFO ${asked}`, {
    hints: [
      'supported: client.authentication.k8s.io/v1 and v1beta1; set apiVersion of the exec user in the kubeconfig',
    ],
  });
}
