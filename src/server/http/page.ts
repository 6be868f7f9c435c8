// The frame of the pages for browsers: style, navigation, and a policy that only lets run or load what is in the page.
import { createHash } from 'node:crypto';
import { apiPath } from '../../tka/types.ts';
import type { RouteAnswer } from './answers.ts';
import type { RequestHead } from './contract.ts';

/** Escapes a text for use in an element or in a quoted attribute. */
export const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

export const statusPath = `${apiPath}/memberlist`;
export const documentPath = '/swagger';

// Every pair of text and background has a contrast of at least 4.5:1 (WCAG 2.2, AA).
const style = String.raw`
:root { color-scheme: light dark; --back: #fff; --card: #fff; --soft: #f3f5f7; --line: #d5dae0; --text: #1c2024; --dim: #57606a;
  --link: #0b57d0; --healthy: #137333; --suspected: #8a5200; --dead: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --card: #1b1f24; --soft: #22272d; --line: #3a4048; --text: #e6e9ec; --dim: #a3adb8;
    --link: #8ab4f8; --healthy: #5bd07a; --suspected: #f2b84b; --dead: #ff8a80; }
}
* { box-sizing: border-box; }
html { overflow-anchor: none; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 88rem; padding: 0 1rem 3rem; font: 15px/1.45 system-ui, sans-serif; color: var(--text);
  background: var(--back); overflow-wrap: anywhere; }
a { color: var(--link); text-underline-offset: .2em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px; }
nav { display: flex; gap: 1.25rem; align-items: baseline; padding: .8rem 0; border-bottom: 1px solid var(--line); }
nav b { margin-right: auto; }
nav a { padding: .2rem 0; text-decoration: none; border-bottom: 2px solid transparent; }
nav a:hover { border-color: currentColor; }
nav a[aria-current] { color: var(--text); font-weight: 600; border-color: var(--link); }
h1 { margin: 1.4rem 0 0; font-size: 1.7rem; line-height: 1.25; }
h1 a { text-decoration: none; white-space: nowrap; }
h1 a:hover { text-decoration: underline; }
p { margin: .3rem 0; }
.dim, footer, .count { color: var(--dim); }
footer { margin-top: 1.5rem; }
code { font: .8em/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
.healthy { color: var(--healthy); } .suspected { color: var(--suspected); } .dead { color: var(--dead); }
.unknown { color: var(--dim); }
.away { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[hidden] { display: none !important; }

form { display: flex; flex-wrap: wrap; gap: .5rem .75rem; align-items: center; margin: 1rem 0 .75rem; }
input, button { font: inherit; color: inherit; }
input[type=search] { width: min(26rem, 100%); padding: .4rem .6rem; border: 1px solid var(--dim); border-radius: 6px;
  background: var(--card); }
::placeholder { color: var(--dim); opacity: 1; }
button { padding: .4rem .7rem; border: 1px solid var(--dim); border-radius: 6px; background: var(--soft); cursor: pointer; }
button:hover { border-color: var(--text); }
.updated { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin-left: auto; color: var(--dim); }
.updated input { margin: 0 .3rem 0 0; vertical-align: -1px; accent-color: var(--link); }
.stale { margin: 0 0 .75rem; padding: .5rem .75rem; border: 1px solid var(--dead); border-left-width: 5px; border-radius: 6px;
  color: var(--dead); }

table { width: 100%; border-collapse: collapse; table-layout: fixed; }
th, td { padding: .55rem .6rem; text-align: left; vertical-align: top; font-weight: inherit; }
th:first-child, tbody tr:first-child th { padding-left: 0; }
thead th { position: sticky; top: 0; z-index: 1; padding-block: .4rem; background: var(--back); color: var(--dim);
  box-shadow: inset 0 -1px var(--dim); }
thead button { margin: 0; padding: 0; border: 0; border-radius: 0; background: none; font-weight: 600; white-space: nowrap; }
thead button::after { content: " \2195"; opacity: .75; }
[aria-sort=ascending] button::after { content: " \2191"; }
[aria-sort=descending] button::after { content: " \2193"; }
tbody { border-bottom: 1px solid var(--line); }
tbody tr + tr td { padding-top: .1rem; }
th code, td b, td code { display: block; }
td b { font-weight: 500; }
td code, th code { color: var(--dim); }
td.state { font-weight: 600; white-space: nowrap; }
td.state::before { content: "\25CF\2002"; }
thead { font-size: .93em; }
th.state { width: 8rem; } th.seen { width: 6.75rem; } th.version { width: 5.75rem; } th.labels { width: 27%; }
.labels ul { margin: 0; padding: 0; overflow: hidden; list-style: none; text-overflow: ellipsis; white-space: nowrap; }
.labels li { display: inline; padding: .1rem .35rem; border-radius: 5px; background: var(--soft); font-size: .83em;
  unicode-bidi: isolate; }
th b { margin-right: .6rem; }
.copy { padding: 0 .5rem; font-size: .8em; line-height: 1.7; white-space: nowrap; }

section { margin-top: 1.25rem; padding: 1rem 0 0; border-top: 1px solid var(--line); }
h2 { margin: 0 0 .5rem; font-size: 1.2rem; }
h3 { margin: 0; font-size: 1rem; }
h3 code { font-size: 1em; font-weight: 600; }
.call { margin: 0 0 1rem; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
.call > p { margin: .1rem 0 .5rem; }
.call dl { margin-bottom: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1rem; margin: .4rem 0; }
dt { font-weight: 600; } dd { margin: 0; }
:target { background: var(--soft); }

@media (max-width: 999.98px) {
  body { font-size: 14px; }
  th.labels { width: 16%; } th.state { width: 7.5rem; } th.seen { width: 6.25rem; } th.version { width: 5rem; }
}
@media (max-width: 699.98px) {
  body { padding: 0 .9rem 2rem; font-size: 15px; }
  h1 { font-size: 1.45rem; }
  input[type=search] { width: 100%; padding: .55rem .7rem; font-size: 16px; }
  form > button { padding: .55rem .9rem; }
  .updated { margin-left: 0; }
  table, tbody, caption { display: block; }
  thead { display: none; }
  tbody { margin: 0 0 .75rem; padding: .8rem .9rem; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
  tr { display: grid; grid-template-columns: 1fr auto; row-gap: .1rem; }
  tr + tr { margin-top: .6rem; }
  tbody th, tbody td, tbody tr:first-child th, tbody tr + tr td { padding: 0; }
  tbody tr:first-child .state, tbody tr:first-child .seen { margin-top: .6rem; padding-top: .6rem;
    border-top: 1px solid var(--line); }
  th, .labels, .server, .version { grid-column: 1 / -1; }
  th { display: flex; flex-wrap: wrap; align-items: start; column-gap: .75rem; }
  th b { flex: 1; margin: 0; font-size: 1.1rem; }
  th code { flex: 0 0 100%; }
  td.labels { margin-top: .4rem; }
  .server { order: 1; } .version { order: 2; color: var(--dim); }
  .seen:not(:empty)::before { content: "seen "; color: var(--dim); }
  .version:not(:empty)::before { content: "version "; }
  .labels:empty { display: none; }
  .labels ul { line-height: 1.9; white-space: normal; }
  .labels li { display: inline-block; line-height: 1.5; }
  .copy { padding: .3rem .7rem; font-size: .9rem; line-height: 1.4; }
  dl:not(.codes) { grid-template-columns: 1fr; gap: 0; }
  dl:not(.codes) dd { margin: 0 0 .5rem; }
}
`;

