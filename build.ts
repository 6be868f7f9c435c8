// npm run build: dist/kubectl-tka and dist/tka-server, executable by themselves on the Node that is pinned in package.json.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type BuildOptions, build, transform } from 'esbuild';

const root = import.meta.dirname;
const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'ignore'],
      encoding: 'utf8',
    }).trim();
  } catch {
    return 'unknown';
  }
}

// Names stay readable for --debug.
const small = { minifyWhitespace: true, minifySyntax: true, target: 'node26', legalComments: 'none' } as const;
const common: BuildOptions & { write: false } = {
  ...small,
  bundle: true,
  write: false,
  platform: 'node',
  alias: {
    // Its ES modules: they can be imported lazily by name, and what is not used is left out.
    yaml: path.join(root, 'node_modules/yaml/browser/index.js'),
    // Its ES modules load gRPC by createRequire(import.meta.url), which esbuild cannot see.
    '@opentelemetry/otlp-grpc-exporter-base': path.join(
      root,
      'node_modules/@opentelemetry/otlp-grpc-exporter-base/dist/index.cjs',
    ),
  },
  // Only gRPC's own diagnostic services ask for it, with .proto files from its folder; nothing here starts them.
  external: ['@grpc/proto-loader'],
  loader: { '.sh': 'text', '.cmd': 'text', '.bash': 'text', '.zsh': 'text', '.fish': 'text', '.ps1': 'text' },
  logLevel: 'warning',
  define: {
    __VERSION__: JSON.stringify(version),
    __COMMIT__: JSON.stringify(commit()),
  },
};

// The wrapper of a module of Node's own does nothing here but look at all that is in it, and so make Node load the parts
// that it keeps for whoever asks.
function unwrapped(code: string): string {
  return code.replace(/\b([\w$]+)=__toESM\((require\("node:[\w/]+"\))(?:,1)?\)/g, (all, name, required) => {
    const uses = code.split(new RegExp(`\\b${name.replaceAll('$', '\\$')}\\b`)).slice(1);
    const asDefault = uses.filter((after) => after.startsWith('.default')).length;
    if (asDefault === 0) return `${name}=${required}`;
    return asDefault === uses.length - 1 ? `${name}={default:${required}}` : all;
  });
}

// Compiles a part of the program when it is first asked for. No file, so that it works within an executable as well.
// A module of Node's own is loaded when something in it is first looked at: tls alone takes as long as all of ours.
const loader = `
const loaded = new Map();
function load(name) {
  const known = loaded.get(name);
  if (known !== undefined) return known.exports;
  const module = { exports: {} };
  loaded.set(name, module);
  const body = require('node:vm').compileFunction(parts[name](), ['exports', 'require', 'module'], { filename: name });
  body(module.exports, (wanted) => (wanted.startsWith('./') ? load(wanted.slice(2)) : nodes(wanted)), module);
  return module.exports;
}
function nodes(name) {
  // These are functions themselves, or nothing but loaded already.
  if (/^(?:node:)?(?:assert|events|fs|module|path|process|stream)$/.test(name)) return require(name);
  return new Proxy({}, { get: (_, key) => require(name)[key] });
}
`;

/**
 * The whole program as one CommonJS file: dist/lib/kubectl-tka.cjs, which is also the input for an executable
 * (`pkg --sea` in simple mode, or Node's own `--build-sea`: it asks for Node's own modules only, and for no file).
 * The hot path comes first. The rest is there as text, split so that each command compiles only what it uses: neither
 * parsed nor compiled by a call that does not need it. An executable of it reads NODE_OPTIONS, which is the caller's
 * own Node's and would stop kubectl, unless its configuration says `"execArgvExtension": "none"`.
 */
export async function bundle(): Promise<string> {
  const hot = await build({
    ...common,
    entryPoints: [path.join(root, 'cmd/kubectl-tka.ts')],
    format: 'cjs',
    plugins: [
      {
        name: 'the-rest-apart',
        setup: ({ onResolve, onLoad }) => {
          onResolve({ filter: /\/cli\/run\.ts$/ }, () => ({ path: 'run', namespace: 'rest' }));
          onLoad({ filter: /^/, namespace: 'rest' }, () => ({ contents: "module.exports = load('run.mjs')" }));
        },
      },
    ],
  });
  const rest = await build({
    ...common,
    entryPoints: { run: path.join(root, 'src/cli/run.ts') },
    outdir: root,
    outExtension: { '.js': '.mjs' },
    format: 'esm',
    splitting: true,
    chunkNames: '[name]-[hash]',
  });
  const parts: string[] = [];
  for (const file of rest.outputFiles) {
    const { code } = await transform(file.text, { ...small, format: 'cjs', supported: { 'dynamic-import': false } });
    // A method that returns a text is the cheapest to pass over (an arrow function would be compiled at once).
    parts.push(
      `${JSON.stringify(path.basename(file.path))}(){return ${JSON.stringify(`"use strict";${unwrapped(code)}`)}}`,
    );
  }
  return `${unwrapped(hot.outputFiles[0]?.text ?? '')}const parts={\n${parts.join(',\n')}\n};${loader}`;
}

