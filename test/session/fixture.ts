// One TKA server of a sandbox mesh, and a private cache and state folder for each test.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { type SandboxCluster, type SandboxMesh, startMesh } from '../../src/sandbox/mesh.ts';
import type { LoginResult } from '../../src/session/login.ts';
import type { Session } from '../../src/session/session.ts';
import { Sessions } from '../../src/session/sessions.ts';
import { SessionStore } from '../../src/session/store.ts';
import type { TkaError } from '../../src/util/errors.ts';
import { testFolder } from '../fixtures/temporary.ts';

/** Returns the error that a promise rejects with; throws if it resolves. */
export async function failure(promise: Promise<unknown>): Promise<TkaError> {
  return promise.then(
    () => Promise.reject(new Error('it did not fail')),
    (error) => error,
  );
}

export const storeIn = (folder: string): SessionStore =>
  new SessionStore({ cache: path.join(folder, 'cache'), state: path.join(folder, 'state') });

let nextParent = 1_000_000;

/** Returns the ID of a process that has not called before. */
export const newParent = (): number => nextParent++;

/** A TKA server, and a machine that signs in to it. */
export class Machine {
  readonly cluster: SandboxCluster;
  /** Another cluster of the mesh. */
  readonly other: SandboxCluster;
  readonly folder: string;
  /** Every message to the user. */
  readonly said: string[] = [];
  /** Every debug line. */
  readonly logged: string[] = [];

  constructor(mesh: SandboxMesh, folder: string) {
    [this.cluster, this.other] = mesh.clusters as unknown as [SandboxCluster, SandboxCluster];
    this.folder = folder;
  }

  /** The stored sessions, read again each time. */
  get store(): SessionStore {
    return storeIn(this.folder);
  }

  get cache(): string {
    return path.join(this.folder, 'cache');
  }

  /** The path of the entry; with a suffix, of the file beside it. */
  entry(suffix = ''): string {
    return `${this.store.entryFile(this.cluster.server)}${suffix}`;
  }

  get entryName(): string {
    return path.basename(this.entry());
  }

  /** The names in the cache folder. */
  get files(): string[] {
    return fs.existsSync(this.cache) ? fs.readdirSync(this.cache).sort() : [];
  }

  kept(): Session | undefined {
    return this.store.read(this.cluster.server);
  }

  sessions(timeout = 30_000, store = this.store): Sessions {
    return new Sessions({
      store,
      timeout,
      warn: (line) => this.said.push(line),
      log: (line) => this.logged.push(line),
    });
  }

  /** Calls as kubectl does, by default from a new process each time. */
  call(options: { apiServer?: string; parent?: number; timeout?: number } = {}): Promise<Session> {
    return this.sessions(options.timeout).credential({
      server: this.cluster.server,
      apiServer: options.apiServer ?? this.cluster.apiServer,
      parent: options.parent ?? newParent(),
    });
  }

  signIn(options: { insecure?: boolean; timeout?: number } = {}): Promise<LoginResult> {
    return this.sessions(options.timeout).signIn(this.cluster.server, { insecure: options.insecure === true });
  }

  signOut(): Promise<boolean> {
    return this.sessions().signOut(this.cluster.server);
  }

  changeRole(role: string, periodMs = 1_800_000): void {
    this.cluster.user = { username: this.cluster.user?.username ?? '', role, periodMs };
  }
}

/** Starts a mesh for all tests of a file. Call it at the top of the file. */
export function fileMesh(): () => SandboxMesh {
  let mesh: SandboxMesh;
  beforeAll(async () => {
    mesh = await startMesh();
  });
  afterAll(() => mesh.close());
  return () => mesh;
}

let turn = 0;

/** Makes a machine for the running test, and a server without faults where its user is not signed in yet. */
export async function newMachine(mesh: SandboxMesh): Promise<Machine> {
  const machine = new Machine(mesh, testFolder());
  const { cluster } = machine;
  cluster.clearFaults();
  cluster.user = { username: `user-${turn++}`, role: 'viewer', periodMs: 30 * 60_000 };
  cluster.readyAfterMs = 10;
  await cluster.start();
  cluster.resetCounts();
  return machine;
}
