// npm run test:plugin: the plugin's own tests, on Linux, macOS and Windows. The other tests cover the server or need
// Linux.
import { defineConfig } from 'vitest/config';

const everywhere = [
  'architecture.test.ts',
  ...[
    'cli',
    'credential',
    'discovery',
    'kubeconfig',
    'network',
    'session',
    'settings',
    'tailscale',
    'terminal',
    'tka',
    'util',
  ].map((room) => `${room}/**/*.test.ts`),
  // Makes and starts the archive of this system.
  'krew/archives.test.ts',
];
// They start the program through a shell, as users of Unix do.
const unix = ['e2e/**/*.test.ts', 'hostile/**/*.test.ts', 'sandbox/**/*.test.ts'];

export default defineConfig({
  test: {
    include: [...everywhere, ...(process.platform === 'win32' ? [] : unix)].map((name) => `test/${name}`),
    // By default it is one second, which is too short for a slow machine.
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 180_000,
    hookTimeout: 180_000,
    maxWorkers: 2,
  },
});
