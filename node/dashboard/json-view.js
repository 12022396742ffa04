// Owns the pretty printing of a JSON value as coloured text nodes.

import { h } from './dom.js';

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g;
const MOST = 64000; // Characters that are coloured and shown; a larger state is cut and says so.

/** The text that is shown and copied. */
export function pretty(value) {
  try { return JSON.stringify(value, null, 2) ?? 'null'; } catch { return 'null'; }
}

/** Fills `element` with the coloured text. */
export function fillJson(element, text) {
  const cut = text.length > MOST;
  const source = cut ? text.slice(0, MOST) : text;
  const parts = [];
  let at = 0;
  for (const match of source.matchAll(TOKEN)) {
    if (match.index > at) parts.push(source.slice(at, match.index));
    const [all, string, colon, word] = match;
    if (string && colon) parts.push(h('span.j-key', null, string), colon);
    else parts.push(h(string ? 'span.j-string' : word ? 'span.j-word' : 'span.j-number', null, all));
    at = match.index + all.length;
  }
  parts.push(source.slice(at));
  if (cut) parts.push(h('span.j-word', null, `\n… cut here: ${text.length} characters in all; “Copy” has everything`));
  element.replaceChildren(...parts);
}
