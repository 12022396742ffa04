//! The process's limit of open files: raised as far as it may be, and refused by name when that is not enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::SwarmError;

/// Files that are not sockets of devices: the runtime's own, standard streams, the verifier, the watched dashboard, and in a
/// demo the node's files.
const RESERVE: u64 = 64;

/// Makes room for so many sockets.
///
/// # Errors
/// [`SwarmError::OpenFiles`] when the hard limit is too low.
pub(crate) fn make_room(devices: u64, sockets: u64) -> Result<(), SwarmError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = sockets + RESERVE;
    let limit = maximum.unwrap_or(u64::MAX);
    if needed > limit {
        return Err(SwarmError::OpenFiles { devices, needed, limit });
    }
    if current.is_some_and(|current| current < needed) {
        // Up to the hard limit: the rest of the process may need some, too.
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|_| SwarmError::OpenFiles {
            devices,
            needed,
            limit: current.unwrap_or(limit),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named() {
        assert!(make_room(10, 10).is_ok());
        let Some(limit) = getrlimit(Resource::Nofile).maximum else { return };
        let error = make_room(limit, limit).expect_err("the reserve does not fit");
        assert!(error.to_string().contains(&format!("may have {limit} (RLIMIT_NOFILE)")), "{error}");
    }
}
