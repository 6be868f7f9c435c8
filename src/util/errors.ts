/** Extra facts about an error for its reader. */
export interface TkaErrorOptions {
  /** What to type or do next, one line each. */
  readonly hints?: readonly string[];
  /** 1 failed, 2 wrong usage, 130 interrupted. */
  readonly exitCode?: number;
  readonly cause?: unknown;
  /** True if the user has just read the message, so it is not printed again. */
  readonly heard?: boolean;
}

/** An error for people: one lower-case line, hints, and an exit status. */
export class TkaError extends Error {
  override readonly name: string = 'TkaError';
  readonly hints: readonly string[];
  readonly exitCode: number;
  readonly heard: boolean;

  constructor(message: string, options: TkaErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.hints = options.hints ?? [];
    this.exitCode = options.exitCode ?? 1;
    this.heard = options.heard ?? false;
  }
}

/** Returns the hints of an error, or a last resort if it has none. `name` is the cluster or server in question. */
export function hintsOf(error: TkaError, name?: string): readonly string[] {
  if (error.hints.length > 0) return error.hints;
  // Leave out an untrusted name with characters that a shell interprets.
  const known = name !== undefined && /^[\p{L}\p{N}][\p{L}\p{N}._:/-]*$/u.test(name);
  return [`kubectl tka doctor${known ? ` ${name}` : ''}`];
}

/** Wrong usage: unknown flag, bad value, ambiguous name. Exit status 2. */
export class UsageError extends TkaError {
  override readonly name = 'UsageError';

  constructor(message: string, options: Omit<TkaErrorOptions, 'exitCode'> = {}) {
    super(message, { ...options, exitCode: 2 });
  }
}

/** Returns the `code` of a Node system error (`ENOENT`, `ECONNREFUSED`) or of its causes; undefined without one. */
export function systemCode(error: unknown): string | undefined {
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = e.cause, depth++) {
    const code = (e as NodeJS.ErrnoException).code;
    if (typeof code === 'string') return code;
    if (e instanceof AggregateError) {
      const inner = e.errors.map(systemCode).find((c) => c !== undefined);
      if (inner !== undefined) return inner;
    }
  }
  return undefined;
}
