//! What the measurements inside this process share: readings as the edge would hand them in, and sizes of folders.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bytes::Bytes;
use tidegate_actors::{
    ids::DeviceId,
    reading::{Channel, Reading},
};

/// A reading without a device time, received now.
///
/// # Errors
/// A device id that is none.
pub(crate) fn reading(device: &str, payload: Bytes) -> Result<Reading> {
    let received = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let received = i64::try_from(received).unwrap_or(i64::MAX);
    Ok(Reading::new(DeviceId::new(device)?, Channel::Metrics, None, received, payload))
}

/// The blocks that a file or everything below a folder takes up, in bytes; what vanishes meanwhile counts nothing.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.blocks() * 512;
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_bytes(&entry.path())).sum()
}
