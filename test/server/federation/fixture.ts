// A login server's listener and joined servers on loopback, with real TLS.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import type {
  Admission,
  DialAnswer,
  DialRequest,
  JoinAnswer,
  JoinRequest,
  OwnTunnel,
  Tunnel,
  TunnelAnswer,
  TunnelRequest,
} from '../../../src/server/federation/contract.ts';
import { keepTunnels } from '../../../src/server/federation/dialer.ts';
import { keyHash, newKey } from '../../../src/server/federation/keys.ts';
import { listenForTunnels } from '../../../src/server/federation/listener.ts';
import type {
  JoinOptions,
  KeepTunnelsOptions,
  ListenOptions,
  OwnTunnels,
  TunnelListener,
} from '../../../src/server/federation/options.ts';
import type { Log } from '../../../src/server/log/log.ts';
import { fileFolder } from '../../fixtures/temporary.ts';
import { makeAuthority } from '../../network/certificates.ts';

export const authority = await makeAuthority();
const { cert, key } = await authority.issue('localhost');
const folder = fileFolder();
export const files = { certFile: path.join(folder, 'tls.crt'), keyFile: path.join(folder, 'tls.key') };
fs.writeFileSync(files.certFile, cert);
fs.writeFileSync(files.keyFile, key);

/** Lines that any part has logged since the test began: `info connected to the login server`. */
export const logged: string[] = [];
/** The fields of each line. */
export const fields: Readonly<Record<string, unknown>>[] = [];
const write =
  (level: string): Log['info'] =>
  (given, message) => {
    logged.push(`${level} ${message}`);
    fields.push({ ...given, message });
  };
export const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };

const closing: { close(): Promise<void> }[] = [];
beforeEach(() => {
  logged.length = 0;
  fields.length = 0;
});
afterEach(async () => {
  await Promise.all(closing.splice(0).map((part) => part.close()));
});

/** Closes a part after the test. */
export function closeLater<T extends { close(): Promise<void> }>(part: T): T {
  closing.push(part);
  return part;
}

export const loginKey = newKey();
export const ownKey = newKey();
export const statement = { version: '0.2.0', apiEndpoint: 'https://api.example.com:6443', labels: { env: 'prod' } };

/** An admission that lets everything pass, and remembers what it was asked. */
export class OpenAdmission implements Admission {
  readonly asked: (JoinRequest | DialRequest)[] = [];
  readonly joinAnswer: () => JoinAnswer | Promise<JoinAnswer>;
  readonly dialAnswer: () => DialAnswer | Promise<DialAnswer>;

  constructor(
    dialAnswer: () => DialAnswer | Promise<DialAnswer> = () => ({ ok: true }),
    joinAnswer: () => JoinAnswer | Promise<JoinAnswer> = () => ({
      ok: true,
      primary: 'primary',
      keys: [loginKey.publicKey],
    }),
  ) {
    this.joinAnswer = joinAnswer;
    this.dialAnswer = dialAnswer;
  }

  async join(request: JoinRequest): Promise<JoinAnswer> {
    this.asked.push(request);
    return this.joinAnswer();
  }

  async dial(request: DialRequest): Promise<DialAnswer> {
    this.asked.push(request);
    return this.dialAnswer();
  }
}

export interface Login {
  readonly listener: TunnelListener;
  readonly endpoint: string;
  /** Resolves with the next tunnel, or one that is open and was not returned yet. */
  next(): Promise<Tunnel>;
  /** Resolves with the reason when this tunnel is closed. */
  closed(tunnel: Tunnel): Promise<string>;
}

/** Starts a login server's listener on loopback. */
export async function login(more: Partial<ListenOptions> = {}): Promise<Login> {
  const opened = new Arrivals<Tunnel>();
  const reasons = new Map<Tunnel, PromiseWithResolvers<string>>();
  const reasonOf = (tunnel: Tunnel) => {
    const found = reasons.get(tunnel) ?? Promise.withResolvers<string>();
    reasons.set(tunnel, found);
    return found;
  };
  const listener = await listenForTunnels({
    host: '127.0.0.1',
    port: 0,
    ...files,
    cluster: 'primary',
    replica: 'login-0',
    replicas: () => 1,
    keys: () => [loginKey],
    admission: new OpenAdmission(),
    log,
    onOpen: (tunnel) => opened.add(tunnel),
    onClose: (tunnel, reason) => reasonOf(tunnel).resolve(reason),
    ...more,
  });
  closeLater(listener);
  return {
    listener,
    endpoint: `https://localhost:${listener.port}`,
    next: () => opened.next(),
    closed: (tunnel) => reasonOf(tunnel).promise,
  };
}

/** Returns options to join or to keep tunnels. */
export function dialOptions(endpoint: string) {
  return {
    endpoint,
    caFile: authority.file,
    env: {},
    cluster: 'alpha',
    replica: 'tka-0',
    key: ownKey,
    log,
  } satisfies Partial<KeepTunnelsOptions>;
}

export function joinOptions(endpoint: string): JoinOptions {
  return {
    ...dialOptions(endpoint),
    statement,
    token: 'tka-join-secret',
    keyHash: keyHash(loginKey.publicKey),
    signal: AbortSignal.timeout(60_000),
  };
}

export const answerOk: KeepTunnelsOptions['answer'] = async () => ({
  status: 200,
  headers: { 'content-type': 'application/json' },
  body: '{}',
});

/** Keeps tunnels to a login server, as a joined cluster's server does. */
export function joined(endpoint: string, more: Partial<KeepTunnelsOptions> = {}): OwnTunnels {
  return closeLater(
    keepTunnels({
      ...dialOptions(endpoint),
      statement: () => statement,
      primary: 'primary',
      keys: [loginKey.publicKey],
      answer: answerOk,
      times: { redialMs: [10, 100] },
      ...more,
    }),
  );
}

export const request: TunnelRequest = {
  method: 'POST',
  path: '/api/v1alpha1/login',
  assertion: 'eyJ.assertion',
  id: 'request-1',
};

export const ask = (tunnel: Tunnel, more: Partial<TunnelRequest> = {}): Promise<TunnelAnswer> =>
  tunnel.request({ ...request, ...more }, new AbortController().signal);

/** Values that come one after another, and are awaited one after another. */
export class Arrivals<T> {
  readonly #values: T[] = [];
  readonly #waiting: ((value: T) => void)[] = [];

  add(value: T): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#values.push(value);
    else next(value);
  }

  next(): Promise<T> {
    const [value] = this.#values.splice(0, 1);
    return value === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(value);
  }
}

export type { OwnTunnel };
