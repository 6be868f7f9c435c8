// The one place that imports undici's code. Its index brings fetch, WebSocket, caches and mocks along: 17 ms more in
// the bundle, 35 ms unbundled, for nothing that is used here. So this repeats the two lines of its index.js that make
// a Client whole. undici is pinned; test/network/undici.test.ts fails when another version has moved these files.
import type { Dispatcher as Dispatch, Client as Whole } from 'undici';
// @ts-expect-error: undici has no types for its inner files; the cast below gives them back.
import api from 'undici/lib/api/index.js';
// @ts-expect-error: as above
import InnerClient from 'undici/lib/dispatcher/client.js';
// @ts-expect-error: as above
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js';

Object.assign(Dispatcher.prototype, api);

/** undici's client for one origin. */
export const UndiciClient: typeof Whole = InnerClient;

/** An HTTP client for one origin, which sends one request at a time over one connection. */
export interface Client {
  request(options: Dispatch.RequestOptions): Promise<Dispatch.ResponseData>;
  /** Ends requests, the connection, and what is being done to have one. */
  destroy(): Promise<void>;
}
