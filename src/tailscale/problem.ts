import { TkaError } from '../util/errors.ts';

/** Why tailscaled gives no answer. */
export type TailscaleProblem =
  | 'absent'
  | 'not-running'
  | 'denied'
  | 'no-answer'
  | 'unreadable'
  | 'stopped'
  | 'needs-login'
  | 'needs-approval'
  | 'other-user'
  | 'starting';

/** tailscaled gives no answer, for the reason in `problem`. The hints say what to type. */
export class TailscaleError extends TkaError {
  override readonly name = 'TailscaleError';
  readonly problem: TailscaleProblem;

  constructor(problem: TailscaleProblem, message: string, hints: readonly string[], cause?: unknown) {
    super(message, { hints, cause });
    this.problem = problem;
  }
}

/** Returns the command or action that starts tailscaled. */
export function startHint(platform: NodeJS.Platform): string {
  return platform === 'linux' ? 'sudo systemctl start tailscaled' : 'open the Tailscale app';
}
