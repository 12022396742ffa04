//! Changes of the users' file: read, changed, written beside, renamed, under a lock, so that two commands lose nothing and a node
//! never reads half a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use tidegate_actors::limits;

use super::{
    directory::{self, Directory, Line},
    place,
};

/// The file, held for a change.
pub(super) struct Edit {
    path: PathBuf,
    pub(super) lines: Vec<Line>,
    /// Its lock, which ends with it.
    _lock: File,
}

impl Edit {
    /// Takes the lock and reads what is there; a file that is not there has no lines.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
        }
        let lock_path = PathBuf::from(format!("{}.lock", path.display()));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
        flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", lock_path.display()))?;
        Ok(Self { path: path.to_owned(), lines: read(path)?, _lock: lock })
    }

    /// Checks what is to be written and writes it; then it is durable.
    pub(super) fn save(self) -> anyhow::Result<()> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        // What the node would refuse must not come to stand there.
        Directory::parse(&self.path, &text)?;
        write(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The lines as they are, without a lock.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = place::read(path, limits::AUTH_FILE_BYTES, "auth_file_bytes")?.unwrap_or_default();
    Ok(directory::lines(path, &text)?.into_iter().map(|(_, line)| line).collect())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new().prefix(".users-").tempfile_in(dir)?;
    beside.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
    beside.write_all(text.as_bytes())?;
    beside.as_file().sync_all()?;
    beside.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/users.jsonl");
        let user = |name: &str| Line { user: name.to_owned(), ..Line::default() };
        let mut edit = Edit::open(&path).unwrap();
        edit.lines.push(user("a"));
        edit.save().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut edit = Edit::open(&path).unwrap();
        assert_eq!(edit.lines, [user("a")]);
        edit.lines.push(user("a"));
        let error = edit.save().unwrap_err().to_string();
        assert!(error.ends_with("users.jsonl:2:1: the user \"a\" is there twice"), "{error}");
        assert_eq!(read(&path).unwrap(), [user("a")]);
    }
}
