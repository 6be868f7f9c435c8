// npm run pin [-- --check]: pins actions of the workflows to commits, and base images to digests. It asks GitHub and the
// registries, so a person runs it and reviews the changes; `--check` only reads files.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { Failed, root } from './targets.ts';

/** An action or image that a file refers to by tag. */
interface Reference {
  readonly kind: 'action' | 'image';
  /** `actions/checkout`, or `docker.io/library/node`. */
  readonly name: string;
  readonly tag: string;
  /** The commit or digest that it is pinned to; undefined if only the tag is set. */
  readonly pin: string | undefined;
  /** The parts of the line before and after the reference. */
  readonly before: string;
  readonly after: string;
}

const architectures = ['amd64', 'arm64'];
const largestIndex = 4 << 20;
const patience = 30_000;

const actionLine =
  /^(\s*(?:- )?uses: )([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*(?:\/[\w.-]+)*)@([\w.+-]+)(?: # ([\w.+-]+))?$/;
const imageLine =
  /^(FROM |\s*(?:container|image): )([a-z0-9.-]+(?::\d+)?(?:\/[a-z0-9._-]+)+):([\w.-]+)(?:@(sha256:[0-9a-f]{64}))?( AS \w+)?(?: # unpinned)?$/;

/** Parses a line of a workflow or a Containerfile. Returns undefined if it has no reference that can be pinned. */
function referenceIn(line: string): Reference | undefined {
  const image = imageLine.exec(line);
  if (image !== null) {
    const [, before = '', name = '', tag = '', pin, after = ''] = image;
    return { kind: 'image', name, tag, pin, before, after };
  }
  const [, before = '', name, ref = '', comment] = actionLine.exec(line) ?? [];
  if (name === undefined) return undefined;
  // If pinned, the tag is in the comment: `uses: actions/checkout@08c6903c… # v5`.
  const isPinned = /^[0-9a-f]{40}$/.test(ref) && comment !== undefined && comment !== 'unpinned';
  const action = { kind: 'action', name, before, after: '' } as const;
  return isPinned ? { ...action, tag: comment, pin: ref } : { ...action, tag: ref, pin: undefined };
}

const nameOf = ({ kind, name, tag }: Reference) => (kind === 'action' ? `${name}@${tag}` : `${name}:${tag}`);

/** Returns a text with each reference pinned to the result of `pinOf` for its name: `actions/checkout@v5`. */
export function withPins(text: string, pinOf: (name: string) => string): string {
  return text
    .split('\n')
    .map((line) => {
      const found = referenceIn(line);
      if (found === undefined) return line;
      const { kind, name, tag, before, after } = found;
      const pin = pinOf(nameOf(found));
      return `${before}${kind === 'action' ? `${name}@${pin} # ${tag}` : `${name}:${tag}@${pin}`}${after}`;
    })
    .join('\n');
}

/** Returns the files below `folder` that refer to actions and images. */
export function pinnedFiles(folder = root): string[] {
  const workflows = path.join(folder, '.github', 'workflows');
  const names = fs.existsSync(workflows) ? fs.readdirSync(workflows).sort() : [];
  return [path.join(folder, 'deploy', 'Containerfile'), ...names.map((name) => path.join(workflows, name))];
}

function referencesIn(file: string): { readonly at: number; readonly reference: Reference }[] {
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  return lines.flatMap((line, i) => {
    const reference = referenceIn(line);
    return reference === undefined ? [] : [{ at: i + 1, reference }];
  });
}

/** Returns a line for each action and image that is not pinned: `.github/workflows/ci.yml:12: actions/checkout@v5`. */
export function unpinned(folder = root): string[] {
  return pinnedFiles(folder).flatMap((file) =>
    referencesIn(file)
      .filter(({ reference }) => reference.pin === undefined)
      .map(({ at, reference }) => `${path.relative(folder, file)}:${at}: ${nameOf(reference)}`),
  );
}

/** Rewrites the files below `folder`, all of them or none. Returns a line for each reference. Throws Failed. */
export async function pin(folder = root): Promise<string[]> {
  const files = pinnedFiles(folder);
  const wanted = new Map(
    files.flatMap((file) => referencesIn(file).map(({ reference }) => [nameOf(reference), reference])),
  );
  const pins = new Map<string, string>();
  for (const [name, reference] of wanted) {
    pins.set(name, await (reference.kind === 'action' ? commitOf(reference) : digestOf(reference)));
  }
  for (const file of files) {
    const text = fs.readFileSync(file, 'utf8');
    const changed = withPins(text, (name) => pins.get(name) ?? '');
    if (changed !== text) fs.writeFileSync(file, changed);
  }
  return [...pins].map(([name, found]) => `${name} is ${found}`);
}

/** Returns the commit of a tag of an action. */
async function commitOf({ name, tag }: Reference): Promise<string> {
  // An action may be in a folder of its repository: `github/codeql-action/init`.
  const repository = name.split('/', 2).join('/');
  const ref = `refs/tags/${tag}`;
  const args = ['ls-remote', `https://github.com/${repository}`, ref, `${ref}^{}`];
  const env = { ...process.env, GIT_TERMINAL_PROMPT: '0' };
  const { stdout } = await promisify(execFile)('git', args, { env, timeout: patience, maxBuffer: 1 << 20 }).catch(
    (error: Error & { stderr?: string }) => {
      const reason = error.stderr?.trim().split('\n').at(-1) || error.message.split('\n', 1)[0];
      throw new Failed(`cannot read the tags of ${repository}: ${reason}`);
    },
  );
  const found = new Map<string, string>();
  for (const line of stdout.split('\n')) {
    const [, commit = '', name = ''] = /^([0-9a-f]{40})\t(\S+)$/.exec(line) ?? [];
    found.set(name, commit);
  }
  // An annotated tag is a separate object; the name with ^{} is its commit.
  const commit = found.get(`${ref}^{}`) ?? found.get(ref);
  if (commit === undefined) throw new Failed(`${repository} has no tag ${tag}`);
  return commit;
}

/** Returns the digest of an image's index: https://github.com/opencontainers/distribution-spec. */
async function digestOf({ name, tag }: Reference): Promise<string> {
  const slash = name.indexOf('/');
  const [host, repository] = [name.slice(0, slash), name.slice(slash + 1)];
  // Like container engines: Docker Hub's registry has a different host name, and a registry on this machine uses plain http.
  const registry =
    host === 'docker.io' ? 'https://registry-1.docker.io' : `${isOwn(host) ? 'http' : 'https'}://${host}`;
  const url = `${registry}/v2/${repository}/manifests/${tag}`;
  const accept = 'application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json';
  let { response, body } = await get(url, { accept });
  if (response.status === 401) {
    const authorization = `Bearer ${await tokenFor(repository, response, registry)}`;
    ({ response, body } = await get(url, { accept, authorization }));
  }
  if (response.status === 404) throw new Failed(`${name} has no tag ${tag}`);
  if (response.status !== 200) throw new Failed(`${host} answers HTTP ${response.status} for ${name}:${tag}`);
  const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`;
  const stated = response.headers.get('docker-content-digest');
  if (stated !== null && stated !== digest) {
    throw new Failed(`${host} states the digest ${clean(stated)} for ${name}:${tag}, but sends ${digest}`);
  }
  const missing = architectures.filter((architecture) => !isIndexWith(architecture, body));
  if (missing.length > 0)
    throw new Failed(`${name}:${tag} is not an index with an image for linux/${missing.join(', linux/')}`);
  return digest;
}

const isOwn = (host: string) => /^(?:127\.0\.0\.1|localhost)(?::\d+)?$/.test(host);
const clean = (text: string) => text.slice(0, 100).replace(/[^\x20-\x7e]/g, '?');

function isIndexWith(architecture: string, body: Buffer): boolean {
  const parsed = json(body) as { readonly manifests?: unknown } | undefined;
  const manifests: readonly unknown[] = Array.isArray(parsed?.manifests) ? parsed.manifests : [];
  return manifests.some((manifest) => {
    const { platform } = (manifest ?? {}) as { readonly platform?: Readonly<Record<string, unknown>> };
    return platform?.os === 'linux' && platform.architecture === architecture;
  });
}

function json(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    return undefined;
  }
}

/** Gets a read token from the URL in the registry's challenge. Needs no account. */
async function tokenFor(repository: string, { headers }: Response, registry: string): Promise<string> {
  const challenge = headers.get('www-authenticate') ?? '';
  const [, realm] = /^Bearer (?:.*,)?realm="([^"]+)"/.exec(challenge) ?? [];
  const [, service] = /[ ,]service="([^"]+)"/.exec(challenge) ?? [];
  const url = URL.parse(realm ?? '');
  const isSafe = url?.protocol === 'https:' || (registry.startsWith('http:') && url !== null && isOwn(url.host));
  if (url === null || !isSafe) throw new Failed(`${registry} does not state where to get a token`);
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.set('scope', `repository:${repository}:pull`);
  const { response, body } = await get(url.href, {});
  const { token, access_token: other } = (json(body) ?? {}) as Readonly<Record<string, unknown>>;
  const found = token ?? other;
  if (response.status !== 200 || typeof found !== 'string' || !/^[\x21-\x7e]+$/.test(found)) {
    throw new Failed(`${url.host} does not issue a token for ${repository}`);
  }
  return found;
}

async function get(url: string, headers: Readonly<Record<string, string>>) {
  const { host } = new URL(url);
  try {
    const response = await fetch(url, { headers, redirect: 'error', signal: AbortSignal.timeout(patience) });
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of response.body ?? []) {
      size += part.length;
      if (size > largestIndex) throw new Failed(`${host} sends more than 4 MiB`);
      parts.push(part);
    }
    return { response, body: Buffer.concat(parts) };
  } catch (error) {
    if (error instanceof Failed) throw error;
    const { message, cause } = error as Error;
    throw new Failed(`cannot ask ${host}: ${cause instanceof Error ? cause.message : message}`);
  }
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const { check } = parse(args);
    if (!check) {
      process.stdout.write((await pin()).map((line) => `${line}\n`).join(''));
      return 0;
    }
    const open = unpinned();
    process.stdout.write(open.map((line) => `${line}\n`).join(''));
    if (open.length > 0) throw new Failed(`${open.length} of the actions and images are not pinned`, 'npm run pin');
    return 0;
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    process.stderr.write(error.told());
    return error.status;
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: { check: { type: 'boolean', default: false } } }).values;
  } catch (error) {
    throw new Failed((error as Error).message.split('. ', 1)[0] ?? '', 'npm run pin -- --check', 2);
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
