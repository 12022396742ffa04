//! `tidegate state …`: all states out of a node, into a node, from other systems, and into a place of safety.
//!
//! Out: `export` and `backup`, over `restore` back into a directory. In: a `source` gives the records of a file (`lines` and
//! `binary`: an export; `migrate`: other systems' files), `load` sends them, and `resume` remembers how far it came. `line` is the
//! text form of a state.
//!
//! The commands talk to a node over HTTP; only `--data-dir` and `restore` touch a directory, under its lock.

mod args;
mod backup;
mod export;
pub(crate) mod line;
mod load;
mod migrate;
pub(crate) mod pace;
mod progress;
mod resume;
mod source;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

pub(crate) use args::{Format, StateCommand};

use crate::exit::Exit;

/// Runs a `state` command.
///
/// # Errors
/// What an operator should read.
pub(crate) fn run(command: &StateCommand) -> anyhow::Result<Exit> {
    match command {
        StateCommand::Export(args) => export::run(args),
        StateCommand::Import(args) => load::import(args),
        StateCommand::Migrate(args) => load::migrate(args),
        StateCommand::Backup(args) => backup::backup(args),
        StateCommand::Restore(args) => backup::restore(args),
    }
}

/// Bytes that are written before they are synced. All at the end would keep a node's commits waiting whose journal is on the
/// same disk: for as long as the disk takes for the whole file.
const SYNC_BYTES: usize = 2 * 1024 * 1024;

/// A file that has its name only once it is whole and durable.
struct WholeFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    unsynced: usize,
}

impl WholeFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        Ok(Self { path: path.to_owned(), partial, file: BufWriter::with_capacity(256 * 1024, file), unsynced: 0 })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let what = || format!("cannot write {}", self.path.display());
        self.file.flush().with_context(what)?;
        self.file.get_ref().sync_all().with_context(what)?;
        fs::rename(&self.partial, &self.path).with_context(what)?;
        sync_dir(self.path.parent()).with_context(what)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Makes a directory's names durable; `None` or an empty path is the current one.
fn sync_dir(dir: Option<&Path>) -> std::io::Result<()> {
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
