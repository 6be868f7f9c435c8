// The links from here to a TKA server's answer. Each opens a connection of its own or goes on with the one before.
import { lookup } from 'node:dns/promises';
import { isIP, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Cluster } from '../../discovery/clusters.ts';
import { addressesOf, dial, type Names, tailnetAddresses } from '../../network/dial.ts';
import { ConnectTimeout, failureOf } from '../../network/failure.ts';
import type { Route } from '../../network/network.ts';
import { plainHttpError, type Target, targetOf } from '../../network/plain.ts';
import { defaultContext, secure } from '../../network/tls.ts';
import { isTailnetIp } from '../../tailscale/addresses.ts';
import { type ClusterDescription, parseClusterInfo, serverTime } from '../../tka/answers.ts';
import { Refused } from '../../tka/errors.ts';
import { TkaError } from '../../util/errors.ts';
import { peerAddresses } from '../context/connect.ts';
import type { Context } from '../context/context.ts';
import type { Target as Named } from '../target/target.ts';
import { certificateVerdict } from './certificate.ts';
import { type Checks, consequence, dependsOn, failed, failedBy, ok, skipped, type Verdict } from './check.ts';
import { clockHint } from './machine.ts';

/** What a TKA server told of itself. */
export interface Told {
  readonly info?: ClusterDescription;
  /** Its clock minus ours, in milliseconds. */
  readonly skew?: number;
  /** It answered, and wants nothing to do with us. */
  readonly refused?: boolean;
}

const longest = 5000;

/** Sets the verdicts from the server's name to its API's answer. */
export async function checkServer(
  context: Context,
  checks: Checks,
  { server, cluster, unlisted }: Named,
): Promise<Told> {
  const way = new Way(context, server, checks.has('tailscaled', 'failed'));
  const named = checks.set('name', unlistedName(await way.name(), server, unlisted));
  let blocked = consequence('name', named);
  const reached = checks.set('tcp', blocked ?? (await way.connect()));
  blocked ??= consequence('tcp', reached);
  try {
    const secured = checks.set('tls', blocked ?? (await way.secure()));
    // Plain http has nothing to check there, and is not in the way of what follows.
    if (secured.status === 'failed' || !way.plain) blocked ??= consequence('tls', secured);
  } finally {
    way.close();
  }
  if (blocked !== undefined) {
    checks.set('tka-api', blocked);
    return {};
  }
  const { told, verdict } = await askApi(context, server, cluster);
  checks.set('tka-api', verdict);
  return told;
}

// Looked for among the clusters in vain, it was taken for a host; if it is none, a name was mistyped.
function unlistedName(host: Verdict, server: string, unlisted: Named['unlisted']): Verdict {
  if (host.status === 'ok' || unlisted === undefined || unlisted === false) return host;
  const why = unlisted === true ? 'no cluster is called so' : unlisted.message;
  const hint = unlisted === true ? 'kubectl tka clusters' : unlisted.hints[0];
  return failed(`${why}; and ${new URL(server).hostname} is no host that is known here`, hint);
}

/** The way to one server, walked step by step. */
class Way {
  readonly #context: Context;
  readonly #target: Target;
  readonly #names: Names;
  readonly #unaided: boolean;
  readonly #timeout: number;
  #route: Route | TkaError | undefined;
  #addresses: readonly string[] = [];
  #resolved: readonly string[] | undefined;
  #socket: Socket | undefined;

