// How a TKA server says no, or nothing that can be believed.
import { TkaError } from '../errors.ts';

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

/** Nothing to believe: no connection, a server error, or something that is not the protocol. Trying again may help. */
export class Unavailable extends TkaError {
  override readonly name = 'Unavailable';
  /** How long it is worth to go on trying while this is the answer, in milliseconds. */
  readonly patience: number;
  /** The server did answer, with something of no use: the message says with what. */
  readonly answered: boolean;
  /** The server is not there: no connection, no whole answer, or a gateway that says so (HTTP 502, 503, 504). */
  readonly away: boolean;
  /** The pause before the next try that the server asks for, in milliseconds; undefined if it asks for none. */
  readonly pause: number | undefined;

  constructor(
    message: string,
    patience: number,
    options: { hints?: readonly string[]; cause?: unknown; answered?: boolean; away?: boolean; pause?: number } = {},
  ) {
    super(message, options);
    this.patience = patience;
    this.pause = options.pause;
    this.answered = options.answered ?? false;
    this.away = options.away ?? false;
  }
}
