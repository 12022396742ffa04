//! What is kept of the sets of handlers, whole, on its way into a backup and out of it.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{kept::Kept, set::digest, source::SourceSet};

/// The sets of handlers that a node keeps, with their sources, and its memo about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSets {
    /// As it is on the disk.
    pub(crate) memo: Value,
    /// By digest: path below the handlers' directory → source.
    pub(crate) sets: BTreeMap<String, BTreeMap<String, String>>,
}

impl KeptSets {
    /// How many sets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Is none kept?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Writes them into a directory where nothing is kept yet, for a node to start with.
    ///
    /// # Errors
    /// The disk's; and when a set is not what its digest names: nothing is written of that one.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let kept = Kept::restored(dir, self.memo.clone())?;
        for (name, files) in &self.sets {
            let files = files.iter().map(|(path, source)| (path.clone(), source.clone())).collect();
            let sources = SourceSet { files, ..SourceSet::default() };
            let is_below = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if digest(&sources) != *name || !sources.files.iter().all(|(path, _)| is_below(path)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the set {name:?} is not what it was")));
            }
            kept.write_set(name, &sources)?;
        }
        fs::create_dir_all(dir)?;
        kept.write_memo()
    }
}
