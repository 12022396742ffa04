//! A tree of files and directories on a disk that forgets. It owns names and contents; it does no I/O.
//!
//! **Names are not contents.** A file that was synced is lost all the same if the directory that names it was not: a creation, a
//! renaming or a removal is durable when its directory was synced, and until then it may or may not have happened when the
//! power goes. A renaming happens as one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    path::Path,
    time::SystemTime,
};

use super::content::{Content, Luck};
use crate::dice::Dice;

/// The number of a file or directory. Never used twice.
pub(crate) type Ino = u64;
/// The number of the directory at the top.
pub(crate) const ROOT: Ino = 1;
/// How often the operating system writes a page back while a file is written.
const WRITE_BACK: f64 = 0.02;

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotFound,
    Exists,
    NotADirectory,
    IsADirectory,
    NotEmpty,
}

#[derive(Debug)]
enum Kind {
    File(Content),
    Directory { now: BTreeMap<OsString, Ino>, durable: BTreeMap<OsString, Ino> },
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    modified: SystemTime,
}

/// A place where a name stands.
type Place = (Ino, OsString);

/// A change of names that is not durable yet.
#[derive(Debug)]
enum Change {
    Made { at: Place, ino: Ino },
    Removed { at: Place },
    Renamed { from: Place, to: Place, ino: Ino },
}

impl Change {
    fn touches(&self, dirs: &HashSet<Ino>) -> bool {
        match self {
            Self::Made { at, .. } | Self::Removed { at } => dirs.contains(&at.0),
            Self::Renamed { from, to, .. } => dirs.contains(&from.0) || dirs.contains(&to.0),
        }
    }
}

/// What is known about a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) ino: Ino,
    pub(crate) directory: bool,
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: HashMap<Ino, Node>,
    next: Ino,
    /// In the order in which they were made.
    pending: Vec<Change>,
    dice: Dice,
}

