import { Option } from 'commander';
import type { TkaError } from '../util/errors.ts';
import type { CommonFlags, Context } from './context/context.ts';

type Action = (
  context: Context,
  args: readonly string[],
  flags: CommandFlags,
  rest: readonly string[] | undefined,
) => Promise<void>;
export type CommandFlags = Readonly<Record<string, unknown>>;

/** A command that works with settings, as help, parser and completion need it. */
export interface Spec {
  readonly name: string;
  readonly args?: string;
  readonly summary: string;
  readonly description: string;
  readonly examples: string;
  readonly options?: readonly Option[];
  /** What follows `--` is another program's, and given to the body apart. */
  readonly passThrough?: true;
  /** NAME is a context or a session that there is: what completion offers. */
  readonly held?: true;
  /** Imports the body when the command runs, and no sooner. */
  readonly load: () => Promise<Action>;
  /** Runs in its place where the settings cannot be read. */
  readonly unread?: () => Promise<
    (
      problem: TkaError,
      flags: CommonFlags,
      command: string,
      env: NodeJS.ProcessEnv,
      args: readonly string[],
    ) => Promise<void>
  >;
}

/** `--output` with these formats. */
export const output = (...formats: string[]) =>
  new Option('-o, --output <format>', `output format: ${formats.join('|')}`).choices(formats);

const insecure = new Option(
  '--insecure-skip-tls-verify',
  'allow this one cluster to be reached without TLS verification, if its TKA server asks for that',
);

const execCommand = new Option(
  '--exec-command <command>',
  'what contexts run for a token: kubectl-tka is looked up on PATH (default: the path of this program)',
);

