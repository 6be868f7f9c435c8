// How a TKA server says no, or nothing that can be believed.
import { TkaError } from '../util/errors.ts';

/** The server said no, in the protocol's own form: believed at once. */
export class Refused extends TkaError {
  override readonly name = 'Refused';
  /** Of HTTP. */
  readonly status: number;

  constructor(message: string, status: number, options: { hints?: readonly string[] } = {}) {
    super(message, options);
    this.status = status;
  }

  /** True for an error in the policy or the set-up (422; the Go server's 500): it says nothing against tokens in use. */
  get isSetUp(): boolean {
    return this.status === 422 || this.status === 500;
  }
}

/** The server knows no sign-in of ours (401): a new login is the cure. */
export class NotSignedIn extends TkaError {
  override readonly name = 'NotSignedIn';
}
