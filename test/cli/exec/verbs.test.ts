import { expect, it } from 'vitest';
import { isChanging, needsCluster, verbOf } from '../../../src/cli/exec/verbs.ts';

const words = (text: string) => text.split(' ');

it.each([
  'get pods -A',
  'get --raw /healthz',
  'get pods --watch',
  '-n web get pods',
  '-nweb get pods',
  '-n=web get pods',
  '--namespace web get pods',
  '--namespace=web get pods',
  '--as delete get pods',
  '-v 6 --warnings-as-errors get pods',
  'describe node a',
  'logs deployment/web -f',
  'top pods',
  'version',
  'cluster-info',
  '-n kube-system cluster-info',
  'explain pods',
  'api-resources',
  'api-versions',
  'diff -f web.yaml',
  'events -A',
  'wait --for=condition=Ready pod/a',
  'rollout status deployment/web',
  'rollout -n web history deployment/web',
  'auth can-i delete pods',
  'auth whoami',
  'config view --minify',
  'config current-context',
])('reads: kubectl %s', (text) => expect(isChanging(words(text))).toBe(false));

it.each([
  'delete pod a',
  'delete pod a --dry-run=server',
  'apply -f web.yaml',
  'apply view-last-applied deployment/web',
  'create token default',
  'edit deployment/web',
  'exec web -- ls',
  'cp web:/a b',
  'run web --image nginx',
  'attach web',
  'debug node/a',
  'port-forward web 80',
  'proxy',
  'drain a',
  'certificate approve a',
  'rollout restart deployment/web',
  'rollout',
  'rollout --as status restart deployment/web',
  'rollout -f status restart',
  'auth reconcile -f rbac.yaml',
  'auth',
  'config set-context --current --namespace web',
  'cluster-info dump',
  'cluster-info --all-namespaces dump',
  'cluster-info --unknown dump',
  'some-plugin get pods',
  'tka logout',
  '-n get delete pods',
  '--namespace get delete pods',
  // Before the command, kubectl takes the word after an unknown flag as its value.
  '-A get delete pods',
  '--all-namespaces get delete pods',
  '-- get pods',
  '-n web',
  'Get pods',
  '',
])('may change something: kubectl %s', (text) => expect(isChanging(words(text))).toBe(true));

it.each([
  ['config view', false],
  ['-n web config view', false],
  ['kustomize .', false],
  ['get pods', true],
  ['-n config get pods', true],
  ['--unknown config get pods', true],
])('%s: needs a cluster: %s', (text, needed) => expect(needsCluster(words(text))).toBe(needed));

it('returns the position of the command', () => {
  expect(verbOf(words('-n web rollout --as alice status web'))).toEqual({ words: ['rollout', 'status'], at: 2 });
  expect(verbOf(['-n', 'web'])).toBeUndefined();
});
