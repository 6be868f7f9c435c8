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

const program = ['test/server/program.test.ts'];

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
    find: "this.#unready = 'the server stops';",
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
];
