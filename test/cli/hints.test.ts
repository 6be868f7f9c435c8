// Each error has a hint: its own, or a default.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { crashed } from '../../src/cli/run.ts';
import { refusal } from '../../src/tka/raw-answer.ts';
import { hintsOf, TkaError, UsageError } from '../../src/util/errors.ts';

const written = vi.hoisted(() => [] as string[]);
vi.mock('../../src/credential/entry.ts', async (original) => ({
  ...(await original<object>()),
  writeAll: (_: number, text: string) => written.push(text),
}));
beforeEach(() => void written.splice(0));
afterEach(() => expect(written.join('')).toMatch(/^(?:error: .*\n)+hint: \S.*\n$|^$/));

describe('an error without a hint of its own', () => {
  it.each<[args: string, error: unknown, hint: string, status: number]>([
    ['login prod-us', new TkaError('it failed'), 'kubectl tka doctor prod-us', 1],
    [
      'credential --server https://tka.example --api-server https://x',
      new TkaError('it failed'),
      'kubectl tka doctor https://tka.example',
      1,
    ],
    ['login -s tka', new TkaError('it failed'), 'kubectl tka doctor', 1],
    ['login $(reboot)', new TkaError('it failed'), 'kubectl tka doctor', 1],
    ['clusters', new TkaError('it failed'), 'kubectl tka doctor', 1],
    ['credential --api-server x', new TkaError('it failed'), 'kubectl tka doctor', 1],
    ['doctor', new TkaError('it failed'), 'run it again with --debug', 1],
    ['sync', new UsageError('wrong usage'), 'kubectl tka sync --help', 2],
    ['--port 0', new UsageError('wrong usage'), 'kubectl tka --help', 2],
    ['exec -- get pods', new TkaError('interrupted', { exitCode: 130 }), 'run it again', 130],
    ['sync', new RangeError('a mistake of ours'), 'run it again with --debug, and report what it says', 1],
    ['', new TkaError('it failed'), 'kubectl tka doctor', 1],
  ])('%s: %s', (args, error, hint, status) => {
    expect(crashed(error, args.split(' '), {})).toBe(status);
    expect(written.at(-1)).toBe(`hint: ${hint}\n`);
  });

  it('has the name of its cluster in the hint, unless a shell would take it apart', () => {
    expect(hintsOf(new TkaError('it failed'), 'prod-us')).toEqual(['kubectl tka doctor prod-us']);
    expect(hintsOf(new TkaError('it failed'), 'a; reboot')).toEqual(['kubectl tka doctor']);
    expect(hintsOf(new TkaError('it failed', { hints: ['do this'] }), 'prod-us')).toEqual(['do this']);
  });
});

describe('403', () => {
  const answer = (body: object) =>
    refusal({ status: 403, headers: {}, body: JSON.stringify(body) }, 'https://tka', 'the sign-in');

  it('without advice, about a grant: points to the maintainers of the policy and its documentation', () => {
    expect(answer({ message: 'no grant' }).hints).toEqual([
      expect.stringMatching(/^ask a maintainer of the tailnet policy; .*\/docs\/policy\.md$/),
    ]);
  });

  it('without advice, about something else: does not mention the policy', () => {
    expect(answer({ message: 'Unauthorized request from Funnel' }).hints.join()).not.toContain('policy');
    expect(answer({ message: 'requests of web pages from other sites are refused' }).hints).toEqual([]);
  });

  it('with advice: prints the advice', () => {
    expect(answer({ message: 'no grant', advice: ['ask Bob'] }).hints).toEqual(['ask Bob']);
  });
});
