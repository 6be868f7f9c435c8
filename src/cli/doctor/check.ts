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
  /** The evidence, or what a skipped check depends on. */
  readonly detail: string;
  /** The one thing to do about it. */
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
    hint: hint === null ? null : shown(hint, 300),
  });

// Both can hold text of servers, certificates and files: it is cleaned, and tokens are redacted.
const shown = (text: string, limit: number): string => cleanText(presentable(text), limit);

export const ok = verdict('ok');
export const warning = verdict('warning');
export const failed = verdict('failed');
export const skipped = verdict('skipped');

/** Returns a failure with an error's message, and its first hint unless another is given. */
export function failedBy(error: unknown, hint?: string): Verdict {
  const message = error instanceof Error ? error.message : String(error);
  return failed(message, hint ?? (error instanceof TkaError ? error.hints[0] : null) ?? null);
}

/** Returns a skipped check: another one failed. */
export function dependsOn(name: CheckName): Verdict {
  return skipped(`depends on ${name}`);
}

/** Returns what later checks are skipped with because of this one; undefined if they can run. */
export function consequence(name: CheckName, { status, detail }: Verdict): Verdict | undefined {
  if (status === 'failed') return dependsOn(name);
  return status === 'skipped' ? skipped(detail) : undefined;
}

/** The results so far. */
export class Checks {
  readonly #verdicts = new Map<CheckName, Verdict>();

  set(name: CheckName, found: Verdict): Verdict {
    this.#verdicts.set(name, found);
    return found;
  }

  /** Sets those that have no result yet. */
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
