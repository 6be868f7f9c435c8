// The steps that a connection reports while it is made. Types only, so that the miss path loads nothing for them.
import type { Socket } from 'node:net';

/** A proxy on the way to an origin, for messages. */
export interface Route {
  /** Its URL without credentials: `socks5://127.0.0.1:1055`. */
  readonly proxy: string;
  /** The environment variable that names it. */
  readonly variable: string;
}

/** A step that has succeeded. Steps come in this order, and none follows a failure. */
export type ConnectStep =
  /** The connection goes through this proxy; `route` is undefined for a direct connection. */
  | { readonly step: 'route'; readonly route: Route | undefined }
  /** The answer of the system's resolver; empty if it failed. Skipped if it was not asked. */
  | { readonly step: 'resolver'; readonly addresses: readonly string[] }
  /** The addresses to connect to. Skipped if a proxy resolves the name. */
  | { readonly step: 'name'; readonly addresses: readonly string[] }
  /** A TCP connection to the server, or a proxy's tunnel to it. `address` is the server's, undefined if unknown. */
  | { readonly step: 'tcp'; readonly address: string | undefined }
  /** The connection is ready for a request. For https it is a TLSSocket, which knows the certificate. */
  | { readonly step: 'open'; readonly socket: Socket };

export type OnStep = (step: ConnectStep) => void;
