//! The data directory: its places, and the lock that keeps a second node out.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::RecoveryError;
use crate::journal::disk;

/// The places in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data directory at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The journal's segments.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The store.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The snapshot files.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// What an export writes while it lasts; nothing that is kept.
    #[must_use]
    pub fn export(&self) -> PathBuf {
        self.0.join("export")
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("LOCK")
    }
}

/// The data directory is ours while this lives.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its lock, which closing it gives up")] File);

/// Makes the directory, and takes its lock.
pub(super) fn take_lock(data: &DataDir) -> Result<DirectoryLock, RecoveryError> {
    let unusable = |reason: String| RecoveryError::Unusable { dir: data.path().to_owned(), reason };
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => unusable(format!(
            "{error}; make it readable and writable for the user that runs tidegate, or choose another --data-dir"
        )),
        io::ErrorKind::NotADirectory => {
            unusable("a part of its path is a file, not a directory; choose another --data-dir".to_owned())
        }
        io::ErrorKind::StorageFull => unusable(format!("{error}; free some space on its disk")),
        _ => unusable(error.to_string()),
    };
    match fs::metadata(data.path()) {
        Ok(found) if !found.is_dir() => {
            return Err(unusable("it is not a directory; choose another --data-dir, or move the file away".to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::make_dir(data.path()).map_err(refused)?;
        }
        Err(error) => return Err(refused(error)),
    }
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(data.lock()).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Its holder may be about to write it; it is for the message only.
            let _ = file.take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(RecoveryError::InUse { dir: data.path().to_owned(), pid });
        }
        Err(fs::TryLockError::Error(error)) => return Err(refused(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(refused)?;
    Ok(DirectoryLock(file))
}
