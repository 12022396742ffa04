//! The seam between the journal and the file system: the few calls whose failure matters. Real, and a double for tests.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Write},
    path::Path,
};

use fs4::fs_std::FileExt;

/// Where segments are created.
pub(crate) trait Disk: Send + 'static {
    /// Creates a file that does not exist yet, with `bytes` of space set aside if the file system can.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One file that is written from its start to its end.
pub(crate) trait DiskFile: Send {
    /// Writes all of `parts` behind what was written.
    fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes the content durable (`fdatasync`).
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file off after `bytes`.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileSystem;

impl Disk for FileSystem {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = File::options().write(true).create_new(true).open(path)?;
        // Space that is set aside keeps a full disk out of the commits of this segment. It is no condition: a file
        // system may not know how, and a nearly full disk may still have room for the next commits.
        let _ = file.allocate(bytes);
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

impl DiskFile for File {
    fn write(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Makes the entries of a directory durable: a created, renamed or removed file is that only then.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory, and those above it that are missing, durably: without its name a power cut takes all that was synced in
/// it. The name of one that was there is made durable, too: a node that crashed may have made it, and not come to that.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(parent)?;
            fs::create_dir(dir)?;
        }
        Err(_) if dir.is_dir() => {}
        made => made?,
    }
    sync_dir(parent)
}
