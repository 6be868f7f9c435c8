// Checks the document itself; test/cluster/openapi.test.ts compares it with the answers of the server.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import { expect, test } from 'vitest';
import { Refusal } from '../../../src/server/http/contract.ts';
import { openApi } from '../../../src/server/http/openapi.ts';
import { apiRoutes, openRoutes } from '../../../src/server/http/routes.ts';
import { documented, problemOf } from '../documented.ts';
import { api, ask, login, members, sample, serve } from '../support.ts';

test('is a valid OpenAPI document', async () => {
  expect(await new Validator().validate(structuredClone(openApi))).toEqual({ valid: true });
});

test('has each route, and no other', () => {
  const routes = [...apiRoutes, ...openRoutes].flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect([...new Set([...documented.keys()].map((key) => key.replace(/ \d+$/, '')))].sort()).toEqual(routes.sort());
});

test('has each status of a refusal', () => {
  const folder = join(import.meta.dirname, '../../../src/server');
  const source = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('\n');
  const statuses = [...source.matchAll(/new Refusal\(\s*(\d+)/g)].map(([, status]) => status);
  expect(statuses.length).toBeGreaterThan(10);
  const joined = Object.keys(openApi.components.responses).map((name) => name.split('-')[1]);
  const known = new Set([...[...documented.keys()].map((key) => key.split(' ')[2]), ...joined]);
  expect(statuses.filter((status) => !known.has(status))).toEqual([]);
});

test('matches each form of a memberlist', async () => {
  const schema = documented.get(`GET ${api}/memberlist 200`)?.content?.['application/json']?.schema ?? { not: {} };
  for (const rows of [members.slice(0, 1), members.slice(2, 3), JSON.parse(sample('memberlist-json').body)]) {
    await serve({ members: () => rows });
    expect(problemOf(schema, JSON.parse((await ask('GET', `${api}/memberlist`)).body))).toBeUndefined();
  }
});

test('does not match a wrong body', () => {
  const schema = { $ref: '#/components/schemas/Login' };
  expect(problemOf(schema, login)).toBeUndefined();
  expect(problemOf(schema, { ...login, until: 'soon' })).toMatch(/date-time/);
  expect(problemOf(schema, { ...login, token: 'x' })).toMatch(/additional/);
});

test('is served as JSON, or as a page without scripts, to any caller', async () => {
  await serve({
    identity: {
      whoIs() {
        throw new Refusal(403, { message: 'no' });
      },
    },
  });
  expect(JSON.parse((await ask('GET', '/swagger')).body)).toEqual(openApi);
  const { headers, body } = await ask('GET', '/swagger', { accept: 'text/html' });
  expect(headers['content-security-policy']).not.toContain('script-src');
  expect(body).not.toMatch(/<script|src=/);
  for (const path of Object.keys(openApi.paths)) expect(body).toContain(path);
  for (const { url } of openApi.servers) expect(body).toContain(url);
  for (const { description } of Object.values(openApi.components.responses)) expect(body).toContain(description);
});

test('its page shows each error once, and its links lead somewhere', async () => {
  await serve();
  const { body } = await ask('GET', '/swagger', { accept: 'text/html' });
  const escaped = (text: string) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
  for (const [key, { description }] of documented) {
    const isError = Number(key.split(' ')[2]) >= 400;
    if (isError) expect(body.split(escaped(description)), key).toHaveLength(2);
    else expect(body, key).toContain(escaped(description));
  }
  for (const name of Object.keys(openApi.components.schemas)) expect(body).toContain(`id="${name}"`);
  const ids = [...body.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const links = [...body.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id);
  expect(links.filter((link) => !ids.includes(link))).toEqual([]);
  expect(links.length).toBeGreaterThan(10);
});

test('a browser that has the page gets 304 while it is unchanged', async () => {
  await serve();
  const { headers } = await ask('GET', '/swagger', { accept: 'text/html' });
  const again = { accept: 'text/html', 'if-none-match': headers.etag as string };
  expect(await ask('GET', '/swagger', again)).toMatchObject({ status: 304, body: '' });
  // With gossip it has another link.
  await serve({ members: () => members });
  expect((await ask('GET', '/swagger', again)).status).toBe(200);
});
