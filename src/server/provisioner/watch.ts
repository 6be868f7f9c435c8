// A copy of the namespace's sign-ins that follows the cluster: client-node's informer, kept going.
import { EventEmitter } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { type KubeConfig, type KubernetesObject, ListWatch, Watch } from '@kubernetes/client-node';
import type { Log } from '../log.ts';
import { isStatus, type Kube } from './kube.ts';
import { paths, type TkaSignin } from './objects.ts';

type Watched = TkaSignin & KubernetesObject;

/** What it is given. */
export interface WatchOptions {
  readonly kubeConfig: KubeConfig;
  readonly kube: Kube;
  readonly namespace: string;
  readonly log: Log;
  /** Called for every change; without a sign-in, it is gone. Must not throw. */
  readonly onChange: (name: string, signIn: TkaSignin | undefined) => void;
  /** Called whenever the watch broke, before it is taken up again. */
  readonly onBroken?: (() => void) | undefined;
}

/** The sign-ins as last heard of, by name. */
export interface SignInWatch {
  get(name: string): TkaSignin | undefined;
  all(): Iterable<TkaSignin>;
  /** Whether they have been listed at least once. */
  synced(): boolean;
  /** Resolves to true as soon as the sign-in of this name passes, to false after `ms`, or when stopped. */
  wait(name: string, passes: (signIn: TkaSignin | undefined) => boolean, ms: number): Promise<boolean>;
  stop(): void;
}

const firstRetryMs = 200;
const lastRetryMs = 5_000;

/** Lists the sign-ins and follows them until stopped, whatever becomes of the connection. */
export function watchSignIns({ kubeConfig, kube, namespace, log, onChange, onBroken }: WatchOptions): SignInWatch {
  const path = paths.signIns(namespace);
  const changed = new EventEmitter().setMaxListeners(0);
  let stopped = false;
  let synced = false;
  let failures = 0;
  let retry: NodeJS.Timeout | undefined;

  class PatientWatch extends Watch {
    override async watch(...[path, query, callback, done]: Parameters<Watch['watch']>): Promise<AbortController> {
      const idle = new AbortController();
      // Its caller waits before it connects again, and does not look whether it was stopped meanwhile.
      if (stopped) return idle;
      try {
        const controller = await super.watch(
          path,
          query,
          (phase, object, event) => {
            slim(object);
            callback(phase, object, event);
          },
          done,
        );
        if (stopped) controller.abort();
        return controller;
      } catch (error) {
        // It rejects where no credentials can be read, and nobody listens.
        done(error);
        return idle;
      }
    }
  }

  const informer = new ListWatch<Watched>(
    path,
    new PatientWatch(kubeConfig),
    async () => {
      const pages = kube.list<Watched>(path);
      const items: Watched[] = [];
      let page = await pages.next();
      for (; !page.done; page = await pages.next()) {
        slim(page.value);
        items.push(page.value);
      }
      synced = true;
      failures = 0;
      return { apiVersion: '', kind: '', items, metadata: { resourceVersion: page.value } };
    },
    false,
    undefined,
    undefined,
    // It backs off to half a minute where the server closes quiet watches; a login would wait as long.
    { delayFn: (ms) => delay(Math.min(ms, 1_000), undefined, { ref: false }) },
  );

  const tell = (name: string, signIn: TkaSignin | undefined): void => {
    failures = 0;
    onChange(name, signIn);
    changed.emit(name, signIn);
  };
  informer.on('add', (signIn) => tell(signIn.metadata.name, signIn));
  informer.on('update', (signIn) => tell(signIn.metadata.name, signIn));
  informer.on('delete', (signIn) => tell(signIn.metadata.name, undefined));
  informer.on('error', (error) => {
    if (stopped) return;
    const ms = Math.min(firstRetryMs * 2 ** failures++, lastRetryMs);
    // The first thing that is forgotten when a server is set up.
    const hint = isStatus(error, 404) ? '; is the CustomResourceDefinition of TkaSignin in this cluster?' : '';
    onBroken?.();
    log.warn({ err: error, retryMs: ms }, `the watch on sign-ins broke${hint}`);
    clearTimeout(retry);
    retry = setTimeout(start, ms);
  });

  function start(): void {
    informer.start().catch((error: unknown) => log.error({ err: error }, 'the watch on sign-ins did not start'));
  }
  start();

  return {
    get: (name) => informer.get(name, namespace),
    all: () => informer.list(namespace),
    synced: () => synced,
    wait(name, passes, ms) {
      if (passes(informer.get(name, namespace))) return Promise.resolve(true);
      if (stopped) return Promise.resolve(false);
      return new Promise((resolve) => {
        const end = (passed: boolean): void => {
          clearTimeout(timer);
          changed.off(name, look);
          changed.off('stop', giveUp);
          resolve(passed);
        };
        const look = (signIn: TkaSignin | undefined): void => {
          if (passes(signIn)) end(true);
        };
        const giveUp = (): void => end(false);
        const timer = setTimeout(giveUp, ms);
        changed.on(name, look);
        changed.on('stop', giveUp);
      });
    },
    stop() {
      stopped = true;
      clearTimeout(retry);
      informer.stop().catch(() => undefined);
      changed.emit('stop');
    },
  };
}

// Who wrote which field is half of an object, and of no use here.
function slim(object: KubernetesObject): void {
  if (object.metadata?.managedFields !== undefined) delete object.metadata.managedFields;
}
