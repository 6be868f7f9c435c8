// npm run build: dist/kubectl-tka, executable by itself on the Node that is pinned in package.json.
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { type BuildOptions, build } from 'esbuild';

const root = import.meta.dirname;
const dist = path.join(root, 'dist');
const lib = path.join(dist, 'lib');
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

// What others import must be there before whoever imports it.
function isEntry(name: string): boolean {
  return name === 'main.mjs' || name === 'kubectl-tka.cjs';
}

const common: BuildOptions = {
  bundle: true,
  platform: 'node',
  target: 'node26',
  // Names stay readable for --debug.
  minifyWhitespace: true,
  minifySyntax: true,
  // Its ES modules: they can be imported lazily by name, and what is not used is left out.
  alias: { yaml: path.join(root, 'node_modules/yaml/browser/index.js') },
  legalComments: 'none',
  logLevel: 'warning',
  define: { __VERSION__: JSON.stringify(version), __COMMIT__: JSON.stringify(commit()) },
};

// Built beside, then moved in place file by file: a program that runs from here meanwhile finds all that it needs.
const fresh = path.join(dist, 'lib.new');
fs.rmSync(fresh, { recursive: true, force: true });
fs.mkdirSync(lib, { recursive: true });

// The hot path: one small CommonJS file, which Node starts fastest; everything else is another bundle.
await build({
  ...common,
  entryPoints: [path.join(root, 'cmd/kubectl-tka.ts')],
  outfile: path.join(fresh, 'kubectl-tka.cjs'),
  format: 'cjs',
  plugins: [
    {
      name: 'cli-apart',
      setup: ({ onResolve }) =>
        onResolve({ filter: /\/cli\/main\.ts$/ }, () => ({ path: './main.mjs', external: true })),
    },
  ],
});
// The rest, split so that each command loads only what it uses.
await build({
  ...common,
  entryPoints: { main: path.join(root, 'src/cli/main.ts') },
  outdir: fresh,
  outExtension: { '.js': '.mjs' },
  format: 'esm',
  splitting: true,
  chunkNames: '[name]-[hash]',
  // The CommonJS packages among the dependencies require Node's own modules.
  banner: {
    js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
  },
});

const names = fs.readdirSync(fresh).sort((a, b) => Number(isEntry(a)) - Number(isEntry(b)));
for (const name of names) fs.renameSync(path.join(fresh, name), path.join(lib, name));
for (const name of fs.readdirSync(lib)) {
  if (!names.includes(name) && !/^node(?:\.exe)?$/.test(name)) fs.rmSync(path.join(lib, name), { recursive: true });
}
fs.rmdirSync(fresh);

// The pinned Node, beside the bundle: a copy of dist/ works anywhere.
const node = path.join(lib, process.platform === 'win32' ? 'node.exe' : 'node');
if (!fs.existsSync(node) || fs.statSync(node).size !== fs.statSync(process.execPath).size) {
  fs.rmSync(node, { force: true });
  try {
    fs.linkSync(process.execPath, node);
  } catch {
    fs.copyFileSync(process.execPath, node);
  }
}
fs.copyFileSync(path.join(root, 'cmd/kubectl-tka.sh'), path.join(dist, 'kubectl-tka'));
fs.chmodSync(path.join(dist, 'kubectl-tka'), 0o755);
if (process.platform === 'win32') {
  fs.writeFileSync(
    path.join(dist, 'kubectl-tka.cmd'),
    '@setlocal\r\n@set "NODE_OPTIONS=%TKA_NODE_OPTIONS%"\r\n@"%~dp0lib\\node.exe" "%~dp0lib\\kubectl-tka.cjs" --started-as "%~f0" %*\r\n',
  );
}
