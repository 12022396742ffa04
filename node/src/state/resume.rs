//! How far an import came: a side file, so that the same command goes on after an interruption. It is a hint only; what is sent
//! twice is the same as what is sent once.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Bytes at a file's beginning and end that tell it from another.
const PROBE: u64 = 64 * 1024;

/// What became of the records so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) imported: u64,
    pub(super) unchanged: u64,
    pub(super) older: u64,
    pub(super) failed: u64,
}

/// How far an import came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    fingerprint: String,
    /// Records from the beginning that are done with, those in error too.
    pub(super) records: u64,
    pub(super) counts: Counts,
    /// Length of the file of errors.
    pub(super) errors_bytes: u64,
}

/// The side file.
pub(super) struct Resume {
    path: PathBuf,
    pub(super) done: Done,
}

impl Resume {
    /// What the side file of these files says, if it is of them and of the same `options`.
    pub(super) fn open(files: &[PathBuf], options: &str) -> anyhow::Result<Self> {
        let path = beside(&files[0], ".progress");
        let mut fingerprint = options.to_owned();
        for file in files {
            let print = print_of(file).with_context(|| format!("cannot read {}", file.display()))?;
            fingerprint.push_str(&print);
        }
        let found = fs::read(&path).ok().map(|bytes| serde_json::from_slice::<Done>(&bytes));
        let done = match found {
            Some(Ok(done)) if done.fingerprint == fingerprint => done,
            Some(_) => {
                eprintln!("{} is of another file or another command: starting from the beginning", path.display());
                Done { fingerprint, ..Done::default() }
            }
            None => Done { fingerprint, ..Done::default() },
        };
        Ok(Self { path, done })
    }

    pub(super) fn save(&self) -> anyhow::Result<()> {
        let beside = beside(&self.path, ".new");
        let what = || format!("cannot write {}", self.path.display());
        fs::write(&beside, serde_json::to_vec(&self.done)?).with_context(what)?;
        fs::rename(&beside, &self.path).with_context(what)
    }

    /// All is done: there is nothing to go on with.
    pub(super) fn finish(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// The name with something behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Length, time and content of both ends.
fn print_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut probe = Vec::new();
    (&mut file).take(PROBE).read_to_end(&mut probe)?;
    file.seek(SeekFrom::Start(about.len().saturating_sub(PROBE)))?;
    file.take(PROBE).read_to_end(&mut probe)?;
    Ok(format!(" {}-{}-{:08x}", about.len(), changed.as_nanos(), crc32c::crc32c(&probe)))
}
