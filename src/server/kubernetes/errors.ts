// Errors of calls to the API server.

/** A call that the API server refused (with `status`), or that did not reach it. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly status: number | undefined;
  /** Whether the API server itself refused the call, not something before it: the answer was a Status object. */
  readonly isStatusObject: boolean;

  constructor(message: string, status?: number, cause?: unknown, isStatusObject = false) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.isStatusObject = isStatusObject;
  }
}

/** Returns whether an error is a response of the API server with one of these statuses. */
export const isStatus = (error: unknown, ...statuses: readonly number[]): boolean =>
  error instanceof KubeError && error.status !== undefined && statuses.includes(error.status);

/** Returns the error for a refused call. `body` is the parsed Status object, if there is one. */
export function refusalOf(body: unknown, status: number, url: string): KubeError {
  const { message, kind } = (body ?? {}) as { readonly message?: unknown; readonly kind?: unknown };
  const isSaid = typeof message === 'string' && message !== '';
  return new KubeError(isSaid ? message : `${url} answered ${status}`, status, undefined, kind === 'Status');
}

/** Returns the message of an error's innermost cause. */
export function reasonOf(error: unknown): string {
  let innermost: unknown = error;
  while (innermost instanceof Error && innermost.cause instanceof Error) innermost = innermost.cause;
  if (innermost instanceof AggregateError && innermost.errors.length > 0) return reasonOf(innermost.errors[0]);
  return innermost instanceof Error ? innermost.message : String(innermost);
}
