// Who calls, as tailscaled knows: by the address at the other end of the connection, and by nothing that the caller says.
import type { IncomingMessage } from 'node:http';
import type { WhoIs } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import { type Caller, type Identity, type Origin, Refusal } from '../http/contract.ts';
import type { Log } from '../log/log.ts';
import { whoCalls } from '../tailnet/callers.ts';
import { isOfOwnDomain } from './login.ts';
import { grantOf } from './rules.ts';

/** What the identity is given. */
export interface TailnetIdentityOptions {
  /** The capability whose rules grant roles. */
  readonly capName: string;
  /** The tailnet's name; empty where it is not known. May reject: nobody is named then. Default: not known. */
  readonly tailnet?: () => Promise<string>;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** Milliseconds for tailscaled to answer. Default 5 s. */
  readonly timeoutMs?: number;
  /** The tailnet is tailscaled's alone: what comes from it comes over loopback, and nothing else does. */
  readonly userspace?: boolean;
}

/**
 * The identity of the tailnet's users. tailscaled is asked at each request, so that a grant counts from the moment in
 * which it is given, and no longer than it is.
 */
export function tailnetIdentity(options: TailnetIdentityOptions): Identity {
  const { capName, tailnet = async () => '', log, userspace = false } = options;
  const whoIs = whoCalls({ ...options, userspace });

  async function ask(address: string, port: number, signal?: AbortSignal): Promise<[WhoIs | undefined, string]> {
    try {
      return await Promise.all([whoIs(address, port, signal), tailnet()]);
    } catch (error) {
      if (signal?.aborted) throw gone();
      log.error({ err: error }, 'tailscaled does not say who calls');
      // Whom it is told to is not known: the log says why.
      throw new Refusal(
        503,
        {
          message: 'the TKA server cannot ask tailscaled who you are',
          advice: ['try again in a moment', 'if it stays so, ask who runs the TKA server: its log says why'],
        },
        { retryAfterSeconds: 1 },
      );
    }
  }

  // He hung up: nobody is answered.
  const gone = () => new Refusal(400, { message: 'who is gone?' });

  return {
    async whoIs(request, asking): Promise<Caller> {
      const { remoteAddress, remotePort } = request.socket;
      if (isForwarded(request)) {
        throw new Refusal(403, { message: 'Unauthorized request from Funnel' }, { reason: 'outside_tailnet' });
      }
      if (remoteAddress === undefined || remotePort === undefined) throw gone();
      const [who, name] = await ask(remoteAddress, remotePort, asking?.signal);
      // His port may be somebody else's by now, and so may the answer.
      if (request.socket.destroyed) throw gone();
      if (who !== undefined) asking?.named(originOf(who));
      // A caller who has to wait for that is judged by a grant that is 3 s old at most.
      await asking?.admit(who === undefined ? remoteAddress : who.tags.join() || who.login);
      if (who === undefined) {
        throw new Refusal(
          403,
          {
            message: 'your connection does not come from a device of the tailnet',
            advice: ['connect to the tailnet: tailscale up'],
          },
          { reason: 'outside_tailnet' },
        );
      }
      if (who.tags.length > 0) {
        throw new Refusal(400, { message: 'tagged nodes not (yet) supported' }, { reason: 'tagged_device' });
      }
      const { login, device } = who;
      const username = login.split('@', 1)[0] ?? '';
      if (username === '') throw new Refusal(400, { message: 'tailscaled knows no login name for your device' });
      return {
        username,
        login,
        ownDomain: isOfOwnDomain(login, name),
        ...(device !== '' && { device }),
        ...grantOf(who.rules(capName), login, capName),
      };
    },
  };
}

const originOf = ({ login, dnsName, address, tags }: WhoIs): Origin => ({
  // A tagged device has no user; tailscaled says "tagged-devices".
  ...(login !== '' && tags.length === 0 && { login }),
  ...(dnsName !== '' && { node: dnsName }),
  ...(address !== '' && { address }),
  ...(tags.length > 0 && { tags }),
});

/**
 * True for what tailscaled's own proxy passes on: the caller would get the identity of the machine that the proxy is on.
 * It marks the internet's requests (Funnel) with a header, and reaches a server on its own address from that address. The
 * other `Tailscale-` headers, which anybody may send, are not looked at.
 */
function isForwarded({ headers, socket }: IncomingMessage): boolean {
  if (headers['tailscale-funnel-request'] !== undefined) return true;
  const { localAddress = '', remoteAddress } = socket;
  const isOwn = remoteAddress === localAddress && !isLoopback(localAddress);
  return isOwn && headers['x-forwarded-for'] !== undefined;
}
