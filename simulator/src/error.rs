//! Why a swarm could not run. A run that ended but did badly is no error: its [`crate::Summary`] tells.

/// Why a swarm could not run.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// A setting that cannot be.
    #[error("{0}")]
    Config(String),
    /// The process may not open so many sockets.
    #[error(
        "{devices} devices need about {needed} open files, and this process may have {limit} (RLIMIT_NOFILE): \
         raise the hard limit (ulimit -Hn) or start fewer devices"
    )]
    OpenFiles {
        /// The devices that were asked for.
        devices: u64,
        /// Sockets and a reserve.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Nobody listens there.
    #[error("cannot reach {what} at {target}: {source}")]
    Unreachable {
        /// Which listener.
        what: &'static str,
        /// Its `host:port`.
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// The node's WebSocket could not be watched.
    #[error("cannot watch ws://{target}/ws: {why}")]
    Watch {
        /// The node's `host:port`.
        target: String,
        /// Why.
        why: String,
    },
    /// Stopped by a second signal, without a summary.
    #[error("stopped at once: there is no summary")]
    Interrupted,
    /// The runtime could not be started.
    #[error("cannot start the swarm's runtime: {0}")]
    Runtime(std::io::Error),
}
