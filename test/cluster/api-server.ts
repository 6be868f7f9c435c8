// Real API servers on loopback: one etcd, and kube-apiservers with an address, a CA and an admin each.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { request } from 'node:https';
import * as net from 'node:net';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import { makeCertificates } from '../../src/sandbox/certificates.ts';
import { freePort } from '../fixtures/ports.ts';
import type { Assets } from './assets.ts';
import { makeFolder, type Running, start } from './processes.ts';

/** Admin access to one API server; plain data, so that another process can use it. */
export interface Access {
  readonly server: string;
  /** PEM. */
  readonly ca: string;
  readonly token: string;
}

export interface Etcd {
  readonly url: string;
  stop(): Promise<void>;
}

export interface ApiServer extends Access {
  readonly pid: number;
  /** Stops it, and starts it again with the same data. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Returns a client's configuration for one API server, as its admin or with another token. */
export function kubeConfigFor({ server, ca, token }: Access, as: string = token): KubeConfig {
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    { name: 'test', server, caData: Buffer.from(ca).toString('base64'), skipTLSVerify: false },
    { name: 'test', token: as },
  );
  return config;
}

/** Returns a kubeconfig file for one API server, as its admin or with another token. */
export function kubeconfigFile(access: Access, as?: string): string {
  const file = path.join(makeFolder(), 'kubeconfig');
  fs.writeFileSync(file, kubeConfigFor(access, as).exportConfig(), { mode: 0o600 });
  return file;
}

/** Starts an etcd whose data is removed when it stops; resolves when it accepts connections. */
export async function startEtcd(assets: Assets): Promise<Etcd> {
  const folder = makeFolder();
  const [client, peer] = [await freePort('127.0.0.1'), await freePort('127.0.0.1')];
  const url = `http://127.0.0.1:${client}`;
  const peerUrl = `http://127.0.0.1:${peer}`;
  const running = start(
    assets.etcd,
    [
      ['data-dir', path.join(folder, 'data')],
      ['listen-client-urls', url],
      ['advertise-client-urls', url],
      ['listen-peer-urls', peerUrl],
      ['initial-advertise-peer-urls', peerUrl],
      ['initial-cluster', `default=${peerUrl}`],
      ['log-level', 'error'],
    ]
      .map(([name, value]) => `--${name}=${value}`)
      .concat('--unsafe-no-fsync'),
    path.join(folder, 'etcd.log'),
  );
  await Promise.race([running.ended, connectable(Number(client))]);
  return {
    url,
    async stop() {
      await running.stop();
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function connectable(port: number): Promise<void> {
  for (;;) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = net.connect({ host: '127.0.0.1', port }, () => resolve(true));
      socket.once('error', () => resolve(false)).once('connect', () => socket.destroy());
    });
    if (connected) return;
    await delay(20);
  }
}

/** Starts an API server on an address, with its own part of an etcd; resolves when it is ready. */
export async function startApiServer(assets: Assets, etcd: Pick<Etcd, 'url'>, host: string): Promise<ApiServer> {
  const folder = makeFolder();
  const port = await freePort(host);
  const server = `https://${host}:${port}`;
  const { ca, cert, key } = await makeCertificates(host);
  const token = randomBytes(24).toString('base64url');
  const accounts = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const file = (name: string, text: string): string => {
    const at = path.join(folder, name);
    fs.writeFileSync(at, text, { mode: 0o600 });
    return at;
  };
  const args = Object.entries({
    'etcd-servers': etcd.url,
    'etcd-prefix': `/${path.basename(folder)}`,
    'bind-address': host,
    'advertise-address': host,
    'secure-port': String(port),
    'tls-cert-file': file('tls.crt', cert),
    'tls-private-key-file': file('tls.key', key),
    'token-auth-file': file('tokens.csv', `${token},admin,admin,system:masters\n`),
    'authorization-mode': 'RBAC',
    'service-account-issuer': 'https://kubernetes.default.svc',
    'service-account-key-file': file('accounts.pub', accounts.publicKey),
    'service-account-signing-key-file': file('accounts.key', accounts.privateKey),
    'service-cluster-ip-range': '10.96.0.0/16',
    'disable-admission-plugins': 'ServiceAccount',
    // No other test shares this server, and its last watch need not run out before it ends.
    'shutdown-send-retry-after': 'false',
    'shutdown-watch-termination-grace-period': '0s',
    'cert-dir': folder,
  }).map(([name, value]) => `--${name}=${value}`);
  let running: Running;
  async function boot(): Promise<void> {
    running = start(assets.apiServer, args, path.join(folder, 'kube-apiserver.log'));
    await Promise.race([running.ended, ready(server, ca, token)]);
  }
  await boot();
  return {
    server,
    ca,
    token,
    get pid() {
      return running.pid;
    },
    async restart() {
      await running.stop('SIGKILL');
      await boot();
    },
    async stop() {
      await running.stop('SIGKILL');
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function ready(server: string, ca: string, token: string): Promise<void> {
  while ((await statusOf(`${server}/readyz`, ca, token)) !== 200) await delay(50);
}

function statusOf(url: string, ca: string, token: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    request(url, { ca, headers: { authorization: `Bearer ${token}` } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .once('error', () => resolve(undefined))
      .end();
  });
}
