//! The HTTP side of the edge: every loop serves it on its own listener.
//!
//! `listener` accepts (`socket`; `admin` on a socket of the file system) → `app` routes → `post` (readings in, as its `wishes` say), `devices` (states out),
//! `state` (all of them, out and in), `viewer` (live: WebSocket and SSE),
//! `upgrade` (MQTT over WebSocket), `commands` (to devices, and their answers), `shadow` (what a device is to be and is),
//! `parked` (what no handler could work on), `scripts` (the handlers themselves), `ops` (health and metrics), `page` (the dashboard). Every refusal is a `problem`.

pub(crate) mod admin;
mod app;
mod commands;
mod devices;
mod ledger;
pub(crate) mod listener;
mod metrics;
mod ops;
mod page;
mod parked;
mod path;
mod post;
pub(crate) mod problem;
mod scripts;
mod shadow;
mod socket;
pub(crate) mod state;
mod upgrade;
pub(crate) mod viewer;
mod wishes;
