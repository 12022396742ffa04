//! Starts the node and waits until it is stopped.

use crate::config::Config;

/// Why the node could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// This build has no node in it.
    #[error("this build cannot serve")]
    Absent,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// The node could not start, or stopped.
#[expect(clippy::needless_pass_by_value, reason = "the node owns its configuration")]
pub(crate) fn serve(config: Config) -> Result<(), ServeError> {
    tracing::info!(mqtt = ?config.mqtt.bind, http = ?config.http.bind, "no node in this build");
    Err(ServeError::Absent)
}
