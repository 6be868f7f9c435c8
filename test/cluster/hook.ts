// A proxy on loopback in front of an API server, which lets a test act at the moment of a call.
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import type { Access } from './api-server.ts';

/**
 * Called before a call is passed on, and again with its status before the answer is. The call waits for it. A returned
 * text replaces the answer's body.
 */
export type Hook = (call: { readonly method: string; readonly path: string; readonly status?: number }) => unknown;

/** An API server through a proxy of the test. */
export interface Hooked {
  readonly access: Access;
  /** Closes open connections. */
  close(): void;
}

/**
 * Starts the proxy. If the hook throws, the call ends without an answer. `gaveUp` is called when a caller leaves before
 * its answer.
 */
export async function hooked(access: Access, hook: Hook, gaveUp?: (path: string) => void): Promise<Hooked> {
  const { ca, cert, key } = await makeCertificates('127.0.0.1');
  const agent = new https.Agent({ ca: access.ca, keepAlive: true });
  const server = https.createServer({ cert, key }, (request, response) => {
    const { method = '', url = '', headers } = request;
    const path = url.split('?', 1)[0] as string;
    const { host: _, ...rest } = headers;
    const cut = () => response.destroy();
    request.pause();
    response.once('close', () => response.writableFinished || gaveUp?.(path));
    Promise.resolve()
      .then(() => hook({ method, path }))
      .then(() => {
        const onward = https.request(new URL(url, access.server), { method, headers: rest, agent }, (answer) => {
          const status = answer.statusCode ?? 0;
          Promise.resolve()
            .then(() => hook({ method, path, status }))
            .then((body) => {
              if (typeof body !== 'string') return answer.pipe(response.writeHead(status, answer.headers));
              answer.resume();
              return response.writeHead(status, { 'Content-Type': 'application/json' }).end(body);
            })
            .catch(cut);
          answer.on('error', cut);
        });
        response.once('close', () => onward.destroy());
        request.pipe(onward.on('error', cut));
      })
      .catch(cut);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    access: { ...access, server: `https://127.0.0.1:${port}`, ca },
    close() {
      server.close();
      server.closeAllConnections();
      agent.destroy();
    },
  };
}
