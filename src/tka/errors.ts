// The refusals of a TKA server.
import { TkaError } from '../util/errors.ts';

/** The server refused, in the protocol's form. A retry does not help. */
export class Refused extends TkaError {
  override readonly name: string = 'Refused';
  /** The HTTP status. */
  readonly status: number;

  constructor(message: string, status: number, options: { hints?: readonly string[] } = {}) {
    super(message, options);
    this.status = status;
  }

  /**
   * True for an error in the policy or the setup (422; the Go server sends 500; 409 for a joined cluster that conflicts
   * with another one). Tokens in use stay valid.
   */
  get isSetUp(): boolean {
    return this.status === 409 || this.status === 422 || this.status === 500;
  }
}

/** The server has no sign-in for this user (401). A new login is needed. */
export class NotSignedIn extends TkaError {
  override readonly name = 'NotSignedIn';
}
