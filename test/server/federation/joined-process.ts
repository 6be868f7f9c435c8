// A joined cluster's server as a process of its own, for tests that suspend or kill it: node joined-process.ts OPTIONS.
import { keepTunnels } from '../../../src/server/federation/dialer.ts';
import { readKeys } from '../../../src/server/federation/keys.ts';

const { pem, ...options } = JSON.parse(process.argv[2] ?? '');
const [key] = readKeys(pem);
if (key === undefined) throw new Error('no key');
const silent = () => {};
keepTunnels({
  ...options,
  key,
  env: {},
  log: { debug: silent, info: silent, warn: silent, error: silent },
  statement: () => ({ version: '0.2.0', apiEndpoint: 'https://api.example.com:6443', labels: {} }),
  answer: async () => ({ status: 200, headers: {}, body: String(process.pid) }),
});
