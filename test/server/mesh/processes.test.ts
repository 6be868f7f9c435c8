import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { freePort } from '../../fixtures/ports.ts';

const program = fileURLToPath(new URL('./node.ts', import.meta.url));
const host = '127.0.0.1';
const key = 'a shared key of at least 32 characters';

/** A process and its messages, as they arrive. */
class Member {
  readonly name: string;
  readonly child: ChildProcess;
  readonly #states = new Map<string, { state: string; pid: string }>();
  readonly #waiting = new Set<() => void>();
  readonly said: Record<string, unknown>[] = [];

  constructor(name: string, port: number, ports: readonly number[]) {
    this.name = name;
    const peers = ports.map((other) => `${host}:${other}`);
    const options = JSON.stringify({
      name,
      host,
      port,
      key,
      peers,
      intervalMs: 500,
      stalenessThreshold: 10,
      deadThreshold: 30,
    });
    this.child = spawn(process.execPath, [program, options], { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const what = JSON.parse(line);
      this.said.push(what);
      if (what.member !== undefined) this.#states.set(what.member, { state: what.state, pid: what.pid });
      for (const look of this.#waiting) look();
    });
  }

  state(of: Member): string | undefined {
    return this.#states.get(of.name)?.state;
  }

  /** Resolves when a message of this process makes `so` return true. */
  until(so: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!so()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
  }

  sees(other: Member, state: string): Promise<void> {
    return this.until(() => this.#states.get(other.name)?.state === state);
  }

  /** Resolves when it knows this process of `other`, and not an earlier one. */
  knows(other: Member): Promise<void> {
    return this.until(() => {
      const seen = this.#states.get(other.name);
      return seen?.state === 'healthy' && seen.pid === String(other.child.pid);
    });
  }
}

const members: Member[] = [];
afterEach(async () => {
  const living = members.splice(0).filter(({ child }) => child.exitCode === null && child.signalCode === null);
  await Promise.all(
    living.map(({ child }) => {
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      return gone;
    }),
  );
});

test('seven processes: one killed, one stopped, one that leaves, and both back again', {
  timeout: 180_000,
}, async () => {
  const ports = await Promise.all(Array.from({ length: 7 }, () => freePort(host)));
  const start = (index: number): Member => {
    // Each knows the first two, and these know each other.
    const member = new Member(`tka-${index}`, ports[index] as number, ports.slice(0, 2));
    members.push(member);
    return member;
  };
  const all = ports.map((_, index) => start(index));
  const [one, two, three, killed, stopped, left, seven] = all as [
    Member,
    Member,
    Member,
    Member,
    Member,
    Member,
    Member,
  ];
  const others = (...without: Member[]) => all.filter((member) => !without.includes(member));
  const everybody = (watchers: Member[], seen: Member[], what: (watcher: Member, seen: Member) => Promise<void>) =>
    Promise.all(watchers.flatMap((watcher) => seen.map((other) => watcher !== other && what(watcher, other))));
  await everybody(all, all, (watcher, other) => watcher.knows(other));

  killed.child.kill('SIGKILL');
  stopped.child.kill('SIGSTOP');
  await everybody(others(killed, stopped), [killed, stopped], (watcher, other) => watcher.sees(other, 'dead'));
  // A stopped peer accepts connections but does not answer: no other waits for it, or considers another dead.
  expect(others(killed, stopped).flatMap(({ said }) => said.filter(({ state }) => state === 'dead'))).toHaveLength(10);

  left.child.kill('SIGTERM');
  const [code] = await once(left.child, 'exit');
  expect(code).toBe(0);
  await everybody(others(killed, stopped, left), [left], (watcher, other) => watcher.sees(other, 'dead'));
  expect(left.said.at(-1)).toEqual({ left: true });
  // Told, not detected: detection takes ten rounds of silence.
  expect(
    others(killed, stopped, left).flatMap(({ said }) =>
      said.filter((what) => what.member === left.name && what.state === 'suspected'),
    ),
  ).toEqual([]);

  stopped.child.kill('SIGCONT');
  const again = start(3);
  expect(again.name).toBe(killed.name);
  const living = [one, two, three, again, stopped, seven];
  await everybody(living, living, (watcher, other) => watcher.knows(other));
  await stopped.sees(left, 'dead');
  // The member that slept considered no running member dead.
  expect(
    stopped.said.filter(({ member, state }) => state === 'dead' && member !== killed.name && member !== left.name),
  ).toEqual([]);
  for (const watcher of living) if (watcher !== again) expect(watcher.state(left)).toBe('dead');
});
