interface Identity {
  /** Rejects with an error that has the HTTP status. */
  whoIs(request: object): Promise<{ readonly username: string; readonly role: string; readonly periodMs: number }>;
}

export function tailnetIdentity(options: object): Identity;
