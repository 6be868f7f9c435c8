// What is counted, for Prometheus. The names are the Go server's and its operator's where they have one. No label grows
// with the number of users, sign-ins or paths, and none names a person: whoever reaches the port can read them.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { apiPath, type MemberRow, type MemberState } from '../../tka/types.ts';
import { cleanText } from '../../util/text.ts';
import type { Answered } from '../http/contract.ts';
import type { ReconcilePass } from '../provisioner/provisioner.ts';

/** What is looked at when somebody asks for the metrics; undefined while there is none. */
export interface MetricsSources {
  readonly version: string;
  readonly members: () => readonly MemberRow[] | undefined;
  /** How many people are signed in, by role. */
  readonly sessions: () => ReadonlyMap<string, number> | undefined;
  readonly leading: () => boolean | undefined;
}

export interface Metrics {
  /** `/metrics`: the API, the mesh and the process. */
  readonly server: Registry;
  /** `/metrics/controller`: the sign-ins in the cluster. */
  readonly controller: Registry;
  request(answered: Answered): void;
  reconcile(pass: ReconcilePass): void;
  watchBroke(): void;
}

const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
const controllerName = 'tkasignin';
const states: readonly MemberState[] = ['healthy', 'suspected', 'dead'];
const role = (name: string | undefined): string => cleanText(name ?? '', 253);

/** Two registries and what counts into them. */
export function createMetrics({ version, members, sessions, leading }: MetricsSources): Metrics {
  const server = new Registry();
  const controller = new Registry();
  collectDefaultMetrics({ register: server });

  new Gauge({
    name: 'tka_server_info',
    help: 'The version of this server',
    labelNames: ['version'],
    registers: [server],
  }).set({ version }, 1);
  const requests = new Counter({
    name: 'tka_server_requests_total',
    help: 'Requests to the API; status 499 where the caller hung up',
    labelNames: ['method', 'route', 'status'],
    registers: [server],
  });
  const duration = new Histogram({
    name: 'tka_server_request_duration_seconds',
    help: 'How long requests to the API took',
    labelNames: ['method', 'route'],
    buckets: seconds,
    registers: [server],
  });
  const logins = new Counter({
    name: 'tka_login_attempts_total',
    help: 'Sign-ins asked for, by cluster role and outcome: success, forbidden or error',
    labelNames: ['cluster_role', 'outcome'],
    registers: [server],
  });
  const strangers = new Counter({
    name: 'tka_server_identity_failures_total',
    help: 'Requests whose caller was not named, or has no grant, by the status of the refusal',
    labelNames: ['status'],
    registers: [server],
  });
  new Gauge({
    name: 'tka_mesh_members',
    help: 'Members of the mesh, this one too, by state',
    labelNames: ['state'],
    registers: [server],
    collect() {
      const rows = members();
      if (rows === undefined) return this.reset();
      for (const state of states) this.set({ state }, rows.filter((row) => row.state === state).length);
    },
  });

  const passes = new Counter({
    name: 'controller_runtime_reconcile_total',
    help: 'Passes over a sign-in, by result',
    labelNames: ['controller', 'result'],
    registers: [controller],
  });
  const failures = new Counter({
    name: 'controller_runtime_reconcile_errors_total',
    help: 'Passes over a sign-in that failed; each is tried again',
    labelNames: ['controller'],
    registers: [controller],
  });
  failures.inc({ controller: controllerName }, 0);
  const passDuration = new Histogram({
    name: 'tka_reconciler_duration',
    help: 'How long a pass over a sign-in took, in microseconds',
    labelNames: ['reconciler', 'namespace'],
    buckets: seconds.map((value) => value * 1e6),
    registers: [controller],
  });
  const signIns = new Counter({
    name: 'tka_user_signins_total',
    help: 'Sign-ins that were given access, or more time, by cluster role',
    labelNames: ['cluster_role'],
    registers: [controller],
  });
  const watch = new Counter({
    name: 'tka_watch_errors_total',
    help: 'How often the watch on sign-ins broke',
    registers: [controller],
  });
  new Gauge({
    name: 'tka_active_user_sessions',
    help: 'People signed in now, by cluster role',
    labelNames: ['cluster_role'],
    registers: [controller],
    collect() {
      this.reset();
      for (const [name, count] of sessions() ?? []) this.inc({ cluster_role: role(name) }, count);
    },
  });
  new Gauge({
    name: 'leader_election_master_status',
    help: '1 while this replica leads',
    labelNames: ['name'],
    registers: [controller],
    collect() {
      this.set({ name: 'controller.tka.specht-labs.de' }, leading() ? 1 : 0);
    },
  });

  return {
    server,
    controller,
    request({ method: asked, route = 'other', status = 499, ms, caller }) {
      // Methods and paths are the caller's to choose: those that mean nothing are counted as one.
      const method = asked === 'GET' || asked === 'POST' ? asked : 'other';
      requests.inc({ method, route, status });
      duration.observe({ method, route }, ms / 1000);
      // 413 and 405 come before the question who it is.
      const refused = status >= 400 && ![404, 405, 413, 499].includes(status);
      if (route !== 'other' && caller === undefined && refused) strangers.inc({ status });
      if (route === `${apiPath}/login` && method === 'POST') {
        const outcome = status === 202 ? 'success' : status === 403 ? 'forbidden' : 'error';
        logins.inc({ cluster_role: role(caller?.role), outcome });
      }
    },
    reconcile({ namespace, ms, failed, signedIn }) {
      passes.inc({ controller: controllerName, result: failed ? 'error' : 'success' });
      if (failed) failures.inc({ controller: controllerName });
      passDuration.observe({ reconciler: controllerName, namespace }, ms * 1000);
      if (signedIn !== undefined) signIns.inc({ cluster_role: role(signedIn.role) });
    },
    watchBroke: () => watch.inc(),
  };
}
