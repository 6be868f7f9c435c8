// Actions and base images: which are not pinned, and what they are pinned to, with a git repository and a registry on
// this machine.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import * as path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { pin, pinnedFiles, unpinned, withPins } from '../../krew/pin.ts';
import { root } from '../../krew/targets.ts';
import { fileFolder, testFolder } from '../fixtures/temporary.ts';

const hex = 'a'.repeat(40);
const digest = `sha256:${'b'.repeat(64)}`;

describe('a line', () => {
  const pins: Readonly<Record<string, string>> = {
    'actions/checkout@v5': hex,
    'some/repo/folder@v1.2': hex,
    'docker.io/library/node:26-slim': digest,
    'docker.io/library/node:26': digest,
  };
  const pinOf = (name: string): string => pins[name] ?? expect.unreachable(`asked for ${name}`);

  it.for([
    ['      - uses: actions/checkout@v5 # unpinned', `      - uses: actions/checkout@${hex} # v5`],
    ['        uses: actions/checkout@v5', `        uses: actions/checkout@${hex} # v5`],
    [`      - uses: actions/checkout@${'c'.repeat(40)} # v5`, `      - uses: actions/checkout@${hex} # v5`],
    ['      - uses: some/repo/folder@v1.2 # unpinned', `      - uses: some/repo/folder@${hex} # v1.2`],
    ['FROM docker.io/library/node:26-slim AS build', `FROM docker.io/library/node:26-slim@${digest} AS build`],
    [`FROM docker.io/library/node:26@sha256:${'c'.repeat(64)}`, `FROM docker.io/library/node:26@${digest}`],
    ['    container: docker.io/library/node:26 # unpinned', `    container: docker.io/library/node:26@${digest}`],
  ] as const)('%s', ([line, pinned]) => {
    expect(withPins(line, pinOf)).toBe(pinned);
    expect(withPins(pinned, pinOf)).toBe(pinned);
  });

  it.for([
    'FROM scratch',
    'COPY --from=build /rootfs /',
    '    uses: ./.github/workflows/ci.yml',
    '      - run: npm ci',
    '# uses: actions/checkout@v5',
  ])('%s has nothing to pin', (line) => {
    expect(withPins(line, pinOf)).toBe(line);
  });
});

it('knows every action and base image of this project', () => {
  const containers =
    fs.readFileSync(path.join(root, 'deploy/Containerfile'), 'utf8').match(/^FROM (?!scratch)/gm) ?? [];
  const texts = pinnedFiles().map((file) => fs.readFileSync(file, 'utf8'));
  const used = texts.flatMap((text) => text.match(/^\s*(?:- )?(?:uses|container|image): (?!\.\/).*$/gm) ?? []);
  let known = 0;
  for (const text of texts) {
    withPins(text, (name) => {
      known++;
      return name.includes('@') ? hex : digest;
    });
  }
  expect(known).toBe(containers.length + used.length);
  expect(known).toBeGreaterThan(0);
});

const noGit = spawnSync('git', ['--version']).error !== undefined;

