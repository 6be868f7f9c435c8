// Asks the server on this machine or in this pod, through its admin socket.
import { type IncomingMessage, request } from 'node:http';
import { systemCode, TkaError } from '../../util/errors.ts';
import { isObject, parseJson } from '../../util/json.ts';
import { cleanText } from '../../util/text.ts';
import type { AdminProblem } from './socket.ts';

const timeoutMs = 10_000;
// In bytes: 10,000 members with the longest records.
const answerLimit = 64 * 1024 * 1024;

/** Returns the answer of the server. Throws TkaError with hints if there is no server or if it refuses. */
export async function askAdmin<T>(socketPath: string, method: 'GET' | 'DELETE', path: string): Promise<T> {
  if (process.platform === 'win32') {
    throw new TkaError('the admin socket is not available on Windows', {
      hints: ['run it where the server runs: kubectl exec -n tka-system tka-0 -c server -- tka-server status'],
    });
  }
  const { status, body } = await exchange(socketPath, method, path).catch((error: unknown) => {
    throw unreached(socketPath, error);
  });
  const answer = parseJson(body);
  if (!isObject(answer)) throw new TkaError(`${socketPath} is not the socket of a tka-server`, { hints: anotherPlace });
  if (status === 200) return answer as T;
  const { message, hints } = answer as Partial<AdminProblem>;
  throw new TkaError(cleanText(String(message ?? `HTTP ${status}`)), {
    hints: Array.isArray(hints) ? hints.map((hint) => cleanText(String(hint))) : anotherPlace,
  });
}

const anotherPlace = [
  'in a cluster: kubectl exec -n tka-system tka-0 -c server -- tka-server status',
  'elsewhere: pass the configuration of the server (--config FILE) or set its TKA_ADMIN_SOCKET',
];

function unreached(socketPath: string, error: unknown): TkaError {
  const failed = (what: string, hints: readonly string[] = anotherPlace) => new TkaError(what, { hints, cause: error });
  switch (systemCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return failed(`tka-server is not running here: socket not found: ${socketPath}`);
    case 'ECONNREFUSED':
    case 'ENOTSOCK':
      return failed(`tka-server is not running here: no process listens on ${socketPath}`);
    case 'EACCES':
    case 'EPERM':
      return failed(`${socketPath} belongs to another user`, ['run it as the user that tka-server runs as']);
    default: {
      const why = error instanceof Error ? error.message : 'failed';
      return failed(`the tka-server on ${socketPath} does not answer: ${cleanText(why)}`, [
        'see its log: kubectl logs -n tka-system tka-0 -c server',
      ]);
    }
  }
}

async function exchange(socketPath: string, method: string, path: string): Promise<{ status: number; body: string }> {
  const signal = AbortSignal.timeout(timeoutMs);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath, method, path, agent: false, signal }, resolve).on('error', reject).end();
  });
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += (chunk as Buffer).length;
    if (size > answerLimit) throw new Error('the answer is too long');
    chunks.push(chunk as Buffer);
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') };
}
