//! The directory of one script. Paths are taken apart here and walked from its descriptor, part by part, without following links:
//! there is no way out of it, also not by a link that somebody else has made there.

use std::path::Path;

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, statat, unlinkat},
    io::Errno,
};
use tidegate_actors::limits;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);
/// What is made is for the node's user alone.
pub(super) const FOLDER_MODE: Mode = Mode::RWXU;
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open directory of a script.
pub(super) struct Sandbox {
    root: OwnedFd,
}

/// What lies below a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// Folders within folders.
    pub(super) depth: usize,
}

/// Where a path leads: its parts below the root.
pub(super) fn parts(path: &str) -> Result<Vec<&str>, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path.contains('\0') {
        return Err(Errno::INVAL);
    }
    if path.starts_with('/') {
        return Err(Errno::ACCESS);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(Errno::ACCESS)?;
            }
            part => parts.push(part),
        }
    }
    if parts.len() > limits::SCRIPT_FS_DEPTH { Err(Errno::NAMETOOLONG) } else { Ok(parts) }
}

impl Sandbox {
    /// Opens it.
    pub(super) fn open(dir: &Path) -> Result<Self, Errno> {
        Ok(Self { root: openat(CWD, dir, FOLDER, Mode::empty())? })
    }

    /// The folder of these parts.
    pub(super) fn folder(&self, parts: &[&str]) -> Result<OwnedFd, Errno> {
        let mut folder = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for part in parts {
            folder = openat(&folder, *part, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// The folder that what is meant lies in, and its name there. The root itself lies nowhere.
    pub(super) fn place<'a>(&self, parts: &[&'a str]) -> Result<(OwnedFd, &'a str), Errno> {
        let (name, above) = parts.split_last().ok_or(Errno::ACCESS)?;
        Ok((self.folder(above)?, name))
    }

    /// Makes a folder, and with `all` those above it.
    pub(super) fn make(&self, parts: &[&str], all: bool) -> Result<(), Errno> {
        if !all {
            let (above, name) = self.place(parts)?;
            return mkdirat(&above, name, FOLDER_MODE);
        }
        let mut folder = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for part in parts {
            match mkdirat(&folder, *part, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            folder = openat(&folder, *part, FOLDER, Mode::empty())?;
        }
        Ok(())
    }

    /// All that lies below it.
    pub(super) fn usage(&self) -> Result<Usage, Errno> {
        usage_of(&self.folder(&[])?)
    }
}

/// A regular file, opened. What would block (a pipe) is none.
pub(super) fn open_file(above: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let file = openat(above, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, FILE_MODE)?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::ACCESS),
    }
}

/// The names in a folder, in order, and which of them are folders.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<(String, bool)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let stat = statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        names.push((name, FileType::from_raw_mode(stat.st_mode) == FileType::Directory));
    }
    names.sort_unstable();
    Ok(names)
}

/// All that lies below a folder.
pub(super) fn usage_of(folder: &OwnedFd) -> Result<Usage, Errno> {
    walk(folder, limits::SCRIPT_FS_DEPTH)
}

fn walk(folder: &OwnedFd, left: usize) -> Result<Usage, Errno> {
    let mut usage = Usage::default();
    for (name, is_folder) in names(folder)? {
        usage.files += 1;
        if is_folder {
            if left == 0 {
                return Err(Errno::NAMETOOLONG);
            }
            let below = walk(&openat(folder, &name, FOLDER, Mode::empty())?, left - 1)?;
            usage.bytes += below.bytes;
            usage.files += below.files;
            usage.depth = usage.depth.max(below.depth + 1);
        } else {
            let stat = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            usage.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    Ok(usage)
}

/// Removes a file, or a folder with all that lies below it.
pub(super) fn remove_all(above: &OwnedFd, name: &str) -> Result<(), Errno> {
    match openat(above, name, FOLDER, Mode::empty()) {
        Ok(folder) => {
            for (name, _) in names(&folder)? {
                remove_all(&folder, &name)?;
            }
            unlinkat(above, name, AtFlags::REMOVEDIR)
        }
        Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(above, name, AtFlags::empty()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out() {
        assert_eq!(parts("a/./b//c/../d"), Ok(vec!["a", "b", "d"]));
        assert_eq!(parts("."), Ok(vec![]));
        for (path, error) in [
            ("", Errno::NOENT),
            ("..", Errno::ACCESS),
            ("a/../../b", Errno::ACCESS),
            ("/etc/passwd", Errno::ACCESS),
            ("a\0b", Errno::INVAL),
        ] {
            assert_eq!(parts(path), Err(error), "{path}");
        }
        assert_eq!(parts(&"a/".repeat(17)), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn links_are_not_followed_and_not_what_lies_behind_them_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        for folder in [&inside, &outside] {
            std::fs::create_dir(folder).expect("a folder");
        }
        std::fs::write(outside.join("secret"), "x").expect("a file");
        symlink(&outside, inside.join("way")).expect("a link");
        symlink(outside.join("secret"), inside.join("file")).expect("a link");
        let sandbox = Sandbox::open(&inside).expect("it opens");
        assert!(sandbox.folder(&["way"]).is_err());
        let (above, name) = sandbox.place(&["file"]).expect("it is there");
        assert_eq!(open_file(&above, name, OFlags::RDONLY).err(), Some(Errno::LOOP));
        assert_eq!(sandbox.usage().map(|usage| usage.files), Ok(2));
        for name in ["way", "file"] {
            remove_all(&above, name).expect("the link goes");
        }
        assert!(outside.join("secret").exists());
        assert!(Sandbox::open(&dir.path().join("none")).is_err());
    }
}
