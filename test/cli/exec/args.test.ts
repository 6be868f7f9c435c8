import { describe, expect, it } from 'vitest';
import { kubectlArgs, parallelism, readsStdin } from '../../../src/cli/exec/args.ts';
import { UsageError } from '../../../src/util/errors.ts';

const words = (text: string) => text.split(' ');

describe('kubectlArgs', () => {
  it.each([
    'get pods -A',
    'get pods -l s=1 -n kube-system --as alice',
    'get nodes --sort-by=.metadata.name -o name',
    'exec web -- ls -s --server x',
    'apply --server-side -f web.yaml',
    'logs -p web --since 5m',
    'create rolebinding readers --clusterrole view --user=alice',
    'create clusterrolebinding readers --clusterrole view --user alice',
    'set subject rolebinding readers --user=alice',
    'get --raw /api?server=x',
  ])('accepts %s', (text) => expect(kubectlArgs(words(text))).toEqual(words(text)));

  it('skips the word kubectl', () => expect(kubectlArgs(words('kubectl get ns'))).toEqual(['get', 'ns']));

  it.each([
    ['--context', 'get pods --context x'],
    ['--context', '--context=x get pods'],
    ['--kubeconfig', 'get pods --kubeconfig=f'],
    ['--server', 'get pods --server https://x'],
    ['--token', 'get pods --token=t'],
    ['--user', 'get pods --user u'],
    ['--cluster', 'get pods --cluster=c'],
    ['-s', '-s https://x get pods'],
    ['-s', 'get pods -shttps://x'],
    ['-s', 'get pods -As=https://x'],
    ['--context', 'exec --context x web -- ls'],
  ])('refuses %s: %s', (flag, text) => {
    expect(() => kubectlArgs(words(text))).toThrow(UsageError);
    expect(() => kubectlArgs(words(text))).toThrow(`${flag} cannot be used`);
  });

  it.each([
    [undefined, 'exec requires -- followed by a kubectl command'],
    [[], 'no kubectl command after --'],
    [['kubectl'], 'no kubectl command after --'],
  ])('refuses %j', (rest, message) => {
    expect(() => kubectlArgs(rest)).toThrow(UsageError);
    expect(() => kubectlArgs(rest)).toThrow(message);
  });
});

it.each([
  ['apply -f -', true],
  ['apply -f-', true],
  ['apply --filename=-', true],
  ['apply -f web.yaml', false],
  ['exec web -- cat -', false],
])('readsStdin: %s is %s', (text, expected) => expect(readsStdin(words(text))).toBe(expected));

describe('parallelism', () => {
  it.each([
    ['1', 1],
    ['8', 8],
    ['100', 100],
  ])('%s', (text, expected) => expect(parallelism(text)).toBe(expected));
  it.each(['0', '-1', '101', '1.5', 'x', '', '1e1', ' 1'])('refuses %j', (text) =>
    expect(() => parallelism(text)).toThrow(UsageError),
  );
});
