// What a server tells its administrator, and how to show that to a person. The objects are what `-o json` prints;
// docs/day-2.md describes them.
import type { TailnetStatus } from '../../tailscale/localapi.ts';
import { table, when } from '../../terminal/output.ts';
import { cleanText } from '../../util/text.ts';
import { shortDuration } from '../../util/time.ts';
import { versionInfo } from '../../util/version.ts';
import { type Config, clusterNameOf } from '../config/config.ts';
import type { JoinedServer, JoinedState } from '../federation/joined-server.ts';
import type { LoginServer } from '../federation/login-server.ts';
import type { MemberCounts, MemberOverview, Mesh } from '../mesh/mesh.ts';
import { podOf } from '../provisioner/lease.ts';
import type { SignInOverview } from '../provisioner/overview.ts';
import type { Provisioner } from '../provisioner/provisioner.ts';
import { type JoinedCounts, joinedCounts } from '../telemetry/federation-metrics.ts';

/** Answer to `status`. Times are RFC 3339. */
export interface StatusView {
  readonly version: string;
  readonly commit: string;
  /** `tailscale.hostname`, and the name of the cluster. */
  readonly server: string;
  readonly cluster: string;
  readonly startedAt: string;
  readonly uptimeSeconds: number;
  readonly ready: boolean;
  /** Why it is not ready. */
  readonly reason?: string;
  readonly leader: {
    readonly leading: boolean;
    /** As in the Lease: `tka-server/POD_UUID`. */
    readonly holder?: string;
    /** Seconds since the lease last changed. Its holder renews it every 2 s. */
    readonly silentSeconds?: number;
  };
  /** The resources that the server watches, and the seconds since the API server last sent anything about each. */
  readonly watches: readonly {
    readonly resource: string;
    readonly connected: boolean;
    readonly silentSeconds: number;
  }[];
  readonly signIns: number;
  /** Absent with plain http, and until there is a certificate. */
  readonly certificate?: { readonly until: string };
  readonly apiServer: string;
  /** The node of this server. Absent without tailscaled, and until tailscaled has answered. */
  readonly tailnet?: { readonly node: string; readonly name: string; readonly addresses: readonly string[] };
  /** Absent without gossip. */
  readonly mesh?: MemberCounts;
  /** The clusters that have joined this server, by state. Absent on a server that is not a login server. */
  readonly joinedClusters?: JoinedCounts & {
    /** Why clusters may not be able to join or connect. */
    readonly problem?: string;
  };
  /** The login server that the cluster has joined, or is to join. Absent without a join Secret. */
  readonly loginServer?: Partial<JoinedState> & {
    /** Why nobody can sign in through it now. */
    readonly problem?: string;
  };
}

/** Answer to `members`. */
export interface MembersView {
  readonly members: readonly MemberOverview[];
}

/** Answer to `sign-ins`. */
export interface SignInsView {
  readonly signIns: readonly SignInOverview[];
  /** Why the list may be outdated. */
  readonly problem?: string;
}

/** The sources of a status. */
export interface StatusSources {
  readonly config: Config;
  /** URL of the API server. */
  readonly apiServer: string;
  /** Why the server is not ready; undefined if it is ready. */
  readonly unready: string | undefined;
  readonly provisioner: Provisioner | undefined;
  readonly mesh: Mesh | undefined;
  readonly joined: JoinedServer | undefined;
  readonly loginServer: LoginServer | undefined;
  /** When the certificate in use expires, as Unix time in milliseconds. */
  readonly certificateUntil: number | undefined;
  readonly tailnet: TailnetStatus | undefined;
}

const whole = (ms: number): number => Math.floor(ms / 1000);

/** Returns the status of this process's server. */
export function statusView(sources: StatusSources): StatusView {
  const { config, apiServer, unready, provisioner, mesh, joined, loginServer, certificateUntil, tailnet } = sources;
  const { version, commit } = versionInfo();
  const uptimeMs = process.uptime() * 1000;
  const lease = provisioner?.leaseHolder();
  const problem = joined?.problem();
  return {
    version,
    commit,
    server: config.get('tailscale.hostname'),
    cluster: clusterNameOf(config),
    startedAt: new Date(Date.now() - uptimeMs).toISOString(),
    uptimeSeconds: whole(uptimeMs),
    ready: unready === undefined,
    ...(unready !== undefined && { reason: unready }),
    leader: {
      leading: provisioner?.leading() ?? false,
      ...(lease && { holder: lease.holder, silentSeconds: whole(lease.silentMs) }),
    },
    watches: [...(provisioner?.watches() ?? [])].map(([resource, { connected, silentMs }]) => ({
      resource,
      connected,
      silentSeconds: whole(silentMs),
    })),
    signIns: provisioner?.overview().filter(({ state }) => state === 'active').length ?? 0,
    ...(certificateUntil !== undefined && { certificate: { until: new Date(certificateUntil).toISOString() } }),
    apiServer,
    ...(tailnet && {
      tailnet: { node: tailnet.self.dnsName, name: tailnet.name, addresses: tailnet.self.addresses },
    }),
    ...(mesh && { mesh: mesh.counts() }),
    ...(loginServer && { joinedClusters: joinedView(loginServer) }),
    ...(joined?.active() && { loginServer: { ...joined.state(), ...(problem !== undefined && { problem }) } }),
  };
}

