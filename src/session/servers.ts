import type { Client } from '../network/http.ts';
import type { Network } from '../network/network.ts';
import type { ClusterAccess } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { withoutSlashes } from '../util/url.ts';
import { FailoverClient } from './failover.ts';
import type { Keeper } from './keeper.ts';
import { type Grant, type ObtainOptions, obtain } from './obtain.ts';
import type { Siblings } from './siblings.ts';
import type { SessionStore } from './store.ts';

export interface ServersOptions {
  readonly network: Network;
  readonly siblings: (server: string, apiServer: string | undefined) => Promise<Siblings | undefined>;
  /** Servers that others have taken over from in this process. */
  readonly away: Set<string>;
  readonly say: (line: string) => void;
  readonly log: (line: string) => void;
}

/** Reaches TKA servers, and while one is away, the others of its cluster; see failover.ts. */
export class Servers {
  readonly #options: ServersOptions;

  constructor(options: ServersOptions) {
    this.#options = options;
  }

  /**
   * Returns a client for a server. `apiServer` is the API server that the cluster must have; undefined: the one that the
   * server stated before. close() the client at the end.
   */
  client(server: string, apiServer: string | undefined): FailoverClient {
    const { network, siblings, away, log } = this.#options;
    return new FailoverClient(server, {
      client: (url, onOpen) => new TkaClient(url, { network, log, onOpen }),
      siblings: () => siblings(server, apiServer),
      isRefused: async (access) => (await this.tryToken(access.token, access)) === 'refused',
      wasAway: away.has(server),
      onMove: () => away.add(server),
      log,
    });
  }

  /** Runs `act` with such a client. */
  async ask<T>(server: string, apiServer: string | undefined, act: (client: FailoverClient) => Promise<T>): Promise<T> {
    const client = this.client(server, apiServer);
    try {
      return await act(client);
    } finally {
      await client.close();
    }
  }

  /** Signs in to a server; says so if another one of its cluster took its place. Throws as obtain() does. */
  obtain(server: string, apiServer: string | undefined, options: Omit<ObtainOptions, 'log'>): Promise<Grant> {
    const { say, log } = this.#options;
    return this.ask(server, apiServer, async (client) => {
      const grant = await obtain(client, { ...options, log });
      if (client.hasMoved) say(`${server} is away: signed in through ${client.server}, of the same cluster`);
      return grant;
    });
  }

  /** Asks an API server whether it still takes a token; see verify.ts. */
  tryToken(token: string, access: ClusterAccess): Promise<TokenVerdict> {
    return tryToken(token, access, this.#options.network, this.#options.log);
  }
}

const timeout = 2000;

/** What an API server says of a token; 'unknown' if it does not answer. */
export type TokenVerdict = 'accepted' | 'refused' | 'unknown';

/**
 * Asks an API server whether it still takes a token: 'refused' for a 401, 'accepted' for any other answer, 'unknown'
 * without one within 2 s. Any path would do, since authentication comes first. Never throws.
 */
export async function tryToken(
  token: string,
  access: ClusterAccess,
  network: Network,
  log: (line: string) => void,
): Promise<TokenVerdict> {
  const url = new URL(access.apiServer);
  let client: Client | undefined;
  try {
    client = network.client(url.origin, {
      connectTimeout: timeout,
      insecure: access.insecureSkipTlsVerify,
      ...(access.caData !== '' && { ca: Buffer.from(access.caData, 'base64').toString('latin1') }),
    });
    const { statusCode } = await client.request({
      method: 'GET',
      path: `${withoutSlashes(url.pathname)}/version`,
      headers: { authorization: `Bearer ${token}`, accept: 'application/json', 'user-agent': 'kubectl-tka' },
      signal: AbortSignal.timeout(timeout),
    });
    log(`${access.apiServer} answers the token with HTTP ${statusCode}`);
    return statusCode === 401 ? 'refused' : 'accepted';
  } catch (error) {
    log(`${access.apiServer} could not be asked about the token: ${error}`);
    return 'unknown';
  } finally {
    await client?.destroy().catch(() => {});
  }
}

/** What the walks of this room work with. */
export interface Tools {
  readonly store: SessionStore;
  readonly keeper: Keeper;
  readonly servers: Servers;
  /** Milliseconds for getting a token, waiting included. */
  readonly timeout: number;
  /** One line for the person, on stderr. */
  readonly say: (line: string) => void;
  readonly log: (line: string) => void;
}
