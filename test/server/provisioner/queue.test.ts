import { expect, it } from 'vitest';
import { WorkQueue } from '../../../src/server/provisioner/queue.ts';

interface Job {
  readonly key: string;
  end(error?: Error): void;
}

/** A queue whose jobs end when the test says so. */
function controlled(concurrency: number) {
  const jobs: Job[] = [];
  const errors: string[] = [];
  let wake: (() => void) | undefined;
  const queue = new WorkQueue({
    concurrency,
    onError: (key) => errors.push(key),
    work: (key) =>
      new Promise((resolve, reject) => {
        jobs.push({ key, end: (error) => (error === undefined ? resolve() : reject(error)) });
        wake?.();
      }),
  });
  return {
    queue,
    jobs,
    errors,
    /** Resolves to the keys started so far, once there are `count`. */
    async begun(count: number): Promise<string[]> {
      while (jobs.length < count) await new Promise<void>((resolve) => (wake = resolve));
      return jobs.map(({ key }) => key);
    },
  };
}

it('works on a key once at a time, and once more if it was added meanwhile', async () => {
  const { queue, jobs, begun } = controlled(4);
  for (let i = 0; i < 5; i++) queue.add('a');
  queue.add('b');
  expect(await begun(2)).toEqual(['a', 'b']);
  for (let i = 0; i < 5; i++) queue.add('a');
  expect(jobs.length).toBe(2);
  jobs[0]?.end();
  expect(await begun(3)).toEqual(['a', 'b', 'a']);
  jobs[1]?.end();
  jobs[2]?.end();
  await queue.stop();
  expect(jobs.length).toBe(3);
});

it('works on a limited number of keys at a time', async () => {
  const { queue, jobs, begun } = controlled(2);
  for (const key of ['a', 'b', 'c', 'd']) queue.add(key);
  expect(await begun(2)).toEqual(['a', 'b']);
  jobs[1]?.end();
  expect(await begun(3)).toEqual(['a', 'b', 'c']);
  for (const job of jobs) job.end();
  expect(await begun(4)).toEqual(['a', 'b', 'c', 'd']);
  jobs[3]?.end();
  await queue.stop();
});

it('retries failures', async () => {
  const { queue, jobs, errors, begun } = controlled(1);
  queue.add('a');
  for (let i = 0; i < 3; i++) {
    await begun(i + 1);
    jobs[i]?.end(new Error('no'));
  }
  expect(await begun(4)).toEqual(['a', 'a', 'a', 'a']);
  expect(errors).toEqual(['a', 'a', 'a']);
  jobs[3]?.end();
  await queue.stop();
});

it('stops when pending work has ended, and starts nothing new', async () => {
  const { queue, jobs, begun } = controlled(1);
  queue.add('a');
  queue.add('b');
  await begun(1);
  let stopped = false;
  const stopping = queue.stop().then(() => {
    stopped = true;
  });
  queue.add('c');
  await Promise.resolve();
  expect(stopped).toBe(false);
  jobs[0]?.end(new Error('no'));
  await stopping;
  expect(jobs.map(({ key }) => key)).toEqual(['a']);
});
