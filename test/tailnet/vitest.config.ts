// npm run test:tailnet, which runs it in namespaces of its own.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ['*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // They share a tailnet, and one goes on from where the one before it ended.
    fileParallelism: false,
    maxWorkers: 1,
  },
});
