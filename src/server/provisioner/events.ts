// Kubernetes Events, for `kubectl describe`. Best effort: answers do not wait for them, the
// queue and the rate are limited, and failed writes are dropped.
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { cleanText } from '../../util/text.ts';
import { Buckets } from '../http/limits.ts';
import { isStatus } from '../kubernetes/errors.ts';
import type { Kube } from '../kubernetes/kube.ts';
import { type Log, Seldom } from '../log/log.ts';
import { microTime } from './lease.ts';
import { apiVersion, group, type Metadata, paths, type TkaSignin } from './objects.ts';

/** The object that an Event is about. */
export interface Regarding {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Pick<Metadata, 'name' | 'uid' | 'resourceVersion'>;
}

/** What an Event says. */
export interface Told {
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase. */
  readonly reason: string;
  /** What the server did, one word in CamelCase. */
  readonly action: string;
  /** One line for people. It is cleaned and cut. */
  readonly note: string;
}

export type EventReason = 'Provisioned' | 'Refused' | 'Expired' | 'Revoked' | 'Failed';

// Events per second on average, burst size, and length of the queue.
const perSecond = 5;
const burst = 100;
const waitingLimit = 100;
// An identical Event about the same object is written at most once in this time.
const sameMs = 10 * 60_000;
// Pause after the API server has forbidden an Event.
const forbiddenMs = 10 * 60_000;

/** Writes the Events of sign-ins. */
export class SignInEvents {
  readonly #events: ObjectEvents;

  constructor(kube: Kube, namespace: string, log: Log) {
    this.#events = new ObjectEvents(kube, namespace, log);
  }

  /** Queues an Event. Returns at once and never throws; drops the Event if a limit is reached. */
  tell({ metadata }: TkaSignin, reason: EventReason, note: string): void {
    const action = reason === 'Expired' || reason === 'Revoked' ? 'EndAccess' : 'ProvisionAccess';
    const type = reason === 'Refused' || reason === 'Failed' ? 'Warning' : 'Normal';
    this.#events.tell({ apiVersion, kind: 'TkaSignin', metadata }, { type, reason, action, note });
  }

  /** Stops sending and drops the queue. */
  stop(): void {
    this.#events.stop();
  }
}

/** Writes Events about the objects of one namespace in the background. */
export class ObjectEvents {
  readonly #kube: Kube;
  readonly #namespace: string;
  readonly #log: Log;
  readonly #rate = new Buckets(perSecond, burst, 1);
  readonly #said = new Seldom(10_000, sameMs);
  readonly #waiting: object[] = [];
  #isSending = false;
  #silentUntil = Number.NEGATIVE_INFINITY;

  constructor(kube: Kube, namespace: string, log: Log) {
    this.#kube = kube;
    this.#namespace = namespace;
    this.#log = log;
  }

  /** Queues an Event. Returns at once and never throws; drops the Event if a limit is reached. */
  tell(regarding: Regarding, told: Told): void {
    const { uid } = regarding.metadata;
    if (performance.now() < this.#silentUntil || this.#waiting.length >= waitingLimit) return;
    if (!this.#said.is(`${uid} ${told.reason} ${told.note}`) || 'overMs' in this.#rate.take('', 0)) return;
    this.#waiting.push(this.#eventOf(regarding, told));
    if (!this.#isSending) void this.#send();
  }

  /** Stops sending and drops the queue. */
  stop(): void {
    this.#silentUntil = Number.POSITIVE_INFINITY;
    this.#waiting.length = 0;
  }

  async #send(): Promise<void> {
    this.#isSending = true;
    for (let event = this.#waiting.shift(); event !== undefined; event = this.#waiting.shift()) {
      try {
        await this.#kube.create(paths.events(this.#namespace), event);
      } catch (error) {
        if (this.#silentUntil === Number.POSITIVE_INFINITY) break;
        if (isStatus(error, 403)) {
          this.#silentUntil = performance.now() + forbiddenMs;
          this.#waiting.length = 0;
          this.#log.warn(
            { err: error, hints: ['apply deploy/ again: it allows this'] },
            'the server is not allowed to create Events',
          );
        } else this.#log.debug({ err: error }, 'could not create an Event');
      }
    }
    this.#isSending = false;
  }

  /** Returns the object to create: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1 */
  #eventOf({ metadata, ...of }: Regarding, { note, ...told }: Told): object {
    const { name, uid, resourceVersion } = metadata;
    return {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${name.slice(0, 200)}.${randomUUID()}`, namespace: this.#namespace },
      eventTime: microTime(),
      regarding: { ...of, namespace: this.#namespace, name, uid, resourceVersion },
      ...told,
      note: cleanText(note, 1_000),
      reportingController: `${group}/tka-server`,
      reportingInstance: hostname().slice(0, 128) || 'tka-server',
    };
  }
}
