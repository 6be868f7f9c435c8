// What a kubectl command does, from its arguments alone. kubectl finds the command after its global flags (cobra,
// `Command.Find`): `kubectl -n web get pods` is `get`.

// `kubectl options` of kubectl 1.22 to 1.35: the global flags with a value, and those without.
const withValue = new Set(
  `--as --as-group --as-uid --as-user-extra --cache-dir --certificate-authority --client-certificate --client-key
  --cluster --context --kubeconfig --kuberc --log-flush-frequency --namespace --password --profile --profile-output
  --request-timeout --server --tls-server-name --token --user --username --v --vmodule -n -s -v`.split(/\s+/),
);
const withoutValue = new Set(
  '--disable-compression --insecure-skip-tls-verify --match-server-version --warnings-as-errors'.split(' '),
);

/** The command of a kubectl command line. */
interface Verb {
  /** The words of the command and its first arguments: `rollout`, `status`. */
  readonly words: readonly string[];
  /** Where the first word stands in the arguments. */
  readonly at: number;
}

/** Returns kubectl's command; undefined if there is none, or if a flag that is not global stands before it. */
export function verbOf(args: readonly string[]): Verb | undefined {
  const words: string[] = [];
  let at = -1;
  for (let i = 0; i < args.length && words.length < 2; i++) {
    const arg = args[i] as string;
    const [name = ''] = arg.split('=', 1);
    if (arg === '--') break;
    if (!arg.startsWith('-') || arg === '-') {
      if (at < 0) at = i;
      words.push(arg);
    } else if (withValue.has(arg)) i++;
    else if (!withValue.has(name) && !withoutValue.has(name) && !/^-[nsv]./.test(arg)) {
      if (words.length === 0) return undefined;
      // Whether the next word is its value is unknown.
      words.push(arg);
    }
  }
  return at < 0 ? undefined : { words, at };
}

// Everything else counts as changing, also plugins and commands of later versions of kubectl. `--dry-run` changes
// nothing only where kubectl and the API server both know it.
const reading = new Set(`api-resources api-versions describe diff events explain get logs top version wait`.split(' '));
const readingPairs = new Set(
  `auth can-i,auth whoami,cluster-info,config current-context,config get-clusters,config get-contexts,config get-users,config view,rollout history,rollout status`.split(
    ',',
  ),
);

/** Returns whether a kubectl command may change something in a cluster, or run or copy something there. */
export function isChanging(args: readonly string[]): boolean {
  const [verb = '', ...rest] = verbOf(args)?.words ?? [];
  return !reading.has(verb) && !readingPairs.has([verb, ...rest].join(' '));
}

/** Returns whether a kubectl command needs a cluster. */
export function needsCluster(args: readonly string[]): boolean {
  return !/^(?:completion|config|help|kustomize|options|plugin)$/.test(verbOf(args)?.words[0] ?? '');
}
