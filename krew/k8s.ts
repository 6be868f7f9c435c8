// tka-k8s.yaml: the server's objects as one file for `kubectl apply -f`, from the sources of kustomize and the chart.
// `node krew/k8s.ts` prints it. The user's settings are in separate objects (Secret `tka-tailscale`, ConfigMap `tka-config`), which
// the file of the next release does not change.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { root } from './targets.ts';

const deploy = path.join(root, 'deploy');
const read = (file: string): string => fs.readFileSync(path.join(deploy, file), 'utf8');

/** Files with objects, in the order of the kustomizations; kubectl creates them in this order. */
function sources(folder: string): string[] {
  const { resources } = parse(read(path.posix.join(folder, 'kustomization.yaml'))) as { resources: string[] };
  return resources.flatMap((resource) => {
    const file = path.posix.join(folder, resource);
    return file.endsWith('.yaml') ? [file] : sources(file);
  });
}

/** Replaces a text that must be there exactly once. */
function replaceOnce(text: string, from: string, to: string): string {
  const parts = text.split(from);
  if (parts.length !== 2)
    throw new Error(`deploy/ has ${parts.length - 1} times ${JSON.stringify(from)}, instead of once`);
  return parts.join(to);
}

/** Returns the file: the same bytes for the same sources. Throws an Error if the sources are not as expected. */
export function k8sManifest(): string {
  const { images } = parse(read('kustomization.yaml')) as {
    images: { name: string; newName: string; newTag?: string; digest?: string }[];
  };
  const [image] = images;
  if (image?.name !== 'tka-server' || images.length !== 1) throw new Error('deploy/ must use the image tka-server');
  const version = image.digest === undefined ? `:${image.newTag}` : `@${image.digest}`;
  let text = sources('.')
    .flatMap((file) => parseAllDocuments(read(file), { merge: true }))
    .map((document) => `---\n${stringify(document.toJS(), { lineWidth: 0, aliasDuplicateObjects: false })}`)
    .join('');
  text = replaceOnce(text, 'image: tka-server\n', `image: ${image.newName}${version}\n`);
  // The server uses /etc/tka/config.yaml by default, and starts without it.
  text = replaceOnce(text, '- serve\n            - --config\n            - /etc/tka/config.yaml\n', '- serve\n');
  text = replaceOnce(
    text,
    'configMap:\n            name: tka-server\n',
    'configMap:\n            name: tka-config\n            optional: true\n',
  );
  text = replaceOnce(text, '\n  name: tka\n', '\n  name: tka # cluster name\n');
  text = replaceOnce(text, '\n              value: tka\n', '\n              value: tka # cluster name\n');
  text = replaceOnce(
    text,
    '    resourceNames:\n      - view\n',
    '    resourceNames: # roles that the server can grant\n      - view\n',
  );
  return `${head(image.newTag ?? version)}${text}`;
}

const head = (
  version: string,
): string => `# TKA server ${version} for Kubernetes 1.30 or newer with a default StorageClass: two replicas in the namespace tka-system.
#
#   kubectl apply -f tka-k8s.yaml
#   kubectl create secret generic tka-tailscale -n tka-system --from-env-file=tailscale.env
#   kubectl rollout status statefulset/tka -n tka-system
#
# tailscale.env has one line, TS_AUTHKEY=tskey-auth-…: a reusable auth key of your tailnet with the tag tag:tka. The pods
# wait for the Secret. Delete the file afterwards.
#
# The address of the API server: on a kubeadm cluster, the server reads it from kube-public/cluster-info. On any other cluster,
# write it into config.yaml, with the certificate authority (certificate-authority-data of a kubeconfig):
#
#   clusterInfo:
#     apiEndpoint: https://api.example.com:6443
#     caData: LS0tLS1CRUdJTi…
#
#   kubectl create configmap tka-config -n tka-system --from-file=config.yaml
#   kubectl rollout restart statefulset/tka -n tka-system
#
# config.yaml can have any other configuration too. The file of a later release changes neither Secret nor ConfigMap.
#
# You may want to change the following in this file, again for each release (the Helm chart and kustomize keep these changes):
# - the name of the cluster, which is also its name in the tailnet; each cluster of a tailnet needs its own name:
#     sed '/# cluster name$/s/: tka /: tka-prod-us /' tka-k8s.yaml | kubectl apply -f -
# - the roles that the server can grant: the list below "# roles that the server can grant".
`;

if (import.meta.main) process.stdout.write(k8sManifest());
