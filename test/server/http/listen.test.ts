import { once } from 'node:events';
import { connect, type Server } from 'node:net';
import { afterEach, test } from 'vitest';
import { makeCertificates } from '../../../src/sandbox/certificates.ts';
import { close, createTkaServer, listen } from '../../../src/server/http/listen.ts';

let server: Server | undefined;
afterEach(async () => {
  if (server) await close(server);
});

test('a connection that never starts its TLS handshake is closed after the header timeout', {
  timeout: 20_000,
}, async () => {
  const { cert, key } = await makeCertificates('127.0.0.1');
  server = createTkaServer((_, response) => response.end(), { readHeaderTimeoutMs: 300 }, { cert, key });
  const socket = connect({ host: '127.0.0.1', port: await listen(server, '127.0.0.1', 0) });
  socket.on('error', () => {});
  await once(socket, 'close');
});