function joinedView(loginServer: LoginServer): NonNullable<StatusView['joinedClusters']> {
  const problem = loginServer.problem();
  return { ...joinedCounts(loginServer.clusters.all()), ...(problem !== undefined && { problem }) };
}

const ago = (seconds: number): string => `${shortDuration(seconds * 1000)} ago`;

function leaderText({ leading, holder, silentSeconds = 0 }: StatusView['leader']): string {
  if (leading) return 'yes';
  if (holder === undefined) return 'no; the lease has no holder';
  return `no; ${podOf(holder)} holds the lease${silentSeconds > 15 ? `, last renewed ${ago(silentSeconds)}` : ''}`;
}

/** Returns counts as people read them: `57 healthy, 1 dead`. The first state is always shown. */
const countsText = (counts: MemberCounts | JoinedCounts): string =>
  Object.entries(counts)
    .filter(([, count], i) => count > 0 || i === 0)
    .map(([state, count]) => `${count} ${state}`)
    .join(', ');

function joinedText({ problem, ...counts }: NonNullable<StatusView['joinedClusters']>): string {
  return [countsText(counts), ...(problem === undefined ? [] : [problem])].join('; ');
}

type LoginServerView = NonNullable<StatusView['loginServer']>;

function loginServerText({ cluster, endpoint, primary, tunnels = 0, problem }: LoginServerView): string {
  const place = endpoint === undefined ? [] : [`${primary} at ${endpoint}, as ${cluster}`];
  const state = problem ?? (tunnels === 1 ? '1 tunnel' : `${tunnels} tunnels`);
  return [...place, state].join(', ');
}

/** Returns a status as lines of `name: value`. */
export function statusText(view: StatusView): string {
  const { tailnet, mesh, certificate, loginServer, joinedClusters } = view;
  const rows: readonly (readonly [string, string])[] = [
    ['Server', `${view.server}, cluster ${view.cluster}`],
    ['Version', `${view.version} (commit ${view.commit})`],
    ['Uptime', shortDuration(view.uptimeSeconds * 1000)],
    ['Ready', view.ready ? 'yes' : `no: ${view.reason ?? ''}`],
    ['Leader', leaderText(view.leader)],
    ...view.watches.map(({ resource, connected, silentSeconds }): readonly [string, string] => [
      `Watch on ${resource}`,
      `${connected ? 'connected' : 'NOT CONNECTED'}, last message ${ago(silentSeconds)}`,
    ]),
    ['Sign-ins', String(view.signIns)],
    ['Certificate', certificate === undefined ? 'none' : `until ${when(Date.parse(certificate.until))}`],
    ['API server', view.apiServer],
    [
      'Tailnet',
      tailnet === undefined
        ? 'none'
        : [`${tailnet.node} in ${tailnet.name || 'an unnamed tailnet'}`, ...tailnet.addresses].join(', '),
    ],
    ['Mesh', mesh === undefined ? 'none' : countsText(mesh)],
    ...(joinedClusters === undefined ? [] : [['Joined clusters', joinedText(joinedClusters)] as const]),
    ...(loginServer === undefined ? [] : [['Login server', loginServerText(loginServer)] as const]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length)) + 1;
  return rows.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${cleanText(value, 2_000)}\n`).join('');
}

/** Returns members as a table. */
export function membersText({ members }: MembersView, now: number): string {
  const rows = members.map(({ name, state, left, self, lastSeen, cluster = '', server = '', version = '', labels }) => [
    self ? `${name} (this)` : name,
    left ? 'left' : state,
    shortDuration(Math.max(0, now - Date.parse(lastSeen))),
    cluster || '-',
    server || '-',
    version || '-',
    Object.entries(labels ?? {})
      .map(([key, value]) => `${key}=${value}`)
      .join(',') || '-',
  ]);
  return table(['NAME', 'STATE', 'AGE', 'CLUSTER', 'SERVER', 'VERSION', 'LABELS'], rows);
}

/** Returns sign-ins as a table. */
export function signInsText({ signIns }: SignInsView, now: number): string {
  // Most clusters have joined no login server.
  const isFederated = signIns.some(({ loginServer }) => loginServer !== undefined);
  const rows = signIns.map(({ login, username, node, role, state, until, account = '-', problem, loginServer }) => [
    node || (login ?? username),
    ...(isFederated ? [loginServer ?? '-'] : []),
    role,
    until === undefined ? '-' : when(Date.parse(until), now),
    account,
    problem ?? (state === 'active' ? '-' : state),
  ]);
  const header = ['LOGIN', ...(isFederated ? ['LOGIN SERVER'] : []), 'ROLE', 'UNTIL', 'ACCOUNT', 'PROBLEM'];
  return table(header, rows);
}
