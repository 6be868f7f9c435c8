import * as fs from 'node:fs';
import * as path from 'node:path';
import windowsFront from '../../../cmd/kubectl_complete-tka.cmd';
import front from '../../../cmd/kubectl_complete-tka.sh';
import { openTerminal, type Terminal } from '../../terminal/output.ts';
import { systemCode, TkaError } from '../../util/errors.ts';
import { writeFileAtomic } from '../../util/files.ts';
import { foldersIn, placesOnPath, searchPathOf } from '../../util/search-path.ts';
import bash from '../completion/kubectl-tka.bash';
import fish from '../completion/kubectl-tka.fish';
import powershell from '../completion/kubectl-tka.ps1';
import zsh from '../completion/kubectl-tka.zsh';

const scripts: Readonly<Record<string, string>> = { bash, zsh, fish, powershell };
const windows = process.platform === 'win32';

/** Runs `completion bash|zsh|fish|powershell|install`: prints the script for a shell, or installs kubectl's file. */
export function completion(shell: string, command: string, env: NodeJS.ProcessEnv, quiet: boolean): void {
  const terminal = openTerminal({ debug: false, quiet });
  const script = scripts[shell];
  if (script !== undefined) terminal.out(script);
  else install(command, env, terminal, quiet);
}

// kubectl looks on PATH for kubectl_complete-tka, but krew installs only a link to the program there.
function install(command: string, env: NodeJS.ProcessEnv, terminal: Terminal, quiet: boolean): void {
  const own = path.dirname(command);
  const folder = isKrews(own, env) ? besideKrew(env) : own;
  if (!/^kubectl-tka(?:\.exe|\.cmd)?$/i.test(path.basename(command))) {
    throw new TkaError(`kubectl completes only a program named kubectl-tka, not ${path.basename(command)}`, {
      hints: ['rename it to kubectl-tka and put it on PATH'],
    });
  }
  const name = windows ? 'kubectl_complete-tka.cmd' : 'kubectl_complete-tka';
  const file = path.join(folder, name);
  const wanted = windows ? windowsFront : front;
  const there = textOf(file);
  if (there !== undefined && !isOurs(there)) {
    throw new TkaError(`${file} already exists and was not written by kubectl-tka`, {
      hints: ['move it away, then run this again'],
    });
  }
  if (there !== wanted) write(file, wanted);
  // Versions before 0.2.0 put it there.
  const old = path.join(own, name);
  if (folder !== own && isOurs(textOf(old) ?? '')) fs.rmSync(old);
  if (!quiet) terminal.out(there === wanted ? `${file} is up to date.\n` : `Wrote ${file}.\n`);
  const first = placesOnPath([name], searchPathOf(env)).find((each) => fs.existsSync(each));
  if (first === undefined) terminal.warn(`${folder} is not on PATH: kubectl will not find it there`);
  else if (!sameFile(first, file)) terminal.warn(`another file comes first on PATH: ${first}`);
  if (!quiet) terminal.hint(`this works with kubectl's own completion; ${shellHint(env)}`);
}

const isOurs = (text: string) => /^(?:#!\/bin\/sh\n# |@rem )kubectl-tka: /.test(text);

// krew takes every file in its `bin` for a plugin. With such a file and no plugin installed, it refuses every command
// ("krew home outdated"; internal/receiptsmigration in krew's source).
function isKrews(folder: string, env: NodeJS.ProcessEnv): boolean {
  const base = env.KREW_ROOT || path.join(env.HOME ?? env.USERPROFILE ?? '', '.krew');
  return path.resolve(base, 'bin') === folder || fs.existsSync(path.join(folder, '..', 'receipts'));
}

/** Returns the user's own folder for programs: the first usual one that is on PATH, else `~/.local/bin`. */
function besideKrew(env: NodeJS.ProcessEnv): string {
  const home = env.HOME ?? env.USERPROFILE;
  if (!home) {
    throw new TkaError("no folder for kubectl_complete-tka: krew's folder cannot be used, and HOME is not set", {
      hints: ['copy it from the archive into a folder on PATH'],
    });
  }
  const usual = [path.join(home, '.local', 'bin'), path.join(home, 'bin')];
  // On Windows this folder is on every user's PATH.
  if (windows && env.LOCALAPPDATA) usual.push(path.join(env.LOCALAPPDATA, 'Microsoft', 'WindowsApps'));
  const onPath = foldersIn(searchPathOf(env)).map((folder) => path.resolve(folder));
  return usual.find((folder) => onPath.includes(folder)) ?? (usual[0] as string);
}

/**
 * Returns the text of a file; undefined if nothing exists there, '' for anything but a readable file, which is then not
 * ours.
 */
function textOf(file: string): string | undefined {
  if (fs.lstatSync(file, { throwIfNoEntry: false }) === undefined) return undefined;
  try {
    return fs.statSync(file).isFile() ? fs.readFileSync(file, 'utf8') : '';
  } catch {
    return '';
  }
}

function write(file: string, text: string): void {
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    writeFileAtomic(file, text, { mode: 0o755 });
  } catch (error) {
    throw new TkaError(`cannot write ${file}: ${systemCode(error) ?? error}`, {
      hints: ['run this as a user who can write there, or copy the file into another folder on PATH'],
      cause: error,
    });
  }
}

function sameFile(a: string, b: string): boolean {
  return fs.realpathSync(a) === fs.realpathSync(b);
}

function shellHint(env: NodeJS.ProcessEnv): string {
  if (windows) return 'in $PROFILE: kubectl completion powershell | Out-String | Invoke-Expression';
  switch (path.basename(env.SHELL ?? '')) {
    case 'zsh':
      return 'in ~/.zshrc, after compinit: source <(kubectl completion zsh)';
    case 'fish':
      return 'in ~/.config/fish/config.fish: kubectl completion fish | source';
    default:
      return 'in ~/.bashrc: source <(kubectl completion bash)';
  }
}
