// A TKA server's API and provisioner, for callers that state their own identity. Runs in the test's process or in a
// separate one.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { type Caller, Refusal } from '../../src/server/http/contract.ts';
import { createHandler } from '../../src/server/http/handler.ts';
import type { Log } from '../../src/server/log/log.ts';
import {
  type Provisioner,
  type ProvisionerOptions,
  startProvisioner,
} from '../../src/server/provisioner/provisioner.ts';
import { type AuditEvent, eventOf } from '../../src/server/telemetry/audit.ts';
import { type Access, kubeConfigFor } from './api-server.ts';

/** The options of a replica; plain data. */
export interface ReplicaOptions extends Pick<ProvisionerOptions, 'lease' | 'leaseNamespace' | 'resyncMs' | 'identity'> {
  readonly access: Access;
  /** The server's own token. */
  readonly token: string;
  readonly namespace: string;
}

export interface Replica {
  readonly url: string;
  readonly provisioner: Provisioner;
  /** Its logged warnings and errors. */
  readonly complaints: readonly string[];
  /** Its other log lines: the fields, and the message as `msg`. */
  readonly told: readonly Readonly<Record<string, unknown>>[];
  /** Its audit log. */
  readonly audit: readonly AuditEvent[];
  stop(): Promise<void>;
}

/** Starts a replica on a loopback port. */
export async function startReplica(options: ReplicaOptions): Promise<Replica> {
  const { access, token, namespace, ...rest } = options;
  const complaints: string[] = [];
  const note = (fields: Readonly<Record<string, unknown>>, message: string): void => {
    complaints.push(`${message}: ${fields.err instanceof Error ? fields.err.message : JSON.stringify(fields)}`);
  };
  const told: Readonly<Record<string, unknown>>[] = [];
  const story = (fields: Readonly<Record<string, unknown>>, message: string): void => {
    told.push({ ...fields, msg: message });
    if (process.env.TKA_DEBUG) console.error(options.identity ?? '', message, fields);
  };
  const log: Log = { debug: story, info: story, warn: note, error: note };
  const audit: AuditEvent[] = [];
  const provisioner = startProvisioner({
    onEnded: ({ event, reason, login, through, role, until, account }) =>
      audit.push({ event, outcome: 'success', reason, login, login_server: through, role, until, account }),
    ...rest,
    kubeConfig: kubeConfigFor(access, token),
    namespace,
    clusterName: 'tka-cluster',
    contextPrefix: 'tka-context-',
    userPrefix: 'tka-user-',
    clusterInfo: {
      server_url: access.server,
      insecure_skip_tls_verify: false,
      ca_data: Buffer.from(access.ca).toString('base64'),
      labels: {},
    },
    log,
  });
  const server = createServer(
    createHandler({
      identity: {
        whoIs({ headers }): Caller {
          const said = headers['x-caller'];
          if (typeof said !== 'string') throw new Refusal(403, { message: 'User not authorized' });
          const caller = JSON.parse(said) as Caller;
          const problem = new Refusal(403, { message: 'No grant found for user' });
          return caller.revoked === true ? { ...caller, problem } : caller;
        },
      },
      signIns: provisioner.signIns,
      clusterInfo: provisioner.clusterInfo,
      onError: (error) => note({ err: error }, 'internal error'),
      onDecided(decided) {
        const event = eventOf(decided);
        if (event !== undefined) audit.push(event);
      },
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/v1alpha1`,
    provisioner,
    complaints,
    told,
    audit,
    async stop() {
      server.closeAllConnections();
      server.close();
      await provisioner.stop();
    },
  };
}

// As a process: reads its options from stdin, prints its URL.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const replica = await startReplica(JSON.parse(await text(process.stdin)));
  process.stdout.write(`${replica.url}\n`);
  process.once('SIGTERM', () => void replica.stop());
}
