//! How the process ends: the exit codes, and the one place that tells a failure on stderr.

use std::{io::Write, process::ExitCode};

use crate::{boot::ServeError, config::Problems};

/// The exit codes. Usage errors (2) are clap's; a signal's 130 and 143 are the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All went well; also a graceful stop.
    Ok = 0,
    /// It failed while it ran.
    Runtime = 1,
    /// The configuration was refused (`EX_CONFIG` of sysexits.h).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration was refused.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The node could not start or stopped.
    #[error("error: {0}")]
    Serve(#[from] ServeError),
    /// Anything else.
    #[error("error: {0:#}")]
    Runtime(#[from] anyhow::Error),
}

impl Failure {
    /// Tells the failure on stderr.
    pub(crate) fn report(&self) -> Exit {
        // Nothing is left to be done where even stderr is gone.
        let _ = writeln!(std::io::stderr().lock(), "{self}");
        match self {
            Self::Config(_) | Self::Serve(ServeError::Auth(_) | ServeError::Tls(_)) => Exit::Config,
            Self::Serve(_) | Self::Runtime(_) => Exit::Runtime,
        }
    }
}
