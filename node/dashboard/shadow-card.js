// Owns a device's shadow on its page: asked for when it is opened, and again while it is open. Most devices have none, and a
// question without an answer is an error in the browser's console: so it is not asked before somebody wants to know.

import { h, setText } from './dom.js';
import { encodeId } from './format.js';
import { fillJson, pretty } from './json-view.js';

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;

export class DeviceShadow {
  constructor(id) {
    this.url = `/devices/${encodeId(id)}/shadow`;
    this.note = h('span.card-note', { 'data-testid': 'shadow-note' });
    this.json = h('pre.json', { tabindex: '0', 'aria-label': 'Shadow as JSON', 'data-testid': 'shadow-json', hidden: true });
    this.button = h('button.link', { type: 'button', 'aria-expanded': false, 'data-testid': 'shadow-open', onclick: () => this.toggle() }, 'Show');
    this.element = h('section.card', { 'aria-label': 'Shadow' }, h('div.card-head', null, h('h2', null, 'Shadow'), this.note, this.button), this.json);
  }

  close() { this.closed = true; clearTimeout(this.timer); }

  toggle() {
    this.open = !this.open;
    this.button.setAttribute('aria-expanded', String(this.open));
    setText(this.button, this.open ? 'Hide' : 'Show');
    clearTimeout(this.timer);
    if (this.open) this.load();
    else { this.json.hidden = true; setText(this.note, ''); }
  }

  async load() {
    let has = false;
    try {
      const response = await fetch(this.url, { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!this.open || this.closed) return;
      has = response.ok;
      if (has) {
        const { state, version } = await response.json();
        fillJson(this.json, pretty(state));
        setText(this.note, `version ${version}${state.delta ? ', differs' : ', in step'}`);
      } else setText(this.note, response.status === 404 ? 'none' : `HTTP ${response.status}`);
    } catch { if (!this.closed) setText(this.note, 'not answered'); }
    this.json.hidden = !has;
    if (has && this.open && !this.closed) this.timer = setTimeout(() => this.load(), document.hidden ? EVERY_MS * 5 : EVERY_MS);
  }
}
