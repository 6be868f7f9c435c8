import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These need real API servers, and a real tailnet: npm run test:cluster, test:tailnet.
    exclude: ['test/cluster/**', 'test/tailnet/**', 'node_modules/**'],
    // Whole processes are started and stopped: what hangs is caught by its own budget, not by a hurried default.
    // By default it is one second, which is too short for a slow machine.
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Processes of several files at a time compete for the cores as it is.
    maxWorkers: 2,
  },
});
