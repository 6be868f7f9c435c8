// The audit log: who got access, who was refused it, and when access ended. One JSON object per line, on stdout or in a
// file. The server's log is on stderr. docs/day-2.md lists the fields.
import { destination } from 'pino';
import { apiPath } from '../../tka/types.ts';
import { isLoopback } from '../../util/address.ts';
import { TkaError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';
import { type Config, clusterNameOf } from '../config/config.ts';
import type { Decided } from '../http/contract.ts';
import { type Log, withoutTokens } from '../log/log.ts';
import type { Ended } from '../provisioner/provisioner.ts';

/** Writes the audit log. No call throws. */
export interface Audit {
  decided(decided: Decided): void;
  ended(ended: Ended): void;
}

/** The content of a line, except its time and where it comes from. */
export interface AuditEvent {
  readonly event: 'sign-in' | 'token' | 'logout' | 'expiry' | 'revocation' | 'refusal';
  readonly outcome: 'success' | 'refused' | 'failed';
  readonly reason?: string | undefined;
  /** The action that was refused. */
  readonly asked?: string | undefined;
  /** The joined cluster that the request was for. */
  readonly joined_cluster?: string | undefined;
  /** The ID of the request, as in the log. */
  readonly request?: string | undefined;
  readonly login?: string | undefined;
  /** The name of the login server's cluster, for a caller that comes through a login server. */
  readonly login_server?: string | undefined;
  readonly node?: string | undefined;
  readonly address?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  readonly role?: string | undefined;
  readonly until?: string | undefined;
  readonly account?: string | undefined;
}

// By method and route. These three change access or hand it out, so their failures count as events too.
const changes: Readonly<Record<string, 'sign-in' | 'token' | 'logout'>> = {
  [`POST ${apiPath}/login`]: 'sign-in',
  [`GET ${apiPath}/kubeconfig`]: 'token',
  [`POST ${apiPath}/logout`]: 'logout',
};
const reads: Readonly<Record<string, string>> = {
  [`GET ${apiPath}/login`]: 'status',
  [`GET ${apiPath}/cluster-info`]: 'cluster-info',
  [`GET ${apiPath}/memberlist`]: 'memberlist',
};

/**
 * Returns the event of a request. Returns undefined if the request is no event: a read that was answered, or a token
 * that is not ready yet.
 */
export function eventOf(decided: Decided): AuditEvent | undefined {
  const { id, method, route, cluster, status, refusal, caller, through, origin, address: from, access } = decided;
  const what = `${method} ${route}`;
  const change = changes[what];
  const isRefused = status >= 400 && status < 499;
  // Behind a userspace tailscaled every connection comes over loopback.
  const address = from === undefined || isLoopback(from) ? (origin.address ?? from) : from;
  const { node, tags, login = caller?.login } = origin;
  const { role = caller?.role, until, account } = access ?? {};
  const [joined_cluster, login_server] = [cluster, through ?? caller?.through];
  const where = { joined_cluster, request: id, login, login_server, node, address, tags };
  const rest = { reason: refusal, ...where, role, until, account };
  if (isRefused) return { event: 'refusal', outcome: 'refused', asked: change ?? reads[what], ...rest };
  if (change === undefined) return undefined;
  if (status >= 499) return { event: change, outcome: 'failed', ...rest };
  // 202 to a token request means "ask again", which is no event.
  return access === undefined ? undefined : { event: change, outcome: 'success', ...rest };
}

// Maximum characters of a field. `account` may list several accounts.
const limits: Readonly<Record<string, number>> = { reason: 1_000, account: 2_000 };
const mostTags = 16;
// Maximum bytes that wait while the disk is full. Further lines are dropped.
const waitingLimit = 1024 * 1024;

/** Returns an event as one line. Cleans and cuts all texts, and omits empty fields. */
export function lineOf(event: AuditEvent, { server, cluster }: { server: string; cluster: string }): string {
  const clean = (text: string, field: string): string => cleanText(withoutTokens(text), limits[field] ?? 320);
  const fields = Object.entries(event).flatMap(([field, value]): [string, string | readonly string[]][] => {
    if (value === undefined || value === '') return [];
    if (typeof value === 'string') return [[field, clean(value, field)]];
    return [[field, value.slice(0, mostTags).map((text: string) => clean(text, field))]];
  });
  const time = new Date().toISOString();
  return `${JSON.stringify({ log: 'audit', time, server, cluster, ...Object.fromEntries(fields) })}\n`;
}

const silent: Audit = { decided: () => {}, ended: () => {} };

/** Opens the audit log. Each line is written before the call returns. Throws TkaError if its file cannot be opened. */
export function openAudit(config: Config, log: Log): Audit {
  if (!config.get('audit.enabled')) return silent;
  const file = config.get('audit.file');
  const stream = open(file);
  stream.on('error', (error) => log.error({ err: error, file }, 'could not write the audit log'));
  const place = { server: config.get('tailscale.hostname'), cluster: clusterNameOf(config) };
  const write = (event: AuditEvent): void => void stream.write(lineOf(event, place));
  return {
    decided(decided) {
      const event = eventOf(decided);
      if (event !== undefined) write(event);
    },
    ended: ({ event, reason, username, login = username, tagged, through, role, until, account }) =>
      write({ event, outcome: 'success', reason, login, login_server: through, ...tagged, role, until, account }),
  };
}

function open(file: string | undefined) {
  try {
    return destination({ dest: file ?? 1, sync: true, append: true, mode: 0o600, maxLength: waitingLimit });
  } catch (error) {
    const why = (error as Error).message;
    throw new TkaError(`cannot open the audit log: ${why}`, {
      hints: ['set audit.file to a file that the server can write, or remove it: the default is stdout'],
      cause: error,
    });
  }
}
