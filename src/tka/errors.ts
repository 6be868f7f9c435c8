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

  constructor(
    message: string,
    patience: number,
    options: { hints?: readonly string[]; cause?: unknown; answered?: boolean } = {},
  ) {
    super(message, options);
    this.patience = patience;
    this.answered = options.answered ?? false;
  }
}
