import { type IncomingMessage, request } from 'node:http';
import { systemCode } from '../util/errors.ts';
import { cleanText } from '../util/text.ts';
import { type LocalPlace, namedSocket, type PlaceOptions, placesOf } from './places.ts';
import { startHint, TailscaleError } from './problem.ts';

export interface LocalOptions extends PlaceOptions {
  /** Milliseconds for the whole exchange. */
  readonly timeout: number;
  readonly log: (line: string) => void;
  /** Maximum size of the answer, in bytes; 1 MiB by default. */
  readonly limit?: number;
  /** Aborts the exchange. */
  readonly signal?: AbortSignal | undefined;
}

export interface LocalAnswer {
  readonly status: number;
  readonly body: string;
}

const usualLimit = 1024 * 1024;

/**
 * Sends a GET to tailscaled's LocalAPI, at the first place that answers. Any status except 401 and 403 is an answer.
 * Throws TailscaleError.
 */
export async function localRequest(path: string, options: LocalOptions): Promise<LocalAnswer> {
  const late = AbortSignal.timeout(Math.max(1, Math.ceil(options.timeout)));
  const signal = options.signal === undefined ? late : AbortSignal.any([options.signal, late]);
  let worst: TailscaleError | undefined;
  for (const place of placesOf(options)) {
    const started = performance.now();
    const log = (what: string) =>
      options.log(`GET ${path} at ${place.at}: ${what}, ${(performance.now() - started).toFixed(1)} ms`);
    try {
      const answer = await ask(place, path, signal, options.limit ?? usualLimit);
      log(`${answer.status}, ${answer.body.length} characters`);
      if (answer.status !== 401 && answer.status !== 403) return answer;
      worst = denied(place, `tailscaled refuses to answer: ${cleanText(answer.body, 200) || `HTTP ${answer.status}`}`);
    } catch (error) {
      log(error instanceof Error ? cleanText(error.message) : 'failed');
      const problem = problemOf(error, place, options);
      if (problem.problem === 'no-answer' || problem.problem === 'unreadable') throw problem;
      if (worst?.problem !== 'denied') worst = problem;
    }
  }
  throw worst ?? new TailscaleError('absent', 'tailscaled has no known socket', []);
}

async function ask(place: LocalPlace, path: string, signal: AbortSignal, limit: number): Promise<LocalAnswer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const to =
      'socketPath' in place
        ? { socketPath: place.socketPath }
        : { host: '127.0.0.1', port: place.port, auth: `:${place.password}` };
    request({ ...to, path, signal, agent: false, headers: { host: 'local-tailscaled.sock' } }, resolve)
      .on('error', reject)
      .end();
  });
  const chunks: Buffer[] = [];
  let size = 0;
  // Leaving the loop early closes the connection.
  for await (const chunk of response) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > limit) {
      throw new TailscaleError('unreadable', `tailscaled sent more than ${limit >> 20} MiB`, [
        'check it: tailscale status',
      ]);
    }
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') };
}

function problemOf(error: unknown, place: LocalPlace, options: LocalOptions): TailscaleError {
  if (error instanceof TailscaleError) return error;
  const code = systemCode(error) ?? '';
  if (error instanceof Error && /^(?:AbortError|TimeoutError)$/.test(error.name)) {
    const seconds = Math.round(options.timeout / 100) / 10;
    return new TailscaleError('no-answer', `tailscaled does not answer (${place.at}, within ${seconds} s)`, [
      'check it: tailscale status',
    ]);
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return denied(place, `permission denied on tailscaled's socket ${place.at}`, error);
  }
  if (/^(?:ENOENT|ENOTDIR|ECONNREFUSED|ENOTSOCK|EINVAL|EPROTOTYPE|ENAMETOOLONG)$/.test(code)) {
    if (namedSocket(options) === undefined) return absentError(options.platform, error);
    return new TailscaleError(
      'not-running',
      `no tailscaled at ${cleanText(place.at)}, the socket in TS_SOCKET (${code})`,
      ['to use the default socket: unset TS_SOCKET'],
      error,
    );
  }
  return new TailscaleError(
    'no-answer',
    `the connection to tailscaled broke (${code || 'it does not speak HTTP'})`,
    ['check it: tailscale status'],
    error,
  );
}

function denied(place: LocalPlace, message: string, cause?: unknown): TailscaleError {
  const hint =
    'socketPath' in place
      ? `check its permissions: ls -l ${cleanText(place.at)}`
      : 'run it as the user of the Tailscale app';
  return new TailscaleError('denied', message, [hint], cause);
}

/** Returns the error for a machine on which no Tailscale is found. */
export function absentError(platform: NodeJS.Platform = process.platform, cause?: unknown): TailscaleError {
  return new TailscaleError(
    'absent',
    'tailscale is not installed, or not running',
    [
      'install it (https://tailscale.com/download), then type: tailscale up',
      `if it is installed: ${startHint(platform)}`,
    ],
    cause,
  );
}
