// Identifies callers through tailscaled, only by the remote address of the connection. Nothing that the caller says
// counts.
import type { IncomingMessage } from 'node:http';
import type { WhoIs } from '../../tailscale/localapi.ts';
import { isLoopback } from '../../util/address.ts';
import { type AskedCluster, type Caller, deviceLogin, type Identity, type Origin, Refusal } from '../http/contract.ts';
import type { Log } from '../log/log.ts';
import { whoCalls } from '../tailnet/callers.ts';
import type { TailnetFacts } from '../tailnet/status.ts';
import { type DeviceRules, deviceCaller } from './devices.ts';
import { isOfOwnDomain } from './login.ts';
import { clusterGrantOf, type Grant, grantOf, type Subject } from './rules.ts';

/** Options of the tailnet's identity. */
export interface TailnetIdentityOptions {
  /** The capability whose rules grant roles. */
  readonly capName: string;
  /** The capability whose rules grant roles in joined clusters. Default: nothing grants any. */
  readonly federationCapName?: string;
  /** Which tagged devices can sign in. Default: none. */
  readonly devices?: DeviceRules;
  /** Returns facts about the tailnet. If it rejects, no caller can be identified. Default: nothing is known. */
  readonly tailnet?: () => Promise<TailnetFacts>;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** Timeout for tailscaled in milliseconds. Default 5 s. */
  readonly timeoutMs?: number;
  /** True behind a userspace tailscaled: all connections from the tailnet come over loopback, and no others do. */
  readonly userspace?: boolean;
}

/**
 * Returns the identity of the tailnet's users and devices. It asks tailscaled for each request, so that a new grant counts at once,
 * and a removed grant no longer counts.
 */
export function tailnetIdentity(options: TailnetIdentityOptions): Identity {
  const {
    capName,
    federationCapName = '',
    devices = noDevices,
    tailnet = async () => unknownTailnet,
    log,
    userspace = false,
  } = options;
  const whoIs = whoCalls({ ...options, userspace });

  async function ask(address: string, port: number, signal?: AbortSignal): Promise<[WhoIs | undefined, TailnetFacts]> {
    try {
      return await Promise.all([whoIs(address, port, signal), tailnet()]);
    } catch (error) {
      if (signal?.aborted) throw gone();
      log.error({ err: error }, 'cannot identify the caller: whois failed');
      // We do not know who gets this answer, so only the log has the details.
      throw new Refusal(
        503,
        {
          message: 'the TKA server cannot identify you: its tailscaled does not answer',
          advice: [
            'try again in a moment',
            'if it keeps failing, ask the operator of the TKA server: its log says why',
          ],
        },
        { retryAfterSeconds: 1 },
      );
    }
  }

  /** Returns what evaluates the rules: those for joined clusters if a cluster is named, else those for this server. */
  const granting = (who: WhoIs, cluster: AskedCluster | undefined): ((subject: Subject) => Grant) =>
    cluster === undefined
      ? (subject) => grantOf(who.rules(capName), subject, capName)
      : (subject) => clusterGrantOf(who.rules(federationCapName), subject, federationCapName, cluster);

  // The caller hung up: nobody gets this answer.
  const gone = () => new Refusal(400, { message: 'the caller hung up' });

  return {
    async whoIs(request, asking): Promise<Caller> {
      const { remoteAddress, remotePort } = request.socket;
      if (isForwarded(request)) {
        throw new Refusal(403, { message: 'Unauthorized request from Funnel' }, { reason: 'outside_tailnet' });
      }
      if (remoteAddress === undefined || remotePort === undefined) throw gone();
      const [who, facts] = await ask(remoteAddress, remotePort, asking?.signal);
      // After a hang-up, the port may belong to another caller, and so may the answer.
      if (request.socket.destroyed) throw gone();
      if (who !== undefined) asking?.named(originOf(who));
      // A caller may have to wait here. So the grant in the answer may be up to 3 s old.
      await asking?.admit(who === undefined ? remoteAddress : ownerOf(who));
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
      const grantTo = granting(who, asking?.cluster);
      const mayList = who.rules(federationCapName).length > 0 && { mayList: true };
      if (who.tags.length > 0) return { ...deviceCaller(who, devices, facts, grantTo), ...mayList };
      const { login, device } = who;
      const username = login.split('@', 1)[0] ?? '';
      if (username === '' || login.startsWith(deviceLogin(''))) {
        throw new Refusal(400, { message: 'tailscaled does not know the login of your device' });
      }
      return {
        username,
        login,
        ownDomain: isOfOwnDomain(login, facts.name),
        ...(device !== '' && { device }),
        ...grantTo({ name: login, tags: [] }),
        ...mayList,
      };
    },
  };
}

const noDevices: DeviceRules = { allowed: [], serverTag: '' };
const unknownTailnet: TailnetFacts = { name: '', suffix: '', ownTags: [] };

/** Returns whose limits a request counts for: the user's, or those of the tagged device. */
function ownerOf({ login, tags, device }: WhoIs): string {
  if (tags.length === 0) return login;
  return device === '' ? tags.join() : deviceLogin(device);
}

const originOf = ({ login, dnsName, address, tags }: WhoIs): Origin => ({
  // A tagged device has no user: tailscaled reports "tagged-devices" as its login.
  ...(login !== '' && tags.length === 0 && { login }),
  ...(dnsName !== '' && { node: dnsName }),
  ...(address !== '' && { address }),
  ...(tags.length > 0 && { tags }),
});

/**
 * Returns whether tailscaled's own proxy forwards the request. Such a caller would get the identity of the proxy's
 * machine. The proxy marks requests from the internet (Funnel) with a header. Other requests that it forwards to the
 * machine's own address also come from that address. Other `Tailscale-` headers do not count, because anybody can send
 * them.
 */
function isForwarded({ headers, socket }: IncomingMessage): boolean {
  if (headers['tailscale-funnel-request'] !== undefined) return true;
  const { localAddress = '', remoteAddress } = socket;
  const isOwn = remoteAddress === localAddress && !isLoopback(localAddress);
  return isOwn && headers['x-forwarded-for'] !== undefined;
}
