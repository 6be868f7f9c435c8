import { taggedAmong } from '../../discovery/trust.ts';
import type { Settings } from '../../settings/settings.ts';
import { type Peer, TailscaleError } from '../../tailscale/localapi.ts';
import { TkaError } from '../../util/errors.ts';
import type { Context } from '../context/context.ts';

/** Returns the peers with the tag of TKA servers, or why tailscaled could not be asked. */
export function taggedPeers(context: Context): ReturnType<typeof taggedAmong> {
  return taggedAmong(context.tailnet, context.settings.tag, context.terminal.log);
}

/** Returns the devices of the tailnet; none if tailscaled cannot be asked. */
export function devices(context: Context): Promise<readonly Peer[]> {
  return context.tailnet().then(
    (status) => status.peers,
    () => [],
  );
}

/** The servers where discovery starts. */
export interface Seeds {
  /** Canonical URLs; the first is asked first. */
  readonly servers: readonly string[];
  /** The same, including servers that are offline. */
  readonly all: readonly string[];
  /** True if the user, a flag or the configuration names the server. */
  readonly named: boolean;
}

/**
 * Returns the servers where discovery starts: the configured one, else the peers with the right tag. The tag is the
 * only proof, because anybody can call a laptop `tka`. Throws TkaError with hints if there are none.
 */
export async function findSeeds(context: Context): Promise<Seeds> {
  const configured = await configuredServer(context);
  if (configured !== undefined) return { servers: [configured], all: [configured], named: true };
  const { settings } = context;
  const status = await context.tailnet().catch((error) => {
    if (!(error instanceof TkaError)) throw error;
    throw new TkaError(`no TKA server is configured, and discovery failed: ${error.message}`, {
      hints: [...error.hints, 'or set a server: kubectl tka config tailscale.hostname HOST'],
      cause: error,
    });
  });
  const tagged = status.peers.filter(({ tags }) => tags.includes(settings.tag));
  const all = tagged.map((peer) => settings.serverNamed(peer.dnsName)).sort();
  const online = tagged.filter((peer) => peer.online).map((peer) => settings.serverNamed(peer.dnsName));
  if (all.length > 0) return { servers: online.length > 0 ? online.sort() : all, all, named: false };
  const alike = status.peers.filter(({ hostName }) => /^tka(?:-|$)/.test(hostName)).slice(0, 5);
  throw new TkaError(
    `no TKA server is configured, and no device of ${status.suffix || 'the tailnet'} carries ${settings.tag}`,
    {
      hints: [
        ...alike.map((peer) => {
          // A device shared from another tailnet keeps its full name.
          const name = peer.dnsName === `${peer.hostName}.${status.suffix}` ? peer.hostName : peer.dnsName;
          return `if you trust ${peer.dnsName}: kubectl tka config tailscale.hostname ${name}`;
        }),
        ...(alike.length === 0 ? ['kubectl tka config tailscale.hostname HOST'] : []),
        'or use another tag: kubectl tka config tailscale.tag tag:NAME',
      ],
    },
  );
}

/**
 * Returns the configured server's canonical URL; undefined if none is configured. Completes a bare name with the
 * tailnet's suffix.
 */
export async function configuredServer(context: Context): Promise<string | undefined> {
  await learnTailnet(context, undefined);
  return context.settings.seed;
}

/** Returns the canonical URL of a server that the user named. Throws UsageError if the name is invalid. */
export async function namedServer(context: Context, name: string): Promise<string> {
  await learnTailnet(context, name);
  return context.settings.serverNamed(name);
}

/** Settings whose user was already warned that tailscaled cannot be asked. */
const told = new WeakSet<Settings>();

async function learnTailnet(context: Context, name: string | undefined): Promise<void> {
  const { settings } = context;
  if (name === undefined && settings.values.get('tailscale.hostname')?.value === undefined) return;
  if (!settings.needsTailnet(name)) return;
  try {
    settings.assumeTailnet((await context.tailnet()).suffix);
  } catch (error) {
    if (!(error instanceof TailscaleError)) throw error;
    const { log, warn, hint } = context.terminal;
    if (told.has(settings)) return;
    told.add(settings);
    // Without Tailscale on this machine, the system's resolver may still know the name.
    if (error.problem === 'absent') return log(`no tailnet to complete a name with: ${error.message}`);
    warn(`cannot complete the name with the tailnet's suffix: ${error.message}`);
    for (const line of error.hints) hint(line);
  }
}
