/** Extra facts that an error carries to the person who reads it. */
export interface TkaErrorOptions {
  /** What to type or do next, one line each. */
  readonly hints?: readonly string[];
  /** 1 failed, 2 wrong usage, 130 interrupted. */
  readonly exitCode?: number;
  readonly cause?: unknown;
  /** The person has read it a moment ago: it is not printed again. */
  readonly heard?: boolean;
}

/** An error meant for a person: one lower-case line, hints, and the exit status that goes with it. */
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

/** The hints of an error; for one without, the last resort. `name` is the cluster or server that it is about. */
export function hintsOf(error: TkaError, name?: string): readonly string[] {
  if (error.hints.length > 0) return error.hints;
  // A name from elsewhere that a shell would take apart is left out.
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

/** The `code` of a Node system error (`ENOENT`, `ECONNREFUSED`), looked for through its causes; undefined if none. */
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