const digest = (text: string): string => createHash('sha256').update(text).digest('base64');
const source = (text: string): string => `'sha256-${digest(text)}'`;
const styleSource = source(style);

export interface Page {
  readonly title: string;
  /** The path of the page. The navigation marks it as current. */
  readonly path: string;
  /** Whether the server has a status page to link to. */
  readonly hasStatus: boolean;
  /** Returns the markup. Not called if the browser already has the page. */
  readonly body: () => string;
  /** Markup for the head. */
  readonly head?: string;
  /** The only script that the page may run. It may send requests to this server and to no other. */
  readonly script?: string;
  /** What the page shows. The page counts as unchanged while this is equal. */
  readonly content: string;
}

// Without an icon, browsers request one. The colour of the dot shows the worst state.
const icon = (state: 'healthy' | 'dead'): string => {
  const colour = state === 'healthy' ? '%2323a047' : '%23d93025';
  return `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${colour}'/></svg>`;
};

/** Returns the link to the page's icon: a dot that is red if anything is wrong. */
export const iconLink = (state: 'healthy' | 'dead' = 'healthy'): string =>
  `<link rel="icon" href="${escaped(icon(state))}">`;

/** Answers with a page, or with 304 if the browser already has one that shows the same. */
export function pageAnswer(request: RequestHead, page: Page): RouteAnswer {
  const { title, path, hasStatus, body, content, head = iconLink(), script } = page;
  const link = (to: string, text: string): string =>
    `<a href="${to}"${to === path ? ' aria-current="page"' : ''}>${text}</a>`;
  const links = [...(hasStatus ? [link(statusPath, 'Clusters')] : []), link(documentPath, 'API')].join('');
  // The tag is weak, because times go on while a page shows the same.
  const tag = `W/"${digest([style, script, title, links, content].join('\n')).slice(0, 27)}"`;
  const headers = { ETag: tag, 'Cache-Control': 'private, no-cache' };
  if (isKnown(request.headers['if-none-match'], tag)) return { status: 304, headers };
  const policy = [
    "default-src 'none'",
    `style-src ${styleSource}`,
    ...(script === undefined ? [] : [`script-src ${source(script)}`, "connect-src 'self'"]),
    'img-src data:',
    "base-uri 'none'",
    `form-action ${script === undefined ? "'none'" : "'self'"}`,
    "frame-ancestors 'none'",
  ];
  return {
    status: 200,
    headers: {
      ...headers,
      'Content-Type': 'text/html; charset=utf-8',
      'Transfer-Encoding': 'chunked',
      'Content-Security-Policy': policy.join('; '),
      'Referrer-Policy': 'no-referrer',
    },
    body: `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
${head}
<style>${style}</style>
</head>
<body>
<nav aria-label="Pages"><b>TKA</b>${links}</nav>
<main>
${body()}
</main>${script === undefined ? '' : `\n<script>${script}</script>`}
</body>
</html>
`,
  };
}

/** Returns whether an If-None-Match header names the tag. Compares weakly, as RFC 9110 (13.1.2) requires. */
function isKnown(header: string | undefined, tag: string): boolean {
  return (header ?? '')
    .split(',')
    .some((each) => each.trim() === '*' || each.trim().replace(/^W\//, '') === tag.slice(2));
}
