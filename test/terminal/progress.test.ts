import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { progressBar } from '../../src/terminal/progress.ts';
import { hasPty, needsPty, Pty } from '../fixtures/pty.ts';

it.each([
  [0, 60, '[--------------------] 0/60'],
  [12, 60, '[####----------------] 12/60'],
  [60, 60, '[####################] 60/60'],
  [0, 0, '[####################] 0/0'],
])('%d of %d is %s', (done, total, bar) => {
  expect(progressBar(done, total)).toBe(bar);
});

describe.skipIf(!hasPty).concurrent(`the line on a terminal${needsPty}`, () => {
  const output = pathToFileURL(path.join(import.meta.dirname, '../../src/terminal/output.ts')).href;

  /** Runs a script whose `next()` waits until the test sends SIGUSR1. */
  const run = (script: string, columns = 60) => {
    const head = `import { openTerminal } from ${JSON.stringify(output)};
      const terminal = openTerminal({ debug: false, quiet: false, progress: true });
      let step = () => {};
      process.on('SIGUSR1', () => step());
      setInterval(() => {}, 1000);
      const next = () => new Promise((resolve) => { step = resolve; });`;
    const env = { ...process.env, NODE_OPTIONS: '', TERM: 'xterm', NO_COLOR: '1', FORCE_COLOR: undefined };
    return new Pty(process.execPath, ['--input-type=module', '-e', `${head}\n${script}\nprocess.exit(0);`], {
      env,
      columns,
    });
  };

  it('disappears for a notice, and comes back below it', async () => {
    const pty = run(`
      await terminal.waiting('asking somebody', async () => {
        await next();
        terminal.notice('a notice');
        terminal.warn('a warning');
        await next();
      });
      terminal.notice('the end');`);
    await pty.shows(/^asking somebody \(\d+ s\)$/);
    process.kill(pty.pid, 'SIGUSR1');
    await pty.shows(/^a notice\nwarning: a warning\nasking somebody \(\d+ s\)$/);
    process.kill(pty.pid, 'SIGUSR1');
    expect(await pty.ended).toBe(0);
    expect(pty.screen.text()).toBe('a notice\nwarning: a warning\nthe end');
  });

  it('shows the outermost of several waits, and follows its text', async () => {
    const pty = run(`
      let done = 1;
      await terminal.waiting(() => 'asked ' + done, () => terminal.waiting('asking one of them', async () => {
        await next();
        done = 2;
        await next();
      }));`);
    await pty.shows(/^asked 1 \(\d+ s\)$/);
    process.kill(pty.pid, 'SIGUSR1');
    await pty.shows(/^asked 2 \(\d+ s\)$/);
    process.kill(pty.pid, 'SIGUSR1');
    expect(await pty.ended).toBe(0);
    expect(pty.screen.text()).toBe('');
  });

  it('fits into a narrow window, and keeps the time', async () => {
    const pty = run(`await terminal.waiting('asking ' + 'x'.repeat(100), next);`, 20);
    await pty.shows(/^asking x{5}… \(\d+ s\)$/);
    expect(pty.screen.scrolled).toBe(0);
    process.kill(pty.pid, 'SIGUSR1');
    expect(await pty.ended).toBe(0);
    expect(pty.screen.text()).toBe('');
  });

  it('is removed when the process ends in the middle', async () => {
    const pty = run(`process.on('SIGTERM', () => process.exit(143)); await terminal.waiting('asking', next);`);
    await pty.shows(/^asking \(\d+ s\)$/);
    process.kill(pty.pid, 'SIGTERM');
    expect(await pty.ended).toBe(143);
    expect(pty.screen.text()).toBe('');
  });

  it('does not appear for short waits', async () => {
    const pty = run(`for (let i = 0; i < 3; i++) await terminal.waiting('asking', async () => {});`);
    expect(await pty.ended).toBe(0);
    expect(pty.raw).toBe('');
  });
});
