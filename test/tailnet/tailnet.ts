// A real tailnet: Tailscale's own test control plane, controlled by the test, and a tailscaled on each host.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { isDeepStrictEqual, promisify } from 'node:util';
import { type TailnetStatus, tailnetStatus, whoIs } from '../../src/tailscale/localapi.ts';
import { makeFolder, type Running, start } from '../cluster/processes.ts';
import type { tailnetAssets } from './assets.ts';
import { address, eventually, Host } from './network.ts';

type Programs = Awaited<ReturnType<typeof tailnetAssets>>;

const control = `http://${address(1)}:9000`;
const capability = 'specht-labs.de/cap/tka';
/** The tailnet's MagicDNS suffix. */
export const suffix = 'tail0000.ts.net';
/** The address of a userspace tailscaled's proxy. */
export const proxy = '127.0.0.1:1055';

/** A host of the tailnet. */
export interface Device extends Host {
  /** tailscaled's socket. */
  readonly socket: string;
  /** Kills tailscaled: the node leaves the tailnet, whatever still runs on it. */
  leave(): Promise<void>;
  /** Starts it again as the same node; resolves when it is back. */
  rejoin(): Promise<void>;
}

export class Tailnet {
  readonly #programs: Programs;
  readonly #control: Running;
  readonly #devices: Device[] = [];
  /** The running tailscaled of each device in the tailnet. */
  readonly #daemons = new Map<string, Running>();

  private constructor(programs: Programs, control: Running) {
    this.#programs = programs;
    this.#control = control;
  }

  get #members(): Device[] {
    return this.#devices.filter(({ name }) => this.#daemons.has(name));
  }

  /** Starts the control plane. */
  static async start(programs: Programs): Promise<Tailnet> {
    const running = start(programs['tailnet-control'], [new URL(control).host], path.join(makeFolder(), 'control.log'));
    const answers = () =>
      fetch(`${control}/key?v=1`).then(
        ({ ok }) => ok,
        () => false,
      );
    await Promise.race([running.ended, eventually('the control plane', answers, (ok) => ok)]);
    return new Tailnet(programs, running);
  }

  /** Stops the control plane, and every tailscaled and its host. */
  async stop(): Promise<void> {
    await Promise.all([this.#control, ...this.#daemons.values()].map((one) => one.stop('SIGKILL')));
    await Promise.all(this.#devices.map((device) => device.stop()));
  }

  /** Makes a host with this address, and signs it in to the tailnet. */
  async join(name: string, number: number, options: { readonly userspace?: boolean } = {}): Promise<Device> {
    const host = await Host.make(name, number);
    const socket = path.join(host.folder, 'tailscaled.sock');
    const [nsenter, ...within] = host.within() as [string, ...string[]];
    const daemon = [
      ...[
        'TS_NO_LOGS_NO_SUPPORT=true',
        `TS_LOGS_DIR=${host.folder}`,
        this.#programs.tailscaled,
        `--statedir=${host.folder}`,
        `--socket=${socket}`,
      ],
      ...(options.userspace ? ['--tun=userspace-networking', `--socks5-server=${proxy}`] : []),
    ];
    const log = path.join(host.folder, 'tailscaled.log');
    const up = ['up', `--login-server=${control}`, `--hostname=${name}`, '--netfilter-mode=off', '--timeout=30s'];
    const client = ['TS_BE_CLI=1', this.#programs.tailscaled, `--socket=${socket}`, ...up];
    const rejoin = async () => {
      const running = start(nsenter, [...within, ...daemon], log);
      this.#daemons.set(name, running);
      await Promise.race([running.ended, promisify(execFile)(nsenter, [...within, ...client])]).catch((cause) => {
        throw new Error(`${name} cannot sign in\n${fs.readFileSync(log, 'utf8').slice(-4000)}`, { cause });
      });
    };
    const leave = async () => {
      await this.#daemons.get(name)?.stop('SIGKILL');
      this.#daemons.delete(name);
    };
    await rejoin();
    const device = Object.assign(host, { socket, leave, rejoin });
    this.#devices.push(device);
    return device;
  }

  /** Gives devices exactly these tags, by name; resolves when all devices know. */
  async tag(tags: Readonly<Record<string, readonly string[]>>): Promise<void> {
    await this.#known(
      `tags ${JSON.stringify(tags)}`,
      ({ peers }) =>
        Object.entries(tags).every(([name, wanted]) => {
          const peer = peers.find(({ dnsName }) => dnsName === `${name}.${suffix}`);
          return peer !== undefined && peer.tags.join() === wanted.join();
        }),
      // A device that reports its own state at the same moment may overwrite a change, so repeat it until all know.
      () => this.#steer('tags', tags),
    );
  }

  /** Grants everyone in the tailnet exactly these rules; resolves when all devices know. */
  grant(...rules: readonly object[]): Promise<void> {
    return this.grantAll({ [capability]: rules });
  }

  /** Grants everyone in the tailnet exactly these capabilities; resolves when all devices know. */
  async grantAll(capabilities: Readonly<Record<string, readonly object[]>>): Promise<void> {
    await this.#steer('grant', capabilities);
    const granted = async (device: Device, by: Device) => {
      const status = await statusOf(by);
      const who = await whoIs(status.self.addresses[0] ?? '', 1, local(device));
      return Object.fromEntries(Object.keys(capabilities).map((name) => [name, who?.rules(name) ?? []]));
    };
    await Promise.all(
      this.#members.map((device, i, members) => {
        const other = members[i === 0 ? 1 : 0] as Device;
        return eventually(
          `${device.name} to know the grant`,
          () => granted(device, other),
          (known) => isDeepStrictEqual(known, capabilities),
        );
      }),
    );
  }

  async #known(
    what: string,
    passes: (status: TailnetStatus) => boolean,
    say = async (): Promise<void> => undefined,
  ): Promise<void> {
    await Promise.all(
      this.#members.map((device) =>
        eventually(`${device.name} to know ${what}`, () => say().then(() => statusOf(device)), passes),
      ),
    );
  }

  async #steer(route: string, body: object): Promise<void> {
    const response = await fetch(`${control}/test/${route}`, { method: 'PUT', body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${route}: ${response.status} ${await response.text()}`);
  }
}

const local = ({ socket }: Device) => ({ env: { TS_SOCKET: socket }, timeout: 30_000, log: () => undefined });

/** Returns the status of a device's tailscaled. */
const statusOf = (device: Device): Promise<TailnetStatus> => tailnetStatus(local(device));
