import { presentable } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';

/** All checks, in order. Scripts use these names. */
export const checkNames = [
  'configuration',
  'tailscaled',
  'name',
  'tcp',
  'tls',
  'tka-api',
  'grant',
  'sign-in',
  'token',
  'api-server',
  'token-accepted',
  'rbac',
  'kubeconfig',
  'kubectl',
  'path',
  'cache',
  'clock',
] as const;
export type CheckName = (typeof checkNames)[number];

/** The result of a check. */
export interface Verdict {
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** The evidence, or the check that a skipped check depends on. */
  readonly detail: string;
  /** The next thing to do. */
  readonly hint: string | null;
}

/** A check with its result, as `-o json` prints it. */
export interface Check extends Verdict {
  readonly name: CheckName;
}

const verdict =
  (status: Verdict['status']) =>
  (detail: string, hint: string | null = null): Verdict => ({
    status,
    detail: shown(detail, 600),
    // The grant that is missing takes 400 characters.
    hint: hint === null ? null : shown(hint, 1000),
  });

// Both can contain text from servers, certificates and files, so clean it and redact tokens.
const shown = (text: string, limit: number): string => cleanText(presentable(text), limit);

export const ok = verdict('ok');
export const warning = verdict('warning');
export const failed = verdict('failed');
export const skipped = verdict('skipped');

/** Returns a failure with an error's message. The hint is `hint`, or else the error's first one. */
export function failedBy(error: unknown, hint?: string): Verdict {
  const message = error instanceof Error ? error.message : String(error);
  return failed(message, hint ?? (error instanceof TkaError ? error.hints[0] : null) ?? null);
}

/** Returns a skipped check that depends on a failed one. */
export function dependsOn(name: CheckName): Verdict {
  return skipped(`depends on ${name}`);
}

/** Returns the verdict for checks that depend on this one; undefined if they can run. */
export function consequence(name: CheckName, { status, detail }: Verdict): Verdict | undefined {
  if (status === 'failed') return dependsOn(name);
  return status === 'skipped' ? skipped(detail) : undefined;
}

/** Collects the results of checks. */
export class Checks {
  readonly #verdicts = new Map<CheckName, Verdict>();

  /** The number of checks with a result. */
  get size(): number {
    return this.#verdicts.size;
  }

  set(name: CheckName, found: Verdict): Verdict {
    this.#verdicts.set(name, found);
    return found;
  }

  /** Makes a failed check a warning: it failed, but something works without it. */
  weaken(name: CheckName, remark: string): void {
    const found = this.#verdicts.get(name);
    if (found?.status === 'failed') this.set(name, warning(`${found.detail}; ${remark}`, found.hint));
  }

  /** Sets the checks that have no result yet. */
  setRest(names: readonly CheckName[], found: Verdict): void {
    for (const name of names) if (!this.#verdicts.has(name)) this.set(name, found);
  }

  has(name: CheckName, status: Verdict['status']): boolean {
    return this.#verdicts.get(name)?.status === status;
  }

  /** Returns all checks in order. */
  list(): Check[] {
    return checkNames.map((name) => ({ name, ...(this.#verdicts.get(name) ?? skipped('not checked')) }));
  }
}
