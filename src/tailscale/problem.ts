import { TkaError } from '../util/errors.ts';

/** Why the tailnet cannot be asked. */
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

/** tailscaled cannot be asked, for the reason in `problem`. The hints say what to type. */
export class TailscaleError extends TkaError {
  override readonly name = 'TailscaleError';
  readonly problem: TailscaleProblem;

  constructor(problem: TailscaleProblem, message: string, hints: readonly string[], cause?: unknown) {
    super(message, { hints, cause });
    this.problem = problem;
  }
}

/** Returns what starts tailscaled. */
export function startHint(platform: NodeJS.Platform): string {
  return platform === 'linux' ? 'sudo systemctl start tailscaled' : 'open the Tailscale app';
}
