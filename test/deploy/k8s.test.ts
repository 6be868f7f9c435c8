// Compares tka-k8s.yaml with the output of kustomize, without the objects that users create. test/cluster/k8s.test.ts
// applies it.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import type { KubernetesObject } from '@kubernetes/client-node';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { k8sManifest } from '../../krew/k8s.ts';
import { loadConfig } from '../../src/server/config/config.ts';
import { testFolder } from '../fixtures/temporary.ts';
import { misfits } from './consistency.ts';
import { deploy, noKubectl, only, render } from './render.ts';
import { unrestricted } from './restricted.ts';

const text = k8sManifest();
const objectsOf = (yaml: string): KubernetesObject[] => parseAllDocuments(yaml).map((document) => document.toJS());
const objects = objectsOf(text);
const serverOf = (from: readonly KubernetesObject[]) => {
  const pod = only(from, 'StatefulSet').spec?.template.spec;
  const server = pod?.containers[0];
  if (pod === undefined || server === undefined) throw new Error('no server');
  return { pod, server };
};

describe('tka-k8s.yaml', () => {
  it('has the same bytes each time, and the image of this version', () => {
    expect(k8sManifest()).toBe(text);
    const { version } = JSON.parse(fs.readFileSync(path.join(deploy, '../package.json'), 'utf8'));
    expect(text.split('\n', 1)[0]).toContain(`TKA server ${version} `);
    expect(serverOf(objects).server.image).toMatch(new RegExp(`/tka-server:${version.replaceAll('.', '\\.')}$`));
  });

  it.skipIf(noKubectl)(`has the objects of kustomize${noKubectl === undefined ? '' : ` (${noKubectl})`}`, () => {
    const plain = structuredClone(objects);
    const { pod, server } = serverOf(plain);
    expect(server.args).toEqual(['serve']);
    server.args = ['serve', '--config', '/etc/tka/config.yaml'];
    const [config] = pod.volumes?.filter(({ name }) => name === 'config') ?? [];
    expect(config?.configMap).toEqual({ name: 'tka-config', optional: true });
    const made = render(deploy);
    const [theirs] = serverOf(made).pod.volumes?.filter(({ name }) => name === 'config') ?? [];
    Object.assign(config ?? {}, theirs);
    const byName = (all: readonly KubernetesObject[]) =>
      Object.fromEntries(
        all.map((object) => {
          const { namespace: _, ...metadata } = object.metadata ?? {};
          // kustomize gives a namespace to objects without one.
          const isPolicy = object.kind?.startsWith('ValidatingAdmissionPolicy');
          return [`${object.kind} ${metadata.name}`, isPolicy ? { ...object, metadata } : object];
        }),
      );
    expect(byName(plain)).toEqual(byName(made.filter(({ kind }) => kind !== 'ConfigMap')));
  });

  it('is consistent, meets the restricted standard, and needs no edits', async () => {
    expect(misfits(objects)).toEqual([]);
    expect(unrestricted(serverOf(objects).pod)).toEqual([]);
    // Without them, applying the next version does not change them.
    expect(objects.map(({ kind }) => kind)).not.toContain('ConfigMap');
    expect(objects.map(({ kind }) => kind)).not.toContain('Secret');
    const config = await loadConfig(undefined, { TKA_TAILSCALE_HOSTNAME: 'tka' });
    expect(config.get('tailscale.hostname')).toBe('tka');
  });

  it('explains at its top how to use another name, which then applies everywhere', () => {
    const [, command = ''] = /^# +(sed '.*') tka-k8s\.yaml \|/m.exec(text) ?? [];
    const file = path.join(testFolder(), 'tka-k8s.yaml');
    fs.writeFileSync(file, text);
    const renamed = objectsOf(execFileSync('sh', ['-c', `${command} "$1"`, 'sh', file], { encoding: 'utf8' }));
    expect(misfits(renamed)).toEqual([]);
    expect(only(renamed, 'StatefulSet').metadata?.name).toBe('tka-prod-us');
    const { env = [] } = serverOf(renamed).server;
    expect(env.find(({ name }) => name === 'TKA_TAILSCALE_HOSTNAME')?.value).toBe('tka-prod-us');
  });

  it('marks the roles that users can get', () => {
    const [, marked = ''] = /^ *resourceNames: # roles that the server can grant\n((?: +- .*\n)+)/m.exec(text) ?? [];
    expect(marked.match(/\w+/g)).toEqual(['view', 'edit']);
  });

  it('has at its top only commands that the installation page has too', () => {
    const page = fs.readFileSync(path.join(deploy, '../docs/install-server.md'), 'utf8');
    const commands = [...text.matchAll(/^# +((?:kubectl (?:create|rollout)|sed) .*)$/gm)].map(([, line = '']) => line);
    expect(commands.length).toBeGreaterThan(4);
    for (const command of commands) expect(page).toContain(command);
  });
});
