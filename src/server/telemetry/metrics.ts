// Metrics for Prometheus. Metrics of the Go server, controller-runtime or client-go keep the names they have there. All
// names follow https://prometheus.io/docs/practices/naming. No label grows with the number of users, sign-ins or paths,
// and none names a person, because everybody who can reach the port can read them. docs/reference/metrics.md lists them
// all.
import { totalmem } from 'node:os';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { apiPath } from '../../tka/types.ts';
import { cleanText } from '../../util/text.ts';
import { type Answered, refusalReasons } from '../http/contract.ts';
import { leaseName } from '../provisioner/lease.ts';
import {
  type Provisioner,
  type ReconcilePass,
  type WatchedResource,
  watchedResources,
} from '../provisioner/provisioner.ts';
import { type FederationCounters, type FederationSources, federationMetrics } from './federation-metrics.ts';

/** The values that are read for each request of the metrics; undefined while there is none. */
export interface MetricsSources extends FederationSources {
  readonly version: string;
  readonly commit: string;
  /** Returns whether the server is ready, as `/ready` reports. */
  readonly ready: () => boolean;
  /** Returns the number of members of the mesh, by state. */
  readonly members: () => Readonly<Record<string, number>> | undefined;
  /** Returns when the certificate in use expires, as Unix time in milliseconds. */
  readonly certificateUntil: () => number | undefined;
  readonly cluster: () => Pick<Provisioner, 'sessions' | 'leading' | 'goLeading' | 'watches' | 'queue'> | undefined;
}

export interface Metrics extends Pick<FederationCounters, 'join'> {
  /** `/metrics`: the API, the mesh and the process. */
  readonly server: Registry;
  /** `/metrics/controller`: the sign-ins in the cluster. */
  readonly controller: Registry;
  request(answered: Answered): void;
  reconcile(pass: ReconcilePass): void;
  watchBroke(resource: WatchedResource): void;
  account(what: 'created' | 'deleted'): void;
}

const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
const controllerName = 'tkasignin';
// The tailnet's policy defines the names of roles. We trust the policy, but it may change many times.
const mostRoles = 100;

