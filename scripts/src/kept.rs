//! What outlives the node: sets of handlers that loaded and ran, with their sources, and a memo about them.
//!
//! Each set is a directory `sets/<digest>` of its files as they were, so that it is read as the handlers' directory is. The memo is
//! replaced as a whole. Without a directory nothing outlives anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidegate_actors::limits;

use crate::{kept_sets::KeptSets, set::digest, source::SourceSet};

const MEMO: &str = "memo.json";
const SETS: &str = "sets";

/// The sets that are kept.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: Option<PathBuf>,
    memo: Memo,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Memo {
    /// The last one that was given.
    generation: u64,
    /// Digests of the sets that are kept, the newest first.
    good: Vec<String>,
    /// What is in the handlers' directory and did not pass, or was taken back: a start does not take it up.
    refused: Option<String>,
    /// Handlers that an operator has switched off.
    disabled: BTreeSet<String>,
}

impl Kept {
    /// # Errors
    /// The memo cannot be read, with its path.
    pub(crate) fn open(dir: Option<&Path>) -> io::Result<Self> {
        let mut memo = Memo::default();
        if let Some(dir) = dir {
            let path = dir.join(MEMO);
            match fs::read(&path) {
                Ok(bytes) => memo = serde_json::from_slice(&bytes).map_err(|error| named(&path, &error.into()))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(named(&path, &error)),
            }
        }
        Ok(Self { dir: dir.map(Path::to_path_buf), memo })
    }

    /// The number of a set that is about to run: the last one's if it is the last one, else the next.
    pub(crate) fn generation_of(&self, digest: &str) -> u64 {
        if self.memo.good.first().is_some_and(|last| last == digest) {
            self.memo.generation
        } else {
            self.memo.generation + 1
        }
    }

    pub(crate) fn is_disabled(&self, script: &str) -> bool {
        self.memo.disabled.contains(script)
    }

