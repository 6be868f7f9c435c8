import type { TokenAccess } from '../tka/answers.ts';
import { TkaError } from '../util/errors.ts';
import { readObject } from './files.ts';
import { StateFiles } from './state-files.ts';

/**
 * The API servers that a person agreed to reach through a TKA server without TLS verification:
 * `~/.local/state/kubectl-tka/insecure/https+tka.example.ts.net`.
 */
export class InsecureConsents extends StateFiles {
  /** The API server of a TKA server's consent. */
  read(server: string): string | undefined {
    const file = this.file(server);
    const apiServer = file === undefined ? undefined : readObject(file)?.apiServer;
    return typeof apiServer === 'string' ? apiServer : undefined;
  }

  /** Keeps a consent. Throws TkaError if it cannot be kept. */
  write(server: string, apiServer: string): void {
    if (this.read(server) !== apiServer) this.put(server, { server, apiServer });
  }

  /**
   * Checks what a server gives access to. Throws TkaError if it is another API server than `apiServer`, or one without
   * TLS verification that nobody has agreed to; `agreed` keeps the consent.
   */
  check(server: string, access: TokenAccess, apiServer: string | undefined, agreed: boolean): void {
    if (apiServer !== undefined && access.apiServer !== apiServer) {
      throw new TkaError(`${server} gives tokens for ${access.apiServer}, not for ${apiServer}`, {
        hints: [`if the cluster has moved, renew the context: kubectl tka login ${server}`],
      });
    }
    if (!access.insecureSkipTlsVerify || this.read(server) === access.apiServer) return;
    if (!agreed) {
      throw new TkaError(`${server} asks to reach ${access.apiServer} without a look at its certificate`, {
        hints: [`if you accept that, type: kubectl tka login ${server} --insecure-skip-tls-verify`],
      });
    }
    this.write(server, access.apiServer);
  }
}