/** Creates the two registries and the functions that count into them. */
export function createMetrics(sources: MetricsSources): Metrics {
  const { version, commit, ready, members, certificateUntil, cluster } = sources;
  const roles = new Set<string>();
  const role = (given = ''): string => {
    const name = cleanText(given, 253);
    if (roles.size < mostRoles) roles.add(name);
    return roles.has(name) ? name : 'other';
  };
  const server = new Registry();
  const controller = new Registry();
  collectDefaultMetrics({ register: server });

  new Gauge({
    name: 'tka_build_info',
    help: 'Version and commit of the server; always 1',
    labelNames: ['version', 'commit'],
    registers: [server],
  }).set({ version, commit }, 1);
  new Gauge({
    name: 'tka_server_ready',
    help: '1 while the server is ready, as /ready reports; 0 otherwise',
    registers: [server],
    collect() {
      this.set(ready() ? 1 : 0);
    },
  });
  const limit = new Gauge({
    name: 'tka_memory_limit_bytes',
    help: 'Memory limit of the container in bytes; absent without a limit',
    registers: [server],
  });
  const limitBytes = process.constrainedMemory();
  // Without a limit the system reports 0, or more than the machine has.
  if (limitBytes > 0 && limitBytes < totalmem()) limit.set(limitBytes);
  else limit.remove();
  const requests = new Counter({
    name: 'tka_server_requests_total',
    help: 'API requests; status 499: the client closed the connection',
    labelNames: ['method', 'route', 'status'],
    registers: [server],
  });
  const duration = new Histogram({
    name: 'tka_server_request_duration_seconds',
    help: 'Duration of API requests in seconds',
    labelNames: ['method', 'route'],
    buckets: seconds,
    registers: [server],
  });
  const logins = new Counter({
    name: 'tka_login_attempts_total',
    help: 'Requests to sign in, by outcome: success, forbidden, error',
    labelNames: ['cluster_role', 'outcome'],
    registers: [server],
  });
  const refusals = new Counter({
    name: 'tka_sign_ins_refused_total',
    help: 'Requests to sign in that were refused, by reason',
    labelNames: ['reason'],
    registers: [server],
  });
  // Prometheus sees an increase only if there was a value before.
  for (const reason of refusalReasons) refusals.inc({ reason }, 0);
  const strangers = new Counter({
    name: 'tka_server_identity_failures_total',
    help: 'API requests whose caller could not be identified, by HTTP status',
    labelNames: ['status'],
    registers: [server],
  });
  new Gauge({
    name: 'tka_mesh_members',
    help: 'Members of the mesh, this server included, by state: healthy, suspected, dead, left; absent without gossip',
    labelNames: ['state'],
    registers: [server],
    collect() {
      this.reset();
      for (const [state, count] of Object.entries(members() ?? {})) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'tka_certificate_expiry_timestamp_seconds',
    help: 'Unix time at which the TLS certificate in use expires; absent without TLS',
    registers: [server],
    collect() {
      const until = certificateUntil();
      if (until === undefined) this.remove();
      else this.set(until / 1000);
    },
  });
  const federation = federationMetrics(sources, server);

  const passes = new Counter({
    name: 'controller_runtime_reconcile_total',
    help: 'Reconciliations of a sign-in, by result: success, error, requeue (it changed at the same time)',
    labelNames: ['controller', 'result'],
    registers: [controller],
  });
  for (const result of ['success', 'error', 'requeue']) passes.inc({ controller: controllerName, result }, 0);
  const failures = new Counter({
    name: 'controller_runtime_reconcile_errors_total',
    help: 'Failed reconciliations of a sign-in; each is retried',
    labelNames: ['controller'],
    registers: [controller],
  });
  failures.inc({ controller: controllerName }, 0);
  const passDuration = new Histogram({
    name: 'controller_runtime_reconcile_time_seconds',
    help: 'Duration of reconciliations of a sign-in in seconds',
    labelNames: ['controller'],
    buckets: seconds,
    registers: [controller],
  });
  new Gauge({
    name: 'workqueue_depth',
    help: 'Sign-ins that wait for reconciliation; 0 while this replica does not lead',
    labelNames: ['name'],
    registers: [controller],
    collect() {
      this.set({ name: controllerName }, cluster()?.queue()?.waiting ?? 0);
    },
  });
  new Gauge({
    name: 'tka_sign_ins_failing',
    help: 'Sign-ins whose last reconciliation failed; 0 while this replica does not lead',
    registers: [controller],
    collect() {
      this.set(cluster()?.queue()?.failing ?? 0);
    },
  });
  const signIns = new Counter({
    name: 'tka_user_signins_total',
    help: 'Sign-ins that were provisioned or extended',
    labelNames: ['cluster_role'],
    registers: [controller],
  });
  new Gauge({
    name: 'tka_active_user_sessions',
    help: 'Active sign-ins in the cluster; every replica reports the same',
    labelNames: ['cluster_role'],
    registers: [controller],
    collect() {
      this.reset();
      for (const [name, count] of cluster()?.sessions() ?? []) this.inc({ cluster_role: role(name) }, count);
    },
  });
  const created = new Counter({
    name: 'tka_service_accounts_created_total',
    help: 'ServiceAccounts that this replica created for sign-ins',
    registers: [controller],
  });
  const deleted = new Counter({
    name: 'tka_service_accounts_deleted_total',
    help: 'ServiceAccounts of sign-ins that this replica deleted',
    registers: [controller],
  });
  new Gauge({
    name: 'tka_watch_connected',
    help: '1 while the watch of a resource works, 0 otherwise',
    labelNames: ['resource'],
    registers: [controller],
    collect() {
      const watches = cluster()?.watches();
      for (const resource of watchedResources) this.set({ resource }, watches?.get(resource)?.connected ? 1 : 0);
    },
  });
  new Gauge({
    name: 'tka_watch_age_seconds',
    help: 'Seconds since the API server last reported on a resource',
    labelNames: ['resource'],
    registers: [controller],
    collect() {
      for (const [resource, { silentMs }] of cluster()?.watches() ?? []) this.set({ resource }, silentMs / 1000);
    },
  });
  const broken = new Counter({
    name: 'tka_watch_errors_total',
    help: 'Failed watches of a resource; each is restarted',
    labelNames: ['resource'],
    registers: [controller],
  });
  for (const resource of watchedResources) broken.inc({ resource }, 0);
  new Gauge({
    name: 'leader_election_master_status',
    help: '1 while this replica leads, 0 otherwise',
    labelNames: ['name'],
    registers: [controller],
    collect() {
      this.set({ name: leaseName }, cluster()?.leading() ? 1 : 0);
    },
  });
  new Gauge({
    name: 'tka_go_server_leading',
    help: '1 while the operator of a Go server holds the leader lease, 0 otherwise',
    registers: [controller],
    collect() {
      this.set(cluster()?.goLeading() ? 1 : 0);
    },
  });

  return {
    server,
    controller,
    request(answered) {
      const { method: asked, route = 'other', status = 499, reason, ms, caller } = answered;
      federation.assertion(answered);
      // The caller chooses the method and the path, so all unknown ones count as one.
      const method = asked === 'GET' || asked === 'POST' ? asked : 'other';
      requests.inc({ method, route, status });
      duration.observe({ method, route }, ms / 1000);
      // 413 and 405 come before the caller is identified.
      const refused = status >= 400 && ![404, 405, 413, 499].includes(status);
      if (route !== 'other' && caller === undefined && refused) strangers.inc({ status });
      if (route.endsWith(`${apiPath}/login`) && method === 'POST') {
        const outcome = status === 202 ? 'success' : status === 403 ? 'forbidden' : 'error';
        logins.inc({ cluster_role: role(caller?.role), outcome });
        if (reason !== undefined && status !== 499) refusals.inc({ reason });
      }
    },
    reconcile({ ms, failed, again, signedIn }) {
      passes.inc({ controller: controllerName, result: failed ? 'error' : again ? 'requeue' : 'success' });
      if (failed) failures.inc({ controller: controllerName });
      passDuration.observe({ controller: controllerName }, ms / 1000);
      if (signedIn !== undefined) signIns.inc({ cluster_role: role(signedIn.role) });
    },
    watchBroke: (resource) => broken.inc({ resource }),
    account: (what) => (what === 'created' ? created : deleted).inc(),
    join: (outcome) => federation.join(outcome),
  };
}