    /// Switches a handler off or on, also for the next start.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn enable(&mut self, script: &str, enabled: bool) -> io::Result<()> {
        self.change(|memo| {
            if enabled {
                memo.disabled.remove(script);
            } else {
                memo.disabled.insert(script.to_owned());
            }
        })
    }

    /// A set that must not be taken up by a start.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn refuse(&mut self, digest: &str) -> io::Result<()> {
        self.change(|memo| memo.refused = Some(digest.to_owned()))
    }

    pub(crate) fn is_refused(&self, digest: &str) -> bool {
        self.memo.refused.as_deref() == Some(digest)
    }

    /// A set runs from now on; if it is good it is kept.
    ///
    /// # Errors
    /// The disk's: the set runs and is not kept.
    pub(crate) fn runs(&mut self, generation: u64, sources: &SourceSet, is_good: bool) -> io::Result<()> {
        let digest = digest(sources);
        if is_good {
            self.write_set(&digest, sources)?;
        }
        self.change(|memo| {
            memo.generation = generation;
            memo.refused.take_if(|refused| *refused == digest);
            if is_good {
                memo.good.retain(|other| *other != digest);
                memo.good.insert(0, digest.clone());
                memo.good.truncate(limits::SCRIPT_SETS_KEPT);
            }
        })?;
        self.sweep();
        Ok(())
    }

    /// The newest set that is kept and is not `running`.
    ///
    /// # Errors
    /// The disk's, or its files are not what they were.
    pub(crate) fn former(&self, running: &str) -> io::Result<Option<SourceSet>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let Some(former) = self.memo.good.iter().find(|digest| *digest != running) else { return Ok(None) };
        read_set(dir, former).map(Some)
    }

    /// All that is kept.
    ///
    /// # Errors
    /// The disk's, or the files of a set are not what they were.
    pub(crate) fn all(&self) -> io::Result<KeptSets> {
        let mut sets = BTreeMap::new();
        if let Some(dir) = &self.dir {
            for name in &self.memo.good {
                sets.insert(name.clone(), read_set(dir, name)?.files.into_iter().collect());
            }
        }
        Ok(KeptSets { memo: serde_json::to_value(&self.memo)?, sets })
    }

    /// What a backup has, on its way to a directory. Nothing is written yet.
    ///
    /// # Errors
    /// It is no memo.
    pub(crate) fn restored(dir: &Path, memo: serde_json::Value) -> io::Result<Self> {
        Ok(Self { dir: Some(dir.to_owned()), memo: serde_json::from_value(memo)? })
    }

    /// A set is taken back: it is kept no more, and a start does not take it up.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn take_back(&mut self, digest: &str) -> io::Result<()> {
        self.change(|memo| {
            memo.good.retain(|other| other != digest);
            memo.refused = Some(digest.to_owned());
        })
    }

    /// Changes the memo on the disk, and then here.
    fn change(&mut self, change: impl FnOnce(&mut Memo)) -> io::Result<()> {
        let mut memo = self.memo.clone();
        change(&mut memo);
        let before = std::mem::replace(&mut self.memo, memo);
        if self.memo != before
            && let Err(error) = self.write_memo()
        {
            self.memo = before;
            return Err(error);
        }
        Ok(())
    }

    pub(crate) fn write_memo(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
        let path = dir.join(MEMO);
        let text = serde_json::to_vec_pretty(&self.memo)?;
        write_whole(&path, &text).map_err(|error| named(&path, &error))
    }

    pub(crate) fn write_set(&self, digest: &str, sources: &SourceSet) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let sets = dir.join(SETS);
        let (path, half) = (sets.join(digest), sets.join(format!("{digest}.part")));
        if path.exists() {
            return Ok(());
        }
        let write = || {
            if half.exists() {
                fs::remove_dir_all(&half)?;
            }
            fs::create_dir_all(&half)?;
            for (below, source) in &sources.files {
                let file = half.join(below);
                fs::create_dir_all(file.parent().unwrap_or(&half))?;
                let mut file = File::create(file)?;
                file.write_all(source.as_bytes())?;
                file.sync_all()?;
            }
            fs::rename(&half, &path)?;
            File::open(&sets)?.sync_all()
        };
        write().map_err(|error| named(&path, &error))
    }

    /// Removes sets that the memo does not name. What cannot be removed stays, and is tried again the next time.
    fn sweep(&self) {
        let Some(dir) = &self.dir else { return };
        for entry in fs::read_dir(dir.join(SETS)).into_iter().flatten().flatten() {
            if !self.memo.good.iter().any(|digest| entry.file_name() == digest.as_str()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A set as it was kept.
fn read_set(dir: &Path, name: &str) -> io::Result<SourceSet> {
    let path = dir.join(SETS).join(name);
    let sources = SourceSet::read(&path)?;
    if digest(&sources) != name {
        return Err(named(&path, &io::Error::other("its files are not those that were kept")));
    }
    Ok(sources)
}

/// A file is there as it was or as it is to be, whatever happens.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half = path.with_extension("part");
    let mut file = File::create(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> SourceSet {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("lib")).expect("a directory");
        fs::write(dir.path().join("10-a.js"), text).expect("a file");
        fs::write(dir.path().join("lib/b.js"), "b").expect("a file");
        SourceSet::read(dir.path()).expect("readable")
    }

    #[test]
    fn sets_outlive_the_node_and_those_that_nobody_needs_do_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Kept::open(Some(dir.path())).expect("readable");
        let all: Vec<_> = (1..=7).map(|n| sources(&n.to_string())).collect();
        for (generation, sources) in (1..).zip(&all) {
            open().runs(generation, sources, true).expect("written");
        }
        let mut kept = open();
        let named = |n: usize| digest(&all[n - 1]);
        assert_eq!(kept.generation_of(&named(7)), 7);
        assert_eq!(kept.generation_of(&named(6)), 8);
        assert_eq!(fs::read_dir(dir.path().join(SETS)).expect("readable").count(), limits::SCRIPT_SETS_KEPT);
        let former = kept.former(&named(7)).expect("readable").expect("kept");
        assert_eq!((digest(&former), former.handlers.len(), former.files.len()), (named(6), 1, 2));

        kept.take_back(&named(7)).expect("written");
        kept.runs(8, &former, true).expect("written");
        let kept = open();
        assert!(kept.is_refused(&named(7)) && !kept.is_refused(&named(6)));
        let former = kept.former(&named(6)).expect("readable").expect("kept");
        assert_eq!(digest(&former), named(5));

        let file = dir.path().join(SETS).join(named(5)).join("10-a.js");
        fs::write(file, "something else").expect("written");
        assert!(kept.former(&named(6)).is_err(), "it is not what was kept");
    }

    #[test]
    fn all_that_is_kept_can_be_written_elsewhere() {
        let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mut kept = Kept::open(Some(dir.path())).expect("readable");
        let (first, second) = (sources("1"), sources("2"));
        kept.runs(1, &first, true).expect("written");
        kept.runs(2, &second, true).expect("written");
        kept.enable("10-a.js", false).expect("written");
        let all = kept.all().expect("readable");
        let elsewhere = other.path().join("scripts");
        all.write(&elsewhere).expect("written");
        let again = Kept::open(Some(&elsewhere)).expect("readable");
        assert_eq!((again.all().expect("readable"), all.len()), (all.clone(), 2));
        assert!(again.is_disabled("10-a.js") && again.generation_of(&digest(&second)) == 2);
        let former = again.former(&digest(&second)).expect("readable").expect("kept");
        assert_eq!(digest(&former), digest(&first));

        for path in ["../out.js", "/out.js", "lib//b.js"] {
            let mut hostile = all.clone();
            let (_, files) = hostile.sets.pop_first().expect("a set");
            let mut files: BTreeMap<_, _> = files;
            files.insert(path.to_owned(), "x".to_owned());
            let named = SourceSet { files: files.clone().into_iter().collect(), ..SourceSet::default() };
            hostile.sets.insert(digest(&named), files);
            assert!(hostile.write(&other.path().join("hostile")).is_err(), "{path}");
        }
        let mut changed = all;
        changed.sets.first_entry().expect("a set").get_mut().insert("10-a.js".to_owned(), "changed".to_owned());
        assert!(changed.write(&other.path().join("changed")).is_err(), "it is not what was kept");
    }

    #[test]
    fn what_is_switched_off_stays_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut kept = Kept::open(Some(dir.path())).expect("readable");
        kept.enable("a.js", false).expect("written");
        assert!(Kept::open(Some(dir.path())).expect("readable").is_disabled("a.js"));
        kept.enable("a.js", true).expect("written");
        assert!(!Kept::open(Some(dir.path())).expect("readable").is_disabled("a.js"));
        assert_eq!(Kept::open(None).expect("nothing").former("x").expect("nothing").map(|_| ()), None);
    }
}
