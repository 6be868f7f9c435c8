// The configuration of npm run test:tailnet, which runs in separate namespaces.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ['*.test.ts'],
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // The test files share a tailnet, and each one continues from the state of the previous one.
    fileParallelism: false,
    maxWorkers: 1,
  },
});
