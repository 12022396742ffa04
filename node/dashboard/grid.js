// Owns the card with a table: its rows and cells, filled again without being built again.

import { h, reconcile, setAttr, setText } from './dom.js';
import { jsonLine } from './format.js';
import { pretty } from './json-view.js';
import { deviceHref } from './router.js';

/** Anything as one short text. */
export const text = (x) => (typeof x === 'string' ? (x.length > 300 ? `${x.slice(0, 299)}…` : x) : x === null || x === undefined ? '–' : jsonLine(x, 300));

// Cells are plain descriptions, so that a table's row can be filled again without being built again.
export const cell = (shown, tone = null, title = null) => ({ kind: 'text', shown, tone, title });
export const pill = (shown, tone, title = null) => ({ kind: 'pill', shown, tone, title });
export const deviceLink = (id) => ({ kind: 'link', shown: text(id), href: typeof id === 'string' ? deviceHref(id) : null });
export const payload = (p) => ({ kind: 'payload', shown: text(p.message), body: p.payload });

/** A card with a table; `>` at a column's end aligns it right. */
export function grid(title, columns, empty, testid) {
  const names = columns.map((c) => c.replace('>', ''));
  const right = columns.map((c) => c.endsWith('>'));
  const body = h('tbody');
  const nothing = h('p.quiet', { hidden: true }, empty);
  const table = h('table', null, h('thead', null, h('tr', null, names.map((name, i) => h(right[i] ? 'th.num' : 'th', { scope: 'col' }, name)))), body);
  const head = h('div.card-head', null, h('h2', null, title));
  const element = h('section.card', { 'data-testid': `health-${testid}`, 'aria-label': title }, head, h('div.scroll-x', null, table), nothing);
  const makeLine = () => h('tr', null, names.map((_, i) => h(right[i] ? 'td.num' : 'td')));
  return {
    element, head,
    fill(items, keyOf, cellsOf) {
      nothing.hidden = items.length > 0;
      table.hidden = items.length === 0;
      reconcile(body, items, (item) => String(keyOf(item)), makeLine, (line, item) => cellsOf(item).forEach((c, i) => fillCell(line.children[i], c)));
    },
  };
}

function fillCell(td, c) {
  if (typeof c === 'string') c = cell(c);
  if (td.kind !== c.kind) { td.kind = c.kind; td.replaceChildren(...makeCell(td, c)); }
  const { main, extra } = td.parts;
  setText(main, c.shown);
  if (c.kind === 'text') { setAttr(td, 'data-tone', c.tone); setAttr(td, 'title', c.title); }
  if (c.kind === 'pill') { setAttr(main, 'data-tone', c.tone); setAttr(main, 'title', c.title); }
  if (c.kind === 'link') setAttr(main, 'href', c.href);
  if (c.kind === 'error') setText(extra, c.place);
  if (c.kind === 'payload') setText(extra, pretty(c.body));
}

function makeCell(td, c) {
  const main = h({ text: 'span', pill: 'span.pill', link: 'a.id', error: 'div.error-message', payload: 'summary' }[c.kind]);
  const extra = c.kind === 'error' ? h('code.place') : c.kind === 'payload' ? h('pre.json') : null;
  td.parts = { main, extra };
  if (c.kind === 'payload') return [h('details', null, main, extra)];
  return extra ? [main, extra] : [main];
}

/** Changes a pill's text and colour. */
export function setPill(element, shown, tone) { setText(element, shown); setAttr(element, 'data-tone', tone); }
