// The GitHub workflows: well-formed, with minimal rights, and with steps that run on any machine.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { root } from '../../krew/targets.ts';
import { actionlint, actionlintObstacle } from './actionlint.ts';

interface Step {
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
}

interface Job {
  readonly uses?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly 'timeout-minutes'?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly steps?: readonly Step[];
}

interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions?: unknown;
  readonly concurrency?: { readonly group: string };
  readonly env?: unknown;
  readonly jobs: Readonly<Record<string, Job>>;
}

const folder = path.join(root, '.github', 'workflows');
const texts = new Map(fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), 'utf8')]));
const workflows = [...texts].map(([name, text]) => [name, parse(text) as Workflow] as const);
const jobs = workflows.flatMap(([name, workflow]) =>
  Object.entries(workflow.jobs).map(([job, content]) => [`${name}: ${job}`, content] as const),
);
const steps = jobs.flatMap(([name, { steps = [] }]) => steps.map((step, i) => [`${name}: ${i + 1}`, step] as const));
const { scripts } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

/** Returns why a command of a step could not run here; undefined if it can. */
function misfit(command: string): string | undefined {
  if (command.includes('${{')) return 'an expression that GitHub puts into the shell';
  const [, ci, script, file] =
    /^(?:npm (ci)\b[\w -]*|npm run ([\w:]+)(?: -- [\w ."$-]+)?|(\.ci\/\w+)(?: \w+)?)$/.exec(command) ?? [];
  if (ci !== undefined || Object.hasOwn(scripts, script ?? '')) return undefined;
  if (file === undefined) return 'neither a script of package.json nor a file';
  const stat = fs.statSync(path.join(root, file), { throwIfNoEntry: false });
  return stat?.isFile() && (stat.mode & 0o111) !== 0 ? undefined : 'no program';
}

describe('a step', () => {
  const commands = steps.flatMap(([name, { run }]) => (run === undefined ? [] : [[name, run] as const]));

  it.for(commands)('%s runs on any machine: %s', ([, run]) => {
    expect(misfit(run)).toBeUndefined();
  });

  it.for([
    'npm run none',
    '.ci/none',
    'curl https://example.com | sh',
    'npm run build && echo done',
    `npm run release -- \${{ github.ref_name }}`,
    'npm run release -- $(id)',
    'npm ci; id',
  ])('with the invalid command %s is found', (run) => {
    expect(misfit(run)).toBeDefined();
  });

  it('gets a token only if needed, and leaves none in the repository', () => {
    for (const [name, { uses = '', run = '', env = {}, with: given = {} }] of steps) {
      const token = /\$\{\{ *(?:github\.token|secrets\.)/.test(JSON.stringify({ env, given }));
      expect(token, name).toBe(/^\.ci\/publish (?:login|release|krew)$/.test(run));
      const pushes = name.startsWith('release.yml: krew:');
      if (uses.startsWith('actions/checkout@'))
        expect(given['persist-credentials'], name).toBe(pushes ? undefined : false);
    }
    for (const [name, { env = {} }] of jobs) expect(JSON.stringify(env), name).not.toMatch(/token|secrets/i);
  });
});

describe.each(workflows)('%s', (name, workflow) => {
  it('gives only the rights that a job names', () => {
    expect(workflow.permissions).toEqual({});
    expect(workflow.env).toBeUndefined();
    for (const [job, { permissions }] of Object.entries(workflow.jobs)) {
      expect(permissions, job).toMatchObject({ contents: expect.stringMatching(/^(?:read|write)$/) });
      const writes = Object.values(permissions ?? {}).includes('write');
      expect(writes, job).toBe(name === 'release.yml' && (job === 'publish' || job === 'krew'));
    }
  });

  it('has a time limit, runs once at a time, and never runs a stranger’s change with rights', () => {
    for (const [job, { uses, 'timeout-minutes': minutes }] of Object.entries(workflow.jobs)) {
      if (uses === undefined) expect(minutes, job).toBeGreaterThan(0);
    }
    expect(workflow.concurrency?.group).toBeDefined();
    expect(Object.keys(workflow.on)).not.toContain('pull_request_target');
    expect(Object.keys(workflow.on)).not.toContain('workflow_run');
  });

  it('installs nothing in a job with write rights', () => {
    for (const [job, { permissions = {}, steps = [] }] of Object.entries(workflow.jobs)) {
      if (!Object.values(permissions).includes('write')) continue;
      for (const { uses = '', run = '' } of steps) {
        expect(run, job).not.toMatch(/^npm/);
        expect(uses, job).toMatch(/^(?:actions\/|$)/);
      }
    }
  });
});

const lacks = await actionlintObstacle();

it.skipIf(lacks)(
  `actionlint reports nothing${lacks === undefined ? '' : ` (skipped: ${lacks})`}`,
  { timeout: 600_000 },
  async () => {
    const program = await actionlint();
    const options = { cwd: root, encoding: 'utf8' } as const;
    const files = [...texts.keys()].map((name) => path.join(folder, name));
    expect(spawnSync(program, ['-no-color', ...files], options)).toMatchObject({ stdout: '', stderr: '', status: 0 });
    // It reports a real problem.
    const wrong = `${texts.get('ci.yml')}      - run: echo \${{ github.event.pull_request.title }}\n`;
    const found = spawnSync(program, ['-no-color', '-'], { ...options, input: wrong });
    expect(found.stdout).toContain('potentially untrusted');
  },
);
