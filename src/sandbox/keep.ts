// `npm run sandbox`: two meshes for manual tests, in a temporary folder, until Ctrl-C.
import { once } from 'node:events';
import { makeHome } from './home.ts';
import { demoClusters, joinedCluster, otherClusters, startMesh } from './mesh.ts';

const out = (line = ''): boolean => process.stdout.write(`${line}\n`);
const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

// Listen from the start: a Ctrl-C while the mesh starts must not leave the folder behind.
const stop = Promise.race(['SIGINT', 'SIGTERM', 'SIGHUP'].map((signal) => once(process, signal)));
const meshes = await Promise.all(
  [[...demoClusters, joinedCluster], otherClusters].map((clusters) => startMesh({ clusters })),
);
const first = meshes[0]?.clusters[0];
const lab = meshes[1]?.clusters[0];
const home = await makeHome(first?.server ?? '');
try {
  out('# TKA servers on loopback, with a STAND-IN for each Kubernetes API server. Nothing here is real.');
  for (const [i, { clusters }] of meshes.entries()) {
    out(`# ${i === 0 ? 'The configured mesh' : 'A mesh of its own'}:`);
    for (const { name, server, apiServer } of clusters) out(`#   ${name}  TKA ${server}  API ${apiServer}`);
  }
  out('# In another terminal:');
  out();
  for (const name of home.unset) out(`unset ${name}`);
  for (const name of ['HOME', 'KUBECONFIG', 'TKA_TAILSCALE_HOSTNAME', 'NO_PROXY', 'no_proxy']) {
    out(`export ${name}=${quote(home.env[name] ?? '')}`);
  }
  out(`export PATH=${quote(home.bin)}:"$PATH"`);
  out();
  out('# Then try:');
  out('#   kubectl tka clusters');
  out(`#   kubectl tka login ${first?.name}`);
  out('#   kubectl tka login --all-contexts');
  out(`#   kubectl tka login ${joinedCluster.name}   # outside the tailnet, through ${joinedCluster.joins}`);
  out(`#   kubectl tka login ${lab?.server}`);
  out('#   kubectl get pods -A');
  out('#   kubectl auth whoami');
  out('#   kubectl tka status');
  out(`#   kubectl tka logout ${first?.name}`);
  out('# Ctrl-C ends it and removes the folder.');
  await stop;
} finally {
  await Promise.all(meshes.map((mesh) => mesh.close()));
  await home.remove();
}