describe.skipIf(noGit)(`npm run pin${noGit ? ' (skipped: no git)' : ''}`, () => {
  const folder = fileFolder('tka-pin-');
  const commits: Record<string, string> = {};
  const answers = new Map<string, (request: http.IncomingMessage, response: http.ServerResponse) => void>();
  let registry: http.Server;
  let host: string;

  beforeAll(async () => {
    // Plain and annotated tags of two repositories, which git uses instead of GitHub.
    const work = path.join(folder, 'work');
    const git = (...args: string[]) => {
      const author = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com'];
      return execFileSync('git', [...author, ...args], { cwd: work, encoding: 'utf8', stdio: 'pipe' }).trim();
    };
    fs.mkdirSync(work);
    git('init', '--quiet', '--initial-branch=main');
    for (const [tag, kind] of [
      ['v4', []],
      ['v5', ['--annotate', '--message', 'v5']],
      ['v5.1', []],
    ] as const) {
      git('commit', '--quiet', '--allow-empty', '--message', tag);
      git('tag', ...kind, tag);
      commits[tag] = git('rev-parse', 'HEAD');
    }
    git('branch', 'v9');
    git('tag', 'odd/refs/tags/v8');
    git('clone', '--quiet', '--bare', work, path.join(folder, 'github/actions/checkout'));
    registry = http.createServer((request, response) => {
      const answer = answers.get((request.url ?? '').split('?')[0] ?? '');
      if (answer === undefined) response.writeHead(404).end();
      else answer(request, response);
    });
    registry.listen(0, '127.0.0.1');
    await once(registry, 'listening');
    host = `127.0.0.1:${(registry.address() as AddressInfo).port}`;
  });
  afterAll(() => registry.close());

  beforeEach(() => {
    answers.clear();
    const config = [
      [`url.${folder}/github/.insteadOf`, 'https://github.com/'],
      ['safe.directory', '*'],
    ];
    const count = { GIT_CONFIG_COUNT: String(config.length), GIT_CONFIG_GLOBAL: '/dev/null' };
    const each = config.flatMap(([key, value], i) => [
      [`GIT_CONFIG_KEY_${i}`, key],
      [`GIT_CONFIG_VALUE_${i}`, value],
    ]);
    for (const [name, value] of [...Object.entries(count), ...each]) vi.stubEnv(name ?? '', value);
    return () => vi.unstubAllEnvs();
  });

  const index = (...architectures: string[]) =>
    JSON.stringify({ manifests: architectures.map((architecture) => ({ platform: { os: 'linux', architecture } })) });
  const both = index('amd64', 'arm64');
  const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

  /** Makes a project with a workflow and a Containerfile. */
  function project(uses: string, from: string): string {
    const made = testFolder('tka-pin-');
    for (const [file, text] of [
      ['deploy/Containerfile', `FROM ${from} AS build\nFROM scratch\n`],
      ['.github/workflows/ci.yml', `    steps:\n      - uses: ${uses} # unpinned\n`],
    ] as const) {
      fs.mkdirSync(path.dirname(path.join(made, file)), { recursive: true });
      fs.writeFileSync(path.join(made, file), text);
    }
    return made;
  }

  const texts = (made: string) => pinnedFiles(made).map((file) => fs.readFileSync(file, 'utf8'));

  it('pins the commit of an annotated tag, and the digest of the registry', async () => {
    // As on Docker Hub: a token first, which needs no account.
    answers.set('/v2/library/node/manifests/26-slim', ({ headers }, response) => {
      if (headers.authorization !== 'Bearer sesame') {
        const challenge = `Bearer realm="http://${host}/token",service="registry.example.com",scope="anything"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
        return;
      }
      expect(headers.accept).toContain('application/vnd.oci.image.index.v1+json');
      response.writeHead(200, { 'docker-content-digest': sha256(both) }).end(both);
    });
    answers.set('/token', ({ url, headers }, response) => {
      expect(headers.authorization).toBeUndefined();
      const query = new URL(url ?? '', 'http://it').searchParams;
      expect(Object.fromEntries(query)).toEqual({
        service: 'registry.example.com',
        scope: 'repository:library/node:pull',
      });
      response.end('{"token":"sesame"}');
    });
    const image = `${host}/library/node:26-slim`;
    const made = project('actions/checkout@v5', image);
    expect(unpinned(made)).toEqual([
      `deploy/Containerfile:1: ${image}`,
      `${path.join('.github', 'workflows', 'ci.yml')}:2: actions/checkout@v5`,
    ]);
    expect(await pin(made)).toEqual([`${image} is ${sha256(both)}`, `actions/checkout@v5 is ${commits.v5}`]);
    expect(texts(made)).toEqual([
      `FROM ${image}@${sha256(both)} AS build\nFROM scratch\n`,
      `    steps:\n      - uses: actions/checkout@${commits.v5} # v5\n`,
    ]);
    expect(unpinned(made)).toEqual([]);
    // A pinned name follows its tag.
    const newer = index('arm64', 'amd64', 's390x');
    answers.set('/v2/library/node/manifests/26-slim', (_, response) => void response.end(newer));
    await pin(made);
    expect(texts(made)[0]).toContain(`${image}@${sha256(newer)}`);
  });

  it('pins the commit of a plain tag', async () => {
    answers.set('/v2/node/manifests/26', (_, response) => void response.end(both));
    const made = project('actions/checkout@v4', `${host}/node:26`);
    await pin(made);
    expect(texts(made)[1]).toContain(`actions/checkout@${commits.v4} # v4`);
  });

  it.for([
    ['a tag that is missing', 'v99', 'actions/checkout has no tag v99'],
    ['a branch', 'v9', 'actions/checkout has no tag v9'],
    ['a tag that ends like the wanted one', 'v8', 'actions/checkout has no tag v8'],
  ] as const)('changes nothing for an action with %s', async ([, tag, message]) => {
    answers.set('/v2/node/manifests/26', (_, response) => void response.end(both));
    const made = project(`actions/checkout@${tag}`, `${host}/node:26`);
    const before = texts(made);
    await expect(pin(made)).rejects.toThrow(message);
    expect(texts(made)).toEqual(before);
  });

  it('reports which repository cannot be read', async () => {
    answers.set('/v2/node/manifests/26', (_, response) => void response.end(both));
    const made = project('actions/none@v1', `${host}/node:26`);
    await expect(pin(made)).rejects.toThrow(/^cannot read the tags of actions\/none: /);
  });

  const send =
    (status: number, headers: Readonly<Record<string, string>>, body: string | Buffer) =>
    (_: http.IncomingMessage, response: http.ServerResponse) =>
      void response.writeHead(status, headers).end(body);

  it.for([
    ['without the tag', send(404, {}, ''), /\/node has no tag 26$/],
    ['that is broken', send(500, {}, both), / answers HTTP 500 for /],
    [
      'whose digest belongs to another body',
      send(200, { 'docker-content-digest': digest }, both),
      / states the digest .* sends sha256:/,
    ],
    [
      'that sends an invalid digest',
      send(200, { 'docker-content-digest': 'x\u0080y' }, both),
      / states the digest x\?y for .* but sends /,
    ],
    [
      'that has one architecture only',
      send(200, {}, index('amd64')),
      /is not an index with an image for linux\/arm64$/,
    ],
    [
      'that sends an image, not an index',
      send(200, {}, '{"layers":[]}'),
      /is not an index .* linux\/amd64, linux\/arm64$/,
    ],
    ['that sends invalid JSON', send(200, {}, '<html>'), /is not an index/],
    ['that sends odd JSON', send(200, {}, '{"manifests":[null,{"platform":7}]}'), /is not an index/],
    ['that sends endlessly', send(200, {}, Buffer.alloc(5 << 20)), / sends more than 4 MiB$/],
    ['that redirects', send(307, { location: 'http://127.0.0.1:1/' }, ''), /^cannot ask 127\.0\.0\.1:\d+: /],
    [
      'that requires a password',
      send(401, { 'www-authenticate': 'Basic realm="x"' }, ''),
      /does not state where to get a token$/,
    ],
    [
      'that redirects to another host over plain http',
      send(401, { 'www-authenticate': 'Bearer realm="http://token.example.com/",service="x"' }, ''),
      /does not state where to get a token$/,
    ],
  ] as const)('changes nothing for a registry %s', async ([, answer, message]) => {
    answers.set('/v2/node/manifests/26', answer);
    const made = project('actions/checkout@v5', `${host}/node:26`);
    const before = texts(made);
    await expect(pin(made)).rejects.toThrow(message);
    expect(texts(made)).toEqual(before);
  });

  it.for([
    ['refuses', send(403, {}, '{"token":"x"}')],
    ['returns none', send(200, {}, '{}')],
    ['returns one that is not a valid header', send(200, {}, '{"token":"a\\r\\nb"}')],
  ] as const)('changes nothing if the token server %s', async ([, answer]) => {
    const challenge = { 'www-authenticate': `Bearer realm="http://${host}/token"` };
    answers.set('/v2/node/manifests/26', send(401, challenge, ''));
    answers.set('/token', answer);
    const made = project('actions/checkout@v5', `${host}/node:26`);
    await expect(pin(made)).rejects.toThrow(/ does not issue a token for node$/);
  });

  it('--check sends no requests, and fails while one is not pinned', () => {
    const program = path.join(root, 'krew', 'pin.ts');
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--check'], { encoding: 'utf8' });
    const open = unpinned();
    expect(stdout).toBe(open.map((line) => `${line}\n`).join(''));
    expect({ status, stderr }).toEqual(
      open.length === 0
        ? { status: 0, stderr: '' }
        : {
            status: 1,
            stderr: `error: ${open.length} of the actions and images are not pinned\nhint: npm run pin\n`,
          },
    );
    const wrong = spawnSync(process.execPath, [program, '--all'], { encoding: 'utf8' });
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringMatching(/^error: Unknown option '--all'\nhint: /) });
  });
});
