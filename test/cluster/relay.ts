// A TCP relay on loopback in front of an API server, whose connections can be cut, refused and silenced.
import * as net from 'node:net';

export interface Relay {
  readonly url: string;
  /** Cuts open connections; refuses new ones until `heal`. */
  cut(): void;
  /** Accepts connections again; resolves when it listens. */
  heal(): Promise<void>;
  /** Silently drops all data, as if packets were lost. New connections work. */
  silence(): void;
  close(): void;
}

/** Relays to a server of this URL. */
export async function startRelay(target: string): Promise<Relay> {
  const { hostname, port } = new URL(target);
  const open = new Set<net.Socket>();
  const server = net.createServer((near) => {
    const far = net.connect({ host: hostname, port: Number(port) });
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => {
        open.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  const listen = (at: number): Promise<void> =>
    new Promise((resolve, reject) => server.once('error', reject).listen(at, '127.0.0.1', resolve));
  await listen(0);
  const at = (server.address() as net.AddressInfo).port;
  const cut = (): void => {
    server.close();
    for (const socket of open) socket.destroy();
  };
  const silence = (): void => {
    for (const socket of open) socket.unpipe().pause();
  };
  return { url: `https://127.0.0.1:${at}`, cut, heal: () => listen(at), silence, close: cut };
}
