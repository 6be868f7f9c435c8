// Stands in for kubectl where it is not installed: runs a few of its commands with @kubernetes/client-node, which runs
// exec plugins itself.
import {
  AuthenticationV1Api,
  CoreV1Api,
  KubeConfig,
  type V1Namespace,
  type V1Node,
  type V1Pod,
} from '@kubernetes/client-node';

const usage = 'usage: caller.ts [--context NAME] get namespaces|nodes|pods [-A] | auth whoami';

function table(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  for (const row of rows) {
    const line = row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('   ');
    process.stdout.write(`${line.trimEnd()}\n`);
  }
}

const nameOf = ({ metadata }: V1Namespace | V1Node | V1Pod): string => metadata?.name ?? '';

async function call(args: readonly string[]): Promise<void> {
  const config = new KubeConfig();
  config.loadFromDefault();
  let rest = args;
  if (rest[0] === '--context') {
    config.setCurrentContext(rest[1] ?? '');
    rest = rest.slice(2);
  }
  const core = () => config.makeApiClient(CoreV1Api);
  switch (rest.join(' ')) {
    case 'get namespaces': {
      const { items } = await core().listNamespace();
      return table([['NAME', 'STATUS'], ...items.map((o) => [nameOf(o), o.status?.phase ?? ''])]);
    }
    case 'get nodes': {
      const { items } = await core().listNode();
      return table([['NAME', 'VERSION'], ...items.map((o) => [nameOf(o), o.status?.nodeInfo?.kubeletVersion ?? ''])]);
    }
    case 'get pods':
    case 'get pods -A': {
      const all = rest.includes('-A');
      const { items } = all
        ? await core().listPodForAllNamespaces()
        : await core().listNamespacedPod({ namespace: 'default' });
      const rows = items.map((o) => [o.metadata?.namespace ?? '', nameOf(o), o.status?.phase ?? '']);
      return table([['NAMESPACE', 'NAME', 'STATUS'], ...rows]);
    }
    case 'auth whoami': {
      const body = { kind: 'SelfSubjectReview', apiVersion: 'authentication.k8s.io/v1' };
      const { status } = await config.makeApiClient(AuthenticationV1Api).createSelfSubjectReview({ body });
      return table([
        ['ATTRIBUTE', 'VALUE'],
        ['Username', status?.userInfo?.username ?? ''],
      ]);
    }
    default:
      throw new Error(usage);
  }
}

try {
  await call(process.argv.slice(2));
} catch (error) {
  // The message of client-node's error is the stderr output of the exec plugin.
  const { code, message } = error as { code?: unknown; message?: string };
  process.stderr.write(`${typeof code === 'number' ? `error: the API server answered ${code}` : message?.trimEnd()}\n`);
  process.exitCode = 1;
}
