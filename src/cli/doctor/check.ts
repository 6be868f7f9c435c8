import { presentable } from '../../terminal/output.ts';
import { TkaError } from '../../util/errors.ts';
import { cleanText } from '../../util/text.ts';

/** The links of the chain, in order. Scripts know them by these names. */
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

/** What is to be said of one link. */
export interface Verdict {
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** The evidence, or what a skipped check depends on. */
  readonly detail: string;
  /** The one thing to do about it. */
  readonly hint: string | null;
}

/** A link and its verdict, as `-o json` has it. */
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

// Servers, certificates and files have their say in both: none of it reaches a terminal raw, and no token at all.
const shown = (text: string, limit: number): string => cleanText(presentable(text), limit);

export const ok = verdict('ok');
export const warning = verdict('warning');
export const failed = verdict('failed');
export const skipped = verdict('skipped');

/** What an error says, with its first hint unless another is given. */
export function failedBy(error: unknown, hint?: string): Verdict {
  const message = error instanceof Error ? error.message : String(error);
  return failed(message, hint ?? (error instanceof TkaError ? error.hints[0] : null) ?? null);
}

/** Skipped, since another link is not in order. */
export function dependsOn(name: CheckName): Verdict {
  return skipped(`depends on ${name}`);
}

/** What follows from a link for those behind it: nothing where it is in order, else what they are skipped with. */
export function consequence(name: CheckName, { status, detail }: Verdict): Verdict | undefined {
  if (status === 'failed') return dependsOn(name);
  return status === 'skipped' ? skipped(detail) : undefined;
}

/** The verdicts so far. */
export class Checks {
  readonly #verdicts = new Map<CheckName, Verdict>();

  set(name: CheckName, found: Verdict): Verdict {
    this.#verdicts.set(name, found);
    return found;
  }

  /** Sets those that have no verdict yet. */
  setRest(names: readonly CheckName[], found: Verdict): void {
    for (const name of names) if (!this.#verdicts.has(name)) this.set(name, found);
  }

  has(name: CheckName, status: Verdict['status']): boolean {
    return this.#verdicts.get(name)?.status === status;
  }

  /** All links in order. */
  list(): Check[] {
    return checkNames.map((name) => ({ name, ...(this.#verdicts.get(name) ?? skipped('was not looked at')) }));
  }
}
