// The OpenAPI document as the tests read it.
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { openApi } from '../../src/server/http/openapi.ts';

/** One documented answer. */
export interface Documented {
  readonly description: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
}

/** The documented answers by `METHOD path status`. */
export const documented: ReadonlyMap<string, Documented> = new Map(
  Object.entries(openApi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { responses }]) =>
      Object.entries(responses).map(
        ([status, response]) =>
          [`${method.toUpperCase()} ${path} ${status}`, response as unknown as Documented] as [string, Documented],
      ),
    ),
  ),
);
const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema({ $id: 'document', components: openApi.components });

/** Returns how a value differs from its documentation, or undefined. */
export function problemOf(schema: object, value: unknown): string | undefined {
  const text = JSON.stringify(schema).replaceAll('"#/components', '"document#/components');
  return ajv.validate(JSON.parse(text), value) ? undefined : ajv.errorsText();
}
