import { execFile } from 'node:child_process';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { json, text } from 'node:stream/consumers';
import type { SandboxCluster } from '../../src/sandbox/mesh.ts';
import { apiPath } from '../../src/tka/types.ts';

export interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** Calls the TKA API once on a separate connection; rejects if the connection fails. */
export async function ask(
  { server }: SandboxCluster,
  method: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest(server + apiPath + path, { method, headers, agent: false })
      .on('response', resolve)
      .on('error', reject)
      .end();
  });
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

/** Calls the stand-in Kubernetes API once and verifies its CA. */
export async function askApi(
  { apiServer, caData }: SandboxCluster,
  token: string | undefined,
  path: string,
  method = 'GET',
) {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const ca = Buffer.from(caData, 'base64');
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    httpsRequest(apiServer + path, { method, headers, ca, agent: false }, resolve)
      .on('error', reject)
      .end();
  });
  // biome-ignore lint/suspicious/noExplicitAny: whatever it answers
  return { status: response.statusCode, headers: response.headers, body: (await json(response)) as any };
}

/** Logs in and polls until the token is ready. */
export async function obtain(cluster: SandboxCluster): Promise<{ until: number; token: string }> {
  const { until } = JSON.parse((await ask(cluster, 'POST', '/login')).body);
  for (;;) {
    const { status, body } = await ask(cluster, 'GET', '/kubeconfig');
    if (status === 200) return { until: Date.parse(until), token: tokenOf(body) };
    if (status !== 202) throw new Error(`GET /kubeconfig answered ${status}: ${body}`);
  }
}

export const tokenOf = (body: string): string => JSON.parse(body).users['tka-user-alice'].token;

export function claimsOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

/** Runs a program without blocking the mesh, which runs in this process. */
export async function run(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(file, args, { env, timeout: 20_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
  });
}
