//! `tidegate-bench`: runs Tidegate beside mosquitto and a Node.js reference under one load generator.
//!
//! `cli` parses and dispatches → `peers` runs the scenarios of `plan` in alternating rounds against the servers of
//! `server` → `scenario` sends and counts (over `conn` and `poller`, in the bytes of `mqtt`, `http`, `websocket`) →
//! `meter` and `process` say what it cost → `table` prints medians and ratios.
//!
//! Beside the comparison with peers stand the promises of durability, each a command with tables of its own: `durable` (rates,
//! latencies and costs of acknowledged readings), `overwrites` (memory and disk under endless overwriting), `export` (all states out
//! of a loaded node and into another) and `stored` (sessions and retained messages over `kill -9`).

mod cli;
mod conn;
mod durable;
mod export;
mod http;
mod inside;
mod meter;
mod mqtt;
mod overwrites;
mod peers;
mod plan;
mod poller;
mod process;
mod reading;
mod scenario;
mod server;
mod status;
mod stored;
mod table;
mod websocket;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            peers::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
