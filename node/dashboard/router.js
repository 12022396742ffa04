// Owns the address: hash → route and back. Knows no view.

import { encodeId } from './format.js';

/** The route of a hash: `{name: 'fleet'}`, `{name: 'device', id}` or `{name: 'health'}`. */
export function parseRoute(hash) {
  if (hash.startsWith('#/d/') && hash.length > 4) {
    const raw = hash.slice(4);
    try { return { name: 'device', id: decodeURIComponent(raw) }; } catch { return { name: 'device', id: raw }; }
  }
  return hash === '#/health' ? { name: 'health' } : { name: 'fleet' };
}

/** The address of a device's page. */
export const deviceHref = (id) => `#/d/${encodeId(id)}`;

/** Calls `onRoute` now and at every change. */
export function startRouter(onRoute) {
  const go = () => onRoute(parseRoute(location.hash));
  addEventListener('hashchange', go);
  go();
}

/** Goes to an address of this page. */
export function navigate(hash) { location.hash = hash; }
