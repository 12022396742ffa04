// Owns a device's commands on its page: a form that sends one, and what became of the last ones. Asks the node until `close`.

import { h, reconcile, setAttr, setText } from './dom.js';
import { clockTime, dateTime, encodeId, jsonLine } from './format.js';

const EVERY_MS = 2000;
const TIMEOUT_MS = 5000;
const SHOWN = 20;
const EXPIRY_MS = 3600000;
const TONES = { replied: 'good', delivered: 'good', failed: 'bad', expired: 'bad' };

export class DeviceCommands {
  constructor(id) {
    this.url = `/devices/${encodeId(id)}/commands`;
    this.name = h('input.field', { name: 'name', placeholder: 'name', 'aria-label': 'Name of the command', required: true, autocomplete: 'off', 'data-testid': 'command-name' });
    this.params = h('input.field.wide', { name: 'params', placeholder: 'parameters, as JSON', 'aria-label': 'Parameters as JSON', autocomplete: 'off', 'data-testid': 'command-params' });
    this.waits = h('input', { type: 'checkbox' });
    this.said = h('p.card-note', { role: 'status', 'data-testid': 'command-said' });
    const form = h('form.command-form', { onsubmit: (event) => { event.preventDefault(); this.send(); } },
      this.name, this.params, h('label.check', null, this.waits, 'wait up to 1 h for the device'),
      h('button.send', { type: 'submit', 'data-testid': 'command-send' }, 'Send'));
    this.list = h('ol.events', { 'data-testid': 'commands' });
    this.element = h('section.card', { 'aria-label': 'Commands', 'data-testid': 'device-commands' },
      h('div.card-head', null, h('h2', null, 'Commands')), form, this.said, this.list);
    this.load();
  }

  close() { this.closed = true; clearTimeout(this.timer); }

  async send() {
    const order = { name: this.name.value };
    if (this.params.value.trim()) {
      try { order.params = JSON.parse(this.params.value); } catch (error) { setText(this.said, `The parameters are not JSON: ${error.message}`); return; }
    }
    if (this.waits.checked) order.expiryMs = EXPIRY_MS;
    setText(this.said, 'Sent…');
    try {
      const response = await fetch(this.url, { method: 'POST', body: JSON.stringify(order) });
      const answer = await response.json();
      setText(this.said, response.ok ? outcome(answer) : `${answer.title}: ${answer.detail}`);
    } catch { setText(this.said, 'The node did not answer'); }
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    try {
      const response = await fetch(this.url, { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { commands } = await response.json();
      reconcile(this.list, commands.slice(-SHOWN).reverse(), (command) => command.request, make, fill);
    } catch { if (!this.closed) setText(this.said, 'The node did not answer'); }
    if (!this.closed) this.timer = setTimeout(() => this.load(), document.hidden ? EVERY_MS * 5 : EVERY_MS);
  }
}

function make(command) {
  const parts = { status: h('span.pill'), more: h('code') };
  const line = h('li', null, h('time', { title: dateTime(command.createdTime) }, clockTime(command.createdTime)), h('b', null, command.name), parts.status, parts.more);
  line.parts = parts;
  return line;
}

function fill(line, command) {
  setText(line.parts.status, command.status);
  setAttr(line.parts.status, 'data-tone', TONES[command.status] ?? null);
  setText(line.parts.more, command.reply === undefined ? command.reason ?? '' : jsonLine(command.reply));
}

const outcome = (command) => (command.status === 'replied' ? `Replied: ${jsonLine(command.reply)}` : `It is ${command.status}`);
