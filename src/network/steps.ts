// What is reported of a connection while it is made. Types only: the miss path loads nothing for it.
import type { Socket } from 'node:net';

/** A proxy on the way to an origin, fit to be shown. */
export interface Route {
  /** Without its credentials: `socks5://127.0.0.1:1055`. */
  readonly proxy: string;
  /** The environment variable that names it. */
  readonly variable: string;
}

/** A step that has succeeded, in this order. After the first failure there are no more. */
export type ConnectStep =
  /** Where the connection goes first; `route` is undefined for a direct one. */
  | { readonly step: 'route'; readonly route: Route | undefined }
  /** What the system's resolver answered; empty if it failed. Skipped if it was not asked. */
  | { readonly step: 'resolver'; readonly addresses: readonly string[] }
  /** The addresses to connect to. Skipped if a proxy resolves the name. */
  | { readonly step: 'name'; readonly addresses: readonly string[] }
  /** A TCP connection to the server, or a proxy's tunnel to it. `address` is the server's, if it is known. */
  | { readonly step: 'tcp'; readonly address: string | undefined }
  /** The connection is ready for a request. For https it is a TLSSocket, which knows the certificate. */
  | { readonly step: 'open'; readonly socket: Socket };

export type OnStep = (step: ConnectStep) => void;
