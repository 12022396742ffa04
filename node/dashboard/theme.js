// Owns the theme: the stored choice (system, light, dark), the attribute on <html>, the toggle button.
// Tells canvases to repaint through the `tidegate:theme` event and gives them the colours in force.

import { icon } from './icons.js';

const KEY = 'tidegate.theme';
const system = matchMedia('(prefers-color-scheme: dark)');
let choice = load();
let palette = null;

/** Wires the toggle button. A click goes to the other theme first, then to the third choice. */
export function startTheme(button) {
  button.addEventListener('click', () => { choice = next(choice); store(choice); apply(button); });
  system.addEventListener('change', () => apply(button));
  apply(button);
}

/** Colours for canvases, read from the style sheet once a theme. */
export function colours() {
  if (palette) return palette;
  const css = getComputedStyle(document.documentElement);
  const read = (name) => css.getPropertyValue(name).trim();
  palette = {
    text: read('--text'), muted: read('--muted'), line: read('--line'), grid: read('--grid'),
    accent: read('--accent'), panel: read('--panel'),
    series: Array.from({ length: 8 }, (_, i) => read(`--series-${i + 1}`)),
  };
  return palette;
}

function next(now) {
  // From `system` the first click must change what is seen, hence the opposite of the system's theme.
  const [first, second] = system.matches ? ['light', 'dark'] : ['dark', 'light'];
  return now === 'system' ? first : now === first ? second : 'system';
}

function apply(button) {
  const theme = choice === 'system' ? (system.matches ? 'dark' : 'light') : choice;
  const root = document.documentElement;
  root.dataset.theme = theme;
  root.dataset.themeChoice = choice;
  palette = null;
  button.replaceChildren(icon(choice === 'system' ? 'monitor' : theme === 'dark' ? 'moon' : 'sun'));
  const says = choice === 'system' ? `Theme: as the system (${theme})` : `Theme: ${theme}`;
  button.title = says;
  button.setAttribute('aria-label', `${says}. Change theme`);
  dispatchEvent(new CustomEvent('tidegate:theme'));
}

function load() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === 'light' || kept === 'dark' ? kept : 'system';
  } catch { return 'system'; }
}

function store(value) {
  try {
    if (value === 'system') localStorage.removeItem(KEY); else localStorage.setItem(KEY, value);
  } catch { /* storage is forbidden: the choice lasts as long as the page */ }
}