impl Disk {
    /// An empty disk, whose every chance comes from these dice.
    pub(crate) fn new(dice: Dice) -> Self {
        let root = Node { kind: directory(), modified: SystemTime::UNIX_EPOCH };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, pending: Vec::new(), dice }
    }

    // ---- what a file system is asked

    pub(crate) fn attributes(&self, ino: Ino) -> Result<Attributes, Refused> {
        let node = self.nodes.get(&ino).ok_or(Refused::NotFound)?;
        let (directory, len) = match &node.kind {
            Kind::File(content) => (false, content.len()),
            Kind::Directory { .. } => (true, 0),
        };
        Ok(Attributes { ino, directory, len, modified: node.modified })
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino, Refused> {
        self.names(dir)?.get(name).copied().ok_or(Refused::NotFound)
    }

    /// The names in a directory.
    pub(crate) fn names(&self, dir: Ino) -> Result<&BTreeMap<OsString, Ino>, Refused> {
        match &self.nodes.get(&dir).ok_or(Refused::NotFound)?.kind {
            Kind::Directory { now, .. } => Ok(now),
            Kind::File(_) => Err(Refused::NotADirectory),
        }
    }

    pub(crate) fn make_file(&mut self, dir: Ino, name: &OsStr, at: SystemTime) -> Result<Ino, Refused> {
        self.make(dir, name, Kind::File(Content::default()), at)
    }

    pub(crate) fn make_directory(&mut self, dir: Ino, name: &OsStr, at: SystemTime) -> Result<Ino, Refused> {
        self.make(dir, name, directory(), at)
    }

    pub(crate) fn remove_file(&mut self, dir: Ino, name: &OsStr) -> Result<(), Refused> {
        let ino = self.lookup(dir, name)?;
        if self.attributes(ino)?.directory {
            return Err(Refused::IsADirectory);
        }
        self.remove(dir, name)
    }

    pub(crate) fn remove_directory(&mut self, dir: Ino, name: &OsStr) -> Result<(), Refused> {
        let ino = self.lookup(dir, name)?;
        if !self.names(ino)?.is_empty() {
            return Err(Refused::NotEmpty);
        }
        self.remove(dir, name)
    }

    /// Gives a file another name; what had that name before gives way.
    pub(crate) fn rename(&mut self, dir: Ino, name: &OsStr, to: Ino, as_name: &OsStr) -> Result<(), Refused> {
        let ino = self.lookup(dir, name)?;
        match self.lookup(to, as_name) {
            Ok(other) if other == ino => return Ok(()),
            Ok(other) if self.attributes(other)?.directory && !self.names(other)?.is_empty() => {
                return Err(Refused::NotEmpty);
            }
            Ok(_) | Err(Refused::NotFound) => {}
            Err(refused) => return Err(refused),
        }
        self.names_mut(dir)?.remove(name);
        self.names_mut(to)?.insert(as_name.to_owned(), ino);
        let (from, to) = ((dir, name.to_owned()), (to, as_name.to_owned()));
        self.pending.push(Change::Renamed { from, to, ino });
        Ok(())
    }

    pub(crate) fn read(&self, ino: Ino, offset: u64, size: usize) -> Result<Vec<u8>, Refused> {
        match &self.nodes.get(&ino).ok_or(Refused::NotFound)?.kind {
            Kind::File(content) => Ok(content.read(offset, size)),
            Kind::Directory { .. } => Err(Refused::IsADirectory),
        }
    }

    pub(crate) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], at: SystemTime) -> Result<(), Refused> {
        let mut dice = self.dice.clone();
        let content = self.content(ino, at)?;
        content.write(offset, bytes);
        if dice.chance(WRITE_BACK) {
            content.write_one_back(&mut dice);
        }
        self.dice = dice;
        Ok(())
    }

    pub(crate) fn set_len(&mut self, ino: Ino, len: u64, at: SystemTime) -> Result<(), Refused> {
        self.content(ino, at)?.set_len(len);
        Ok(())
    }

    pub(crate) fn set_modified(&mut self, ino: Ino, at: SystemTime) -> Result<(), Refused> {
        self.nodes.get_mut(&ino).ok_or(Refused::NotFound)?.modified = at;
        Ok(())
    }

    /// `fsync` or `fdatasync` of a file. Its name is another matter: see [`Self::sync_directory`].
    pub(crate) fn sync_file(&mut self, ino: Ino) -> Result<(), Refused> {
        match &mut self.nodes.get_mut(&ino).ok_or(Refused::NotFound)?.kind {
            Kind::File(content) => content.sync(),
            Kind::Directory { .. } => return Err(Refused::IsADirectory),
        }
        Ok(())
    }

    /// `fsync` of a directory: the names in it are durable.
    pub(crate) fn sync_directory(&mut self, dir: Ino) -> Result<(), Refused> {
        self.names(dir)?;
        // A renaming into another directory takes that one along, as it happens as one.
        let mut dirs = HashSet::from([dir]);
        loop {
            let before = dirs.len();
            for change in &self.pending {
                if let Change::Renamed { from, to, .. } = change
                    && change.touches(&dirs)
                {
                    dirs.extend([from.0, to.0]);
                }
            }
            if dirs.len() == before {
                break;
            }
        }
        let (durable, pending) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.touches(&dirs));
        self.pending = pending;
        Vec::into_iter(durable).for_each(|change: Change| self.apply(change));
        Ok(())
    }

    // ---- what happens to it

    /// The power goes and comes back. What was not synced is gone, or there, or there in part.
    pub(crate) fn cut_power(&mut self) {
        let mut dice = self.dice.clone();
        let luck = Luck::draw(&mut dice);
        // Most file systems keep the order of changes of names, so often the first few are kept; POSIX does not ask for it.
        let changes = std::mem::take(&mut self.pending);
        let ordered = dice.chance(0.5).then(|| dice.below(changes.len() as u64 + 1) as usize);
        for (index, change) in changes.into_iter().enumerate() {
            let kept = match (luck, ordered) {
                (Luck::Some, Some(first)) => index < first,
                _ => luck.keeps(&mut dice),
            };
            if kept {
                self.apply(change);
            }
        }
        let mut inos: Vec<Ino> = self.nodes.keys().copied().collect();
        // A map has no order of its own, and the dice must fall the same way each time.
        inos.sort_unstable();
        for ino in inos {
            match self.nodes.get_mut(&ino).map(|node| &mut node.kind) {
                Some(Kind::File(content)) => content.cut_power(luck, &mut dice),
                Some(Kind::Directory { now, durable }) => now.clone_from(durable),
                None => {}
            }
        }
        self.dice = dice;
        self.drop_unnamed();
    }

    /// Copies what is seen to a real directory, for who wants to look at it.
    pub(crate) fn copy_to(&self, to: &Path) -> io::Result<()> {
        self.copy_directory(ROOT, to)
    }

    fn copy_directory(&self, dir: Ino, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for (name, ino) in self.names(dir).map_err(|_| io::ErrorKind::NotADirectory)? {
            match self.nodes.get(ino).map(|node| &node.kind) {
                Some(Kind::Directory { .. }) => self.copy_directory(*ino, &to.join(name))?,
                Some(Kind::File(content)) => fs::write(to.join(name), content.read(0, content.len() as usize))?,
                None => {}
            }
        }
        Ok(())
    }

    fn make(&mut self, dir: Ino, name: &OsStr, kind: Kind, at: SystemTime) -> Result<Ino, Refused> {
        let ino = self.next;
        let names = self.names_mut(dir)?;
        if names.contains_key(name) {
            return Err(Refused::Exists);
        }
        names.insert(name.to_owned(), ino);
        self.next += 1;
        self.nodes.insert(ino, Node { kind, modified: at });
        self.pending.push(Change::Made { at: (dir, name.to_owned()), ino });
        Ok(ino)
    }

    /// Takes a name away. Its file stays for those who have it open.
    fn remove(&mut self, dir: Ino, name: &OsStr) -> Result<(), Refused> {
        self.names_mut(dir)?.remove(name);
        self.pending.push(Change::Removed { at: (dir, name.to_owned()) });
        Ok(())
    }

    fn names_mut(&mut self, dir: Ino) -> Result<&mut BTreeMap<OsString, Ino>, Refused> {
        match &mut self.nodes.get_mut(&dir).ok_or(Refused::NotFound)?.kind {
            Kind::Directory { now, .. } => Ok(now),
            Kind::File(_) => Err(Refused::NotADirectory),
        }
    }

    fn content(&mut self, ino: Ino, at: SystemTime) -> Result<&mut Content, Refused> {
        let node = self.nodes.get_mut(&ino).ok_or(Refused::NotFound)?;
        node.modified = at;
        match &mut node.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory { .. } => Err(Refused::IsADirectory),
        }
    }

    /// Makes one change of names durable.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Made { at, ino } => self.put_durable(at, Some(ino)),
            Change::Removed { at } => self.put_durable(at, None),
            Change::Renamed { from, to, ino } => {
                self.put_durable(from, None);
                self.put_durable(to, Some(ino));
            }
        }
    }

    fn put_durable(&mut self, (dir, name): Place, ino: Option<Ino>) {
        if let Some(Kind::Directory { durable, .. }) = self.nodes.get_mut(&dir).map(|node| &mut node.kind) {
            match ino {
                Some(ino) => durable.insert(name, ino),
                None => durable.remove(&name),
            };
        }
    }

    /// Forgets what no name leads to.
    fn drop_unnamed(&mut self) {
        let (mut named, mut next) = (HashSet::from([ROOT]), vec![ROOT]);
        while let Some(ino) = next.pop() {
            if let Some(Kind::Directory { now, .. }) = self.nodes.get(&ino).map(|node| &node.kind) {
                next.extend(now.values().copied().filter(|child| named.insert(*child)));
            }
        }
        self.nodes.retain(|ino, _| named.contains(ino));
    }
}

