// What a route answers with, before it is written to a connection.
import { createHash } from 'node:crypto';
import type { Access } from './contract.ts';

export interface RouteAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** What the caller was given by it, or what ended; never sent. */
  readonly access?: Access;
}

type Headers = Readonly<Record<string, string>>;

export const jsonAnswer = (status: number, value: unknown, headers: Headers = {}): RouteAnswer => ({
  status,
  headers: { 'Content-Type': 'application/json; charset=utf-8', ...headers },
  body: JSON.stringify(value),
});

export const textAnswer = (status: number, body: string, headers: Headers = {}): RouteAnswer => ({
  status,
  headers: { 'Content-Type': 'text/plain', ...headers },
  body,
});

export const notFound = textAnswer(404, '404 page not found');

/** Text, made safe within an element and within a quoted attribute. */
export const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

// Both colour schemes from one list of colours; whoever wants neither has his browser's own.
const style = `
:root { color-scheme: light dark; --line: light-dark(#d5dae0, #3a4048); --dim: light-dark(#57606a, #9aa4af);
  --back: light-dark(#fff, #14171b); --stripe: light-dark(#f6f8fa, #1b1f24); --text: light-dark(#1c2024, #e6e9ec);
  --healthy: light-dark(#137333, #5bd07a); --suspected: light-dark(#9a5b00, #f2b84b); --dead: light-dark(#b3261e, #ff8a80); }
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.4rem; }
p, .dim { color: var(--dim); }
input { font: inherit; padding: .3rem .6rem; width: min(24rem, 100%); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .5rem .6rem; text-align: left; vertical-align: top; }
tbody:only-of-type tr:nth-child(even), tbody:nth-of-type(even) { background: var(--stripe); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th button::after { content: " \\2195"; color: var(--dim); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td { overflow-wrap: anywhere; min-width: 6rem; }
td:has(code), td:has(.labels) { min-width: 14rem; }
th, time { white-space: nowrap; }
ul { list-style: none; margin: 0; padding: 0; }
code, .labels { font: .85em/1.7 ui-monospace, monospace; }
.healthy, .suspected, .dead { font-weight: 600; white-space: nowrap; }
.healthy { color: var(--healthy); } .suspected { color: var(--suspected); } .dead { color: var(--dead); }
[hidden] { display: none; }
`;

const source = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** A page for a browser, which may run this script and nothing else. `body` is markup, `title` is text. */
export function htmlAnswer(title: string, body: string, script?: string): RouteAnswer {
  const policy = [
    "default-src 'none'",
    `style-src ${source(style)}`,
    ...(script === undefined ? [] : [`script-src ${source(script)}`]),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return {
    status: 200,
    headers: {
      'Content-Type': 'text/html; charset=utf-8',
      'Transfer-Encoding': 'chunked',
      'Content-Security-Policy': policy.join('; '),
      'Referrer-Policy': 'no-referrer',
    },
    body: `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
${body}${script === undefined ? '' : `\n<script>${script}</script>`}
</body>
</html>
`,
  };
}
