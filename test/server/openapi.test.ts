import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { type HandlerOptions, Refusal } from '../../src/server/http/contract.ts';
import { openApi } from '../../src/server/http/openapi.ts';
import { apiRoutes, openRoutes } from '../../src/server/http/routes.ts';
import { alice, api, ask, login, members, sample, serve, signedIn, signedOut } from './support.ts';

interface Documented {
  readonly headers: Readonly<Record<string, unknown>>;
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
}

/** What is documented, as `METHOD path status`. */
const documented: ReadonlyMap<string, Documented> = new Map(
  Object.entries(openApi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { responses }]) =>
      Object.entries(responses).map(
        ([status, response]) =>
          [`${method.toUpperCase()} ${path} ${status}`, response as unknown as Documented] as [string, Documented],
      ),
    ),
  ),
);

interface Case {
  readonly options?: Partial<HandlerOptions>;
  readonly accept?: string;
  readonly body?: string;
}
const refusedWith = (status: number, retryAfterSeconds?: number): Partial<HandlerOptions> => ({
  identity: {
    whoIs() {
      throw new Refusal(status, { message: 'no', advice: ['a'], cause: { message: 'b' } }, retryAfterSeconds);
    },
  },
});
const pending: Partial<HandlerOptions> = {
  signIns: {
    ...signedIn,
    get: async () => ({ answer: login, provisioned: false }),
    kubeconfig: async () => 'pending',
  },
};
const noRole: Partial<HandlerOptions> = {
  identity: { whoIs: () => ({ ...alice, problem: new Refusal(422, { message: 'the role does not exist' }) }) },
};

const cases: Record<string, readonly Case[]> = {
  [`POST ${api}/login 202`]: [{}],
  [`POST ${api}/login 422`]: [{ options: noRole }],
  [`GET ${api}/login 200`]: [{}],
  [`GET ${api}/login 202`]: [{ options: pending }],
  [`GET ${api}/login 401`]: [{ options: { signIns: signedOut } }],
  [`GET ${api}/kubeconfig 200`]: [{}, { accept: 'application/yaml' }],
  [`GET ${api}/kubeconfig 202`]: [{ options: pending }],
  [`GET ${api}/kubeconfig 401`]: [{ options: { signIns: signedOut } }],
  [`POST ${api}/logout 200`]: [{}],
  [`POST ${api}/logout 404`]: [{ options: { signIns: signedOut } }],
  [`GET ${api}/cluster-info 200`]: [{}],
  [`GET ${api}/memberlist 200`]: [
    { options: { members: () => members.slice(0, 1) } },
    { options: { members: () => JSON.parse(sample('memberlist-json').body) } },
    { options: { members: () => members.slice(2, 3) } },
    { options: { members: () => members }, accept: 'text/html' },
  ],
  [`GET ${api}/memberlist 404`]: [{}],
  'GET /swagger 200': [{}, { accept: 'text/html' }],
  'GET /swagger 413': [{ body: 'x'.repeat(5000) }],
};
for (const [path, methods] of apiRoutes) {
  for (const method of Object.keys(methods)) {
    cases[`${method} ${path} 400`] = [{ options: refusedWith(400) }];
    cases[`${method} ${path} 403`] = [{ options: refusedWith(403) }];
    cases[`${method} ${path} 421`] = [{ options: refusedWith(421) }];
    cases[`${method} ${path} 413`] = [{ body: 'x'.repeat(5000) }];
    cases[`${method} ${path} 500`] = [
      { options: refusedWith(500) },
      { options: { identity: { whoIs: () => Promise.reject(new Error('x')) } } },
    ];
    cases[`${method} ${path} 503`] = [{ options: refusedWith(503, 1) }];
  }
}

test('it is an OpenAPI document', async () => {
  expect(await new Validator().validate(structuredClone(openApi))).toEqual({ valid: true });
});

test('it has every route, and no other', () => {
  const routes = [...apiRoutes, ...openRoutes].flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect([...new Set([...documented.keys()].map((key) => key.replace(/ \d+$/, '')))].sort()).toEqual(routes.sort());
});

test('it has every status that a caller can be refused with', () => {
  const folder = join(import.meta.dirname, '../../src/server');
  const source = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('\n');
  const statuses = [...source.matchAll(/new Refusal\(\s*(\d+)/g)].map(([, status]) => status);
  expect(statuses.length).toBeGreaterThan(10);
  const known = new Set([...documented.keys()].map((key) => key.split(' ')[2]));
  expect(statuses.filter((status) => !known.has(status))).toEqual([]);
});

const ajv = new Ajv2020({ strict: false });
addFormats.default(ajv);
ajv.addSchema({ $id: 'document', components: openApi.components });

/** Why a body is not what is documented; undefined where it is. */
function problemOf(schema: object, value: unknown): string | undefined {
  const text = JSON.stringify(schema).replaceAll('"#/components', '"document#/components');
  return ajv.validate(JSON.parse(text), value) ? undefined : ajv.errorsText();
}

test('what it says is answered, all of it', async () => {
  expect(Object.keys(cases).sort()).toEqual([...documented.keys()].sort());
  for (const [key, list] of Object.entries(cases)) {
    const [method = '', path = '', status] = key.split(' ');
    const { headers, content = {} } = documented.get(key) ?? { headers: {} };
    const seen = new Set<string>();
    for (const { options, accept, body } of list) {
      await serve({ ...options });
      const answer = await ask(method, path, accept === undefined ? {} : { accept }, body);
      expect(String(answer.status), key).toBe(status);
      expect(Object.keys(answer.headers), key).toEqual(
        expect.arrayContaining(Object.keys(headers).map((name) => name.toLowerCase())),
      );
      if (!('Retry-After' in headers)) expect(answer.headers, key).not.toHaveProperty('retry-after');
      const type = answer.headers['content-type']?.split(';')[0];
      if (type === undefined) {
        expect(answer.body, key).toBe('');
        continue;
      }
      seen.add(type);
      const value = /json/.test(type) ? JSON.parse(answer.body) : /yaml/.test(type) ? parse(answer.body) : answer.body;
      expect(problemOf(content[type]?.schema ?? { not: {} }, value), `${key} ${type}`).toBeUndefined();
    }
    expect([...seen].sort(), key).toEqual(Object.keys(content).sort());
  }
});

test('a body that is not as documented would be noticed', () => {
  const schema = { $ref: '#/components/schemas/Login' };
  expect(problemOf(schema, login)).toBeUndefined();
  expect(problemOf(schema, { ...login, until: 'soon' })).toMatch(/date-time/);
  expect(problemOf(schema, { ...login, token: 'x' })).toMatch(/additional/);
});

test('it is served as JSON, or as a page without scripts, to anybody', async () => {
  await serve(refusedWith(403));
  expect(JSON.parse((await ask('GET', '/swagger')).body)).toEqual(openApi);
  const { headers, body } = await ask('GET', '/swagger', { accept: 'text/html' });
  expect(headers['content-security-policy']).not.toContain('script-src');
  expect(body).not.toMatch(/<script|<a |src=|href=/);
  for (const path of Object.keys(openApi.paths)) expect(body).toContain(path);
});
