import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Whole processes are started and stopped: what hangs is caught by its own budget, not by a hurried default.
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
