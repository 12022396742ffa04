// Owns the wiring: the store, the fleet's feed, the overview, the views and the keys. Read this first.
//
//   WebSocket ─▶ feed.js ─▶ fleet-store.js ─▶ (one animation frame) ─▶ fleet-view.js ─▶ table.js
//                        └▶ device-view.js (its own feed) ─▶ series.js ─▶ chart.js
//   /api/overview ─▶ overview.js ─▶ fleet-view.js, health-view.js
//
// Rules that hold everywhere: data becomes text nodes, never markup; a message changes a Map and asks
// for a frame, it never draws; whatever has no bound on the network has one here.

import { DeviceView } from './device-view.js';
import { setAttr, setText } from './dom.js';
import { Feed } from './feed.js';
import { FleetStore } from './fleet-store.js';
import { FleetView } from './fleet-view.js';
import { clockTime, compact, count, duration } from './format.js';
import { HealthView, problemsOf } from './health-view.js';
import { Overview } from './overview.js';
import { enter } from './login.js';
import { navigate, startRouter } from './router.js';
import { startTheme } from './theme.js';

const SUSPECT_AFTER = 3; // Failed polls in a row after which an open feed is not believed any more.

const byId = (id) => document.getElementById(id);
const main = byId('main');
const store = new FleetStore();
const overview = new Overview();
let feed = null;
let view = null;
let route = null;
await enter(main, byId('log-out'));
let rate = { at: performance.now(), updates: 0, perSecond: 0 };

startTheme(byId('theme-toggle'));
const fleet = new FleetView(store, overview, () => feed);
const health = new HealthView(overview);

feed = new Feed('/ws', {
  hello: () => store.beginSnapshot(),
  state: (message) => { store.apply(message); fleet.changed(); },
  event: (event) => store.addEvent(event),
  synced: () => { store.endSnapshot(); fleet.changed(); },
  status: () => { drawFeed(); fleet.changed(); },
});

startRouter(show);
overview.subscribe(drawNode);
overview.start();
drawFeed();
setInterval(tick, 1000);
addEventListener('keydown', keys);
byId('skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });

/** Puts a view on the page. Fleet and health stay alive behind a device's page, with their scroll place. */
function show(next) {
  const name = next.name === 'device' && route?.name === 'device' && route.id === next.id ? null : next.name;
  if (name === null || (route?.name === next.name && next.name !== 'device')) return;
  view?.hide?.();
  view?.close?.();
  route = next;
  view = next.name === 'device' ? new DeviceView(next.id, store) : next.name === 'health' ? health : fleet;
  main.replaceChildren(view.element);
  view.show?.();
  if (next.name === 'device') view.heading.focus({ preventScroll: true });
  document.title = next.name === 'device' ? `${next.id} · Tidegate` : next.name === 'health' ? 'Health · Tidegate' : 'Tidegate';
  for (const link of document.querySelectorAll('[data-nav]')) setAttr(link, 'aria-current', link.dataset.nav === (next.name === 'health' ? 'health' : 'fleet') ? 'page' : null);
  scrollTo(0, 0);
}

function tick() {
  const now = performance.now();
  const perSecond = ((store.updates - rate.updates) * 1000) / (now - rate.at);
  rate = { at: now, updates: store.updates, perSecond };
  view.tick?.();
  drawFeed();
}

/** The pill in the header and the banner below it: is what you see the present? */
function drawFeed() {
  if (!feed) return;
  const pill = byId('feed-pill');
  const banner = byId('banner');
  setAttr(pill, 'data-state', feed.status);
  const words = { connecting: 'Connecting', syncing: `Loading ${count(store.devices.size)}`, live: `Live · ${compact(Math.round(rate.perSecond))}/s`, reconnecting: 'Reconnecting' };
  setText(byId('feed-text'), words[feed.status]);
  pill.title = feed.status === 'live' ? `Live since ${clockTime(feed.since)}; ${count(feed.messages)} messages` : words[feed.status];
  const lost = feed.status === 'reconnecting';
  const broken = feed.malformed > 0;
  banner.hidden = !lost && !broken;
  setAttr(banner, 'data-tone', lost ? 'bad' : 'warn');
  if (lost) {
    const wait = Math.max(0, Math.ceil((feed.retryAt - Date.now()) / 1000));
    setText(byId('banner-text'), `Reconnecting since ${clockTime(feed.since)}. What you see is from then.`);
    setText(byId('banner-wait'), wait ? `Next try in ${wait} s` : 'Trying…');
  } else if (broken) {
    setText(byId('banner-text'), `${count(feed.malformed)} message${feed.malformed > 1 ? 's' : ''} from the node could not be read and ${feed.malformed > 1 ? 'were' : 'was'} left out.`);
    setText(byId('banner-wait'), '');
  }
  document.documentElement.dataset.feed = feed.status;
}

function drawNode() {
  const node = overview.data?.node;
  if (node) setText(byId('node-note'), `${typeof node.version === 'string' ? `v${node.version.slice(0, 24)}` : ''} · up ${duration(node.uptimeSeconds * 1000)}`);
  byId('nav-alert').hidden = problemsOf(overview).length === 0;
  // A socket can look open for minutes after the network went; the poll notices sooner.
  if (overview.failing === SUSPECT_AFTER && feed.status === 'live') feed.restart();
}

function keys(event) {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (view === fleet) fleet.focusSearch(); else { fleet.searchOnShow = true; navigate('#/'); }
  } else if (event.key === 'Escape' && view !== fleet) navigate('#/');
}
