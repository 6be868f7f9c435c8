// npm run test:full: tests that take minutes and need not run for each change.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.full.ts'],
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
    maxWorkers: 1,
  },
});
