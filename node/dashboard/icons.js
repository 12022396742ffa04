// Owns the icons: stroke paths on a 16-unit grid, built as SVG elements (no markup is ever parsed).

const SVG = 'http://www.w3.org/2000/svg';
const PATHS = {
  sun: 'M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6M8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M12.6 3.4l-.7.7M4.1 11.9l-.7.7',
  moon: 'M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z',
  monitor: 'M2 3h12v8H2zM6 14h4M8 11v3',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.4 10.4 14 14',
  back: 'M9.5 3.5 5 8l4.5 4.5',
  copy: 'M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3',
  check: 'M3 8.5 6.5 12 13 4.5',
  warn: 'M8 2.5 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.1',
  up: 'M4 9.5 8 5.5l4 4',
  down: 'M4 6.5 8 10.5l4-4',
  cross: 'M4 4l8 8M12 4l-8 8',
};

/** An icon by name; it is decoration, so it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}
