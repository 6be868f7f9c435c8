import { TkaError } from '../errors.ts';

/** `exec`. */
export async function exec(): Promise<void> {
  throw new TkaError('exec is not built yet');
}
