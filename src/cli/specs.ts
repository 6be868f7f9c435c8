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

/** Describes a command that needs settings, for help, parser and completion. */
export interface Spec {
  readonly name: string;
  /** Other names of one or two words: `ls`, `get clusters`. */
  readonly aliases?: readonly string[];
  readonly args?: string;
  readonly summary: string;
  readonly description: string;
  readonly examples: string;
  readonly options?: readonly Option[];
  /** Passes the words after `--` to the body separately: they belong to another program. */
  readonly passThrough?: true;
  /** NAME is an existing context or session; completion offers only those. */
  readonly held?: true;
  /** Prints the warnings about the configuration itself. */
  readonly ownWarnings?: true;
  /** Imports the body; called only when the command runs. */
  readonly load: () => Promise<Action>;
  /** Runs instead of the body if the settings cannot be read. */
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

/** Returns the option `--output` with these formats. */
export const output = (...formats: string[]) =>
  new Option('-o, --output <format>', `output format: ${formats.join('|')}`).choices(formats);

/** The options of every command. */
export const commonOptions = (): readonly Option[] => [
  new Option('-s, --server <server>', 'TKA server: a host name, host:port, or a URL'),
  new Option('-p, --port <port>', 'port of the TKA server (https on 443, plain http on the tailnet otherwise)'),
  new Option('--tailnet <suffix>', "the tailnet's DNS suffix, as in example.ts.net"),
  new Option('-c, --config <file>', 'configuration file'),
  new Option('--kubeconfig <file>', 'kubeconfig file'),
  new Option('--debug', 'verbose debug output on stderr'),
  new Option('-q, --quiet', 'no notices'),
];

const noHeaders = () => new Option('--no-headers', 'print tables without headings');

const insecure = new Option('--insecure-skip-tls-verify', 'allow this cluster to disable TLS verification');

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

NAME is a cluster (see "%p clusters"), the host name of a TKA server, or its URL. The default is the configured server, or the only one in the tailnet. Several clusters are names, a list (prod-eu,prod-us) or a glob ('prod-*'); then the current context does not change. The kubeconfig never contains a token: kubectl asks this program for one.`,
    examples: `  # Sign in to the cluster of the configured TKA server
  %p login

  # Sign in to a cluster by its name, or by the URL of its TKA server
  %p login prod-us
  %p login https://tka-prod-us.example.ts.net

  # Sign in to several clusters
  %p login prod-us staging
  %p login 'prod-*'

  # Write a context for every cluster; kubectl signs in on first use
  %p login --all-contexts

