// Changes that must make a test fail. Each is a text that the file contains exactly once, and what takes its place.

/** One change. */
export interface Mutant {
  /** What the program then no longer does. */
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** The test files of its room. */
  readonly tests: readonly string[];
}

const guards = ['test/cluster/guards.test.ts'];
const program = ['test/server/program.test.ts'];
const grants = ['test/cluster/grants.test.ts'];
const objects = ['test/server/objects.test.ts'];
const identity = ['test/server/identity.test.ts'];

export const mutants: readonly Mutant[] = [
  {
    name: 'a token is never cached on its way',
    file: 'src/server/http/routes.ts',
    find: "'Cache-Control': 'no-store'",
    replace: "'Cache-Control': 'private'",
    tests: ['test/server/handler.test.ts'],
  },
  {
    name: 'plain http answers to its own names only',
    file: 'src/server/serve.ts',
    find: "secure: config.get('tailscale.port') === 443",
    replace: 'secure: true',
    tests: program,
  },
  {
    name: 'over TLS the certificate says which server it is',
    file: 'src/server/serve.ts',
    find: "secure: config.get('tailscale.port') === 443",
    replace: 'secure: false',
    tests: program,
  },
  {
    name: 'behind a userspace tailscaled only loopback callers are asked about',
    file: 'src/server/serve.ts',
    find: 'const userspace = status?.userspace === true;',
    replace: 'const userspace = false;',
    tests: program,
  },
  {
    name: 'it is unready from SIGTERM on',
    file: 'src/server/serve.ts',
    find: "if (this.#stopping.signal.aborted) return 'the server stops';",
    replace: '',
    tests: program,
  },
  {
    name: 'a TLS handshake has a time limit',
    file: 'src/server/http/listen.ts',
    find: ', handshakeTimeout: options.headersTimeout || 120_000',
    replace: '',
    tests: ['test/server/listen.test.ts'],
  },
  {
    name: 'a token of another ServiceAccount of the same name is not handed out',
    file: 'src/server/provisioner/sign-ins.ts',
    find: "if (accountUidIn(status.token) !== account.metadata.uid) return 'pending';",
    replace: '',
    tests: guards,
  },
  {
    name: 'a ServiceAccount of another sign-in is not used',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'ownerOfAccount(account) === uid &&',
    replace: '',
    tests: guards,
  },
  {
    name: 'a foreign ClusterRoleBinding stays as it is',
    file: 'src/server/provisioner/reconciler.ts',
    find: 'if (owner === undefined) throw foreignBinding(name, old);',
    replace: '',
    tests: guards,
  },
  {
    name: 'a sign-in that is extended at its expiry stays',
    file: 'src/server/provisioner/reconciler.ts',
    find: 'kube.remove(signInPath, { uid, resourceVersion })',
    replace: 'kube.remove(signInPath, { uid })',
    tests: guards,
  },
  {
    name: 'the time to renew the lease counts from the request',
    file: 'src/server/provisioner/lease.ts',
    find: 'asked + renewDeadlineMs - now',
    replace: 'renewDeadlineMs',
    tests: guards,
  },
  {
    name: 'the cluster info is read again',
    file: 'src/server/provisioner/provisioner.ts',
    find: 'known === undefined || performance.now() - known.at > clusterInfoMs',
    replace: 'known === undefined',
    tests: guards,
  },
  {
    name: 'what a Go operator that leads can never do is told at once',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'if (leader === undefined) return;',
    replace: 'return;',
    tests: ['test/cluster/moving.test.ts'],
  },
  {
    name: 'adopt changes nothing while the other operator runs',
    file: 'src/server/provisioner/adopt.ts',
    find: 'if (!options.dryRun) await mustBeStopped(options);',
    replace: '',
    tests: ['test/cluster/moving.test.ts'],
  },
  {
    name: "a tailnet's name is asked of tailscaled first",
    file: 'src/network/dial.ts',
    find: '    if (good.length > 0) return good;\n',
    replace: '',
    tests: ['test/network/direct.test.ts'],
  },
  {
    name: 'by plain http the resolver does not say where a name of the tailnet is',
    file: 'src/network/dial.ts',
    find: 'if (target.plain && found?.length === 0) throw noAddress(host);',
    replace: '',
    tests: ['test/network/direct.test.ts'],
  },
  {
    name: 'reading stops at the limit of a body',
    file: 'src/tka/client.ts',
    find: '    if (size + chunk.length > limit) return undefined;\n',
    replace: '',
    tests: ['test/tka/client.test.ts'],
  },
  {
    name: 'YAML is read up to a size',
    file: 'src/tka/client.ts',
    find: 'if (text.length > yamlLimit) return false;',
    replace: '',
    tests: ['test/tka/client.test.ts'],
  },
  {
    name: 'YAML is read up to a number of signs',
    file: 'src/tka/client.ts',
    find: '.length <= yamlSignLimit',
    replace: '.length >= 0',
    tests: ['test/tka/client.test.ts'],
  },
  {
    name: 'a CA is at most 64 KiB',
    file: 'src/tka/answers.ts',
    find: "if (pem.length > caLimit) throw fail('its CA is larger than 64 KiB');",
    replace: '',
    tests: ['test/tka/answers.test.ts'],
  },
  {
    name: 'what contexts need is written before them',
    file: 'src/kubeconfig/index.ts',
    find: '    .sort(([, a], [, b]) => rank(a) - rank(b))\n',
    replace: '',
    tests: ['test/kubeconfig/disk.test.ts'],
  },
  {
    name: 'a link is followed when it is its turn',
    file: 'src/kubeconfig/index.ts',
    find: 'if (moved) continue;',
    replace: '',
    tests: ['test/kubeconfig/disk.test.ts'],
  },
  {
    name: 'a file that is a mount point is written in place',
    file: 'src/kubeconfig/disk.ts',
    find: "if (systemCode(cause) !== 'EBUSY') throw cause;",
    replace: 'throw cause;',
    tests: ['test/kubeconfig/disk.test.ts'],
  },
  {
    name: 'a full pipe is waited for',
    file: 'src/cli/exec-output.ts',
    find: '      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);\n',
    replace: '',
    tests: ['test/cli/exec-output.test.ts'],
  },
  {
    name: 'a sign-in of another role than today’s exceeds the grant',
    file: 'src/server/provisioner/objects.ts',
    find: '(signIn.spec.role !== caller.role || end > now + caller.periodMs)',
    replace: 'end > now + caller.periodMs',
    tests: objects,
  },
  {
    name: 'a sign-in that ends later than today’s period allows exceeds the grant',
    file: 'src/server/provisioner/objects.ts',
    find: '(signIn.spec.role !== caller.role || end > now + caller.periodMs)',
    replace: 'signIn.spec.role !== caller.role',
    tests: objects,
  },
  {
    name: 'an attempt in the future counts from now',
    file: 'src/server/provisioner/objects.ts',
    find: 'return start && Math.min(start, now);',
    replace: 'return start;',
    tests: objects,
  },
  {
    name: 'attempts of one second are told apart',
    file: 'src/server/provisioner/objects.ts',
    find: 'if (id !== undefined && status.attempt !== undefined && status.attempt !== id) return false;',
    replace: '',
    tests: objects,
  },
  {
    name: 'devices that are too many to name are not forgotten',
    file: 'src/server/provisioner/objects.ts',
    find: 'latest.push([anyDevice, folded[1]]);',
    replace: 'latest.push();',
    tests: objects,
  },
  {
    name: 'only the own domain has plain names',
    file: 'src/server/provisioner/objects.ts',
    find: 'return ownDomain === true && isName(plainName(username))',
    replace: 'return isName(plainName(username))',
    tests: objects,
  },
  {
    name: 'in a tailnet of one person only that login is of the own domain',
    file: 'src/server/identity/login.ts',
    find: "if (tailnet.includes('@')) return login === tailnet;",
    replace: "if (tailnet.includes('@')) return true;",
    tests: identity,
  },
  {
    name: 'two rules of the highest priority that differ are an error',
    file: 'src/server/identity/rules.ts',
    find: 'if (rival === undefined) return best;',
    replace: 'return best;',
    tests: identity,
  },
  {
    name: 'no grant ends what there is',
    file: 'src/server/identity/rules.ts',
    find: 'revoked: true',
    replace: 'revoked: false',
    tests: identity,
  },
  {
    name: 'a sign-in that is being deleted is not used',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'if (!isOf(signIn, caller) || isLeaving(signIn)) return false;',
    replace: 'if (!isOf(signIn, caller)) return false;',
    tests: grants,
  },
  {
    name: 'a sign-in that is being deleted is not provisioned',
    file: 'src/server/provisioner/reconciler.ts',
    find: 'if (signIn === undefined || isLeaving(signIn)) {',
    replace: 'if (signIn === undefined) {',
    tests: grants,
  },
  {
    name: 'a name that had another role a moment ago is not taken',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'names.includes(name) && !index.hadOtherRole(name, role)',
    replace: 'names.includes(name)',
    tests: grants,
  },
  {
    name: 'a device has no longer than it was granted',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'const left = Math.floor(((endFor(signIn, caller, now)',
    replace: 'const left = Math.floor(((endOf(signIn, now)',
    tests: grants,
  },
  {
    name: 'a login that is refused ends what exceeds the grant',
    file: 'src/server/provisioner/sign-ins.ts',
    find: 'await look(caller);\n          throw refusal;',
    replace: 'throw refusal;',
    tests: grants,
  },
];
