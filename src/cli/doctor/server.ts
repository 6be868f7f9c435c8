// Checks the path from here to a TKA server's answer: first the steps of one connection, then one request.
import { isIP, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { failureOf } from '../../network/failure.ts';
import { type Destination, destinationOf } from '../../network/plain.ts';
import type { OnStep, Route } from '../../network/steps.ts';
import { type ClusterDescription, parseClusterInfo } from '../../tka/answers.ts';
import { Refused } from '../../tka/errors.ts';
import { NoGrant } from '../../tka/no-grant.ts';
import { serverTime } from '../../tka/raw-answer.ts';
import { isTailnetIp } from '../../util/address.ts';
import { TkaError } from '../../util/errors.ts';
import { joinedNameOf, placeOf } from '../../util/url.ts';
import type { Context } from '../context/context.ts';
import { withMissingGrant } from '../no-grant.ts';
import type { ClusterTarget } from '../target/by-name.ts';
import { certificateVerdict } from './certificate.ts';
import { type Checks, consequence, dependsOn, failed, failedBy, ok, skipped, type Verdict } from './check.ts';
import { clockHint } from './machine.ts';

/** What a TKA server answered. */
export interface Told {
  readonly info?: ClusterDescription;
  /** Its clock minus ours, in milliseconds. */
  readonly skew?: number;
  /** True if the server refused the request. */
  readonly refused?: boolean;
}

const longest = 5000;

/** Sets the verdicts from the server's name to the answer of its API. */
export async function checkServer(context: Context, checks: Checks, named: ClusterTarget): Promise<Told> {
  const blocked = await checkConnection(context, checks, named);
  if (blocked !== undefined) {
    checks.set('tka-api', blocked);
    return {};
  }
  const { told, verdict } = await askApi(context, named);
  checks.set('tka-api', verdict);
  return told;
}

/** Sets the verdicts on name, tcp and tls. Returns the verdict for later checks if they cannot run. */
async function checkConnection(
  context: Context,
  checks: Checks,
  { server, unlisted }: ClusterTarget,
): Promise<Verdict | undefined> {
  const attempt = await tryToConnect(context, server);
  const unaided = checks.has('tailscaled', 'failed');
  try {
    const host = behindLoginServer(nameVerdict(attempt, unaided), server);
    const named = checks.set('name', unlistedName(host, server, unlisted));
    let blocked = consequence('name', named);
    const reached = checks.set('tcp', blocked ?? (await tcpVerdict(context, attempt, unaided)));
    blocked ??= consequence('tcp', reached);
    const secured = checks.set('tls', blocked ?? tlsVerdict(attempt));
    // Plain http skips the tls check but does not block later checks.
    return blocked ?? (attempt.target.plain ? undefined : consequence('tls', secured));
  } finally {
    attempt.socket?.destroy();
  }
}

// No cluster has this name, so it was taken as a host name. If the host does not exist either, the name was mistyped.
function unlistedName(host: Verdict, server: string, unlisted: ClusterTarget['unlisted']): Verdict {
  if (host.status === 'ok' || unlisted === undefined || unlisted === false) return host;
  const why = unlisted === true ? 'no cluster has this name' : unlisted.message;
  const hint = unlisted === true ? 'kubectl tka clusters' : unlisted.hints[0];
  return failed(`${why}; ${new URL(server).hostname} is not a known host either`, hint);
}

/** Adds which cluster is behind a login server. */
function behindLoginServer(host: Verdict, server: string): Verdict {
  const name = joinedNameOf(server);
  return name === undefined || host.status !== 'ok'
    ? host
    : ok(`${host.detail}; it is the login server of cluster ${name}`);
}

/** How far a connection to a server got. */
interface Attempt {
  readonly target: Destination;
  /** The step that failed with `error`; undefined once the connection is open. */
  failedAt: 'route' | 'name' | 'tcp' | 'tls' | undefined;
  error?: unknown;
  route?: Route | undefined;
  /** The answer of the system's resolver; undefined if it was not asked. */
  resolved?: readonly string[];
  /** Undefined if a proxy resolves the name. */
  addresses?: readonly string[];
  /** The address of the server, if known. */
  address?: string | undefined;
  /** Milliseconds for TCP and the proxy. */
  took: number;
  socket?: Socket;
}

/**
 * Connects without sending anything. Skips certificate verification, because tlsVerdict() checks the certificate first.
 */
async function tryToConnect(context: Context, server: string): Promise<Attempt> {
  const target = destinationOf(server);
  const attempt: Attempt = { target, failedAt: 'route', took: 0 };
  let last = performance.now();
  const onStep: OnStep = (done) => {
    context.terminal.log(`doctor: ${server}: ${done.step}`);
    if (done.step === 'route') {
      attempt.route = done.route;
      attempt.failedAt = done.route !== undefined && !target.plain ? 'tcp' : 'name';
    } else if (done.step === 'resolver') attempt.resolved = done.addresses;
    else if (done.step === 'name') {
      attempt.addresses = done.addresses;
      attempt.failedAt = 'tcp';
    } else if (done.step === 'tcp') {
      attempt.address = done.address;
      attempt.took = performance.now() - last;
      attempt.failedAt = 'tls';
    } else {
      attempt.socket = done.socket;
      attempt.failedAt = undefined;
    }
    last = performance.now();
  };
  const connectTimeout = Math.min(longest, context.askTimeout);
  try {
    await context.network.connect(server, { connectTimeout, insecure: true, onStep });
  } catch (error) {
    attempt.error = error;
  }
  return attempt;
}

function nameVerdict(attempt: Attempt, unaided: boolean): Verdict {
  const { failedAt, error, route, resolved, addresses } = attempt;
  const { host } = attempt.target;
  const isAddress = isIP(host) !== 0;
  if (failedAt === 'name') {
    // Only tailscaled could have known the name.
    if (unaided && !isAddress) return dependsOn('tailscaled');
    if (error instanceof TkaError) return failedBy(error);
    return failed(`${host}: ${failureOf(error).what}`, 'list the devices: tailscale status');
  }
  if (isAddress) return ok(`${host} is an address`);
  if (addresses === undefined) return ok(`${host} is resolved by ${route?.proxy ?? 'a proxy'}`);
  const all = addresses.join(', ');
  if (resolved === undefined) return ok(`tailscaled knows ${host} as ${all}`);
  if (resolved.includes(addresses[0] ?? '')) return ok(`${host} is ${all}`);
  const why = resolved.length === 0 ? 'does not resolve here' : 'does not resolve to an address of the tailnet';
  return ok(`${host} ${why}; tailscaled knows it as ${all}`);
}

async function tcpVerdict(context: Context, attempt: Attempt, unaided: boolean): Promise<Verdict> {
  const { failedAt, error, route, addresses, address } = attempt;
  const { host, port } = attempt.target;
  if (failedAt === 'route' || failedAt === 'tcp') {
    if (error instanceof TkaError) return failedBy(error);
    // Without tailscaled, no address of the tailnet can be reached.
    if (route === undefined && unaided && addresses?.every(isTailnetIp)) return dependsOn('tailscaled');
    const { what, kind } = failureOf(error);
    const hint =
      kind === 'refused'
        ? `check that the TKA server is up and listens on ${port}; another port: kubectl tka config tailscale.port PORT`
        : `check that the device answers: tailscale ping ${host}`;
    return failed(`${host}:${port}: ${what}${await offlineNote(context, host)}`, hint);
  }
  const took = `${Math.max(1, Math.round(attempt.took))} ms`;
  if (route !== undefined) return ok(`${host}:${port} through the proxy ${route.proxy} (${route.variable}), ${took}`);
  return ok(`${host}:${port}${address === undefined || address === host ? '' : ` at ${address}`}, ${took}`);
}

/** Returns an addition to the message if tailscaled reports the device as offline. */
async function offlineNote(context: Context, host: string): Promise<string> {
  try {
    const peer = (await context.tailnet()).peers.find(({ dnsName }) => dnsName === host);
    return peer?.online === false ? '; it is offline, says tailscaled' : '';
  } catch {
    return '';
  }
}

function tlsVerdict({ target, error, socket }: Attempt): Verdict {
  if (target.plain) return skipped('plain http; the tailnet encrypts the connection');
  const { host, origin } = target;
  // The CA file cannot be used; the configuration check reports that.
  if (error instanceof TkaError) return dependsOn('configuration');
  if (!(socket instanceof TLSSocket)) {
    return failed(
      `${host} does not speak TLS there: ${failureOf(error).what}`,
      'if the port is wrong: kubectl tka config tailscale.port PORT',
    );
  }
  const { authorized, authorizationError } = socket;
  const code = authorized ? undefined : String(authorizationError?.message ?? authorizationError ?? 'unknown');
  return certificateVerdict(socket.getPeerX509Certificate(), { origin, code, clockHint });
}

async function askApi(context: Context, { server, cluster }: ClusterTarget): Promise<{ told: Told; verdict: Verdict }> {
  const client = context.client(server);
  const started = performance.now();
  let told: Told = {};
  try {
    const answer = await client.ask('GET', '/cluster-info', { timeout: Math.min(longest, context.askTimeout) });
    const time = serverTime(answer);
    // The Date header is truncated to whole seconds, so on average it is half a second old.
    if (time !== undefined) told = { skew: time + 500 - Date.now() };
    const info = parseClusterInfo(answer, server);
    if (cluster !== undefined && cluster.apiEndpoint !== info.apiServer) {
      const what = `${placeOf(server)} is not the TKA server of ${cluster.name}: it serves ${info.apiServer}, not ${cluster.apiEndpoint}`;
      return { told, verdict: failed(what, `if you trust it: kubectl tka login ${server}`) };
    }
    const took = Math.max(1, Math.round(performance.now() - started));
    return {
      told: { ...told, info },
      verdict: ok(
        `${joinedNameOf(server) === undefined ? 'it' : placeOf(server)} serves ${info.apiServer}, ${took} ms`,
      ),
    };
  } catch (error) {
    if (!(error instanceof TkaError)) throw error;
    const refused = error instanceof Refused;
    const shown = error instanceof NoGrant ? await withMissingGrant(context, error) : error;
    return { told: { ...told, refused }, verdict: failedBy(shown) };
  } finally {
    await client.close();
  }
}
