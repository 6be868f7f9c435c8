import { TkaError } from '../errors.ts';

/** `use`. */
export async function use(): Promise<void> {
  throw new TkaError('use is not built yet');
}
