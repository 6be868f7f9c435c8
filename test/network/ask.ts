import { json } from 'node:stream/consumers';
import { type ConnectOptions, type NetworkOptions, openNetwork } from '../../src/network/network.ts';

export interface Echo {
  readonly method: string;
  readonly url: string;
  readonly host: string;
  readonly httpVersion: string;
  readonly sni?: string | false;
  readonly headers: Readonly<Record<string, string>>;
}

type Asked = Partial<NetworkOptions & ConnectOptions>;

/** Asks an origin for /x through a network of its own, and closes it. */
export async function ask(origin: string, options: Asked = {}): Promise<Echo> {
  const { connectTimeout = 5000, ca, insecure, onStep, ...rest } = options;
  const client = openNetwork({ env: {}, ...rest }).client(origin, { connectTimeout, ca, insecure, onStep });
  try {
    const { body } = await client.request({ method: 'GET', path: '/x', headers: { 'user-agent': 'test' } });
    return (await json(body)) as Echo;
  } finally {
    await client.destroy();
  }
}

/** Returns the error that a request ends with. */
export async function failure(origin: string, options: Asked = {}): Promise<Error & { hints?: readonly string[] }> {
  return ask(origin, options).then(
    (answer) => {
      throw new Error(`answered: ${JSON.stringify(answer)}`);
    },
    (error) => error,
  );
}
