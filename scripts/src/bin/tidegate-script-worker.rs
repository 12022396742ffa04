//! The worker process alone, for the tests and for hosts other than the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_scripts::worker_main()
}
