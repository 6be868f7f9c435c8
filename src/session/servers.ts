import type { Network } from '../network/network.ts';
import type { ClusterAccess } from '../tka/answers.ts';
import { TkaClient } from '../tka/client.ts';
import { FailoverClient } from './failover.ts';
import { type Grant, type ObtainOptions, obtain } from './obtain.ts';
import type { Siblings } from './siblings.ts';
import { type TokenVerdict, tryToken } from './verify.ts';

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
      tryToken: (access) => this.tryToken(access.token, access),
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
