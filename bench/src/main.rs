//! `tidegate-bench`: runs Tidegate beside mosquitto and a Node.js reference under one load generator.
//!
//! `cli` parses and dispatches → `peers` runs the scenarios of `plan` in alternating rounds against the servers of
//! `server` → `scenario` sends and counts (over `conn` and `poller`, in the bytes of `mqtt`, `http`, `websocket`) →
//! `meter` and `process` say what it cost → `table` prints medians and ratios.

mod cli;
mod conn;
mod http;
mod meter;
mod mqtt;
mod peers;
mod plan;
mod poller;
mod process;
mod reading;
mod scenario;
mod server;
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