  # For a kubeconfig that several machines use: kubectl looks for the program on PATH
  %p login prod-us --exec-command kubectl-tka`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--context <name>', 'name of the context (default: named after the server)'),
      new Option('-n, --namespace <namespace>', 'namespace of the context (default: what it has)'),
      new Option('--no-switch', 'leave the current context as it is'),
      new Option('--all-contexts', 'write a context for every cluster, without signing in').conflicts([
        'context',
        'namespace',
      ]),
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

NAME is a context, a cluster, a host name, a URL, a list (prod-eu,prod-us), or a glob ('prod-*') for what is on this machine. Without one, the current context is used if it is managed, else the configured server.`,
    examples: `  # Sign out of the current context's cluster
  %p logout

  # Sign out of several clusters
  %p logout 'prod-*'

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
    aliases: ['ls', 'list', 'get clusters', 'get cluster'],
    summary: 'list all clusters that the TKA server knows',
    description: `List all clusters that the TKA server knows, with your context and your session for each.

With --probe, ask each cluster's TKA server for its latency, certificate and version, and whether you are signed in; this changes nothing. With --watch, print a line for each cluster that changes, until Ctrl-C; with -o json or yaml, a document for each.`,
    examples: `  # List all clusters
  %p clusters

  # List the production clusters in one of two regions
  %p clusters -l 'environment=production,region in (us-west-2,eu-central-1)'

  # Watch the health of the staging clusters
  %p clusters -l environment=staging --probe --watch

  # For a script
  %p clusters -o json`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--probe', 'ask each TKA server for its health'),
      new Option('-w, --watch', 'after listing, watch for changes until Ctrl-C'),
      output('wide', 'json', 'yaml', 'name'),
      noHeaders(),
    ],
    load: async () => (await import('./commands/clusters.ts')).clusters,
  },
  {
    name: 'sync',
    summary: 'write a context for every cluster, and keep them up to date',
    description: `Write a context for every cluster into the kubeconfig, without signing in: kubectl does that on first use. Run it again to update them. The current context does not change.

A changed TKA server, API server or CA is shown, and applied only with --accept-changes. A cluster that does not answer keeps its context. The exit status is 1 if a cluster could not be synced, unless the list calls it dead, suspected or missing. Contexts keep their names unless a template is given.`,
    examples: `  # A context for every cluster
  %p sync

  # Only the production clusters; show first what would change
  %p sync -l environment=production --dry-run

  # Name contexts after labels, and remove those of clusters that are no longer listed
  %p sync --context-template '{labels.environment}-{labels.region}' --prune`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--prune', 'remove managed contexts of clusters that are no longer listed'),
      new Option('--dry-run', 'print what would change, and write nothing'),
      new Option('--diff', 'print the change as a diff, and write nothing'),
      new Option('--context-template <template>', 'name contexts by {name} and {labels.KEY}, also those already there'),
      new Option('--accept-changes', 'accept changed servers and CAs'),
      execCommand,
    ],
    load: async () => (await import('./commands/sync.ts')).sync,
  },
  {
    name: 'use',
    aliases: ['ctx', 'switch'],
    args: '[name]',
    summary: 'switch to the context of a cluster',
    description: `Switch to the context of a cluster. A cluster without a context gets one; kubectl signs in on first use.

NAME is the name of a cluster or a context, or the start of only one; - is the previous context. Contexts that kubectl-tka does not manage can be used, too. Without NAME, choose from a list; type to filter it. With -n and without NAME, set the namespace of the current context.`,
    examples: `  # Choose from a list
  %p use

  # Switch to a cluster by its name or a unique prefix
  %p use prod-us
  %p use st

  # Switch back to the previous context
  %p use -

  # Set the namespace, too
  %p use prod-us -n web`,
    options: [new Option('-n, --namespace <namespace>', 'namespace of the context (default: what it has)')],
    load: async () => (await import('./commands/use.ts')).use,
  },
  {
    name: 'shell',
    args: '[name]',
    summary: 'start a shell whose kubectl uses one cluster',
    description: `Start a shell whose kubectl uses one cluster, whatever happens elsewhere: use, login and sync in other terminals do not change it, and it does not change them.

KUBECONFIG is a private file with that cluster's context, removed when the shell ends. TKA_CLUSTER is the cluster's name and TKA_NAMESPACE the namespace of -n, for your prompt. kubectl signs in on first use. The shell is $SHELL, on Windows PowerShell. With -- COMMAND, that command runs instead. The exit status is that of the shell or the command.`,
    examples: `  # A shell for one cluster
  %p shell prod-us

  # In a namespace, and signed out again when it ends
  %p shell prod-us -n web --revoke

  # One script
  %p shell prod-us -- ./deploy.sh`,
    options: [
      new Option('-n, --namespace <namespace>', 'namespace of the shell (default: that of your context)'),
      new Option('--revoke', 'log out of the cluster when the shell ends'),
    ],
    passThrough: true,
    load: async () => (await import('./commands/shell.ts')).shell,
  },
  {
    name: 'exec',
    args: '[name...]',
    summary: 'run one kubectl command against many clusters',
    description: `Run one kubectl command against many clusters: by name, list (prod-eu,prod-us), glob ('prod-*') or selector, or all.

Everything after -- goes to kubectl. Each output line starts with the cluster's name. The exit status is 0 only if the command succeeded on every cluster. Clusters that you logged out of are not signed in to.

On more than one cluster, a command that may change something is confirmed first. These run without a question: api-resources, api-versions, auth can-i, auth whoami, cluster-info, config view, describe, diff, events, explain, get, logs, rollout history, rollout status, top, version, wait. Without a terminal, all others need --yes.`,
    examples: `  # All pods of the production clusters
  %p exec -l environment=production -- get pods -A

  # The same command on two clusters
  %p exec prod-us,prod-eu -- rollout status deployment/web

  # For a script: an array of cluster, exitCode, stdout, stderr
  %p exec -o json -- get nodes -o name

  # The same manifest for every staging cluster, without a question
  %p exec -l environment=staging --yes -- apply -f - < web.yaml`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('-y, --yes', 'do not ask before changing several clusters'),
      new Option('--group', "print each cluster's output as one block, when it is complete").conflicts('output'),
      new Option('--timeout <duration>', 'time limit for each cluster, such as 30s or 5m (default: none)'),
      new Option('--parallel <n>', 'how many at once (default: 8)'),
      output('json'),
    ],
    passThrough: true,
    load: async () => (await import('./commands/exec.ts')).exec,
  },
  {
    name: 'status',
    aliases: ['whoami'],
    summary: 'show your sessions on this machine',
    description: 'Show your sessions on this machine: from the cache, without asking any server.',
    examples: `  # Show who you are, where, and until when
  %p status`,
    options: [output('wide', 'json', 'yaml', 'name'), noHeaders()],
    load: async () => (await import('./commands/status.ts')).status,
  },
  {
    name: 'forget',
    args: '[name...]',
    summary: 'sign out and remove the contexts from the kubeconfig',
    description: `Sign out where possible, and remove the managed contexts, clusters and users from the kubeconfig.

NAME is a context, a cluster, a host name, a URL, a list (prod-eu,prod-us), or a glob ('prod-*') for what is on this machine. Without one, the current context is used if it is managed, else the configured server.`,
    examples: `  # Forget one cluster
  %p forget prod-us

  # Forget the staging clusters
  %p forget -l environment=staging

  # Forget all of them
  %p forget --all`,
    options: [
      new Option('-l, --selector <selector>', 'label selector, as for kubectl'),
      new Option('--all', 'all sessions and contexts of this machine'),
    ],
    held: true,
    load: async () => (await import('./commands/forget.ts')).forget,
  },
  {
    name: 'doctor',
    args: '[name]',
    summary: 'check every step from here to a cluster, and suggest a fix',
    description: `Check every step from here to a cluster: this machine, the network, the TKA server, your sign-in, the API server, the kubeconfig. Each check is ok, a warning, failed or skipped, with a hint what to do. Nothing is changed: no sign-in, no token, no file.

NAME is what login takes: a cluster, a context, a host name or a URL. Without one, the current context's cluster is used if it is managed, else the configured server. The exit status is 1 if a check failed; warnings do not affect the exit status.`,
    examples: `  # Why does kubectl not work?
  %p doctor

  # Check one cluster
  %p doctor prod-us

  # Print the failed checks, for a script
  %p doctor -o json | jq -r '.[].checks[] | select(.status == "failed").name'`,
    options: [output('json')],
    load: async () => (await import('./commands/doctor.ts')).doctor,
    unread: async () => (await import('./doctor/unread.ts')).doctorWithoutSettings,
  },
  {
    name: 'config',
    args: '[get|set|unset|view] [key] [value]',
    summary: 'show or change the configuration',
    description: `Show the configuration with the source of each value, show one value, or change one in the configuration file.

get, set and view may be left out: KEY shows a value, KEY VALUE sets it. unset also removes an unknown key from the file. If the configuration is invalid, its problems are shown, and set and unset repair it; comments and all other text stay.`,
    examples: `  # Show all settings
  %p config

  # Set the default TKA server
  %p config set tailscale.hostname tka
  %p config set tailscale.tailnet example.ts.net

  # Show one value, and go back to its default
  %p config get tailscale.port
  %p config unset tailscale.port`,
    options: [output('json', 'yaml', 'name'), noHeaders()],
    ownWarnings: true,
    load: async () => (await import('./commands/config.ts')).config,
    unread: async () => (await import('./commands/config.ts')).configWithoutSettings,
  },
];
