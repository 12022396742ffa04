// Owns the making and updating of elements. Data reaches the page only as text nodes and plain
// attributes; nothing here, or anywhere in the dashboard, parses markup.

/** `h('div.card.wide', {title: 'x', onclick: f}, 'text', child)`; `null` and `false` children are left out. */
export function h(spec, attributes, ...children) {
  const [tag, ...classes] = spec.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(attributes ?? {})) {
    // An ARIA state says "false" in full; any other attribute that is false is left out.
    const state = name.startsWith('aria-');
    if (value === null || value === undefined || (value === false && !state)) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true && !state ? '' : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

const shown = new WeakMap();

/** Sets an element's text only if it changed: reading back textContent would cost more than this map. */
export function setText(element, text) {
  if (shown.get(element) === text) return false;
  shown.set(element, text);
  element.textContent = text;
  return true;
}

/** Sets an attribute only if it changed; `null` removes it. */
export function setAttr(element, name, value) {
  if (value === null) { if (element.hasAttribute(name)) element.removeAttribute(name); return; }
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * Keeps `parent`'s children in step with `items` by key, re-using elements, so that focus, selection
 * and open <details> survive an update. `create(item)` returns an element, `update(element, item)` fills it.
 */
export function reconcile(parent, items, keyOf, create, update) {
  const old = parent.reconciled ?? new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (now.has(key)) continue; // Two items of one key: the network's mistake; the first one stands.
    let element = old.get(key);
    if (!element) element = create(item);
    now.set(key, element);
    update(element, item);
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  for (const [key, element] of old) if (!now.has(key)) element.remove();
  parent.reconciled = now;
}

/** Copies text; pages served over plain HTTP from another host have no clipboard API, hence the fallback. */
export async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* fall through */ }
  const area = h('textarea.offscreen', { readonly: true, 'aria-hidden': 'true' });
  area.value = text;
  document.body.append(area);
  area.select();
  let done = false;
  try { done = document.execCommand('copy'); } catch { /* no way to copy here */ }
  area.remove();
  return done;
}