/** The TKA server as one CommonJS file: dist/lib/tka-server.cjs. It loads everything at start. */
export async function serverBundle(): Promise<string> {
  const { outputFiles } = await build({
    ...common,
    entryPoints: [path.join(root, 'cmd/tka-server.ts')],
    format: 'cjs',
  });
  return outputFiles[0]?.text ?? '';
}

/**
 * The text of the launcher for Linux or macOS. It starts what is in lib/ beside it: with `bundle`, lib/node on
 * lib/kubectl-tka.cjs; with `executable`, lib/kubectl-tka.
 */
export function launcher(platform: 'linux' | 'darwin', program: 'bundle' | 'executable'): string {
  const lines = fs.readFileSync(path.join(root, 'cmd/kubectl-tka.sh'), 'utf8').split('\n');
  return lines
    .flatMap((line) => {
      const [, text, only] = /^(.*?) +# (linux|darwin|bundle|executable)$/.exec(line) ?? [];
      return only === undefined ? [line] : only === platform || only === program ? [text] : [];
    })
    .join('\n');
}

/**
 * Returns the folders in node_modules of the packages in a program's bundle, sorted: `yaml`, or
 * `@inquirer/core/node_modules/signal-exit` for a second version.
 */
export async function bundledPackages(program: 'kubectl-tka' | 'tka-server'): Promise<string[]> {
  const all = { ...common, entryPoints: [path.join(root, `cmd/${program}.ts`)], absWorkingDir: root };
  // In a copy of the project whose node_modules is a link, the names stay those of the copy.
  const { metafile } = await build({ ...all, format: 'esm', metafile: true, preserveSymlinks: true });
  const names = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.keys(inputs).map((file) => /^node_modules\/((?:.+\/node_modules\/)?(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]),
  );
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

/** Writes dist/: the launcher, and in lib/ the program and the pinned Node. A copy of it works anywhere. */
async function buildDist(): Promise<void> {
  const dist = path.join(root, 'dist');
  const lib = path.join(dist, 'lib');
  const programs = { 'kubectl-tka.cjs': await bundle(), 'tka-server.cjs': await serverBundle() };
  const node = process.platform === 'win32' ? 'node.exe' : 'node';
  fs.mkdirSync(lib, { recursive: true });
  // Moved in place, for a program that starts from here meanwhile.
  for (const [program, text] of Object.entries(programs)) {
    fs.writeFileSync(path.join(lib, `${program}.new`), text);
    fs.renameSync(path.join(lib, `${program}.new`), path.join(lib, program));
  }
  for (const name of fs.readdirSync(lib)) {
    if (!Object.hasOwn(programs, name) && name !== node) fs.rmSync(path.join(lib, name), { recursive: true });
  }
  const ours = path.join(lib, node);
  if (!fs.existsSync(ours) || fs.statSync(ours).size !== fs.statSync(process.execPath).size) {
    fs.rmSync(ours, { force: true });
    try {
      fs.linkSync(process.execPath, ours);
    } catch {
      fs.copyFileSync(process.execPath, ours);
    }
  }
  // Where the system has no libatomic: krew/own-node.ts.
  const beside = path.dirname(process.execPath);
  for (const name of fs.readdirSync(beside).filter((name) => /^lib[\w+]+\.so\.\d+$/.test(name))) {
    fs.copyFileSync(path.join(beside, name), path.join(lib, name));
  }
  fs.writeFileSync(
    path.join(dist, 'kubectl-tka'),
    launcher(process.platform === 'darwin' ? 'darwin' : 'linux', 'bundle'),
  );
  fs.chmodSync(path.join(dist, 'kubectl-tka'), 0o755);
  fs.copyFileSync(path.join(root, 'cmd/tka-server.sh'), path.join(dist, 'tka-server'));
  fs.chmodSync(path.join(dist, 'tka-server'), 0o755);
  // For whoever packages: the first belongs beside the program, the others go where shells look for them.
  const completions = path.join(dist, 'completions');
  fs.rmSync(completions, { recursive: true, force: true });
  fs.mkdirSync(completions);
  fs.copyFileSync(path.join(root, 'cmd/kubectl_complete-tka.sh'), path.join(dist, 'kubectl_complete-tka'));
  fs.chmodSync(path.join(dist, 'kubectl_complete-tka'), 0o755);
  for (const shell of ['bash', 'zsh', 'fish', 'ps1']) {
    const name = `kubectl-tka.${shell}`;
    fs.copyFileSync(path.join(root, 'src/cli/completion', name), path.join(completions, name));
  }
  if (process.platform === 'win32') {
    fs.writeFileSync(path.join(dist, 'tka-server.cmd'), '@"%~dp0lib\\node.exe" "%~dp0lib\\tka-server.cjs" %*\r\n');
    fs.copyFileSync(path.join(root, 'cmd/kubectl_complete-tka.cmd'), path.join(dist, 'kubectl_complete-tka.cmd'));
    fs.writeFileSync(
      path.join(dist, 'kubectl-tka.cmd'),
      '@setlocal\r\n@set "NODE_OPTIONS=%TKA_NODE_OPTIONS%"\r\n@"%~dp0lib\\node.exe" "%~dp0lib\\kubectl-tka.cjs" --started-as "%~f0" %*\r\n',
    );
  }
}

if (import.meta.main) await buildDist();
