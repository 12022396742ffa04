// Owns the empty states that teach: what to type to see a first device.

import { copyText, h } from './dom.js';
import { icon } from './icons.js';

/** The first steps, with this page's own host in the commands. */
export function firstSteps() {
  const host = location.hostname.includes(':') ? location.hostname : location.hostname || '127.0.0.1';
  return h('section.empty', { 'data-testid': 'empty-fleet', 'aria-label': 'No devices yet' },
    h('h2', null, 'No device has reported yet'),
    h('p', null, 'The first reading creates its device. Try one of these; the table fills by itself.'),
    step('Over MQTT', `mosquitto_pub -h ${host} -p 1883 -t devices/d1/metrics -q 1 -m '{"temperature":21.5}'`),
    step('Over HTTP', `curl -X POST ${location.origin}/metrics -H 'content-type: application/json' -d '{"deviceId":"d1","temperature":21.5}'`),
    step('A whole fleet, simulated', 'tidegate swarm --devices 100'));
}

/** A block of code with a copy button. */
export function codeBlock(text) {
  return h('div.code', null, h('code', null, text), copyButton(() => text));
}

/** A button that copies `text()` and says so. */
export function copyButton(text, label = 'Copy') {
  const said = h('span.offscreen', { role: 'status' });
  const button = h('button.icon-button.small', { type: 'button', title: label, 'aria-label': label }, icon('copy'));
  button.addEventListener('click', async () => {
    const done = await copyText(text());
    button.replaceChildren(icon(done ? 'check' : 'cross'));
    said.textContent = done ? 'Copied' : 'Could not copy';
    setTimeout(() => { button.replaceChildren(icon('copy')); said.textContent = ''; }, 1400);
  });
  return h('span.copy', null, button, said);
}

const step = (title, command) => h('div.step', null, h('h3', null, title), codeBlock(command));
