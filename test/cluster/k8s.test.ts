// tka-k8s.yaml in a cluster: one file and one Secret, and users can sign in.
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { KubernetesObject } from '@kubernetes/client-node';
import { describe, expect, test, vi } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { k8sManifest } from '../../krew/k8s.ts';
import { startTailscaled } from '../../src/sandbox/tailscaled.ts';
import { as, type Deployed, ownCluster, startAsItsPod } from './deployed.ts';
import { makeFolder } from './processes.ts';
import { absent, established, kubectl, Person, tokenOf } from './support.ts';

const dora = {
  login: 'dora@example.com',
  capabilities: { 'specht-labs.de/cap/tka': [{ role: 'view', period: '1h', priority: 1 }] },
};

describe.skipIf(absent !== undefined)('tka-k8s.yaml', () => {
  test('is applied to a cluster, and again, without changing what users created; its server signs users in', async () => {
    await using own = await ownCluster('127.0.0.20');
    const { access, kube } = own;
    const file = path.join(makeFolder(), 'tka-k8s.yaml');
    fs.writeFileSync(file, k8sManifest());
    const run = (...args: string[]) => kubectl(as(access), ...args);
    // The default roles of a cluster are created when its API server starts.
    await vi.waitFor(async () => expect(await run('get', 'clusterrole', 'view')).toMatchObject({ status: 0 }), 30_000);
    expect(await run('apply', '-f', file)).toMatchObject({ status: 0, stderr: '' });
    const settings = [
      'create',
      'configmap',
      'tka-config',
      '-n',
      'tka-system',
      '--from-literal=config.yaml=debug: true',
    ];
    expect(await run(...settings)).toMatchObject({ status: 0, stderr: '' });
    expect(await run('apply', '-f', file)).toMatchObject({ status: 0, stderr: '' });
    const set = await kube.get<KubernetesObject>('/apis/apps/v1/namespaces/tka-system/statefulsets/tka');
    // The servers are not restarted.
    expect(set?.metadata?.generation).toBe(1);
    const config = await run(
      'get',
      'configmap',
      'tka-config',
      '-n',
      'tka-system',
      '-o',
      'jsonpath={.data.config\\.yaml}',
    );
    expect(config.stdout).toBe('debug: true');

    await established(access);
    const objects = parseAllDocuments(k8sManifest()).map((document) => document.toJS() as KubernetesObject);
    const token = await tokenOf(kube, 'tka-system', 'tka-server');
    const deployed: Deployed = { access, kube, token, namespace: 'tka-system', objects };
    const self = { hostName: 'tka', addresses: ['100.64.0.1'], tags: ['tag:tka'] };
    await using tailscaled = await startTailscaled({ self, whois: () => dora });
    const { server, url, healthUrl } = await startAsItsPod(deployed, tailscaled);
    await using _ = server;
    await vi.waitFor(async () => expect((await fetch(`${healthUrl}/ready`)).status).toBe(200), 20_000);
    const person = new Person(url, { role: 'view', username: 'dora' });
    await person.token();
    const { body } = await person.kubeconfig();
    // `view` is empty in a cluster without a controller manager, so the user name must be enough.
    const who = await kubectl(body, 'auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}');
    expect(who.stdout).toBe(`system:serviceaccount:tka-system:${person.name}`);
    const role = await run('get', 'clusterrolebinding', `${person.name}-binding`, '-o', 'jsonpath={.roleRef.name}');
    expect(role.stdout).toBe('view');
    expect((await person.logout()).status).toBe(200);

    const metrics = await (await fetch(`${healthUrl}/metrics/controller`)).text();
    for (const line of [
      'tka_service_accounts_created_total 1',
      'tka_service_accounts_deleted_total 1',
      'tka_user_signins_total{cluster_role="view"} 1',
      'tka_watch_connected{resource="tkasignins"} 1',
      'tka_watch_connected{resource="serviceaccounts"} 1',
      'tka_watch_connected{resource="clusterrolebindings"} 1',
      'controller_runtime_reconcile_errors_total{controller="tkasignin"} 0',
    ])
      expect(metrics).toContain(`\n${line}\n`);
  });
});
