// A separate program: asks its first argument's origin through the network of its environment, gives up after its
// second argument's milliseconds, and prints the answer or error and which of our files it loaded.

import { registerHooks } from 'node:module';
import * as path from 'node:path';
import { json } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const loaded: string[] = [];
registerHooks({
  load(url, context, next) {
    if (url.includes('/src/network/')) loaded.push(path.basename(fileURLToPath(url)));
    return next(url, context);
  },
});
const { openNetwork } = await import('../../src/network/network.ts');
const [origin = '', patience = '5000'] = process.argv.slice(2);
const client = openNetwork({ env: process.env }).client(origin, { connectTimeout: 60_000 });
let said: unknown;
try {
  const signal = AbortSignal.timeout(Number(patience));
  const { body } = await client.request({ method: 'GET', path: '/x', signal });
  said = await json(body);
} catch (error) {
  said = String(error);
}
await client.destroy();
console.log(JSON.stringify({ said, loaded: loaded.sort() }));
