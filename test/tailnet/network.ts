// A network of hosts: each has its own network and mount namespaces, and a cable to a switch in this process's
// namespace. The kernel removes all of it when this process ends: see run.ts.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeFolder, type Running, start } from '../cluster/processes.ts';

/** Returns an address of the network: `10.66.0.1`. */
export const address = (number: number): string => `10.66.0.${number}`;

/**
 * Polls for a state without an event, and returns it as soon as it passes. Throws with the last state after a timeout.
 */
export async function eventually<T>(
  what: string,
  see: () => Promise<T>,
  passes: (seen: T) => boolean,
  withinMs = 30_000,
): Promise<T> {
  for (const deadline = performance.now() + withinMs; ; await delay(50)) {
    const seen = await see();
    if (passes(seen)) return seen;
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}: ${JSON.stringify(seen)}`);
  }
}

const ip = (commands: string, within: readonly string[] = []): void => {
  const [program = '', ...args] = [...within, 'ip', '-batch', '-'];
  execFileSync(program, args, { input: commands, stdio: ['pipe', 'pipe', 'pipe'] });
};

/** Turns this process's network namespace, which must be new, into the switch. Its addresses are 1 to `last`. */
export function makeSwitch(last: number): void {
  // The first line is a heading.
  if (fs.readFileSync('/proc/self/net/route', 'utf8').trim().split('\n').length > 1) {
    throw new Error('this network namespace is in use already: npm run test:tailnet makes one of its own');
  }
  const addresses = Array.from({ length: last }, (_, i) => `address add ${address(i + 1)}/24 dev switch\n`);
  // A bridge without its own MAC address takes that of a port, and another one when ports are added: frames to the old
  // one are lost.
  ip(
    `link set lo up\nlink add switch address 02:00:00:00:00:01 type bridge\n${addresses.join('')}link set switch up\n`,
  );
}

/** Removes the switch when nothing uses it any more, so that another one can be made. */
export const removeSwitch = (): void => ip('link delete switch\n');

const relayScript = `
const net = require('node:net');
const [host, port, socket] = process.argv.slice(1);
net.createServer((near) => {
  const far = net.connect(socket);
  for (const [one, other] of [[near, far], [far, near]]) {
    one.on('error', () => other.destroy());
    one.once('close', () => other.destroy());
    one.pipe(other);
  }
}).listen(Number(port), host, () => console.log('ready'));
`;

/** A host, usually connected to the switch. */
export class Host {
  readonly name: string;
  readonly folder: string;
  readonly #holder: Running;
  /** Undefined for a host that is not connected to the switch. */
  readonly #cable: string | undefined;
  readonly #relays: (() => Promise<void>)[] = [];

  private constructor(name: string, holder: Running, folder: string, cable: string | undefined) {
    this.name = name;
    this.#holder = holder;
    this.folder = folder;
    this.#cable = cable;
  }

  /** Makes a host with this address. Its own resolv.conf makes it answer for its names itself. */
  static async make(name: string, number: number): Promise<Host> {
    const cable = `cable${number}`;
    const host = await Host.#isolated(name, cable);
    ip(`link add ${cable} type veth peer name eth0 netns ${host.#holder.pid}\nlink set ${cable} master switch up\n`);
    ip(
      `link set lo up\naddress add ${address(number)}/24 dev eth0\nlink set eth0 up\nroute add default via ${address(1)}\n`,
      host.within(),
    );
    return host;
  }

  /**
   * Makes a host that can connect only to these ports of other hosts (`10.66.0.10:7947`). It has no cable: this process
   * relays those connections through Unix sockets.
   */
  static async makeBehind(name: string, reaches: readonly string[]): Promise<Host> {
    const host = await Host.#isolated(name, undefined);
    const addresses = new Set(reaches.map((target) => target.split(':')[0]));
    const own = [...addresses].map((each) => `address add ${each}/32 dev lo\n`).join('');
    ip(`link set lo up\n${own}`, host.within());
    await Promise.all(reaches.map((target) => host.#relay(target)));
    return host;
  }

  static async #isolated(name: string, cable: string | undefined): Promise<Host> {
    const folder = makeFolder();
    const resolv = path.join(folder, 'resolv.conf');
    fs.writeFileSync(resolv, '');
    // Keeps the namespaces open.
    const script = 'mount --bind "$0" /etc/resolv.conf && echo made && exec sleep 1000000';
    const log = path.join(folder, 'host.log');
    const holder = start('unshare', ['--net', '--mount', 'sh', '-c', script, resolv], log);
    const made = eventually(
      'namespaces',
      async () => fs.readFileSync(log, 'utf8'),
      (said) => said === 'made\n',
    );
    await Promise.race([holder.ended, made]);
    return new Host(name, holder, folder, cable);
  }

  /** Passes connections from the host to `address:port` on to the same place outside. */
  async #relay(target: string): Promise<void> {
    const [host = '', port = ''] = target.split(':');
    const socket = path.join(this.folder, `${target.replace(':', '-')}.sock`);
    const outside = net.createServer((near) => {
      const far = net.connect({ host, port: Number(port) });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on('error', () => other.destroy());
        one.once('close', () => other.destroy());
        one.pipe(other);
      }
    });
    await new Promise<void>((resolve, reject) => outside.once('error', reject).listen(socket, resolve));
    const log = path.join(this.folder, `relay-${port}.log`);
    const [nsenter = '', ...within] = this.within();
    const inside = start(nsenter, [...within, process.execPath, '-e', relayScript, host, port, socket], log);
    const ready = eventually(
      'the relay',
      async () => fs.readFileSync(log, 'utf8'),
      (said) => said.includes('ready'),
    );
    await Promise.race([inside.ended, ready]);
    this.#relays.push(async () => {
      await inside.stop('SIGKILL');
      outside.close();
    });
  }

  /** Returns the command prefix that runs a command on the host. */
  within(cwd = '/'): readonly string[] {
    return ['nsenter', '--target', String(this.#holder.pid), '--net', '--mount', 'env', '-C', cwd];
  }

  /** Removes the host when everything started in it has ended. */
  async stop(): Promise<void> {
    await Promise.all(this.#relays.map((stop) => stop()));
    if (this.#cable !== undefined) ip(`link delete ${this.#cable}\n`);
    await this.#holder.stop('SIGKILL');
  }

  /** Unplugs the cable from the switch, or plugs it in again. */
  cable(state: 'down' | 'up'): void {
    if (this.#cable === undefined) throw new Error(`${this.name} has no cable`);
    ip(`link set ${this.#cable} ${state}\n`);
  }
}
