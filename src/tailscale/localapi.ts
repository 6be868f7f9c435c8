// Queries tailscaled on this machine.
import { statusByCommand } from './command.ts';
import { namedSocket } from './places.ts';
import { TailscaleError } from './problem.ts';
import { type LocalAnswer, type LocalOptions, localRequest } from './request.ts';
import { parseStatus, type TailnetStatus } from './status.ts';

export { certificateFor, type TailnetCertificate } from './certificate.ts';
export { TailscaleError, type TailscaleProblem } from './problem.ts';
export { localRequest } from './request.ts';
export type { Peer, TailnetStatus } from './status.ts';
export { addressPort, type WhoIs, whoIs } from './whois.ts';

export type StatusOptions = Omit<LocalOptions, 'limit'>;

// A tailnet of 20,000 devices is 30 MiB.
const limit = 64 * 1024 * 1024;

/**
 * Returns the tailnet's suffix and devices from tailscaled's LocalAPI; if no socket answers and TS_SOCKET is not set,
 * from the `tailscale` command. Throws TailscaleError; its `problem` distinguishes stopped, logged out, absent and so
 * on.
 */
export async function tailnetStatus(options: StatusOptions): Promise<TailnetStatus> {
  const named = namedSocket(options) !== undefined;
  // Accept loopback addresses of peers only from a socket that the user named (tests use this). Any local user can
  // listen on loopback, but the environment decides anyway which socket is asked.
  return parseStatus(await statusDocument(options, named), { loopback: named });
}

/**
 * Returns the tailnet's suffix and this machine's DNS name. The time does not grow with the tailnet. Throws
 * TailscaleError.
 */
export async function ownNames(options: StatusOptions): Promise<{ readonly suffix: string; readonly dnsName: string }> {
  const { status, body } = await localRequest('/localapi/v0/status?peers=false', options);
  if (status !== 200) throw badStatus(status);
  const { suffix, self } = parseStatus(body, { loopback: false });
  return { suffix, dnsName: self.dnsName };
}

async function statusDocument(options: StatusOptions, named: boolean): Promise<string> {
  const started = performance.now();
  let answer: LocalAnswer;
  try {
    answer = await localRequest('/localapi/v0/status', { ...options, limit });
  } catch (error) {
    if (named || !(error instanceof TailscaleError) || !/^(?:absent|denied)$/.test(error.problem)) throw error;
    const timeout = options.timeout - (performance.now() - started);
    return await statusByCommand({ ...options, timeout, limit }).catch((cause) => {
      throw error.problem === 'denied' ? error : cause;
    });
  }
  if (answer.status === 200) return answer.body;
  throw badStatus(answer.status);
}

function badStatus(status: number): TailscaleError {
  return new TailscaleError('unreadable', `tailscaled answered with HTTP ${status}`, ['check it: tailscale status']);
}