  constructor(context: Context, server: string, tailscaledFails: boolean) {
    this.#context = context;
    this.#target = targetOf(server);
    this.#unaided = tailscaledFails;
    this.#timeout = Math.min(longest, context.askTimeout);
    this.#names = {
      lookup: async (host) => {
        this.#resolved = [];
        const found = await lookup(host, { all: true });
        this.#resolved = found.map(({ address }) => address);
        return found;
      },
      tailnetAddresses: (host) => peerAddresses(host, context.tailnet),
      tailnetSuffix: async () => (await context.tailnet()).suffix,
      log: context.terminal.log,
    };
  }

  get plain(): boolean {
    return this.#target.plain;
  }

  async name(): Promise<Verdict> {
    const { host, origin, plain } = this.#target;
    const isAddress = isIP(host) !== 0;
    try {
      this.#route = await this.#context.network.route(origin);
    } catch (error) {
      if (!(error instanceof TkaError)) throw error;
      this.#route = error;
    }
    const { proxy } = this.#route instanceof Error ? { proxy: 'a proxy' } : (this.#route ?? {});
    if (proxy !== undefined && !isAddress) {
      if (!plain) return ok(`${host} is left to ${proxy} to resolve`);
      const known = await this.#limited((signal) => tailnetAddresses(this.#target, this.#names, signal));
      if (known.length > 0) return ok(`tailscaled knows ${host} as ${known.join(', ')}`);
      return this.#unaided ? dependsOn('tailscaled') : failedBy(plainHttpError(origin));
    }
    try {
      this.#addresses = await this.#limited((signal) => addressesOf(this.#target, this.#names, signal));
    } catch (error) {
      // Nothing else might have known the name.
      if (this.#unaided && !isAddress) return dependsOn('tailscaled');
      if (error instanceof TkaError) return failedBy(error);
      return failed(`${host}: ${failureOf(error).what}`, 'see which devices there are: tailscale status');
    }
    if (isAddress) return ok(`${host} is an address`);
    const all = this.#addresses.join(', ');
    if (this.#resolved === undefined) return ok(`tailscaled knows ${host} as ${all}`);
    if (this.#resolved.includes(this.#addresses[0] ?? '')) return ok(`${host} is ${all}`);
    const why = this.#resolved.length === 0 ? 'does not resolve here' : 'resolves to no address of the tailnet';
    return ok(`${host} ${why}; tailscaled knows it as ${all}`);
  }

  async connect(): Promise<Verdict> {
    const { host, port } = this.#target;
    const { env, settings } = this.#context;
    const started = performance.now();
    const route = this.#route;
    if (route instanceof Error) return failedBy(route);
    try {
      this.#socket =
        route === undefined
          ? await this.#limited((signal) => dial(this.#addresses, port, signal))
          : await this.#limited(async (signal) => {
              const { throughProxy } = await import('../../network/proxy.ts');
              const trust = () => defaultContext(settings.caFile);
              return throughProxy(route.variable, env, this.#target, this.#names, trust, signal);
            });
    } catch (error) {
      if (error instanceof TkaError) return failedBy(error);
      // Without tailscaled there is no way to any of the tailnet.
      if (route === undefined && this.#unaided && this.#addresses.every(isTailnetIp)) return dependsOn('tailscaled');
      const { what, kind } = failureOf(error);
      const hint =
        kind === 'refused'
          ? `is the TKA server up, and ${port} its port? kubectl tka config tailscale.port PORT`
          : `see whether the device answers: tailscale ping ${host}`;
      return failed(`${host}:${port}: ${what}${await this.#asleep()}`, hint);
    }
    this.#socket?.on('error', () => {});
    const took = `${Math.max(1, Math.round(performance.now() - started))} ms`;
    if (route !== undefined) return ok(`${host}:${port} through the proxy ${route.proxy} (${route.variable}), ${took}`);
    const by = this.#socket?.remoteAddress;
    return ok(`${host}:${port}${by === undefined || by === host ? '' : ` at ${by}`}, ${took}`);
  }

  async secure(): Promise<Verdict> {
    if (this.plain) return skipped('plain http: what goes over the tailnet is encrypted by it');
    const { host, origin } = this.#target;
    const socket = this.#socket;
    if (socket === undefined) return dependsOn('tcp');
    let context: ReturnType<typeof defaultContext>;
    try {
      context = defaultContext(this.#context.settings.caFile);
    } catch {
      return dependsOn('configuration');
    }
    let wrapped: TLSSocket;
    try {
      // Whatever is wrong with the certificate is looked at below: nothing is said to whom nobody vouches for.
      wrapped = await this.#limited((signal) => secure(socket, host, { context, insecure: true }, signal));
    } catch (error) {
      return failed(
        `${host} does not speak TLS there: ${failureOf(error).what}`,
        'is this its port? kubectl tka config tailscale.port PORT',
      );
    }
    this.#socket = wrapped;
    const { authorized, authorizationError } = wrapped;
    const code = authorized ? undefined : String(authorizationError?.message ?? authorizationError ?? 'unknown');
    return certificateVerdict(wrapped.getPeerX509Certificate(), { origin, code, clockHint });
  }

  close(): void {
    this.#socket?.destroy();
  }

  /** A word more where tailscaled takes the device for switched off. */
  async #asleep(): Promise<string> {
    try {
      const peer = (await this.#context.tailnet()).peers.find(({ dnsName }) => dnsName === this.#target.host);
      return peer?.online === false ? '; tailscaled says that it is offline' : '';
    } catch {
      return '';
    }
  }

  async #limited<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const attempt = new AbortController();
    const timer = setTimeout(() => attempt.abort(new ConnectTimeout(this.#timeout)), this.#timeout);
    try {
      return await work(attempt.signal);
    } finally {
      clearTimeout(timer);
    }
  }
}

async function askApi(
  context: Context,
  server: string,
  cluster: Cluster | undefined,
): Promise<{ told: Told; verdict: Verdict }> {
  const client = context.client(server);
  const started = performance.now();
  let told: Told = {};
  try {
    const answer = await client.ask('GET', '/cluster-info', { timeout: Math.min(longest, context.askTimeout) });
    const time = serverTime(answer);
    // The header is cut to whole seconds, so on average half a second old.
    if (time !== undefined) told = { skew: time + 500 - Date.now() };
    const info = parseClusterInfo(answer, server);
    if (cluster !== undefined && cluster.apiEndpoint !== info.apiServer) {
      const what = `${server} is not the TKA server of ${cluster.name}: it speaks for ${info.apiServer}, not for ${cluster.apiEndpoint}`;
      return { told, verdict: failed(what, `if you trust it: kubectl tka login ${server}`) };
    }
    const took = Math.max(1, Math.round(performance.now() - started));
    return { told: { ...told, info }, verdict: ok(`it speaks for ${info.apiServer}, ${took} ms`) };
  } catch (error) {
    if (!(error instanceof TkaError)) throw error;
    const refused = error instanceof Refused;
    const grant = 'have the tailnet’s policy grant you the capability specht-labs.de/cap/tka';
    return { told: { ...told, refused }, verdict: failedBy(error, error.hints[0] ?? (refused ? grant : undefined)) };
  } finally {
    await client.close();
  }
}