export const specs: readonly Spec[] = [
  {
    name: 'login',
    args: '[name...]',
    summary: 'sign in to a cluster and write its context into the kubeconfig',
    description: `Sign in to a cluster and write its context into the kubeconfig.

NAME is the name of a cluster (see "%p clusters"), the host name of a TKA server, or its URL. Without one, the configured server is meant, or the only one that the tailnet has. Several are signed in to without a change of the current context. The kubeconfig gets no token: kubectl asks this program for one when it needs it.`,
    examples: `  # Sign in to the cluster of the configured TKA server
  %p login

  # Sign in to a cluster by its name, or by the URL of its TKA server
  %p login prod-us
  %p login https://tka-prod-us.example.ts.net

  # Write a context for every cluster; kubectl signs in when it first needs one
  %p login --all-contexts

  # For a kubeconfig that several machines use: kubectl looks for the program on PATH
  %p login prod-us --exec-command kubectl-tka`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--context <name>', 'name of the context (default: named after the server)'),
      new Option('--no-switch', 'leave the current context as it is'),
      new Option('--all-contexts', 'write a context for every cluster, without signing in').conflicts('context'),
      execCommand,
      insecure,
    ],
    load: async () => (await import('./commands/login.ts')).login,
  },
  {
    name: 'logout',
    args: '[name...]',
    summary: 'sign out of a cluster, and stay signed out until the next login',
    description: `Sign out of a cluster: revoke the sign-in on its TKA server and delete the token on this machine. kubectl is then refused until the next login.

NAME is a context, a cluster, a host name or a URL. Without one, the current context is meant if it is one of ours, else the configured server.`,
    examples: `  # Sign out of the current context's cluster
  %p logout

  # Sign out of everything on this machine
  %p logout --all`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--all', 'all sessions and contexts of this machine'),
    ],
    held: true,
    load: async () => (await import('./commands/logout.ts')).logout,
  },
  {
    name: 'clusters',
    summary: 'list all clusters that the TKA server knows',
    description: `List all clusters that the TKA server knows, with your context and your session for each.

With --probe each cluster's TKA server is asked how it is: whether it answers and how fast, its certificate, its version, and whether you are signed in. Nothing is changed by that. With --watch, as with kubectl get, the list is followed by a line for each cluster that changes, until Ctrl-C; with -o json or yaml it is a document for each.`,
    examples: `  # List all clusters
  %p clusters

  # List the production clusters in one of two regions
  %p clusters -l 'environment=production,region in (us-west-2,eu-central-1)'

  # How the staging clusters are, and what changes
  %p clusters -l environment=staging --probe --watch

  # The same for a script
  %p clusters -o json`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--probe', 'ask the TKA server of each cluster how it is'),
      new Option('-w, --watch', 'after the list, show what changes, until Ctrl-C'),
      output('wide', 'json', 'yaml', 'name'),
    ],
    load: async () => (await import('./commands/clusters.ts')).clusters,
  },
  {
    name: 'sync',
    summary: 'write a context for every cluster, and keep them up to date',
    description: `Write a context for every cluster into the kubeconfig, in one go and without signing in: kubectl does that when it first needs a token. Run it again to bring them up to date. The current context stays what it is.

A cluster whose TKA server, API server or CA has changed is shown and left as it is until --accept-changes. A member that does not answer keeps its context. Exit status 1 means that something is left to do; members that the list calls dead, suspected or missing may be silent. Contexts keep their names unless a template is given.`,
    examples: `  # A context for every cluster
  %p sync

  # Only the production clusters, and first a look at what would change
  %p sync -l environment=production --dry-run

  # Contexts named after labels; those of clusters that are listed no longer go
  %p sync --context-template '{labels.environment}-{labels.region}' --prune`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--prune', 'remove contexts of ours whose cluster is listed no longer'),
      new Option('--dry-run', 'write nothing, and print a diff'),
      new Option('--context-template <template>', 'name contexts by {name} and {labels.KEY}, also those already there'),
      new Option('--accept-changes', 'take over servers and CAs that have changed'),
      execCommand,
    ],
    load: async () => (await import('./commands/sync.ts')).sync,
  },
  {
    name: 'use',
    args: '[name]',
    summary: 'switch to the context of a cluster',
    description: `Switch to the context of a cluster. A cluster that has none yet gets one; kubectl signs in when it first needs to.

NAME is the name of a cluster or of a context, or the beginning of one; - is the context before this one. Without NAME, choose from a list: type to filter it.`,
    examples: `  # Choose from a list
  %p use

  # Switch to a cluster by its name, or by what only its name begins with
  %p use prod-us
  %p use st

  # Go back to the context before
  %p use -`,
    load: async () => (await import('./commands/use.ts')).use,
  },
  {
    name: 'exec',
    args: '[name...]',
    summary: 'run one kubectl command against many clusters',
    description: `Run one kubectl command against many clusters: those that are named, those that a selector chooses, or all.

What follows -- is given to kubectl. Each line of its output is preceded by the cluster's name. The exit status is 0 only if every cluster's command ended so. A cluster that you have logged out of is not signed in to.`,
    examples: `  # All pods of the production clusters
  %p exec -l environment=production -- get pods -A

  # The same command on two clusters
  %p exec prod-us prod-eu -- rollout status deployment/web

  # For a script: an array of cluster, exitCode, stdout, stderr
  %p exec -o json -- get nodes -o name

  # The same manifest for every staging cluster
  %p exec -l environment=staging -- apply -f - < web.yaml`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--parallel <n>', 'how many at once (default: 8)'),
      output('json'),
    ],
    passThrough: true,
    load: async () => (await import('./commands/exec.ts')).exec,
  },
  {
    name: 'status',
    summary: 'show your sessions on this machine',
    description: 'Show your sessions on this machine: from the cache, without asking any server.',
    examples: `  # Show who you are, where, and until when
  %p status`,
    options: [output('wide', 'json', 'yaml', 'name')],
    load: async () => (await import('./commands/status.ts')).status,
  },
  {
    name: 'forget',
    args: '[name]',
    summary: 'sign out and take the contexts out of the kubeconfig',
    description: `Sign out where that is possible, and take our contexts, clusters and users out of the kubeconfig.

NAME is a context, a cluster, a host name or a URL. Without one, the current context is meant if it is one of ours, else the configured server.`,
    examples: `  # Forget one cluster
  %p forget prod-us

  # Forget all of them
  %p forget --all`,
    options: [new Option('--all', 'all sessions and contexts of this machine')],
    held: true,
    load: async () => (await import('./commands/forget.ts')).forget,
  },
  {
    name: 'doctor',
    args: '[name]',
    summary: 'look at every link from here to a cluster, and say what mends it',
    description: `Look at every link from here to a cluster: this machine, the network, the TKA server, your sign-in, the API server, the kubeconfig. Each is ok, a warning, failed, or skipped, with the one thing to do about it. Nothing is changed: no sign-in, no token fetched, no file written.

NAME is what login takes: a cluster, a context, a host name or a URL. Without one, the current context's cluster is meant if it is ours, else the configured server. The exit status is 1 if a check failed; warnings are none.`,
    examples: `  # Why does kubectl not work?
  %p doctor

  # Look at one cluster
  %p doctor prod-us

  # What failed, for a script
  %p doctor -o json | jq -r '.[].checks[] | select(.status == "failed").name'`,
    options: [output('json')],
    load: async () => (await import('./commands/doctor.ts')).doctor,
    unread: async () => (await import('./doctor/unread.ts')).doctorWithoutSettings,
  },
  {
    name: 'config',
    args: '[key] [value]',
    summary: 'show or change the configuration',
    description:
      'Show the configuration and where each value comes from, or one value, or set one in the configuration file.',
    examples: `  # Show all settings
  %p config

  # Name the TKA server that is asked when none is named
  %p config tailscale.hostname tka
  %p config tailscale.tailnet example.ts.net`,
    options: [output('wide', 'json', 'yaml', 'name')],
    load: async () => (await import('./commands/config.ts')).config,
    unread: async () => (await import('./commands/config.ts')).configWithoutSettings,
  },
];
