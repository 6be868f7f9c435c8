// npm run build: dist/kubectl-tka and dist/tka-server, with the Node that package.json pins.
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
    // Use ES modules: they can be imported lazily by name, and unused code is removed.
    yaml: path.join(root, 'node_modules/yaml/browser/index.js'),
    // Its ES modules load gRPC with createRequire(import.meta.url), which esbuild does not follow.
    '@opentelemetry/otlp-grpc-exporter-base': path.join(
      root,
      'node_modules/@opentelemetry/otlp-grpc-exporter-base/dist/index.cjs',
    ),
  },
  // Only the diagnostic services of gRPC use it, with .proto files from its folder; the server does not start them.
  external: ['@grpc/proto-loader'],
  loader: { '.sh': 'text', '.cmd': 'text', '.bash': 'text', '.zsh': 'text', '.fish': 'text', '.ps1': 'text' },
  logLevel: 'warning',
  define: {
    __VERSION__: JSON.stringify(version),
    __COMMIT__: JSON.stringify(commit()),
  },
};

// The wrapper that esbuild makes for a module of Node would only read all of its properties, and so make Node load the
// parts that are otherwise loaded on demand.
function unwrapped(code: string): string {
  return code.replace(/\b([\w$]+)=__toESM\((require\("node:[\w/]+"\))(?:,1)?\)/g, (all, name, required) => {
    const uses = code.split(new RegExp(`\\b${name.replaceAll('$', '\\$')}\\b`)).slice(1);
    const asDefault = uses.filter((after) => after.startsWith('.default')).length;
    if (asDefault === 0) return `${name}=${required}`;
    return asDefault === uses.length - 1 ? `${name}={default:${required}}` : all;
  });
}

// Compiles a part of the program on first use. Needs no file, so that it also works in an executable. A module of Node
// is loaded when one of its properties is first read: tls alone takes as long as all of our code.
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
  // These are functions themselves, or are always loaded already.
  if (/^(?:node:)?(?:assert|events|fs|module|path|process|stream)$/.test(name)) return require(name);
  return new Proxy({}, { get: (_, key) => require(name)[key] });
}
`;

/**
 * Builds the whole program as one CommonJS file: dist/lib/kubectl-tka.cjs. It is also the input for an executable
 * (`pkg --sea` in simple mode, or Node's `--build-sea`), because it only loads modules of Node and no files. The hot
 * path comes first. The rest is stored as text, split so that each command parses and compiles only what it uses. An
 * executable reads NODE_OPTIONS, which is meant for the caller's own Node and could stop kubectl, unless its
 * configuration has `"execArgvExtension": "none"`.
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
    // V8 skips a method that returns a text fastest; it would compile an arrow function at once.
    parts.push(
      `${JSON.stringify(path.basename(file.path))}(){return ${JSON.stringify(`"use strict";${unwrapped(code)}`)}}`,
    );
  }
  return `${unwrapped(hot.outputFiles[0]?.text ?? '')}const parts={\n${parts.join(',\n')}\n};${loader}`;
}

/** Builds the TKA server as one CommonJS file: dist/lib/tka-server.cjs. It loads everything at start. */
export async function serverBundle(): Promise<string> {
  const { outputFiles } = await build({
    ...common,
    entryPoints: [path.join(root, 'cmd/tka-server.ts')],
    format: 'cjs',
  });
  return outputFiles[0]?.text ?? '';
}

/**
 * Returns the launcher script for Linux or macOS. It starts the program in lib/ next to it: with `bundle`, lib/node with
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
  // If node_modules is a link, keep the paths of this folder.
  const { metafile } = await build({ ...all, format: 'esm', metafile: true, preserveSymlinks: true });
  const names = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.keys(inputs).map((file) => /^node_modules\/((?:.+\/node_modules\/)?(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]),
  );
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

/** Writes dist/: the launcher, and in lib/ the program and the pinned Node. A copy of dist/ works anywhere. */
async function buildDist(): Promise<void> {
  const dist = path.join(root, 'dist');
  const lib = path.join(dist, 'lib');
  const programs = { 'kubectl-tka.cjs': await bundle(), 'tka-server.cjs': await serverBundle() };
  const node = process.platform === 'win32' ? 'node.exe' : 'node';
  fs.mkdirSync(lib, { recursive: true });
  // Write to a temporary name first: a program may start from here at the same time.
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
  // Only if the system has no libatomic: see krew/own-node.ts.
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
  // For packages: the first belongs next to the program, the others go where shells look for completion files.
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