fn directory() -> Kind {
    Kind::Directory { now: BTreeMap::new(), durable: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Stream;

    const THEN: SystemTime = SystemTime::UNIX_EPOCH;

    fn disk(seed: u64) -> Disk {
        Disk::new(Dice::of(seed, 0, Stream::Faults))
    }

    fn file(disk: &mut Disk, name: &str, content: &[u8]) -> Ino {
        let ino = disk.make_file(ROOT, OsStr::new(name), THEN).unwrap();
        disk.write(ino, 0, content, THEN).unwrap();
        ino
    }

    fn content(disk: &Disk, name: &str) -> Option<Vec<u8>> {
        let ino = disk.lookup(ROOT, OsStr::new(name)).ok()?;
        Some(disk.read(ino, 0, 1_000).unwrap())
    }

    /// What stands under the names after a power cut, over many seeds.
    fn outcomes(names: &[&str], work: impl Fn(&mut Disk)) -> HashSet<Vec<Option<Vec<u8>>>> {
        (0..200)
            .map(|seed| {
                let mut disk = disk(seed);
                work(&mut disk);
                disk.cut_power();
                names.iter().map(|name| content(&disk, name)).collect()
            })
            .collect()
    }

    #[test]
    fn a_synced_file_with_a_synced_name_is_there() {
        let found = outcomes(&["a"], |disk| {
            let a = file(disk, "a", b"1");
            disk.sync_file(a).unwrap();
            disk.sync_directory(ROOT).unwrap();
        });
        assert_eq!(found, HashSet::from([vec![Some(b"1".to_vec())]]));
    }

    #[test]
    fn a_synced_file_may_lose_its_name_and_a_named_file_its_content() {
        let found = outcomes(&["a"], |disk| {
            let a = file(disk, "a", b"1");
            disk.sync_file(a).unwrap();
        });
        assert_eq!(found, HashSet::from([vec![Some(b"1".to_vec())], vec![None]]));
        let found = outcomes(&["a"], |disk| {
            file(disk, "a", b"1");
            disk.sync_directory(ROOT).unwrap();
        });
        let (empty, zero) = (Some(Vec::new()), Some(vec![0]));
        assert_eq!(found, HashSet::from([vec![Some(b"1".to_vec())], vec![empty], vec![zero]]));
    }

    #[test]
    fn a_renaming_happens_as_one() {
        let (old, new) = (Some(b"old".to_vec()), Some(b"new".to_vec()));
        let found = outcomes(&["a", "a.tmp"], |disk| {
            let a = file(disk, "a", b"old");
            let beside = file(disk, "a.tmp", b"new");
            disk.sync_file(a).unwrap();
            disk.sync_file(beside).unwrap();
            disk.sync_directory(ROOT).unwrap();
            disk.rename(ROOT, OsStr::new("a.tmp"), ROOT, OsStr::new("a")).unwrap();
        });
        assert_eq!(found, HashSet::from([vec![old, new.clone()], vec![new, None]]));
    }

    #[test]
    fn a_removal_may_come_undone_until_its_directory_is_synced() {
        let removed = |sync: bool| {
            outcomes(&["a"], move |disk| {
                let a = file(disk, "a", b"1");
                disk.sync_file(a).unwrap();
                disk.sync_directory(ROOT).unwrap();
                disk.remove_file(ROOT, OsStr::new("a")).unwrap();
                if sync {
                    disk.sync_directory(ROOT).unwrap();
                }
            })
        };
        assert_eq!(removed(false), HashSet::from([vec![Some(b"1".to_vec())], vec![None]]));
        assert_eq!(removed(true), HashSet::from([vec![None]]));
    }

    #[test]
    fn what_is_in_a_directory_without_a_name_is_lost() {
        let mut gone = 0;
        for seed in 0..100 {
            let mut disk = disk(seed);
            let dir = disk.make_directory(ROOT, OsStr::new("d"), THEN).unwrap();
            let inner = disk.make_file(dir, OsStr::new("f"), THEN).unwrap();
            disk.sync_file(inner).unwrap();
            disk.sync_directory(dir).unwrap();
            disk.cut_power();
            gone += u32::from(disk.attributes(inner) == Err(Refused::NotFound));
        }
        assert!((1..100).contains(&gone), "{gone}");
    }

    #[test]
    fn the_same_seed_loses_the_same() {
        let run = || {
            let mut disk = disk(11);
            for index in 0..20 {
                file(&mut disk, &format!("f{index}"), &[index; 9_000]);
            }
            disk.cut_power();
            (0..20).map(|index| content(&disk, &format!("f{index}"))).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn refusals() {
        let mut disk = disk(1);
        let (a, d) = (OsStr::new("a"), OsStr::new("d"));
        let dir = disk.make_directory(ROOT, d, THEN).unwrap();
        disk.make_file(dir, a, THEN).unwrap();
        assert_eq!(disk.make_file(ROOT, d, THEN), Err(Refused::Exists));
        assert_eq!(disk.lookup(ROOT, a), Err(Refused::NotFound));
        assert_eq!(disk.remove_directory(ROOT, d), Err(Refused::NotEmpty));
        assert_eq!(disk.remove_file(ROOT, d), Err(Refused::IsADirectory));
        let file = disk.lookup(dir, a).unwrap();
        assert_eq!(disk.names(file).err(), Some(Refused::NotADirectory));
        disk.rename(dir, a, ROOT, a).unwrap();
        assert_eq!(disk.lookup(ROOT, a), Ok(file));
        disk.remove_directory(ROOT, d).unwrap();
    }
}
